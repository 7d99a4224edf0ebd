"""Estimators: how the outputs of a layer depend on the draw of its weights while it is trained."""

from __future__ import annotations

import tensorflow as tf

from tfp_bnn.layers.noise import NoiseSource
from tfp_bnn.layers.operations import LinearOperation
from tfp_bnn.layers.variational_weight import VariationalWeight
from tfp_bnn.posteriors import Posterior

COMBINATIONS = """
    estimator           posteriors
    flipout             symmetric about its mean and independent per weight: mean_field_normal
    reparameterization  all
"""


class Estimator:
    """Computes outputs, before the activation, from inputs and weight distributions. Abstract."""

    def check(self, posterior: Posterior) -> None:
        """Refuses a posterior that the estimator would be wrong for.

        Raises:
            TypeError: naming the table of combinations that exist.
        """

    def __call__(
        self,
        operation: LinearOperation,
        inputs: tf.Tensor,
        kernel: VariationalWeight,
        bias: VariationalWeight | tf.Tensor | None,
        noise: NoiseSource,
    ) -> tf.Tensor:
        """The outputs for one draw.

        Args:
            operation: the linear operation of the layer.
            inputs: `(batch, ...)`.
            kernel: the distribution of the kernel.
            bias: a distribution, a value of shape `(channels,)`, or None.
            noise: where the draw comes from.

        Returns:
            A tensor in the dtype of the inputs.
        """
        raise NotImplementedError


class Reparameterization(Estimator):
    """One draw of the weights, w = g(noise), used for the whole batch (Kingma & Welling 2014). Costs one operation."""

    def __call__(
        self,
        operation: LinearOperation,
        inputs: tf.Tensor,
        kernel: VariationalWeight,
        bias: VariationalWeight | tf.Tensor | None,
        noise: NoiseSource,
    ) -> tf.Tensor:
        outputs = operation(inputs, kernel.sample(noise))
        if isinstance(bias, VariationalWeight):
            bias = bias.sample(noise)
        return outputs if bias is None else outputs + operation.along_channels(bias, outputs)


class Flipout(Estimator):
    """One draw of the perturbation, with signs flipped per example (Wen et al. 2018). Costs two operations.

    outputs_n = op(x_n, mean) + op(x_n * s_n, perturbation) * r_n,   s_n, r_n exactly +1 or -1 per channel

    Each example sees a draw with the right distribution, and the draws of two examples are uncorrelated. The
    perturbation of a Bayesian bias is flipped by r_n too, like the kernel row of a constant input: `tfp.layers` shares
    it between the examples, which leaves them correlated.
    """

    def check(self, posterior: Posterior) -> None:
        if not posterior.symmetric_and_independent:
            raise TypeError(
                f"Flipout needs a posterior that is symmetric about its mean and independent per weight, but got "
                f"{posterior!r}. Use a "
                f"Reparameterization layer, or another posterior. Combinations that exist:\n{COMBINATIONS}"
            )

    def __call__(
        self,
        operation: LinearOperation,
        inputs: tf.Tensor,
        kernel: VariationalWeight,
        bias: VariationalWeight | tf.Tensor | None,
        noise: NoiseSource,
    ) -> tf.Tensor:
        outputs = operation(inputs, kernel.mean)
        input_signs = tf.cast(noise.signs("input_signs", operation.sign_shape(inputs)), inputs.dtype)
        perturbation = operation(inputs * input_signs, kernel.perturbation(noise))
        if isinstance(bias, VariationalWeight):
            perturbation += operation.along_channels(bias.perturbation(noise), perturbation)
            bias = bias.mean
        output_signs = tf.cast(noise.signs("output_signs", operation.sign_shape(outputs)), outputs.dtype)
        outputs += perturbation * output_signs
        return outputs if bias is None else outputs + operation.along_channels(bias, outputs)
