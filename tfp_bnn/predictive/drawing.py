"""The draws of a model, and the outputs of draws for given inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.arguments import require_integer
from tfp_bnn.core.draws import Draws, Function
from tfp_bnn.core.noise import Noise, NoNoise
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.predictive.calibrators import Calibration

# Distinct from the streams of training and evaluation, which fold in 0 and 1.
_PREDICTION = 2
# The entropy of a mixture of S normals takes S x S numbers per row.
_NUMBERS_AT_ONCE = 2**22
MOMENTS = ("mean", "entropy", "aleatoric", "epistemic")


class SeededDraws:
    """The draws of a model whose layers take counter-based noise: draw k is `seed` with k folded in.

    A draw depends on (seed, k, layer) only. Variational weights and dropout masks are drawn this way.

    Args:
        model: Model with `likelihood_weights` and `call_with_noise`.
        seed: Integer. Equal seeds give equal draws.
        num_draws: 1 for a model without randomness; None for an unlimited number of draws.
    """

    def __init__(self, model: Any, seed: int, num_draws: int | None = None) -> None:
        self.num_draws = num_draws
        self._model = model
        self._forward = _forward(model, plug_in=False)
        self._root = tf.constant([seed, 0], tf.int64)

    def __call__(self, index: int) -> Function:
        """Returns the model under the noise of draw `index`."""
        return lambda x: self._forward(x, self._root, tf.constant(index))

    def likelihood_weights(self, index: int) -> Mapping[str, np.ndarray]:
        """The learned parameters of the likelihood by role, the same in all draws."""
        return _learned(self._model)


class PlugInDraws:
    """The one draw in which every weight is its posterior mean and every mask its expectation.

    Args:
        model: Model with `likelihood_weights` and `call_with_noise`.
    """

    num_draws = 1

    def __init__(self, model: Any) -> None:
        self._model = model
        self._forward = _forward(model, plug_in=True)

    def __call__(self, index: int) -> Function:
        """Returns the model without noise."""
        return lambda x: self._forward(x, tf.constant([0, 0], tf.int64), tf.constant(index))

    def likelihood_weights(self, index: int) -> Mapping[str, np.ndarray]:
        """The learned parameters of the likelihood, by role."""
        return _learned(self._model)


@dataclass(frozen=True)
class DrawnOutputs:
    """The outputs of S draws for n inputs, or only their moments.

    Attributes:
        weights: Weights of the likelihood, by role.
        outputs: Raw outputs, `(S, n, channels)`, float32; None if they did not fit into memory.
        moments: Arrays `mean`, `entropy`, `aleatoric` and `epistemic` by name, if `outputs` is None.
        shape: Shape of the outputs.
        weights_by_draw: Roles of the weights that differ between draws, which have the shape `(S, 1, *own)`.
        exhaustive: Whether these are all the draws there are.
    """

    weights: dict[str, Any]
    outputs: np.ndarray | None
    moments: dict[str, np.ndarray]
    shape: tuple[int, ...]
    weights_by_draw: frozenset[str]
    exhaustive: bool


def draw_outputs(
    draws: Draws,
    x: Any,
    likelihood: Likelihood,
    num_samples: int,
    batch_size: int,
    max_bytes: int,
    calibration: Calibration | None,
) -> DrawnOutputs:
    """Runs the functions of the draws on inputs, one batch at a time; see `PosteriorPredictive.from_draws`."""
    require_integer("num_samples", num_samples, 1)
    require_integer("batch_size", batch_size, 1)
    exhaustive = draws.num_draws is not None and draws.num_draws <= num_samples
    if draws.num_draws is not None:
        num_samples = min(num_samples, draws.num_draws)
    functions = [draws(index) for index in range(num_samples)]
    learned, weights_by_draw = _weights_of(draws, num_samples)
    weights = learned
    x = keras.tree.map_structure(np.asarray, x)
    number = len(keras.tree.flatten(x)[0])
    if not number:
        raise ValueError("`x` is empty. Expected at least one row.")
    shape: tuple[int, ...] = ()
    kept: np.ndarray | None = None
    moments: dict[str, list[np.ndarray]] = {name: [] for name in MOMENTS}
    for start in range(0, number, batch_size):
        rows = slice(start, start + batch_size)
        batch = keras.tree.map_structure(lambda array, rows=rows: tf.convert_to_tensor(array[rows]), x)
        outputs = np.stack([np.asarray(function(batch), np.float32) for function in functions])
        shape = (num_samples, number, *outputs.shape[2:])
        if calibration is not None:
            outputs, weights = calibration.apply(outputs, learned, likelihood)
        if num_bytes(shape) <= max_bytes:
            # Not a list of parts to join: the limit is that of all memory, and both would take twice as much.
            kept = np.empty(shape, np.float32) if kept is None else kept
            kept[:, rows] = outputs
            continue
        for name, values in moments.items():
            values.append(moment(name, likelihood, outputs, weights))
    if kept is not None:
        return DrawnOutputs(weights, kept, {}, shape, weights_by_draw, exhaustive)
    joined = {name: np.concatenate(values) for name, values in moments.items()}
    return DrawnOutputs(weights, None, joined, shape, weights_by_draw, exhaustive)


def moment(name: str, likelihood: Likelihood, outputs: np.ndarray, weights: Mapping[str, Any]) -> np.ndarray:
    """A moment of the mixture, a few rows at a time: the entropy of a mixture takes S x S numbers per row.

    Args:
        name: One of `MOMENTS`.
        likelihood: Likelihood of the targets given the outputs.
        outputs: Raw outputs, `(S, n, channels)`.
        weights: Learned parameters of the likelihood, by role.

    Returns:
        An array of shape `(n, ...)`, float32.
    """
    parts = []
    rows_at_once = max(1, _NUMBERS_AT_ONCE // (outputs.shape[0] ** 2 * int(np.prod(outputs.shape[2:-1]))))
    for start in range(0, outputs.shape[1], rows_at_once):
        rows = tf.convert_to_tensor(outputs[:, start : start + rows_at_once])
        if name == "mean":
            parts.append(tf.reduce_mean(likelihood.mean(rows, weights), axis=0).numpy())
        else:
            parts.append(getattr(likelihood, name)(rows, weights).numpy())
    return np.concatenate(parts)


def num_bytes(shape: tuple[int, ...]) -> int:
    """The size of a float32 array of this shape, in bytes."""
    return 4 * int(np.prod(shape, dtype=np.int64))


def forget_compiled(model: Any) -> None:
    """Makes the next prediction recompile its forward pass. Call it when the layers of a model have changed."""
    model.__dict__.pop("_predictive_functions", None)


def _forward(model: Any, plug_in: bool) -> Any:
    """The compiled forward pass of a model under one draw, made once per model and mode."""
    functions = model.__dict__.setdefault("_predictive_functions", {})
    if plug_in not in functions:

        @tf.function(reduce_retracing=True, autograph=False)
        def forward(x: tf.Tensor, root: tf.Tensor, sample: tf.Tensor) -> tf.Tensor:
            noise = NoNoise() if plug_in else Noise(root).fold_in(_PREDICTION).fold_in(sample)
            return model.call_with_noise(x, noise)

        functions[plug_in] = forward
    return functions[plug_in]


def _learned(model: Any) -> dict[str, np.ndarray]:
    return {role: np.asarray(variable) for role, variable in model.likelihood_weights.items()}


def _weights_of(draws: Draws, num_samples: int) -> tuple[dict[str, Any], frozenset[str]]:
    """The likelihood weights of all draws, and the roles of those that differ between draws.

    Only a finite number of draws can have different weights.
    """
    if draws.num_draws is None:
        return dict(draws.likelihood_weights(0)), frozenset()
    of_draws = [draws.likelihood_weights(index) for index in range(num_samples)]
    weights: dict[str, Any] = {}
    differing = set()
    for role, first in of_draws[0].items():
        values = [np.asarray(of_draw[role]) for of_draw in of_draws]
        if all(np.array_equal(value, values[0]) for value in values):
            weights[role] = first
        else:
            # An axis for the rows, to broadcast against outputs `(S, n, channels)`.
            weights[role] = np.stack(values)[:, None]
            differing.add(role)
    return weights, frozenset(differing)
