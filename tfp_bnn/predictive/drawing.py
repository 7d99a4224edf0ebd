"""The draws of a model, and the outputs of draws for given inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_bnn.core.arguments import require_integer
from tfp_bnn.core.batches import as_arrays, inputs_of, is_stream, num_rows, rows_of
from tfp_bnn.core.draws import Draws, Function
from tfp_bnn.core.noise import Noise, NoNoise
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.predictive.calibrators import Calibration

# Distinct from the streams of training and evaluation, which fold in 0 and 1.
_PREDICTION = 2
# The entropy of a mixture of S normals takes S x S numbers per row.
_NUMBERS_AT_ONCE = 2**22
# Rows are never cut so small that the outputs of all draws take less than this.
_WORKING_BYTES = 2**26
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
        moments: Arrays `mean`, `aleatoric` and `epistemic` by name, if `outputs` is None; for classes and labels also
            `entropy`.
        shape: Shape of the outputs.
        weights_by_draw: Roles of the weights that differ between draws, which have the shape `(S, 1, *own)`.
        exhaustive: Whether these are all the draws there are.
        moment_again: Computes another moment by running the draws again; None if `outputs` is not.
    """

    weights: dict[str, Any]
    outputs: np.ndarray | None
    moments: dict[str, np.ndarray]
    shape: tuple[int, ...]
    weights_by_draw: frozenset[str]
    exhaustive: bool
    moment_again: Callable[[str], np.ndarray] | None


def draw_outputs(
    draws: Draws,
    x: Any,
    likelihood: Likelihood,
    num_samples: int,
    batch_size: int,
    max_bytes: int,
    calibration: Calibration | None,
) -> DrawnOutputs:
    """Runs the functions of the draws on inputs, a few rows at a time; see `PosteriorPredictive.from_draws`."""
    require_integer("num_samples", num_samples, 1)
    require_integer("batch_size", batch_size, 1)
    exhaustive = draws.num_draws is not None and draws.num_draws <= num_samples
    if draws.num_draws is not None:
        num_samples = min(num_samples, draws.num_draws)
    functions = [draws(index) for index in range(num_samples)]
    learned, weights_by_draw = _weights_of(draws, num_samples)

    def parts() -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
        for outputs in _outputs_of(functions, x, batch_size, max_bytes):
            yield (outputs, learned) if calibration is None else calibration.apply(outputs, learned, likelihood)

    def moment_again(name: str) -> np.ndarray:
        return _moment_again(name, x, parts(), likelihood, joined["mean"])

    # The entropy of a mixture of numbers takes longer than the network.
    eager = [name for name in MOMENTS if name != "entropy" or likelihood.has_probabilities]
    moments: dict[str, list[np.ndarray]] = {name: [] for name in eager}
    total = None if is_stream(x) else num_rows(as_arrays(x))
    kept: np.ndarray | None = None
    waiting: list[np.ndarray] = []
    number, size, weights = 0, 0, learned
    for outputs, weights in parts():
        rows = slice(number, number + outputs.shape[1])
        number = rows.stop
        shape = (num_samples, total or 0, *outputs.shape[2:])
        if total is not None and num_bytes(shape) <= max_bytes:
            kept = np.empty(shape, np.float32) if kept is None else kept
            kept[:, rows] = outputs
            continue
        waiting.append(outputs)
        # The parts of a stream take twice their memory when they are joined.
        size += 2 * outputs.nbytes
        while waiting and (total is not None or size > max_bytes):
            part = waiting.pop(0)
            for name, values in moments.items():
                values.append(moment(name, likelihood, part, weights))
    if not number:
        raise ValueError("`x` is empty. Expected at least one row.")
    shape = (num_samples, number, *outputs.shape[2:])
    joined = {name: np.concatenate(values) for name, values in moments.items() if values}
    if waiting:
        kept = np.concatenate(waiting, axis=1)
    if kept is not None:
        return DrawnOutputs(weights, kept, {}, shape, weights_by_draw, exhaustive, None)
    return DrawnOutputs(weights, None, joined, shape, weights_by_draw, exhaustive, moment_again)


def moment(name: str, likelihood: Likelihood, outputs: np.ndarray, weights: Mapping[str, Any]) -> np.ndarray:
    """A moment of the mixture, a few rows at a time: the entropy of a mixture can take S x S numbers per row.

    Args:
        name: One of `MOMENTS`.
        likelihood: Likelihood of the targets given the outputs.
        outputs: Raw outputs, `(S, n, channels)`.
        weights: Learned parameters of the likelihood, by role.

    Returns:
        An array of shape `(n, ...)`, float32.
    """
    parts = []
    samples, channels = outputs.shape[0], int(np.prod(outputs.shape[2:]))
    pairs = samples * int(np.prod(outputs.shape[2:-1])) if name == "entropy" else 1
    rows_at_once = max(1, _NUMBERS_AT_ONCE // (samples * max(channels, pairs)))
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


def _outputs_of(functions: Sequence[Function], x: Any, batch_size: int, max_bytes: int) -> Iterator[np.ndarray]:
    """The raw outputs of all draws, `(S, rows, channels)`, float32, for a few rows at a time."""
    # A part is made while the one before it is still in memory.
    most_bytes = max(_WORKING_BYTES, max_bytes // 4)
    at_once = batch_size
    for batch in inputs_of(x):
        start, number = 0, num_rows(batch)
        while start < number:
            inputs = rows_of(batch, slice(start, start + at_once))
            first = np.asarray(functions[0](inputs), np.float32)
            # How many outputs a row has is known only now.
            most_rows = max(1, most_bytes // (len(functions) * max(1, first[0].nbytes)))
            if len(first) > most_rows:
                at_once = most_rows
                continue
            outputs = np.empty((len(functions), *first.shape), np.float32)
            outputs[0] = first
            for index, function in enumerate(functions[1:], start=1):
                outputs[index] = np.asarray(function(inputs), np.float32)
            yield outputs
            start += len(first)


def _moment_again(
    name: str, x: Any, parts: Iterable[tuple[np.ndarray, Mapping[str, Any]]], likelihood: Likelihood, mean: np.ndarray
) -> np.ndarray:
    """A moment from new passes through the network, whose means must be those of the first."""
    if isinstance(x, Iterator):
        raise ValueError(
            f"`{name}` needs the inputs once more, because the draws did not fit into `max_bytes`, but a "
            f"{type(x).__name__} can be read only once. Pass arrays or a tf.data.Dataset, raise `max_bytes`, or use "
            "`stream_predictive`."
        )
    found, means = zip(
        *(
            (moment(name, likelihood, part, weights), moment("mean", likelihood, part, weights))
            for part, weights in parts
        ),
        strict=True,
    )
    again = np.concatenate(means)
    if again.shape != mean.shape or not np.allclose(again, mean, rtol=1e-3, atol=1e-4 * float(np.abs(mean).max())):
        raise ValueError(
            f"`{name}` needs the inputs once more, because the draws did not fit into `max_bytes`, but their "
            "predictions are different now: the model was changed, or the inputs come in another order. Predict again."
        )
    return np.concatenate(found)
