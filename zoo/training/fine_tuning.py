"""Fine-tuning: what one data set taught, a posterior over the weights, as the prior for another."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.arguments import is_integer, is_number, require_positive
from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.likelihoods import LIKELIHOODS, Bernoulli, Likelihood, Normal
from tfp_bnn.models.data_checks import check_examples
from tfp_bnn.priors import PRIORS, Informed, Prior
from tfp_bnn.transfer import Candidate, Tuner, choose_inflate
from tfp_bnn.transfer.informed_priors import require_bayesian_layers
from tfp_bnn.transfer.tuning import HEAD_SCALES, INFLATES
from zoo.architectures import ARCHITECTURES
from zoo.architectures.base import ArchitectureConfig, BuiltFrom, column_moments
from zoo.core.validation import validate
from zoo.datasets import Dataset, load_dataset
from zoo.evaluation import card_numbers as evaluation
from zoo.hub.artifacts import check_target, open_model, save_artifact
from zoo.hub.manifest import bundled_models
from zoo.recipes import EvaluationRecipe

Head = Literal["new", "keep"]
DEFAULT, POSTERIOR, AUTO = "default", "posterior", "auto"

# More rows than these are not needed to choose, and would take long.
_SELECTION_ROWS = 2000
_SELECTION_STEPS = 400
_LEAST_STEPS, _PASSES = 300, 10
_BATCH_SIZES = ((500, 16), (5000, 32))
_LARGE_BATCH = 128
_GOLDEN_ROWS = 4


@dataclass(frozen=True)
class FineTuning:
    """What `fine_tune` gives back.

    Attributes:
        model: the fine-tuned model.
        inflate: factor of the standard deviations of the source's posterior; None where that is not the prior.
        head_scale: standard deviation of the prior of the new head; None where there is none, or another prior.
        candidates: what was tried to choose them, the best first; empty where nothing was to be chosen.
        metrics: what the card shows; empty when nothing was measured.
        path: of the artifact, or None.
    """

    model: tfp_bnn.VariationalModel
    inflate: float | None
    head_scale: float | None
    candidates: list[Candidate] = field(default_factory=list)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None


def fine_tune(
    model: str | os.PathLike[str] | tfp_bnn.VariationalModel,
    dataset: str | Dataset | tuple[npt.NDArray[Any], npt.NDArray[Any]],
    *,
    prior: str | Mapping[str, Any] | Prior = POSTERIOR,
    inflate: float | str = AUTO,
    head_scale: float | str = AUTO,
    mix: float | None = None,
    freeze: Sequence[str] = (),
    head: Head = "new",
    adapt_inputs: bool = False,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float = 4e-3,
    seed: int = 0,
    measure: bool = True,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    trust: bool = False,
    tell: Callable[[str], None] = lambda message: None,
) -> FineTuning:
    """Fine-tunes a model of the zoo on another data set, with its posterior as the prior.

    Each weight of the body gets the prior N(mu, (inflate * sigma)^2), with mu and sigma those of the source's
    posterior, and starts there. A new head, the last layer, has the prior N(0, head_scale^2). Training is a fixed
    number of steps, without a validation split: all rows are trained on. The test split is read once, at the end, to
    measure. The same arguments give the same weights, bit for bit, on the same machine: the global seeds are set, and
    TensorFlow's deterministic operations are switched on for the process.

    With few rows and tens of thousands of weights, these steps do not reach the maximum of the ELBO, and should not:
    there the posterior is as wide as the prior, and predicts little. The number of steps is a part of the method.

    Args:
        model: a pretrained model's name, the folder of an artifact (with `trust`), or a model of the zoo. It stays as
            it is.
        dataset: a dataset or its name, whose training split is learned; or `(x, y)`, arrays, which are not measured.
        prior: `"posterior"`, as above. `"default"`: the prior that the source was trained with, or any name, config
            or object of `tfp_bnn.priors` but `informed`; only the start is the source's posterior then.
        inflate: factor, > 0; or `"auto"`, to choose it by cross-validation on the training rows, see
            `tfp_bnn.transfer.choose_inflate`. 1 is Bayes' rule, for more data of the same task. Without effect at other
            priors, where a number is refused.
        head_scale: > 0, or `"auto"`, likewise; for a new head only.
        mix: share of a broad component N(0, 1) of the informed prior, in (0, 1); None for none.
        freeze: names of layers whose posterior is not trained.
        head: `"new"`: the last layer starts afresh, with as many outputs as the data need, and in a regression with
            their mean and spread. `"keep"`: it is taken over like the others, for more data of the same task.
        adapt_inputs: whether images of another size are resized within the model to the size that the source knows,
            where the architecture can, and other pixel ranges are rescaled; otherwise they are refused.
        steps: of the optimizer. Default: 10 passes over the rows, but at least 300 steps.
        batch_size: rows in a step. Default: 16 for up to 500 rows, 32 for up to 5,000, else 128.
        learning_rate: of Adam, at the start; it falls to 0 along a cosine.
        seed: of the new head, the order of the rows, the noise and the folds; 0 to 2**32 - 1.
        measure: whether to measure a dataset's test split.
        out: the folder of the artifact; None to save nothing. The prior is saved with it.
        overwrite: whether an artifact in `out` may be replaced.
        trust: see `load_artifact`.
        tell: takes messages for the user.

    Returns:
        A `FineTuning`.

    Raises:
        ValueError: for an unknown model, dataset, prior, layer to freeze or head; a model that is not of the zoo;
            inputs of another shape or range, or a task, that the source is not for (both are named); another number of
            classes with `head="keep"`; a number out of range; an existing folder. All before training starts.
        DataMissingError: when the dataset is not on this machine.

    Example:
        >>> import zoo
        >>> digits = zoo.load_dataset("digits")
        >>> x, y = digits.train.x[:30], digits.train.y[:30]
        >>> tuned = zoo.fine_tune("mlp_flipout.digits", (x, y), inflate=10.0, head_scale=1.0, steps=5)
        >>> tuned.model.posterior_predictive(digits.test.x[:2], num_samples=10).mean().shape
        (2, 10)
    """
    source = _source(model, trust)
    built: BuiltFrom = source.architecture
    target_folder = None if out is None else check_target(out, overwrite)
    data, x, y = _examples(dataset)
    if data is not None:
        evaluation.check_task(source, data)
    # All but the shape of the inputs and the range of the labels, which depend on the target.
    check_examples(x, y, source.likelihood, None, None)
    _check_choice("head", head, get_args(Head))
    inflates = _settings("inflate", inflate, INFLATES)
    head_scales = _settings("head_scale", head_scale, HEAD_SCALES)
    informed = isinstance(prior, str) and prior == POSTERIOR
    kernel_prior = _kernel_prior(prior, built, mix)
    for name, value, of in (("inflate", inflate, informed), ("head_scale", head_scale, informed and head == "new")):
        if value != AUTO and not of:
            raise ValueError(f"Got {name}={value!r} with prior={prior!r} and head={head!r}, where it has no effect.")
    seed, steps, batch_size = _integers(seed, steps, batch_size, len(x))
    learning_rate = require_positive("fine_tune", "learning_rate", learning_rate)
    freeze = [freeze] if isinstance(freeze, str) else list(freeze)
    config = _adapted(built, data, x, y, head, kernel_prior, informed, adapt_inputs)
    if not informed and isinstance(PRIORS.get(config.kernel_prior), Informed):
        raise ValueError(
            f"With prior={prior!r} the prior would be 'informed', but by nothing. Pass prior='posterior' to have it "
            "informed by the posterior of the source, or name another one, such as 'normal'."
        )
    tf.config.experimental.enable_op_determinism()
    head_layer = source.variational_layers[-1].name
    new_layers = [head_layer] if head == "new" else []

    def tuner(steps: int) -> Tuner:
        # Seeds the initializers of the new head.
        keras.utils.set_random_seed(seed)
        target = ARCHITECTURES[built.name].build(config, seed)
        return Tuner(source, target, new_layers, freeze, steps, batch_size, learning_rate, seed)

    final = tuner(steps)
    tuned: Any = final.target
    check_examples(x, y, tuned.likelihood, tuned.input_shape, tuned.output_shape[-1])
    candidates: list[Candidate] = []
    choice: tuple[float | None, float | None] = (None, None)
    if informed:
        choice = (inflates[0], head_scales[0] if new_layers else None)
        if len(inflates) > 1 or (new_layers and len(head_scales) > 1):
            rows = np.random.default_rng(seed).permutation(len(x))[:_SELECTION_ROWS]
            trial = final if steps <= _SELECTION_STEPS else tuner(_SELECTION_STEPS)
            candidates = choose_inflate(trial, x[rows], y[rows], inflates, head_scales, seed=seed)
            choice = (candidates[0].inflate, candidates[0].head_scale)
            of_head = f", head_scale {choice[1]:g}" if new_layers else ""
            tell(f"chosen by cross-validation: inflate {choice[0]:g}{of_head}")
    final.fit(x, y, *choice)
    metrics: dict[str, Any] = {}
    if data is not None and measure:
        metrics = evaluation.with_spread(evaluation.measure(tuned, data, EvaluationRecipe()), seed, {})
    done = FineTuning(tuned, *choice, candidates, metrics, target_folder)
    if target_folder is not None:
        settings = {
            "prior": POSTERIOR if informed else config.kernel_prior,
            "mix": mix,
            "head": head,
            "freeze": freeze,
            "adapt_inputs": adapt_inputs,
            "steps": steps,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "seed": seed,
        }
        _save(done, target_folder, model, data or dataset, isinstance(dataset, str), settings, overwrite)
    return done


def _save(
    done: FineTuning,
    folder: Path,
    model: Any,
    dataset: Any,
    by_dataset_name: bool,
    settings: Mapping[str, Any],
    overwrite: bool,
) -> None:
    """Writes the artifact; `settings` are what the command in its card needs."""
    data, x, _ = _examples(dataset)
    about: dict[str, Any] = {} if data is None else data.about()
    if not by_dataset_name:
        # Whoever looked for it by its name would find nothing, or other rows.
        about["dataset"] = None
    by_name = not isinstance(model, keras.Model)
    about["fine_tuning"] = {
        "source": str(model) if by_name else None,
        "trust": by_name and str(model) not in bundled_models(),
        "dataset": None if data is None else data.name,
        "inflate": done.inflate,
        "head_scale": done.head_scale,
        **settings,
        "candidates": [asdict(candidate) for candidate in done.candidates],
    }
    golden = x[:_GOLDEN_ROWS] if data is None else data.test.x[:_GOLDEN_ROWS]
    save_artifact(
        done.model, folder, metrics=done.metrics or None, data=about, golden_inputs=golden, overwrite=overwrite
    )


def _source(model: Any, trust: bool) -> Any:
    if isinstance(model, str | os.PathLike):
        return open_model(model, trust)
    if not isinstance(getattr(model, "architecture", None), BuiltFrom):
        named = f" {model.name!r}" if isinstance(model, keras.Model) else ""
        raise ValueError(
            "Only models of the zoo can be fine-tuned here, by their name, their folder or as objects, because the "
            f"target is built by its registry. Got {type(model).__name__}{named}; use tfp_bnn.transfer.informed_prior "
            "or update for a model of your own."
        )
    require_bayesian_layers(model)
    return model


def _examples(dataset: Any) -> tuple[Dataset | None, npt.NDArray[Any], npt.NDArray[Any]]:
    if isinstance(dataset, str):
        dataset = load_dataset(dataset)
    if isinstance(dataset, Dataset):
        return dataset, dataset.train.x, dataset.train.y
    if not isinstance(dataset, tuple | list) or len(dataset) != 2:
        raise ValueError(f"Expected a dataset, its name, or a pair of arrays (x, y), but got {type(dataset).__name__}.")
    x, y = (np.asarray(part) for part in dataset)
    if not np.issubdtype(x.dtype, np.number):
        raise ValueError(f"`x` holds {x.dtype} values; numbers were expected.")
    return None, x, y


def _check_choice(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(unknown_name_message(name, value, known))


def _settings(name: str, value: Any, choices: Sequence[float]) -> Sequence[float]:
    if isinstance(value, str):
        _check_choice(f"{name} (or a number)", value, [AUTO])
        return choices
    return [require_positive("fine_tune", name, value)]


def _integers(seed: Any, steps: Any, batch_size: Any, rows: int) -> tuple[int, int, int]:
    """All three checked, with the defaults in the place of None."""
    for name, value, least in (("seed", seed, 0), ("steps", steps, 1), ("batch_size", batch_size, 1)):
        if not (value is None and name != "seed") and not (is_integer(value) and least <= value < 2**32):
            raise ValueError(f"`{name}` must be an integer >= {least}, but got {value!r}.")
    usual = next((size for most, size in _BATCH_SIZES if rows <= most), _LARGE_BATCH)
    batch_size = int(batch_size or usual)
    return int(seed), int(steps or max(_LEAST_STEPS, math.ceil(_PASSES * rows / batch_size))), batch_size


def _kernel_prior(prior: Any, built: BuiltFrom, mix: float | None) -> Any:
    if mix is not None and not (is_number(mix) and 0 < mix < 1):
        raise ValueError(f"`mix` must lie between 0 and 1, or be None for no broad component, but got {mix!r}.")
    if isinstance(prior, str):
        if prior == POSTERIOR:
            return {"name": "informed", "mix": float(mix or 0.0)}
        if prior != DEFAULT and prior not in PRIORS:
            raise ValueError(unknown_name_message("prior", prior, [POSTERIOR, DEFAULT, *PRIORS]))
    if mix is not None:
        raise ValueError(f"Got mix={mix!r} with prior={prior!r}; a mixture is made of the prior 'posterior' only.")
    return built.config.kernel_prior if isinstance(prior, str) and prior == DEFAULT else prior


def _adapted(
    built: BuiltFrom,
    data: Dataset | None,
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    head: Head,
    kernel_prior: Any,
    informed: bool,
    adapt_inputs: bool,
) -> ArchitectureConfig:
    """The source's config, changed for other data."""
    old = built.config
    likelihood = LIKELIHOODS.get(old.likelihood)
    values = {**old.model_dump(), "kernel_prior": kernel_prior, **_inputs(built, x, adapt_inputs)}
    needed = _outputs_needed(likelihood, data, y)
    if informed and "group_prior" in values:
        values["group_prior"] = kernel_prior
    if head == "keep" and (needed > old.num_outputs or (data is not None and needed != old.num_outputs)):
        raise ValueError(
            f"The source has {old.num_outputs} outputs, but the data need {needed}. Give the model a new head "
            "(head='new')."
        )
    if head == "new":
        values["num_outputs"] = needed
        if likelihood.task == "regression":
            # A new head is for other targets, maybe in other units.
            mean, variance = column_moments(y.reshape(len(y), -1))
            if old.target_mean is not None:
                values["target_mean"], values["target_variance"] = mean, variance
            if isinstance(likelihood, Normal) and likelihood.scale == "learned":
                values["likelihood"] = {"name": "normal", "initial_scale": math.sqrt(sum(variance) / len(variance))}
    return validate(ARCHITECTURES[built.name].config, values, f"The architecture {built.name!r}")


def _outputs_needed(likelihood: Likelihood, data: Dataset | None, y: npt.NDArray[Any]) -> int:
    columns = y.reshape(len(y), -1).shape[1]
    if isinstance(likelihood, Normal) and likelihood.scale == "per_example":
        return 2 * columns
    if likelihood.task == "regression" or isinstance(likelihood, Bernoulli) or columns > 1:
        return columns
    return max(2, int(y.max()) + 1 if data is None or data.class_names is None else len(data.class_names))


def _inputs(built: BuiltFrom, x: npt.NDArray[Any], adapt_inputs: bool) -> dict[str, Any]:
    """What changes in the config for inputs of this shape and range."""
    old, changes = built.config, {}
    shape, known = tuple(x.shape[1:]), tuple(old.input_shape)
    if shape != known:
        can = hasattr(old, "resize") and len(shape) == 3 and shape[-1] == known[-1]
        if not (can and adapt_inputs):
            hint = (
                "Pass adapt_inputs=True to have images resized within the model"
                if can
                else f"The first layer of {built.name!r} takes no others: change the data"
            )
            raise ValueError(f"The source takes inputs of shape {known}, but the data have {shape}. {hint}.")
        changes = {"input_shape": shape, "resize": getattr(old, "resize", None) or known[:2]}
    pixel_max = getattr(old, "pixel_max", None)
    if pixel_max is not None:
        highest = 255.0 if x.dtype == np.uint8 else float(x.max(initial=0.0))
        fits = 0.25 * pixel_max <= highest <= pixel_max
        if adapt_inputs and highest > 0:
            changes = changes if fits else {**changes, "pixel_max": highest}
        elif not fits:
            raise ValueError(
                f"The source takes pixels from 0 to {pixel_max:g}, but those of the data go up to {highest:g}. Pass "
                "adapt_inputs=True to have them rescaled within the model, or rescale them."
            )
    num_groups = getattr(old, "num_groups", None)
    if num_groups is not None and not np.isin(x[:, -1], np.arange(num_groups)).all():
        raise ValueError(
            f"The source knows the groups 0 to {num_groups - 1}, but the last column of the data goes from "
            f"{x[:, -1].min():g} to {x[:, -1].max():g}. Fine-tune it on those groups only."
        )
    return changes
