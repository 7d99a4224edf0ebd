"""Measurements of a Bayesian model, shared by the callbacks.

Nothing here disturbs training: predictions have their own stream of noise, and a KL without a closed form is estimated
with the same noise each time.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfp_bnn import metrics
from tfp_bnn.callbacks.rows import Rows, digest_of
from tfp_bnn.core.expected_inputs import any_inputs
from tfp_bnn.core.noise import Noise, noise_scope
from tfp_bnn.inference import members_of
from tfp_bnn.inference.stored_posterior import StoredPosterior
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.variational_weight import VariationalWeight
from tfp_bnn.models.data_checks import check_examples, check_input_names, check_inputs, example_shape
from tfp_bnn.models.predictive_model import PredictiveModel
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.predictive import for_each_class, score, standard_errors
from tfp_bnn.predictive.drawing import num_bytes
from tfp_bnn.variational.kl import named_layers

_KL_SEED = (0, 0)
# One forward pass for each draw, with the usual number of rows.
_BATCH_SIZE = 1000
_DIAGNOSED = 100
# Of draws that are kept in memory.
_MOST_BYTES = 2**30
# Measurements of the current weights of a model, shared by several callbacks.
_measurements: weakref.WeakKeyDictionary[Any, tuple[str, dict[tuple[Any, ...], Measurement]]] = (
    weakref.WeakKeyDictionary()
)


@dataclass(frozen=True, eq=False)
class Measurement:
    """Predictions for some rows under Monte Carlo draws of the weights, with derived quantities.

    Attributes:
        predictive: Posterior predictive of the rows; for several outputs, a `JointPredictive`.
        rows: Rows that were predicted.
        again: Function that predicts them once more, in parts of a given number of rows, as `stream_predictive` does.
    """

    predictive: Any
    rows: Rows
    again: Callable[[int], Iterable[Any]]

    @cached_property
    def heads(self) -> dict[str, Measurement]:
        """The measurements of several outputs by name; of a single one, this one under an empty name.

        All but `scores`, their errors and `uncertainties` is for a single output.
        """
        likelihood = self.predictive.likelihood
        if not likelihood.heads:
            return {"": self}
        y = {} if self.rows.y is None else likelihood.by_head(self.rows.y, "`y`")
        return {
            name: Measurement(of_head, Rows(self.rows.x, y.get(name)), self.again)
            for name, of_head in self.predictive.items()
        }

    @property
    def has_classes(self) -> bool:
        """Whether a target is one class of several; not for numbers, nor for several yes-or-no labels at once."""
        return self.predictive.target_kind == "class"

    @property
    def has_numbers(self) -> bool:
        """Whether the targets are numbers."""
        return self.predictive.target_kind == "number"

    @property
    def has_targets(self) -> bool:
        """Whether a target is left that is not missing; a head of several may have none."""
        return self.rows.y is not None and self.predictive.likelihood.has_targets(np.asarray(self.rows.y))

    @cached_property
    def scores(self) -> dict[str, float]:
        """Those of `tfp_bnn.predictive.score`. Draws that do not fit into memory are made again, in parts."""
        if self.predictive.has_draws:
            return score(self.predictive, self.rows.y)
        with any_inputs():
            return score(self.again(max(1, _MOST_BYTES // self._bytes_of_a_row)))

    @cached_property
    def standard_errors(self) -> dict[str, float]:
        """The Monte Carlo standard errors of the scores, see `tfp_bnn.predictive.standard_errors`; {} without draws."""
        return standard_errors(self.predictive, self.rows.y) if self.predictive.has_draws else {}

    @property
    def _bytes_of_a_row(self) -> int:
        outputs = [head.predictive for head in self.heads.values()]
        return sum(num_bytes((of.num_samples, *of.positions, of.num_outputs)) for of in outputs)

    @property
    def has_positions(self) -> bool:
        """Whether an example has several rows, such as pixels or time steps."""
        return bool(self.predictive.positions)

    @cached_property
    def _rows(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """The targets as rows, and which rows have all of theirs."""
        predictive = self.predictive
        y, observed = predictive.likelihood.observed_rows(
            np.asarray(self.rows.y), predictive.positions, predictive.num_outputs
        )
        complete = np.ones(len(y), bool)
        if observed is not None:
            complete &= observed.reshape(len(y), -1).all(axis=1)
        return predictive.likelihood.target_array(y, predictive.num_outputs), complete

    @property
    def has_all_targets(self) -> bool:
        """Whether no target is missing."""
        return bool(self._rows[1].all())

    def of_rows(self, values: npt.NDArray[Any], axis: int = 0) -> npt.NDArray[Any]:
        """Predictions with the examples on `axis` and positions after it, as one row for each of `targets`."""
        after = axis + 1 + len(self.predictive.positions)
        rows = values.reshape(*values.shape[:axis], -1, *values.shape[after:])
        return rows.compress(self._rows[1], axis=axis)

    @cached_property
    def targets(self) -> npt.NDArray[Any]:
        """Classes: integers `(rows,)`; of soft labels the most probable class. Else `(rows, targets)`.

        A row is an example, or a position of one. Rows with a missing target are left out.
        """
        y, complete = self._rows
        y = y[complete]
        return np.rint(y.reshape(-1)).astype(np.int64) if self.has_classes else y

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Probabilities averaged over the draws, of shape `(rows, classes)`; two classes for one logit."""
        return for_each_class(self.of_rows(self.predictive.mean()))

    @cached_property
    def sample_probabilities(self) -> npt.NDArray[np.float32]:
        """Probabilities under each draw, of shape `(S, rows, classes)`; two classes for one logit."""
        return for_each_class(self.of_rows(self.predictive.samples, axis=1))

    @cached_property
    def uncertainties_at_positions(self) -> dict[str, npt.NDArray[np.float64]]:
        """`uncertainties` of shape `(n, *positions)`."""
        if self.has_numbers:
            return {"epistemic_std": np.sqrt(self.predictive.epistemic().sum(axis=-1, dtype=np.float64))}
        entropy, information = self.predictive.entropy(), self.predictive.epistemic()
        return {
            "predictive_entropy": entropy.astype(np.float64),
            "mutual_information": information.astype(np.float64),
        }

    @cached_property
    def uncertainties(self) -> dict[str, npt.NDArray[np.float64]]:
        """Of each example: `predictive_entropy` and `mutual_information`, or `epistemic_std`.

        Higher where less certain. If there are positions, the mean over those of the example. Those of several outputs
        begin with their names, as in `class/mutual_information`.
        """
        if "" not in self.heads:
            by_head = {name: head.uncertainties for name, head in self.heads.items()}
            return {f"{name}/{key}": values for name, of_head in by_head.items() for key, values in of_head.items()}
        at_positions = self.uncertainties_at_positions
        return {name: values.mean(axis=tuple(range(1, values.ndim))) for name, values in at_positions.items()}


def measure(model: PredictiveModel, rows: Rows, num_samples: int, seed: int) -> Measurement:
    """Predicts rows as `posterior_predictive` does. Results are reused until the posterior changes.

    Args:
        model: Built model.
        rows: Rows to predict.
        num_samples: Number of draws of the weights.
        seed: Seed of the draws.
    """
    weights = _digest_of_posterior(model)
    of_weights, measured = _measurements.get(model, ("", {}))
    if of_weights != weights:
        measured = {}
        _measurements[model] = (weights, measured)
    key = (rows.digest, num_samples, seed, repr(model.calibration))
    if key not in measured:
        # They may be out of distribution on purpose.
        with any_inputs():
            predictive = model.posterior_predictive(
                rows.x, num_samples, seed, batch_size=_BATCH_SIZE, max_bytes=_MOST_BYTES
            )

        # What is kept for a model must not keep the model.
        of_model: Any = weakref.ref(model)

        def again(batch_size: int) -> Iterable[Any]:
            return of_model().stream_predictive(rows.x, rows.y, num_samples, seed, min(batch_size, _BATCH_SIZE))

        measured[key] = Measurement(predictive, rows, again)
    return measured[key]


def diagnose(model: PredictiveModel, rows: Rows) -> dict[str, float]:
    """Returns `model.diagnostics` for the first 100 rows: chains predict them with every state."""
    x = keras.tree.map_structure(lambda array: array[:_DIAGNOSED], rows.x)
    with any_inputs():
        return model.diagnostics(x)


def _digest_of_posterior(model: PredictiveModel) -> str:
    """Returns a fingerprint of the weights, and of what a posterior knows beside them."""
    weights = [weight for network in members_of(model) for weight in network.weights]
    if not isinstance(model, StoredPosterior):
        return digest_of(weights)
    return digest_of([*weights, *model.arrays().values()]) + repr(model.settings())


def check_rows(model: PredictiveModel, rows: Rows, name: str) -> None:
    """Refuses rows on which a model cannot be measured. The ValueError names the argument."""
    network = members_of(model)[0]
    shape = network._known_input_shape()
    try:
        check_input_names(rows.x, network._known_inputs(), name)
        if rows.y is None:
            check_inputs(rows.x, shape, name)
        else:
            check_examples(rows.x, rows.y, model.likelihood, shape, example_shape(network))
    except ValueError as error:
        raise ValueError(f"`{name}` of the callback cannot be measured: {error}") from error


def require_bayesian(model: Any, callback: str) -> VariationalMixin:
    """Returns the model; TypeError if it is not Bayesian."""
    if not isinstance(model, VariationalMixin):
        raise TypeError(
            f"{callback} is for Bayesian models, but got a {type(model).__name__}. Build it as "
            "tfp_bnn.VariationalModel(inputs, outputs), or mix in tfp_bnn.VariationalMixin."
        )
    return model


def require_predictive(model: Any, callback: str) -> PredictiveModel:
    """Returns the model; TypeError if it has no posterior."""
    if not isinstance(model, PredictiveModel):
        raise TypeError(
            f"{callback} is for models with a posterior, which `fit` or a function of tfp_bnn.inference gives, but got "
            f"a {type(model).__name__}."
        )
    return model


def kl_terms_of(model: PredictiveModel) -> Callable[[], dict[str, float]]:
    """A function that computes the terms of the KL, as `KlTerms`; none if the posterior has no KL to the prior."""
    return KlTerms(model) if isinstance(model, VariationalMixin) else dict


class KlTerms:
    """Computes the terms of `model.kl_by_layer()` in nats without changing any noise counter. Compiled once.

    Args:
        model: Model with fixed layers, built when the terms are first computed.
    """

    def __init__(self, model: VariationalMixin) -> None:
        def compute() -> dict[str, tf.Tensor]:
            with noise_scope(model._noise_of_layers(Noise(tf.constant(_KL_SEED, tf.int64)))):
                return model.kl_by_layer()

        self._compute = tf.function(compute, autograph=False)

    def __call__(self) -> dict[str, float]:
        """Returns the current terms."""
        return {name: float(kl) for name, kl in self._compute().items()}


@dataclass(frozen=True, eq=False)
class LayerPosterior:
    """The concatenated posteriors of the Bayesian weights of a layer, without those that have no spread or are pruned.

    Attributes:
        mean: Posterior mean of each weight, float32, of shape `(weights,)`.
        scale: Posterior standard deviation of each weight, float32, of shape `(weights,)`.
    """

    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]

    @cached_property
    def signal_to_noise(self) -> npt.NDArray[np.floating[Any]]:
        """|mean| / scale of each weight."""
        return np.abs(self.mean) / self.scale


def layer_posteriors(model: PredictiveModel) -> dict[str, LayerPosterior]:
    """Returns the posteriors of all Bayesian layers with a spread, by the names of `model.kl_by_layer()`.

    Pruned weights are left out, and layers without any other.
    """
    found = {}
    for name, layer in _own_layers(model).items():
        weights = [weight for weight in layer.variational_weights.values() if weight.posterior_spec.has_spread]
        if any(weight.kept.any() for weight in weights):
            found[name] = LayerPosterior(
                np.concatenate([weight.mean.numpy()[weight.kept] for weight in weights]),
                np.concatenate([np.sqrt(weight.variance.numpy()[weight.kept]) for weight in weights]),
            )
    return found


def prior_scales(weight: VariationalWeight) -> npt.NDArray[np.float64]:
    """Returns the prior standard deviation of each kept weight of a tensor, of shape `(kept weights,)`.

    The scale if there is no variance, else NaN.
    """
    try:
        scale = np.sqrt(np.asarray(weight.prior.variance(), np.float64))
    except NotImplementedError:
        scale = np.asarray(math.nan)
    fixed = getattr(weight.prior_spec, "scale", math.nan)
    scale = np.where(np.isfinite(scale), scale, weight.prior_parameters().get("scale", fixed))
    return np.broadcast_to(scale, weight.shape)[weight.kept]


def _own_layers(model: PredictiveModel) -> dict[str, VariationalLayer]:
    """The Bayesian layers that hold the posterior; none of a posterior beside its networks."""
    return named_layers(model) if isinstance(model, VariationalMixin) else {}


def learned_prior_scales(model: PredictiveModel) -> dict[str, npt.NDArray[np.float32]]:
    """Returns learned and inferred prior scales, by `layer/weight` or by the name under which they are shared.

    There is one number for each group of weights of a prior with `groups`, and one number for other priors. Scales
    whose weights are all pruned are left out: nothing moves them.
    """
    scales = {}
    for name, layer in _own_layers(model).items():
        for weight in layer.variational_weights.values():
            learned = weight.learned_prior_scale
            if learned is None:
                continue
            groups = np.reshape(learned, (1,) * (weight.kept.ndim - np.ndim(learned)) + np.shape(learned))
            shared_axes = tuple(axis for axis, size in enumerate(groups.shape) if size == 1)
            alive = weight.kept.any(axis=shared_axes, keepdims=True)
            if alive.any():
                scales[f"{name}/{weight.name}"] = groups[alive]
    for name, shared in getattr(model, "shared_priors", {}).items():
        scales[name] = np.ravel(shared.parameters()["scale"])
    return scales


def out_of_distribution_aurocs(inside: Measurement, outside: Measurement) -> Mapping[str, float]:
    """Returns the area under the ROC curve with which each uncertainty separates `outside` from `inside`."""
    return {
        name: metrics.out_of_distribution_auroc(values, outside.uncertainties[name])
        for name, values in inside.uncertainties.items()
    }
