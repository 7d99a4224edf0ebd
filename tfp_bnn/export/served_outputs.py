"""What an exported model computes from the raw outputs of its draws, for one head of the likelihood."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.predictive.calibrators import Calibration
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive

NAMES = ("mean", "entropy", "aleatoric", "epistemic", "lower", "upper")
"""The names of the outputs: the moments of the predictive, and the ends of its central interval."""

# How Python and NumPy fail on tensors whose values or shapes are not known.
_NO_GRAPH = (TypeError, ValueError, AttributeError, NotImplementedError)
_ROWS_OF_TRIAL, _SIZE_OF_TRIAL = 3, 2


@dataclass(frozen=True)
class ServedHead:
    """The predictive of one head as TensorFlow operations; `PosteriorPredictive` computes the same with NumPy.

    Attributes:
        likelihood: Likelihood of the head.
        weights: Its learned parameters by role, which become constants, unless calls have others.
        calibration: Calibration of the predictive, or None.
        level: Probability of the central interval.
        weights_by_draw: Roles of the weights that differ between draws.
        with_weights: Whether the weights depend on the seed: then calls of the methods have them.
    """

    likelihood: Likelihood
    weights: Mapping[str, Any]
    calibration: Calibration | None
    level: float
    weights_by_draw: frozenset[str]
    with_weights: bool = False
    _graphs: dict[tuple[str, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def predictive(
        self, names: tuple[str, ...], outputs: tf.Tensor, weights: Mapping[str, Any]
    ) -> dict[str, tf.Tensor]:
        """Arrays of the predictive by name, each with the batch on the first axis.

        Args:
            names: Some of `NAMES`.
            outputs: Raw outputs, `(S, batch, *positions, channels)`, float32; the batch may be unknown.
            weights: Learned parameters of the likelihood by role, instead of `self.weights`; empty for those.
        """
        # What was tried as a graph is called, and not traced again.
        return self._graphs.get(names, functools.partial(self._predictive, names))(outputs, weights)

    def _predictive(
        self, names: tuple[str, ...], outputs: tf.Tensor, weights: Mapping[str, Any]
    ) -> dict[str, tf.Tensor]:
        outputs, weights = self._calibrated(outputs, weights)
        tail = round((1.0 - self.level) / 2.0, 12)
        ends = functools.cache(lambda: self.likelihood.graph_quantiles(outputs, weights, [tail, 1.0 - tail]))
        compute: dict[str, Callable[[], tf.Tensor]] = {
            "mean": lambda: tf.reduce_mean(self.likelihood.mean(outputs, weights), axis=0),
            "entropy": lambda: self.likelihood.entropy(outputs, weights),
            "aleatoric": lambda: self.likelihood.aleatoric(outputs, weights),
            "epistemic": lambda: self.likelihood.epistemic(outputs, weights),
            "lower": lambda: ends()[0],
            "upper": lambda: ends()[1],
        }
        return {name: compute[name]() for name in names}

    def samples(self, outputs: tf.Tensor, weights: Mapping[str, Any]) -> tf.Tensor:
        """Probabilities or means under each draw, `(batch, S, *positions, classes or targets)`."""
        outputs, weights = self._calibrated(outputs, weights)
        means = self.likelihood.mean(outputs, weights)
        return tf.transpose(means, [1, 0, *range(2, len(means.shape))])

    def names_in_graph(self, shape: tuple[int | None, ...], names: tuple[str, ...] = NAMES) -> tuple[str, ...]:
        """The outputs that can be computed in a graph, and there equal those of `PosteriorPredictive`.

        They are tried on random raw outputs, one row at a time. That also leaves out what depends on the other rows of
        a batch, such as means of sampled targets.

        Args:
            shape: Shape of the raw outputs, `(S, batch, *positions, channels)`; sizes of positions may be unknown.
            names: The outputs that are asked for, with the mean among them.

        Raises:
            ValueError: If the mean is not among them.
        """
        positions = len(shape) - 3
        num_draws, channels = int(shape[0] or 0), int(shape[-1] or 0)
        size = (num_draws, _ROWS_OF_TRIAL, *[_SIZE_OF_TRIAL] * positions, channels)
        outputs = np.random.default_rng(0).normal(scale=0.1, size=size).astype(np.float32)
        expected = self._expected(outputs)
        given = dict(self.weights) if self.with_weights else {}
        specs = [tf.TensorSpec([shape[0], *[None] * (1 + positions), shape[-1]])]
        specs.append({role: tf.TensorSpec(value.shape, value.dtype) for role, value in given.items()})

        def are_right(names: tuple[str, ...]) -> bool:
            graph = tf.function(functools.partial(self._predictive, names), specs, autograph=False)
            try:
                rows = [graph(outputs[:, row : row + 1], given) for row in range(_ROWS_OF_TRIAL)]
            except _NO_GRAPH:
                return False
            found = {name: np.concatenate([of_row[name] for of_row in rows]) for name in names}
            right = all(
                np.allclose(found[name], expected[name](), rtol=1e-4, atol=1e-5, equal_nan=True) for name in names
            )
            if right:
                self._graphs[names] = graph
            return right

        # One graph of all takes a fraction of the time that a graph of each does.
        if not are_right(names):
            names = tuple(name for name in names if are_right((name,)))
        if "mean" not in names:
            calibrated = "" if self.calibration is None else f" with the calibration {self.calibration!r}"
            raise ValueError(
                f"The likelihood {self.likelihood!r}{calibrated} cannot be exported: its mean is not made of "
                "TensorFlow operations that treat each row by itself. Define `mean(outputs, weights)` that way, or "
                "use `posterior_predictive`."
            )
        return names

    def _calibrated(self, outputs: tf.Tensor, weights: Mapping[str, Any]) -> tuple[tf.Tensor, Mapping[str, Any]]:
        weights = weights or self.weights
        if self.calibration is None:
            return outputs, weights
        return self.calibration.apply(outputs, weights, self.likelihood)

    def _expected(self, outputs: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
        predictive = PosteriorPredictive(
            self.likelihood, self.weights, outputs, {}, outputs.shape, weights_by_draw=self.weights_by_draw
        )
        if self.calibration is not None:
            predictive = predictive.calibrated_by(self.calibration)
        return {
            "mean": predictive.mean,
            "entropy": predictive.entropy,
            "aleatoric": predictive.aleatoric,
            "epistemic": predictive.epistemic,
            "lower": lambda: predictive.interval(self.level)[0],
            "upper": lambda: predictive.interval(self.level)[1],
        }
