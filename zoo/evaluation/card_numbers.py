"""Evaluation of models: reproducible numbers for model cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

import tfp_bnn
from tfp_bnn.core.batches import is_stream
from tfp_bnn.metrics import out_of_distribution_auroc
from tfp_bnn.models import PredictiveModel
from tfp_bnn.predictive import agreement, score
from zoo.datasets import Dataset, load_dataset
from zoo.evaluation.blocks import Block
from zoo.evaluation.data_checks import check_names, check_task
from zoo.evaluation.optimum import optimum_numbers
from zoo.hub.cards import AGREEMENT_SAMPLES, posterior_statistics
from zoo.hub.loading import load_model
from zoo.hub.members import records_of
from zoo.hub.reading import read_artifact
from zoo.recipes import EvaluationRecipe

QUICK_EXAMPLES = 2000
QUICK_SAMPLES = 10
UNIFORM = "uniform"
_UNIFORM_SEED = 0
_KL_DRAWS = 50
_DIAGNOSED = 100


def evaluate(
    model: str | PredictiveModel,
    dataset: Any = None,
    split: str = "test",
    num_samples: int = 50,
    seed: int = 0,
    calibrated: bool = True,
) -> dict[str, float]:
    """Evaluates the posterior predictive of a model on a split of a dataset.

    Args:
        model: Name of a pretrained model, or a model.
        dataset: Dataset or its name; or data of your own, as a pair `(x, y)` of arrays, lists or pandas frames, or as a
            `tf.data.Dataset`, a `PyDataset` or a generator of batches `(x, y)`, which is read one batch at a time.
            Every row counts once, whatever its sample weight. Default: the dataset that the pretrained model was
            trained on.
        split: `"train"`, `"validation"` or `"test"`. It has no effect on data of your own.
        num_samples: Number of Monte Carlo samples of the weights.
        seed: Seed of the samples.
        calibrated: Whether to apply the model's calibration, if it has one.

    Returns:
        Scores of the model's likelihood; see `tfp_bnn.predictive.score`. Classification: `accuracy`, `nll` (of the
        predictive, nats), `ece` (15 equal-width bins), `brier`, and the means of `entropy` and `mutual_information`
        (nats). Regression: `rmse`, `mae` (units of the target), `nll` (nats), `coverage_90` (share of targets in the
        central 90 % interval), `aleatoric_std`, `epistemic_std` (roots of the mean variances, units of the target).

    Raises:
        ArtifactError: For a name of an unknown model, or a model whose files are damaged.
        ValueError: For an unknown dataset or split (the message gives the nearest), or a dataset that does not fit the
            model, or has its columns or classes in another order.
        DataMissingError: If the data are not on this machine and cannot be obtained.
    """
    if isinstance(model, str):
        if dataset is None:
            dataset = str(read_artifact(model)["config"]["data"]["dataset"])
        model = load_model(model)
    if dataset is None:
        raise ValueError("Pass `dataset`. It can only be left out for a pretrained model that is given by its name.")
    if is_stream(dataset) or isinstance(dataset, tuple | list):
        x, y = (dataset, None) if is_stream(dataset) else dataset
        return score(model.stream_predictive(x, y, num_samples, seed, calibrated=calibrated))
    data = load_dataset(dataset) if isinstance(dataset, str) else dataset
    part = data.split(split)
    check_task(model, data)
    check_names(model, data)
    return Block(part.x, part.y, num_samples, calibrated).score(model, seed)


def labelled_blocks(model: PredictiveModel, data: Dataset, num_samples: int) -> dict[str, Block]:
    """Returns the blocks of a card that have targets, by name.

    Returns:
        `test`; `test_uncalibrated` if the model has a calibration; `test_plug_in`, with every weight at its posterior
        mean; `validation`; and `quick`, the first 2,000 test rows in the fixed order of the dataset with 10 samples,
        which is quick to measure again.
    """
    test, validation = data.test, data.validation
    versions = _versions(model, Block(test.x, test.y, num_samples))
    blocks = {"_".join(filter(None, ("test", version))): block for version, block in versions.items()}
    blocks["validation"] = Block(validation.x, validation.y, num_samples)
    blocks["quick"] = Block(test.x[:QUICK_EXAMPLES], test.y[:QUICK_EXAMPLES], QUICK_SAMPLES)
    return blocks


def _versions(model: PredictiveModel, block: Block) -> dict[str, Block]:
    """A block as the model predicts it, under an empty name; `uncalibrated` if that differs; and of the `plug_in`."""
    versions = {"": block}
    if model.calibration is not None:
        versions["uncalibrated"] = replace(block, calibrated=False)
    return {**versions, "plug_in": replace(block, plug_in=True)}


def out_of_distribution_block(data: Dataset, other: str, num_samples: int, trained_on: str | None = None) -> Block:
    """Returns out-of-distribution inputs for a model of `data`, at most as many as in the quick block.

    Args:
        data: Dataset that the model was trained on, or that it is judged on.
        other: Name of a dataset, of which the first test rows are used; or `"uniform"` for noise with a fixed seed,
            uniform over the range of each column of a table, or of all pixels of images, in the training split. For
            grouped data, each input is assigned to a group.
        num_samples: Number of Monte Carlo samples of the weights.
        trained_on: Name of the dataset that the model was trained on, if that is not `data`.

    Raises:
        ValueError: If the dataset is unknown, `data` or `trained_on`, or has a different input shape.
        DataMissingError: If the data are not on this machine and cannot be obtained.
    """
    num_examples = min(QUICK_EXAMPLES, len(data.test))
    if other == UNIFORM:
        x = data.train.x
        axes = None if x.ndim > 2 else 0
        rng = np.random.default_rng(_UNIFORM_SEED)
        noise = rng.uniform(x.min(axis=axes), x.max(axis=axes), size=(num_examples, *data.input_shape))
        if data.num_groups is not None:
            noise[..., -1] = rng.integers(data.num_groups, size=noise.shape[:-1])
        return Block(noise.astype(np.float32), None, num_samples)
    outside = load_outside(data, other, trained_on)
    if outside.input_shape != data.input_shape:
        raise ValueError(
            f"Out-of-distribution data: {other!r} has inputs of shape {outside.input_shape}, but {data.name!r} has "
            f"inputs of shape {data.input_shape}. Choose a dataset of that shape, or {UNIFORM!r}."
        )
    # A copy, so that the rest of the dataset is not kept in memory.
    return Block(outside.test.x[:num_examples].copy(), None, num_samples)


def load_outside(data: Dataset, other: str, trained_on: str | None = None) -> Dataset:
    """Loads the dataset `other`, whose inputs are out of distribution for a model of `data`.

    Raises:
        ValueError: If the dataset is unknown, or is `data` or `trained_on`, so that nothing in it is out of
            distribution.
        DataMissingError: If the data are not on this machine and cannot be obtained.
    """
    outside = load_dataset(other)
    # A user's file may have the name of a dataset.
    if other == trained_on or (outside.name, outside.source) == (data.name, data.source):
        what = "the dataset of the model itself" if trained_on in (None, other) else "the dataset that is judged"
        raise ValueError(
            f"Out-of-distribution data: {other!r} is {what}. Choose another, or {UNIFORM!r} "
            "(evaluation.out_of_distribution, --ood)."
        )
    return outside


def measure(
    model: PredictiveModel, data: Dataset, how: EvaluationRecipe, outside: Block | None = None
) -> dict[str, Any]:
    """Measures all numbers of a card for one posterior.

    Args:
        model: Trained model, calibrated if needed.
        data: Dataset that the model was trained on.
        how: Number of samples, seed and out-of-distribution data.
        outside: Result of `out_of_distribution_block`, or None to load these data here. A training loads them before
            its first step, so that bad ones cost no training.

    Returns:
        Contents of `metrics.json`: `num_samples`, `seed`, `split`, `num_examples` and `test`, the metrics of
        `evaluate`; `conformal`, coverage and mean size on the test split, where the model has a conformal prediction;
        `test_uncalibrated` where it has a calibration; `test_plug_in`, of the mean of the weights; `validation`;
        `quick`, with its own `num_examples`, `num_samples`, `seed` and `test`; `out_of_distribution`, with `data`,
        `num_examples` and the numbers of `out_of_distribution_numbers`; `kl`, with `total` and `by_layer` (nats);
        `optimum`, the numbers of `optimum_numbers`; `posterior`, as in `posterior_statistics`; `beta` of the last step.
        The last four are omitted if they are not defined: point estimates have no `posterior`, and ensembles have none
        of the four. `diagnostics` is what the
        inference method says of its posterior, such as R-hat and ESS of Markov chains; it is omitted if there is
        nothing. `num_samples` is the number of draws that were used, which is smaller than requested if fewer exist.

    Raises:
        ValueError: If the out-of-distribution data do not fit.
        DataMissingError: If the out-of-distribution data cannot be obtained.
    """
    scores, num_samples = {}, {}
    for name, block in labelled_blocks(model, data, how.num_samples).items():
        predictive = block.predict(model, how.seed)
        scores[name], num_samples[name] = block.score(model, how.seed, predictive), predictive.num_samples
        if name == "test" and model.conformal is not None:
            scores["conformal"] = block.conformal_score(model, how.seed, predictive)
    quick = {
        "num_examples": min(QUICK_EXAMPLES, len(data.test)),
        "num_samples": num_samples["quick"],
        "seed": how.seed,
    }
    if outside is None:
        outside = out_of_distribution_block(data, how.out_of_distribution, how.num_samples)
    return {
        "num_samples": num_samples["test"],
        "seed": how.seed,
        "split": "test",
        "num_examples": len(data.test),
        **scores,
        "quick": {**quick, "test": scores["quick"]},
        "out_of_distribution": {
            "data": how.out_of_distribution,
            "num_examples": len(outside.x),
            **out_of_distribution_numbers(model, data, outside, how.seed),
        },
        **_of_the_posterior(model, data),
    }


def out_of_distribution_numbers(model: PredictiveModel, data: Dataset, outside: Block, seed: int) -> dict[str, Any]:
    """Measures the uncertainty on inputs that a model was not trained for, and how well it tells them from test rows.

    Args:
        model: Trained model.
        data: Dataset that the model was trained on. As many of its test rows are used, the first.
        outside: Result of `out_of_distribution_block`.
        seed: Seed of the samples.

    Returns:
        Means over the inputs: `mutual_information` and `entropy` (classification, nats), or `epistemic_std`
        (regression, units of the target). The area under the ROC curve for each: `auroc_entropy`, ..., 0.5 by chance.
        The same without calibration in a mapping `uncalibrated`, where the model has one, and for the mean of the
        weights in `plug_in`.
    """
    inside = replace(outside, x=data.test.x[: len(outside.x)])
    others = _versions(model, outside)
    numbers: dict[str, Any] = {}
    for version, block in _versions(model, inside).items():
        of_version = _told_apart(block.predict(model, seed), others[version].predict(model, seed))
        numbers |= {version: of_version} if version else of_version
    return numbers


def _told_apart(inside: tfp_bnn.PosteriorPredictive, outside: tfp_bnn.PosteriorPredictive) -> dict[str, float]:
    numbers = score(outside)
    arrays = [uncertainties(predictive) for predictive in (inside, outside)]
    # With one draw, there is no disagreement that could tell anything.
    names = [name for name in arrays[0] if name == "entropy" or outside.num_samples > 1]
    aurocs = {f"auroc_{name}": out_of_distribution_auroc(arrays[0][name], arrays[1][name]) for name in names}
    return {**numbers, **aurocs}


def uncertainties(predictive: tfp_bnn.PosteriorPredictive) -> dict[str, npt.NDArray[Any]]:
    """Returns the uncertainties of each input, `(n,)`, by the names of their means in `score`."""
    epistemic = predictive.epistemic().reshape(len(predictive), -1).mean(axis=1)
    if predictive.likelihood.has_probabilities:
        entropy = predictive.entropy().reshape(len(predictive), -1).mean(axis=1)
        return {"entropy": entropy, "mutual_information": epistemic}
    return {"epistemic_std": np.sqrt(epistemic)}


def diagnostics_of(model: PredictiveModel, x: npt.NDArray[Any]) -> dict[str, float]:
    """Returns `model.diagnostics` for the first 100 of some inputs."""
    return model.diagnostics(x[:_DIAGNOSED])


def agreement_numbers(
    model: PredictiveModel, data: Dataset, reference: npt.NDArray[np.float32], seed: int
) -> dict[str, dict[str, float]]:
    """Compares the predictions of a model for the test split with those of a reference.

    The number of draws is `AGREEMENT_SAMPLES`, because a distance of few draws depends on their seed.

    Args:
        model: Trained model.
        data: Dataset that the model was trained on.
        reference: Predictions of the reference, `tfp_bnn.predictive.compared_arrays`.
        seed: Seed of the draws.

    Returns:
        `model`, and `model_uncalibrated` where the model has a calibration: the distances of
        `tfp_bnn.predictive.agreement`. `plug_in`: these for the mean of the weights, without calibration, with its
        scores.

    Raises:
        ValueError: If the reference is for other inputs.
    """
    blocks = labelled_blocks(model, data, AGREEMENT_SAMPLES)
    names = {"test": "model", "test_uncalibrated": "model_uncalibrated"}
    numbers = {
        name: agreement(blocks[block].predict(model, seed), reference)
        for block, name in names.items()
        if block in blocks
    }
    plug_in = model.plug_in_predictive(data.test.x)
    return {**numbers, "plug_in": {**agreement(plug_in, reference), **score(plug_in, data.test.y)}}


def _of_the_posterior(model: PredictiveModel, data: Dataset) -> dict[str, Any]:
    """Returns KL, ELBO, statistics of the weights, diagnostics and beta, if they are defined."""
    numbers: dict[str, Any] = {}
    kl = {name: float(draws.mean()) for name, draws in kl_draws(model).items()}
    if kl:
        numbers["kl"] = {"total": sum(kl.values()), "by_layer": kl}
    optimum = optimum_numbers(model, data)
    if optimum:
        numbers["optimum"] = optimum
    statistics = posterior_statistics(*records_of(model))
    if statistics:
        numbers["posterior"] = statistics
    diagnostics = diagnostics_of(model, data.test.x)
    if diagnostics:
        numbers["diagnostics"] = diagnostics
    return {**numbers, "beta": model.beta} if isinstance(model, tfp_bnn.VariationalMixin) else numbers


def with_spread(
    metrics: Mapping[str, Any], training_seed: int, others: Mapping[int, Mapping[str, float]]
) -> dict[str, Any]:
    """Adds the spread over training seeds to the numbers of a posterior.

    Args:
        metrics: Result of `measure`.
        training_seed: Training seed of that posterior.
        others: Test metrics of the posteriors with other training seeds, by seed.

    Returns:
        `metrics` with `training_seeds` and `spread`: `mean` and `std` (n - 1) of each test metric over all seeds.
        `spread` is empty if there is only one seed.
    """
    by_seed = [metrics["test"], *others.values()]
    spread = {}
    if others:
        for name in metrics["test"]:
            values = [of_seed[name] for of_seed in by_seed]
            spread[name] = {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}
    return {**metrics, "training_seeds": [training_seed, *others], "spread": spread}


def kl_draws(model: PredictiveModel) -> dict[str, npt.NDArray[np.float64]]:
    """Computes KL(posterior || prior) of each layer 50 times, in nats. All values are equal if it has a closed form.

    Empty for an ensemble and other posteriors that have no KL.
    """

    def draw() -> dict[str, float]:
        return {name: float(kl) for name, kl in model.kl_by_layer().items()}

    draws = [draw(), draw()]
    if draws[0] == draws[1]:
        draws *= _KL_DRAWS // 2
    else:
        draws += [draw() for _ in range(_KL_DRAWS - 2)]
    return {name: np.array([draw[name] for draw in draws]) for name in draws[0]}
