"""Likelihoods of classes and labels: unordered targets whose uncertainty is measured by entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfp_bnn.likelihoods.base import Likelihood, Weights
from tfp_bnn.likelihoods.targets import MARKED_ADVICE, check_rank_is_known, checked


class Discrete(Likelihood):
    """The information-theoretic decomposition, shared by likelihoods of classes and labels. Abstract.

    predictive entropy (total) = expected entropy (aleatoric) + mutual information of y and the weights (epistemic)

    References:
        Houlsby et al. 2011, https://arxiv.org/abs/1112.5745; Depeweg et al. 2018, https://arxiv.org/abs/1710.07283
    """

    task = "classification"

    def entropy(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Entropy of the averaged probabilities, in nats, of shape `(batch,)`."""
        return self._entropy(tf.reduce_mean(self.mean(outputs, weights), axis=0))

    def aleatoric(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Expected entropy, in nats, of shape `(batch,)`."""
        return tf.reduce_mean(self._entropy(self.mean(outputs, weights)), axis=0)

    def epistemic(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Mutual information of the target and the weights, in nats, of shape `(batch,)`."""
        return tf.maximum(self.entropy(outputs, weights) - self.aleatoric(outputs, weights), 0.0)

    def quantiles(self, outputs: tf.Tensor, weights: Weights, levels: Sequence[float]) -> np.ndarray:
        """Quantiles of the probabilities over the weight draws, `(levels, batch, classes)`."""
        return np.quantile(self.mean(outputs, weights).numpy(), levels, axis=0).astype(np.float32)

    def graph_quantiles(self, outputs: tf.Tensor, weights: Weights, levels: Sequence[float]) -> tf.Tensor:
        """`quantiles`, to rounding, by TensorFlow operations alone."""
        ordered = tf.sort(self.mean(outputs, weights), axis=0)
        last = ordered.shape[0] - 1
        positions = last * np.asarray(levels).reshape(-1, *[1] * (len(ordered.shape) - 1))
        below = np.floor(positions).astype(np.int32)
        at, after = (tf.gather(ordered, index.reshape(-1)) for index in (below, np.minimum(below + 1, last)))
        return at + (positions - below).astype(np.float32) * (after - at)

    def levels(self, outputs: tf.Tensor, weights: Weights, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Raises a ValueError: classes and labels have no order."""
        raise ValueError(
            f"The targets of the likelihood {self!r} have no order, so there is no probability of being below one. "
            "Use `log_prob`, or a reliability diagram, to judge its probabilities."
        )

    def _entropy(self, probabilities: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError


class ClassLikelihood(Discrete):
    """One class of several. Abstract: a subclass defines `distribution`.

    The distribution is over the integers from 0 to `num_classes(num_outputs)` - 1, with event shape `()`, such as
    `tfd.Categorical` or `tfd.OrderedLogistic`. Labels are integers of shape `(batch,)` or `(batch, 1)`.
    """

    def num_classes(self, num_outputs: int) -> int:
        """The number of classes; by default one per output."""
        return num_outputs

    def num_targets(self, num_outputs: int) -> int:
        """Always 1, the class."""
        return 1

    def num_outputs_for(self, y: npt.NDArray[Any], num_classes: int | None = None) -> int:
        """One output per class: the columns of one-hot labels, else `num_classes`, else the largest label + 1.

        Missing labels do not count.
        """
        columns = y.reshape(len(y), -1).shape[1]
        if columns > 1:
            return columns
        return max(2, int(self.without_missing(y).max()) + 1 if num_classes is None else num_classes)

    def chance_nll(self, num_outputs: int) -> float | None:
        """The NLL of equal probabilities, log(classes), in nats."""
        return math.log(max(2, self.num_classes(num_outputs)))

    def training_metrics(self, num_outputs: int) -> list[Any]:
        """The accuracy of the most probable class."""
        return ["accuracy"]

    def mean(self, outputs: tf.Tensor, weights: Weights | None = None) -> tf.Tensor:
        """Class probabilities, `(..., batch, classes)`, float32."""
        outputs = tf.cast(outputs, tf.float32)
        distribution = self.distribution(outputs, weights or {})
        classes = range(self.num_classes(outputs.shape[-1]))
        log_probs = [distribution.log_prob(tf.constant(index, distribution.dtype)) for index in classes]
        return tf.exp(tf.cast(tf.stack(log_probs, axis=-1), tf.float32))

    def sample(self, outputs: tf.Tensor, weights: Weights, num_draws: int, seed: int) -> np.ndarray:
        """Classes drawn from the mixture, integers of shape `(num_draws, batch)`."""
        return super().sample(outputs, weights, num_draws, seed)[..., 0].astype(np.int64)

    def targets(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Labels of shape `(batch,)` in the dtype of the distribution."""
        classes = self.num_classes(outputs.shape[-1])
        check_rank_is_known(y)
        if len(y.shape) == 2 and y.shape[-1] == 1:
            y = y[:, 0]
        if len(y.shape) != 1:
            raise ValueError(self._shape_message(tuple(y.shape), classes))
        y = tf.convert_to_tensor(y)
        labels = tf.cast(y, tf.int32)
        fits = (labels >= 0) & (labels < classes) & (tf.cast(labels, y.dtype) == y)
        message = f"Labels out of range: expected integers from 0 to {classes - 1}, but a batch has others."
        # The log-density of a label that does not exist could fail before the step is refused.
        labels = checked(tf.where(fits, labels, 0), tf.reduce_all(fits), message)
        return tf.cast(labels, self._probe(outputs.shape[-1]).dtype)

    def check_targets(self, y: np.ndarray, num_outputs: int) -> None:
        """Refuses labels that are not integers from 0 to the number of classes - 1."""
        self.check_outputs(num_outputs)
        classes = self.num_classes(num_outputs)
        if y.ndim > 2 or y.ndim == 0 or (y.ndim == 2 and y.shape[1] != 1):
            raise ValueError(self._shape_message(y.shape, classes))
        self._check_range(y, classes, f"the likelihood {self!r} has {classes} classes")

    def target_array(self, y: Any, num_outputs: int) -> npt.NDArray[Any]:
        """Labels as integers `(n,)`; for one-hot or soft labels the most probable class."""
        array = np.asarray(y)
        if array.ndim == 2:
            array = array[:, 0] if array.shape[1] == 1 else array.argmax(axis=1)
        return np.rint(array).astype(np.int64)

    def _check_range(self, y: np.ndarray, classes: int, reason: str) -> None:
        wrong = (y < 0) | (y >= classes) | (y != np.floor(y))
        if wrong.any():
            row = int(np.argmax(wrong.reshape(-1)))
            raise ValueError(
                f"Labels out of range: expected integers from 0 to {classes - 1}, because {reason}, but "
                f"{int(wrong.sum())} of {wrong.size} labels are not; the first is {y.reshape(-1)[row]} in row {row}. "
                f"Number the classes from 0, or build the model with more outputs. {MARKED_ADVICE}"
            )

    def _shape_message(self, shape: Sequence[int | None], classes: int) -> str:
        return (
            f"Labels of shape {tuple(shape)} do not fit the likelihood {self!r}: expected integers of shape (batch,), "
            f"from 0 to {classes - 1}."
        )

    def _entropy(self, probabilities: tf.Tensor) -> tf.Tensor:
        return -tf.reduce_sum(tf.math.xlogy(probabilities, probabilities), axis=-1)
