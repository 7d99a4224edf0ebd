"""Estimators, which determine how the outputs of a layer depend on the draw of its weights in training."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfp_bnn.core.noise import NoiseSource, name_of_use
from tfp_bnn.layers.operations import LinearOperation
from tfp_bnn.layers.variational_weight import VariationalWeight
from tfp_bnn.posteriors import Posterior
from tfp_bnn.priors import Prior

COMBINATIONS = """
    estimator                 dense, rank 2   dense, rank > 2; convolutions   posteriors
    flipout                   yes             yes                             symmetric about the mean, independent per
                                                                              weight: mean_field_normal, delta
    grouped flipout           no              convolutions                    as flipout
    reparameterization        yes             yes                             all
    local reparameterization  exact           marginals exact, joint over     mean_field_normal, delta
                                              positions approximate

    The improper prior `flat` can only be used with the posterior `delta`.
"""


class Estimator:
    """Computes outputs before the activation from inputs and weight distributions. Abstract."""

    name = ""

    shares_draw = False
    """Whether all examples of a batch see the same draw of the weights."""

    @property
    def description(self) -> str:
        """The name, with the settings that the estimator has."""
        return self.name

    def takes(self, posterior: Posterior) -> bool:
        """Whether the estimator is correct for a posterior."""
        raise NotImplementedError

    def __call__(
        self,
        operation: LinearOperation,
        inputs: tf.Tensor,
        kernel: VariationalWeight,
        bias: VariationalWeight | tf.Tensor | None,
        noise: NoiseSource,
    ) -> tf.Tensor:
        """Computes the outputs for one draw.

        Args:
            operation: Linear operation of the layer.
            inputs: Tensor of shape `(batch, ...)`.
            kernel: Distribution of the kernel.
            bias: Distribution of the bias, its value of shape `(channels,)`, or None.
            noise: Source of the noise of the draw.

        Returns:
            Tensor of the outputs, in the dtype of the inputs.
        """
        raise NotImplementedError


def check_combination(estimator: Estimator, weight: str, posterior: Posterior, prior: Prior) -> None:
    """Refuses combinations that would compute something wrong.

    Raises:
        TypeError: The message names the weight and shows the table of combinations that exist.
    """
    if not estimator.takes(posterior):
        raise TypeError(
            f"The {estimator.name} estimator does not exist for {weight}_posterior={posterior!r}. Use a "
            f"Reparameterization layer, or another posterior. Combinations that exist:\n{COMBINATIONS}"
        )
    if prior.improper and posterior.has_spread:
        raise TypeError(
            f"{weight}_prior={prior!r} is improper and has no KL to {weight}_posterior={posterior!r}. Use the "
            f"posterior 'delta', or another prior. Combinations that exist:\n{COMBINATIONS}"
        )


class Reparameterization(Estimator):
    """One draw of the weights, w = g(noise), shared by the whole batch (Kingma & Welling 2014). Costs one operation."""

    name = "reparameterization"
    shares_draw = True

    def takes(self, posterior: Posterior) -> bool:
        """Always True: any posterior can be drawn from."""
        return True

    def __call__(
        self,
        operation: LinearOperation,
        inputs: tf.Tensor,
        kernel: VariationalWeight,
        bias: VariationalWeight | tf.Tensor | None,
        noise: NoiseSource,
    ) -> tf.Tensor:
        """Applies the operation to one draw of the weights."""
        outputs = operation(inputs, kernel.sample(noise))
        if isinstance(bias, VariationalWeight):
            bias = bias.sample(noise)
        return outputs if bias is None else operation.add_bias(outputs, bias)


PLAIN_DRAW = Reparameterization()


def has_spread(*weights: VariationalWeight | tf.Tensor | None) -> bool:
    """Whether a draw of any of the weights differs from its mean: points cost one operation, whatever the estimator."""
    return any(isinstance(weight, VariationalWeight) and weight.posterior_spec.has_spread for weight in weights)


def _with_mean_bias(
    operation: LinearOperation, outputs: tf.Tensor, bias: VariationalWeight | tf.Tensor | None
) -> tf.Tensor:
    """The outputs with the mean of a Bayesian bias, or with a bias without a distribution."""
    if bias is None:
        return outputs
    return operation.add_bias(outputs, bias.mean if isinstance(bias, VariationalWeight) else bias)


def name_prefix(kernel: VariationalWeight) -> str:
    """Prefix of the names of the signs for a kernel: a layer with two kernels draws the signs of each separately."""
    return "" if kernel.name == "kernel" else f"{kernel.name}_"


class Flipout(Estimator):
    """One draw of the perturbation, with signs flipped per example (Wen et al. 2018). Costs two operations.

    outputs_n = op(x_n, mean) + op(x_n * s_n, perturbation) * r_n,   s_n, r_n exactly +1 or -1 per channel

    Each example sees a draw from the correct distribution, and the draws of two examples are uncorrelated. The
    perturbation of a Bayesian bias is flipped by r_n too, like the kernel row of a constant input; one that lacks an
    axis of r_n, as that of an `EinsumDense` may, has signs of its own. `tfp.layers` shares the perturbation of the bias
    between the examples, which leaves them correlated.
    """

    name = "flipout"

    def takes(self, posterior: Posterior) -> bool:
        """Whether the posterior is symmetric and independent per weight, or a point."""
        # A point is symmetric about itself.
        return posterior.symmetric_and_independent or not posterior.has_spread

    def __call__(
        self,
        operation: LinearOperation,
        inputs: tf.Tensor,
        kernel: VariationalWeight,
        bias: VariationalWeight | tf.Tensor | None,
        noise: NoiseSource,
    ) -> tf.Tensor:
        """Applies the operation to the mean and to the perturbation, with signs flipped per example."""
        if not has_spread(kernel, bias):
            return PLAIN_DRAW(operation, inputs, kernel, bias, noise)
        of_kernel = name_prefix(kernel)
        outputs = operation(inputs, kernel.mean)
        of_inputs, of_outputs = operation.sign_shapes(inputs, outputs)
        input_signs = tf.cast(noise.signs(f"{of_kernel}input_signs", of_inputs), inputs.dtype)
        perturbation = operation(inputs * input_signs, kernel.perturbation(noise))
        if isinstance(bias, VariationalWeight):
            of_bias = operation.sign_shape_of_bias(bias.shape, of_outputs)
            change = bias.perturbation(noise)
            if of_bias[1:] == of_outputs[1:]:
                perturbation = operation.add_bias(perturbation, change)
            else:
                # One entry is for outputs of several signs, of which no draw of the bias has more than one.
                signs = tf.cast(noise.signs(f"{bias.name}_signs", of_bias), outputs.dtype)
                outputs += tf.cast(change, outputs.dtype) * signs
        output_signs = tf.cast(noise.signs(f"{of_kernel}output_signs", of_outputs), outputs.dtype)
        return _with_mean_bias(operation, outputs + perturbation * output_signs, bias)


class LocalReparameterization(Estimator):
    """Draws the outputs instead of the weights (Kingma, Salimans & Welling 2015). Costs two operations.

    outputs ~ N(op(x, mean) + bias mean, op(x^2, variance) + bias variance),   independent per output

    For a dense layer on inputs of rank 2 this is the exact distribution, and examples are independent. If several
    positions share a kernel (convolutions, dense layers on rank 3 or more), every output has its exact marginal
    distribution, but the outputs at two positions are drawn independently although the shared kernel would correlate
    them. The joint distribution is then approximate. So it is for a layer that is used several times in one forward
    pass: each use draws its outputs.
    """

    name = "local reparameterization"

    def takes(self, posterior: Posterior) -> bool:
        """Whether the posterior is an independent normal per weight, or a point."""
        # A point is a normal without variance.
        return posterior.independent_normal or not posterior.has_spread

    def __call__(
        self,
        operation: LinearOperation,
        inputs: tf.Tensor,
        kernel: VariationalWeight,
        bias: VariationalWeight | tf.Tensor | None,
        noise: NoiseSource,
    ) -> tf.Tensor:
        """Draws the outputs from their mean and variance."""
        if not has_spread(kernel, bias):
            return PLAIN_DRAW(operation, inputs, kernel, bias, noise)
        outputs = operation(inputs, kernel.mean)
        # Squares overflow and underflow in half precision.
        variance = operation(_squares(tf.cast(inputs, tf.float32)), kernel.variance)
        if isinstance(bias, VariationalWeight):
            variance = operation.add_bias(variance, bias.variance)
        scale = _square_root(variance)
        drawn = scale * noise.normal(name_of_use("outputs", kernel), tf.shape(scale))
        return _with_mean_bias(operation, outputs + tf.cast(drawn, outputs.dtype), bias)


@tf.custom_gradient
def _square_root(variance: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """The square root, with the gradient 0 at 0: inputs that are all 0 give outputs without variance."""
    root = tf.sqrt(variance)
    return root, lambda upstream: tf.math.divide_no_nan(0.5 * upstream, root)


def _squares(inputs: tf.Tensor) -> tf.Tensor:
    """The squares of inputs, which can be sparse."""
    # TensorFlow turns `**2`, a power, into a square only where it knows the size of the batch.
    if isinstance(inputs, tf.SparseTensor):
        return inputs.with_values(tf.square(inputs.values))
    return tf.square(inputs)
