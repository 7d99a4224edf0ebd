"""Schemas of the JSON files of an artifact. Every verb validates against them before it uses anything."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from zoo.core.validation import Strict

MOST_FILES = 32
MOST_NAMES = 10_000
"""Of classes, columns, layers or weights."""
# Of the config of a conformal prediction of any kind.
_MOST_KEYS = 16

Count = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Number = Annotated[float, Field(strict=True)]
Name = Annotated[str, Field(strict=True, max_length=200)]
Text = Annotated[str, Field(strict=True, max_length=4000)]
Names = Annotated[list[Name], Field(max_length=MOST_NAMES)]
Numbers = Annotated[dict[Name, Number | None], Field(max_length=MOST_NAMES)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}$")]


class FileEntry(Strict):
    """What a manifest says of a file.

    Attributes:
        bytes: Its length.
        sha256: Its SHA-256, 64 hexadecimal digits.
    """

    bytes: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]


class Manifest(Strict):
    """A manifest: what `save_artifact` and checkpoints write.

    Attributes:
        version: Version of the schema.
        files: The files, by name.
        architecture: Name of the architecture.
        dataset: Name of the dataset, if it has one.
        task: Task of the likelihood.
        num_weights: Number of weights.
        metrics: Numbers of the card, for `tfp-bnn list`.
    """

    version: Annotated[int, Field(strict=True, alias="schema", ge=1)]
    files: Annotated[dict[FileName, FileEntry], Field(min_length=1, max_length=MOST_FILES)]
    architecture: Name | None = None
    dataset: Name | None = None
    task: Name | None = None
    num_weights: Count | None = None
    metrics: Numbers = Field(default_factory=dict)


class DataDescription(Strict):
    """What `config.json` says of the data.

    Attributes:
        dataset: Name of the dataset, or None for data of a user.
        task: Task of the likelihood.
        class_names: A name for each class.
        feature_names: A name for each column.
        inputs: Config of a `tfp_bnn.ExpectedInputs`.
        fine_tuning: How the model was fine-tuned, as `zoo.fine_tune` describes it.
        pruning: How the model was pruned, as `tfp-bnn prune` describes it.
        source: Origin of the data.
        license: Licence of the data, or "generated".
        citation: What to cite for the data.
        target_units: A unit for each target.
    """

    dataset: Name | None = None
    task: Name | None = None
    class_names: Names | None = None
    feature_names: Names | None = None
    inputs: dict[Name, Any] | None = None
    fine_tuning: dict[Name, Any] | None = None
    pruning: dict[Name, Any] | None = None
    source: Text | None = None
    license: Name | None = None
    citation: Text | None = None
    target_units: Names | None = None


class ConformalPrediction(Strict):
    """A conformal prediction in `config.json`. What else it has are numbers, which the class of its name checks.

    Attributes:
        name: Name of the kind, such as "sets".
        level: Coverage.
        num_samples: Number of weight draws of the predictions it was fitted to.
        seed: Seed of these draws.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, Number | Annotated[list[Number], Field(max_length=MOST_NAMES)]] = Field(init=False)

    name: Name
    level: Annotated[float, Field(strict=True, gt=0, lt=1)]
    num_samples: Annotated[int, Field(strict=True, ge=1, le=100_000)] | None = None
    seed: Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _few_keys(cls, values: Any) -> Any:
        if isinstance(values, dict) and len(values) > _MOST_KEYS:
            raise ValueError(f"{len(values):,} keys; at most {_MOST_KEYS} were expected")
        return values


class ArtifactConfig(Strict):
    """`config.json`, but for what the architecture and the inference method check of their own settings.

    Attributes:
        version: Version of the schema.
        name: Name of the model.
        architecture: Name of the architecture.
        config: Its config, which the class of the architecture validates.
        inference: Name of the inference method. Older files have none.
        num_examples: N, the number of training examples.
        num_weights: Number of weights of all networks.
        data: Description of the data.
        calibration: Config of a calibration.
        conformal: Config of a conformal prediction.
        package: Package of the architecture, if it is not the zoo's.
        license: Licence of the model.
        members: Of an ensemble, the number of members. From here on, the settings of the inference method, which it
            validates itself; see `StoredPosterior.settings`.
        draws_per_member: Number of draws of each member; None for its posterior mean.
        chains: Number of Markov chains.
        samples: Number of states of each chain.
        num_iterates: Number of iterates of SWAG.
        rank: Rank of the covariance of SWAG.
        weights: Names of the weights of a Laplace approximation.
        structure: Structure of its curvature.
        linearized: Whether its draws are linear in the weights.
        prior_precision: Precision of its prior.
        log_likelihood: Log-likelihood of the training data, in nats.
    """

    version: Annotated[int, Field(strict=True, alias="schema", ge=1, le=1)]
    name: Name = ""
    architecture: Name
    config: dict[Name, Any]
    inference: Name = "variational"
    num_examples: Annotated[int, Field(strict=True, ge=1, lt=2**53)] | None = None
    num_weights: Count | None = None
    data: DataDescription = DataDescription()
    calibration: Annotated[dict[Name, Any], Field(max_length=3)] | None = None
    conformal: ConformalPrediction | None = None
    package: Name | None = None
    license: Name | None = None
    members: Count | None = None
    draws_per_member: Count | None = None
    chains: Count | None = None
    samples: Count | None = None
    num_iterates: Count | None = None
    rank: Count | None = None
    weights: Names | None = None
    structure: Name | None = None
    linearized: Annotated[bool, Field(strict=True)] | None = None
    prior_precision: Number | None = None
    log_likelihood: Number | None = None


class Quick(Strict):
    """The numbers of a card that take seconds to measure again.

    Attributes:
        num_examples: Number of test examples.
        num_samples: Number of Monte Carlo samples.
        seed: Seed of the samples.
        test: The numbers.
    """

    num_examples: Count
    num_samples: Count
    seed: Seed
    test: Numbers


class Kl(Strict):
    """The KL between posterior and prior, in nats.

    Attributes:
        total: The sum over the layers.
        by_layer: The terms.
    """

    total: Number
    by_layer: Numbers


class Optimum(Strict):
    """What says whether a variational posterior is at the optimum of the ELBO; see `zoo.evaluation.optimum`.

    Attributes:
        elbo: ELBO at beta 1, in nats per training example.
        nll: Its expected negative log-likelihood, in nats per training example.
        temperature_of_scales: Temperature at which the posterior scales are the best ones.
    """

    elbo: Number
    nll: Number
    temperature_of_scales: Number


class Spread(Strict):
    """A number over the training seeds.

    Attributes:
        mean: Mean.
        std: Standard deviation.
    """

    mean: Number
    std: Annotated[float, Field(strict=True, ge=0)]


class OutOfDistribution(Strict):
    """Uncertainty on other inputs, and further numbers by their names.

    Attributes:
        data: Name of the dataset, or "uniform".
        num_examples: Number of inputs.
        uncalibrated: The same numbers without calibration.
        plug_in: Those of the mean of the weights.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, Number | None] = Field(init=False)

    data: Name
    num_examples: Count
    uncalibrated: Numbers | None = None
    plug_in: Numbers | None = None


class Metrics(Strict):
    """`metrics.json`: the numbers of a card. Empty if nothing was measured.

    Attributes:
        num_samples: Number of Monte Carlo samples.
        seed: Seed of the samples.
        split: Split of `test`.
        num_examples: Number of test examples.
        test: The numbers on the test split.
        test_uncalibrated: The same without calibration.
        test_plug_in: The same for the mean of the weights.
        validation: Those on the validation split.
        quick: Those that take seconds to measure again.
        conformal: Coverage and mean size of the conformal prediction on the test split.
        out_of_distribution: Uncertainty on other inputs.
        kl: KL between posterior and prior.
        optimum: What says whether the posterior is at the optimum of the ELBO.
        posterior: Statistics of the weights.
        diagnostics: What the inference method says of its posterior.
        reference: Agreement with a reference posterior.
        beta: Final weight of the KL.
        training_seeds: Training seeds, that of the stored posterior first.
        spread: Each number over these seeds.
    """

    num_samples: Count
    seed: Seed
    num_examples: Count
    test: Numbers
    split: Name = "test"
    test_uncalibrated: Numbers | None = None
    test_plug_in: Numbers | None = None
    validation: Numbers | None = None
    quick: Quick | None = None
    conformal: Numbers | None = None
    out_of_distribution: OutOfDistribution | None = None
    kl: Kl | None = None
    optimum: Optimum | None = None
    posterior: Numbers | None = None
    diagnostics: Numbers | None = None
    reference: dict[Name, Any] | None = None
    beta: Annotated[float, Field(strict=True, ge=0)] | None = None
    training_seeds: Annotated[list[Seed], Field(max_length=1000)] = Field(default_factory=list)
    spread: Annotated[dict[Name, Spread], Field(max_length=MOST_NAMES)] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _some_numbers(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("test"):
            raise ValueError("'test' has no numbers")
        return values
