"""The outputs of draws for given inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_bnn.core.arguments import require_integer
from tfp_bnn.core.batches import as_arrays, inputs_of, is_stream, num_rows, rows_of, twice
from tfp_bnn.core.draws import Draws
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.likelihoods.marginals import ENTROPY_POINTS
from tfp_bnn.predictive.calibrators import Calibration
from tfp_bnn.predictive.seeded_draws import FEWEST_ROWS, SeededDraws

_Part = tuple[np.ndarray, dict[str, Any]]
_NUMBERS_AT_ONCE = 2**22
# Rows are never cut so small that the outputs of all draws take less than this.
_WORKING_BYTES = 2**26
MOMENTS = ("mean", "entropy", "aleatoric", "epistemic")


@dataclass(frozen=True)
class DrawnOutputs:
    """The outputs of S draws for n inputs, of one head, or only their moments.

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
    batch_size: int | None,
    max_bytes: int,
    calibration: Calibration | None,
) -> dict[str, DrawnOutputs]:
    """Runs the functions of the draws on inputs, a few rows at a time; see `PosteriorPredictive.from_draws`.

    Returns:
        What was drawn for each head of the likelihood; for a single output, under an empty name.
    """
    require_integer("num_samples", num_samples, 1)
    if batch_size is None:
        batch_size = getattr(draws, "rows_at_once", FEWEST_ROWS)
    require_integer("batch_size", batch_size, 1)
    all_taken = draws.num_draws is not None and draws.num_draws <= num_samples
    # Of the draws of others, which only follow the protocol, a finite number is taken for the whole posterior.
    exhaustive = all_taken and not getattr(draws, "sampled", False)
    if draws.num_draws is not None:
        num_samples = min(num_samples, draws.num_draws)
    weights, weights_by_draw = weights_of_draws(draws, num_samples)
    learned = likelihood.weights_by_head(weights)
    differing = likelihood.weights_by_head(dict.fromkeys(weights_by_draw))

    def parts() -> Iterator[dict[str, _Part]]:
        for outputs in _outputs_of(draws, num_samples, x, batch_size, max_bytes, likelihood):
            of_heads = {head: (of_head, dict(learned[head])) for head, of_head in outputs.items()}
            if calibration is not None:
                of_heads = {head: calibration.apply(*part, likelihood) for head, part in of_heads.items()}
            yield of_heads

    kept = {head: _Kept(likelihood.heads.get(head, likelihood)) for head in learned}
    total = None if is_stream(x) else num_rows(as_arrays(x))
    size = 0
    for of_heads in parts():
        for head, part in of_heads.items():
            kept[head].add(*part)
        outputs = [of_head for of_head, _ in of_heads.values()]
        if total is not None:
            size = sum(num_bytes((num_samples, total, *of_head.shape[2:])) for of_head in outputs)
        else:
            size += sum(of_head.nbytes for of_head in outputs)
        for of_head in kept.values():
            if size > max_bytes:
                of_head.reduce_to_moments()
            elif total is not None:
                of_head.place_among(total)

    def drawn(head: str) -> DrawnOutputs:
        of_head = kept[head]
        if not of_head.number:
            raise ValueError("`x` is empty. Expected at least one row.")
        outputs, moments = of_head.outputs(), of_head.moments()

        def moment_again(name: str) -> np.ndarray:
            return _moment_again(name, x, (part[head] for part in parts()), of_head.likelihood, moments["mean"])

        return DrawnOutputs(
            of_head.weights,
            outputs,
            moments,
            (num_samples, of_head.number, *of_head.shape),
            frozenset(differing[head]),
            exhaustive,
            None if outputs is not None else moment_again,
        )

    return {head: drawn(head) for head in kept}


class _Kept:
    """The outputs of one head: all of them, or, when they take too much memory, their moments.

    Args:
        likelihood: Likelihood of the head.
    """

    def __init__(self, likelihood: Likelihood) -> None:
        self.likelihood = likelihood
        self.number = 0
        self.shape: tuple[int, ...] = ()
        # The entropy of a mixture of numbers takes longer than the network.
        eager = [name for name in MOMENTS if name != "entropy" or likelihood.has_probabilities]
        self._moments: dict[str, list[np.ndarray]] = {name: [] for name in eager}
        self._waiting: list[np.ndarray] = []
        self._placed: np.ndarray | None = None
        self._num_placed = 0

    def add(self, outputs: np.ndarray, weights: dict[str, Any]) -> None:
        if self.number and outputs.shape[2:] != self.shape:
            raise ValueError(
                f"The outputs of an example have the shape {outputs.shape[2:]} in one batch and {self.shape} in the "
                "batches before it; expected one shape. Pad the inputs to one length, or use `stream_predictive`, "
                "which predicts each batch by itself."
            )
        self._waiting.append(outputs)
        self.weights, self.shape = weights, outputs.shape[2:]
        self.number += outputs.shape[1]

    def place_among(self, total: int) -> None:
        """Moves the parts that wait into one array for `total` rows: each is freed before the next is touched."""
        if self._placed is None:
            self._placed = np.empty((len(self._waiting[0]), total, *self.shape), np.float32)
        while self._waiting:
            outputs = self._waiting.pop(0)
            rows = slice(self._num_placed, self._num_placed + outputs.shape[1])
            self._placed[:, rows] = outputs
            self._num_placed = rows.stop

    def reduce_to_moments(self) -> None:
        while self._waiting:
            outputs = self._waiting.pop(0)
            for name, values in self._moments.items():
                values.append(moment(name, self.likelihood, outputs, self.weights))

    def outputs(self) -> np.ndarray | None:
        if self._waiting:
            self.place_among(self.number)
        return self._placed

    def moments(self) -> dict[str, np.ndarray]:
        return {name: np.concatenate(values) for name, values in self._moments.items() if values}


def moment(name: str, likelihood: Likelihood, outputs: np.ndarray, weights: Mapping[str, Any]) -> np.ndarray:
    """A moment of the mixture, a few rows at a time.

    The entropy of a mixture of numbers takes S x S numbers per row, and at least `ENTROPY_POINTS` for each target.

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
    numbers = samples * channels
    if name == "entropy" and not likelihood.has_probabilities:
        # The points of each draw, and all of them under every draw.
        pairs = samples**2 * int(np.prod(outputs.shape[2:-1]))
        numbers = max(pairs, numbers * -(-ENTROPY_POINTS // samples))
    rows_at_once = max(1, _NUMBERS_AT_ONCE // numbers)
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


def message_of_no_draws(what: str, shape: tuple[int, ...]) -> str:
    """The error message where all draws are needed, of shape `(S, n, ...)`, but only their moments were kept."""
    return (
        f"`{what}` needs all {shape[0]} draws of {shape[1]} predictions, of shape {shape}, "
        f"{num_bytes(shape) / 2**20:.0f} MiB, which is above `max_bytes`; only the moments were kept. Predict fewer "
        "inputs at a time, or raise `max_bytes`."
    )


def weights_of_draws(draws: Draws, num_samples: int) -> tuple[dict[str, Any], frozenset[str]]:
    """The likelihood weights of the first draws, and the roles of those that differ between draws.

    Those that differ have the shape `(S, 1, *own)`.
    """
    # Draws of others, which only follow the protocol, may differ.
    if getattr(draws, "weights_shared", False):
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


def _outputs_of(
    draws: Draws, num_samples: int, x: Any, batch_size: int, max_bytes: int, likelihood: Likelihood
) -> Iterator[dict[str, np.ndarray]]:
    """The raw outputs of all draws by head, `(S, rows, channels)`, float32, for a few rows at a time."""

    def by_head(outputs: Any) -> dict[str, np.ndarray]:
        of_heads = likelihood.by_head(outputs, "The outputs of the model")
        return {head: np.asarray(of_head, np.float32) for head, of_head in of_heads.items()}

    # A part is made while the one before it is still in memory.
    most_bytes = max(_WORKING_BYTES, max_bytes // 4)
    at_once = batch_size
    seeded = draws if isinstance(draws, SeededDraws) else None
    for batch in inputs_of(x):
        start, number = 0, num_rows(batch)
        while start < number:
            inputs = rows_of(batch, slice(start, start + at_once))
            rows = num_rows(inputs)
            # TensorFlow multiplies a single row in another order. With a copy, its outputs are those that it has among
            # others.
            inputs = twice(inputs) if rows == 1 else inputs
            first: dict[str, np.ndarray] = {}
            size = None if seeded is None else seeded.bytes_of_row(num_samples, inputs)
            in_one_call = size is not None
            if size is None:
                first = {head: outputs[:rows] for head, outputs in by_head(draws(0)(inputs)).items()}
                size = num_samples * sum(outputs[0].nbytes for outputs in first.values())
            most_rows = max(1, most_bytes // max(1, size))
            if rows > most_rows:
                at_once = most_rows
                continue
            if seeded is not None and in_one_call:
                together = by_head(seeded.first(num_samples, inputs))
                yield {head: outputs[:, :rows] for head, outputs in together.items()}
            else:
                found = {head: np.empty((num_samples, *outputs.shape), np.float32) for head, outputs in first.items()}
                for index in range(num_samples):
                    for head, outputs in (by_head(draws(index)(inputs)) if index else first).items():
                        found[head][index] = outputs[:rows]
                yield found
            start += rows


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


def averaged(log_likelihood: Any) -> np.ndarray:
    """The log of the likelihood averaged over the draws on the first axis, in nats, float32.

    Args:
        log_likelihood: Array or tensor of shape `(S, ...)`.
    """
    return (tf.reduce_logsumexp(log_likelihood, axis=0) - np.log(len(log_likelihood))).numpy().astype(np.float32)
