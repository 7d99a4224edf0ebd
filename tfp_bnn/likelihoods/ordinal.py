"""The ordinal likelihood: one class of several that have an order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import scipy.special
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import require_array, require_integer
from tfp_bnn.likelihoods.base import LIKELIHOODS, Weights
from tfp_bnn.likelihoods.discrete import ClassLikelihood


@LIKELIHOODS.register("ordinal")
class Ordinal(ClassLikelihood):
    """P(y <= k) = sigmoid(cutpoint_k - output): one class of K that have an order, such as grades or stages.

    The proportional odds model, that of `tfd.OrderedLogistic`. The network has one output, the place of an example on
    the scale from class 0 to class K - 1. The K - 1 cutpoints between the classes are in increasing order and learned
    with the weights, as the first one and the logarithms of the gaps. They start where all classes are equally likely
    for an output of 0. Labels are integers from 0 to K - 1 of shape `(batch,)` or `(batch, 1)`.

    Predictions are probabilities of the classes, as for 'categorical', and have the same scores. Because the classes
    have an order, there is a probability integral transform too.

    Args:
        num_classes: K, an integer >= 2.
        missing: See `Likelihood`.

    References:
        McCullagh 1980, Regression Models for Ordinal Data, https://doi.org/10.1111/j.2517-6161.1980.tb01109.x
    """

    why_no_calibrator = "dividing its output by a temperature would shift the classes, whose cutpoints are learned"

    def __init__(self, num_classes: int, missing: float | str | None = None) -> None:
        super().__init__(missing)
        self._num_classes = require_integer("num_classes", num_classes, 2)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"num_classes": self._num_classes, **super().get_config()}

    def add_weights(self, add_weight: Callable[..., keras.Variable]) -> dict[str, keras.Variable]:
        """Creates `raw_cutpoints`, `(K - 1,)`, float32: the first cutpoint and the logarithms of the gaps."""
        start = _raw_cutpoints(scipy.special.logit(np.arange(1, self._num_classes) / self._num_classes))
        return {
            "raw_cutpoints": add_weight(
                name="likelihood_cutpoints", shape=start.shape, initializer=lambda shape, dtype=None: start
            )
        }

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Categorical:
        """Batch shape `(..., batch)`, event shape `()`."""
        # That of tfd.OrderedLogistic, whose gradient is NaN where one class has almost all of the probability.
        raw = tf.convert_to_tensor(weights["raw_cutpoints"])
        below = tf.math.log_sigmoid(_cutpoints(raw) - outputs)
        above = tf.math.log_sigmoid(outputs - _cutpoints(raw))
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a))
        gaps = tf.math.log(-tf.math.expm1(-tf.exp(raw[..., 1:])))
        between = below[..., 1:] + above[..., :-1] + gaps
        return tfd.Categorical(logits=tf.concat([below[..., :1], between, above[..., -1:]], axis=-1))

    def num_classes(self, num_outputs: int) -> int:
        """K."""
        return self._num_classes

    def num_outputs_for(self, y: npt.NDArray[Any], num_classes: int | None = None) -> int:
        """1. Raises a ValueError if the data have another number of classes."""
        if num_classes not in (None, self._num_classes):
            raise ValueError(
                f"The likelihood {self!r} has {self._num_classes} classes, but the data have {num_classes}. Change its "
                "`num_classes`."
            )
        return 1

    def check_outputs(self, num_outputs: int) -> None:
        """Refuses any number of outputs but one."""
        if num_outputs != 1:
            raise ValueError(
                f"The likelihood {self!r} needs one output, the place of an example on the scale of its classes, but "
                f"the model has {num_outputs}. Build it with 1 output, or use likelihood='categorical' for classes "
                "without an order."
            )

    def mean(self, outputs: tf.Tensor, weights: Weights | None = None) -> tf.Tensor:
        """Class probabilities, `(..., batch, classes)`, float32."""
        return self.distribution(tf.cast(outputs, tf.float32), weights or {}).probs_parameter()

    def levels(self, outputs: tf.Tensor, weights: Weights, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P(Y < y) and P(Y <= y) under each component, both `(S, batch, 1)`; NaN for missing labels."""
        rows, observed = self.observed_rows(y, (), outputs.shape[-1])
        labels = self.target_array(rows, outputs.shape[-1])
        at_most = np.cumsum(self.mean(outputs, weights).numpy(), axis=-1, dtype=np.float64)
        found = np.concatenate([np.zeros_like(at_most[..., :1]), at_most], axis=-1)
        place = np.broadcast_to(labels[:, None], (*found.shape[:-1], 1))
        there = True if observed is None else observed.reshape(-1, 1)
        below, at_most = (np.take_along_axis(found, at, axis=-1) for at in (place, place + 1))
        return np.where(there, below, np.nan), np.where(there, at_most, np.nan)

    def parameters(self, weights: Weights) -> dict[str, np.ndarray]:
        """The learned `cutpoints`, `(K - 1,)`, in increasing order."""
        return {"cutpoints": _cutpoints(weights["raw_cutpoints"]).numpy()}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the cutpoints. Raises a ValueError unless they are finite and increase."""
        cutpoints = require_array("likelihood", values, "cutpoints", (self._num_classes - 1,))
        if not (np.diff(cutpoints) > 0).all():
            raise ValueError(f"The cutpoints of the likelihood must increase, but got {cutpoints.tolist()}.")
        weights["raw_cutpoints"].assign(_raw_cutpoints(cutpoints))


def _cutpoints(raw: tf.Tensor) -> tf.Tensor:
    raw = tf.convert_to_tensor(raw)
    return tf.cumsum(tf.concat([raw[..., :1], tf.exp(raw[..., 1:])], axis=-1), axis=-1)


def _raw_cutpoints(cutpoints: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.concatenate([cutpoints[:1], np.log(np.diff(cutpoints))]).astype(np.float32)
