"""Bayesian dense layers over any axes."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.estimators import Flipout, Reparameterization
from tfp_bnn.layers.operations import Einsum


class _VariationalEinsumDense(VariationalLayer, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense` with a distribution over its kernel."""

    @property
    def operation(self) -> Einsum:
        """The product of the equation."""
        return Einsum(self.equation)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Creates the weights.

        Args:
            input_shape: Shape of the inputs.

        Raises:
            ValueError: If the equation does not fit the inputs, or its kernel has the axis of the examples.
        """
        super().build(input_shape)
        of_inputs, of_kernel, _ = self.operation.axes(len(input_shape))
        if of_inputs[0] in of_kernel:
            raise ValueError(
                f"The kernel of the layer {self.name!r} has the first axis of the inputs, {of_inputs[0]!r} in the "
                f"equation {self.equation!r}: that of the examples, which share the kernel."
            )
        sizes = {axis: input_shape[axis] for axis, letter in enumerate(of_inputs) if letter in of_kernel}
        self.input_spec = keras.InputSpec(ndim=len(input_shape), axes=sizes)

    def _absent_weights(self) -> dict[str, str]:
        return {"bias": "bias_axes=None"} if self.bias_axes is None else {}


@keras.saving.register_keras_serializable(package="tfp_bnn")
class EinsumDenseFlipout(_VariationalEinsumDense):
    """Densely-connected Bayesian layer over any axes, trained with flipout.

    kernel ~ q(kernel);   outputs = activation(einsum(equation, inputs, kernel) + bias)

    In training, each example n sees its own perturbation of the mean:
    einsum(inputs_n, mean) + einsum(inputs_n * s_n, perturbation) * r_n. The signs s_n, r_n are exactly +1 or -1, one
    for each entry along the axes that inputs or outputs share with the kernel. Costs two products; requires a posterior
    that is symmetric and independent per weight.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

    Args: Those of `keras.layers.EinsumDense`, without LoRA and quantization; initializer, regularizer and constraint of
        the kernel act on its posterior mean. `kernel_prior`, `kernel_posterior`, `bias_prior`, `bias_posterior`, `seed`
        and `kl_weight` are those of `DenseFlipout`.

    Raises:
        ValueError: If the equation does not fit the inputs, or the kernel has the axis of the examples.

    Input shape: As the equation says, `(batch, ...)`.
    Output shape: As the equation says, in the compute dtype; variational parameters and KL are float32 under any dtype
    policy.

    The noise is that of `DenseFlipout`.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.EinsumDenseFlipout("abc,cde->abde", (None, 2, 4), bias_axes="de", seed=0)
        >>> layer(np.ones((2, 7, 5), "float32"), training=True).shape
        TensorShape([2, 7, 2, 4])
        >>> layer.kernel_posterior.event_shape
        TensorShape([5, 2, 4])

    References:
        Wen et al. 2018, https://arxiv.org/abs/1803.04386
    """

    estimator = Flipout()


@keras.saving.register_keras_serializable(package="tfp_bnn")
class EinsumDenseReparameterization(_VariationalEinsumDense):
    """Densely-connected Bayesian layer over any axes, trained with the reparameterization estimator.

    kernel ~ q(kernel);   outputs = activation(einsum(equation, inputs, kernel) + bias)

    The whole batch shares one draw of the kernel. This costs one product, but the gradient noise does not decrease with
    the batch size.

    `kl()` is KL(q || prior) in nats, summed over the weights and not scaled. A `VariationalModel` divides it by N.

    Args, shapes, dtypes, errors and randomness are those of `EinsumDenseFlipout`, with any posterior.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.EinsumDenseReparameterization("...x,xy->...y", 3, kernel_posterior="radial", seed=0)
        >>> layer(np.ones((2, 7, 5), "float32"), training=True).shape
        TensorShape([2, 7, 3])

    References:
        Kingma and Welling 2014, Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114
    """

    estimator = Reparameterization()
