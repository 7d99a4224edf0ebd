"""What a likelihood is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.registry import Spec, SpecRegistry

Weights = Mapping[str, Any]


class Likelihood(Spec):
    """p(y | outputs). Abstract.

    `outputs` has the shape `(..., batch, channels)`: a leading axis of Monte Carlo samples is welcome.
    """

    task: Literal["classification", "regression"]

    def add_weights(self, add_weight: Callable[..., keras.Variable]) -> dict[str, keras.Variable]:
        """Makes the variables that the likelihood learns, by their role. None by default."""
        return {}

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        """p(y | outputs) with batch shape `(..., batch)`."""
        raise NotImplementedError

    def targets(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """`y` in the shape and dtype of the distribution's events.

        Raises:
            ValueError: when the shape of `y` does not fit `outputs`, which have no sample axis here.
        """
        raise NotImplementedError

    def log_prob(self, y: tf.Tensor, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Log p(y | outputs), in nats, of shape `(batch,)`, float32."""
        outputs = tf.cast(outputs, tf.float32)
        return self.distribution(outputs, weights).log_prob(self.targets(y, outputs))

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        """What metrics receive: probabilities or means, never logits."""
        raise NotImplementedError

    def check_targets(self, y: np.ndarray, num_outputs: int) -> None:
        """Refuses targets that cannot have come from this likelihood.

        Args:
            y: the targets, an array.
            num_outputs: size of the last axis of the outputs.

        Raises:
            ValueError: says what came, what was expected and how to mend it.
        """
        raise NotImplementedError

    def entropy(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Entropy of the predictive, the mixture over the first axis of `outputs`, in nats."""
        raise NotImplementedError

    def aleatoric(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """The part of the uncertainty that knowing the weights would not remove."""
        raise NotImplementedError

    def epistemic(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """The part of the uncertainty that comes from not knowing the weights."""
        raise NotImplementedError

    def quantiles(self, outputs: tf.Tensor, weights: Weights, levels: Sequence[float]) -> np.ndarray:
        """Quantiles, with the levels along the first axis: of the probabilities over the weight draws by default."""
        return np.quantile(self.mean(outputs).numpy(), levels, axis=0).astype(np.float32)

    def parameters(self, weights: Weights) -> dict[str, np.ndarray]:
        """What was learned, in natural units, float32; empty when nothing is."""
        return {}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """The inverse of `parameters`."""


LIKELIHOODS: SpecRegistry[Likelihood] = SpecRegistry("likelihood")


class Discrete(Likelihood):
    """The information-theoretic decomposition, shared by the discrete likelihoods.

    predictive entropy (total) = expected entropy (aleatoric) + mutual information of y and the weights (epistemic)

    References:
        Houlsby et al. 2011, https://arxiv.org/abs/1112.5745; Depeweg et al. 2018, https://arxiv.org/abs/1710.07283
    """

    task = "classification"

    def entropy(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Entropy of the averaged probabilities, in nats, of shape `(batch,)`."""
        return self._entropy(tf.reduce_mean(self.mean(outputs), axis=0))

    def aleatoric(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Expected entropy, in nats, of shape `(batch,)`."""
        return tf.reduce_mean(self._entropy(self.mean(outputs)), axis=0)

    def epistemic(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Mutual information of the label and the weights, in nats, of shape `(batch,)`."""
        return tf.maximum(self.entropy(outputs, weights) - self.aleatoric(outputs, weights), 0.0)

    def _entropy(self, probabilities: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError
