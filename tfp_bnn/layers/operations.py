"""The linear operations that layers apply with a kernel, however it was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class LinearOperation:
    """An operation that is linear in its inputs and in its kernel. Abstract.

    `channel_axis` is the axis of the channels in inputs and outputs. Flipout draws one sign per example and channel.
    """

    channel_axis = -1

    def __call__(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Applies the kernel, cast to the dtype of the inputs."""
        raise NotImplementedError

    def add_bias(self, outputs: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """Adds a bias of shape `(channels,)`, cast to the dtype of the outputs."""
        bias = tf.cast(bias, outputs.dtype)
        if self.channel_axis == -1:
            # TensorFlow fuses this with the operation, and its gradient with that of the operation.
            return tf.nn.bias_add(outputs, bias)
        return outputs + tf.reshape(bias, [-1, *[1] * (len(outputs.shape) - 2)])

    def sign_shape(self, tensor: tf.Tensor) -> list[Any]:
        """Returns the shape of one sign per example and channel of `tensor`, broadcastable against it."""
        shape: list[Any] = [1] * len(tensor.shape)
        shape[0] = tf.shape(tensor)[0]
        shape[self.channel_axis] = tensor.shape[self.channel_axis]
        return shape

    def sign_shapes(self, inputs: tf.Tensor, outputs: tf.Tensor) -> tuple[list[Any], list[Any]]:
        """Returns the shapes of the signs that flipout multiplies inputs and outputs by."""
        return self.sign_shape(inputs), self.sign_shape(outputs)

    def sign_shape_of_bias(self, shape: Sequence[int], of_outputs: list[Any]) -> list[Any]:
        """Returns the shape of the signs that flipout multiplies the perturbation of a bias by.

        Args:
            shape: That of the bias.
            of_outputs: That of the signs of the outputs, which by default are those of the bias.
        """
        return of_outputs


class MatMul(LinearOperation):
    """`inputs @ kernel` over the last axis: the operation of `keras.layers.Dense`."""

    def __call__(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Multiplies inputs `(..., in)` by a kernel `(in, out)`, in the dtype of the inputs."""
        return keras.ops.matmul(inputs, tf.cast(kernel, inputs.dtype))


class Lookup(LinearOperation):
    """Rows of a table by their ids: the operation of `keras.layers.Embedding`, linear in the one-hot code of the ids.

    Args:
        dtype: Dtype of the outputs.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def __call__(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Looks up ids of any shape in a table `(ids, out)`, and casts the rows to `dtype`."""
        return tf.cast(keras.ops.take(kernel, inputs, axis=0), self.dtype)


class Convolution(LinearOperation):
    """Convolution of any rank: the operation of `keras.layers.Conv*D`.

    Args:
        strides: Tuple with one stride per spatial dimension.
        padding: `"valid"`, `"same"`, or `"causal"` in one dimension.
        dilation_rate: Tuple with one rate per spatial dimension.
        data_format: `"channels_last"` or `"channels_first"`.
    """

    def __init__(self, strides: Sequence[int], padding: str, dilation_rate: Sequence[int], data_format: str) -> None:
        self.strides = tuple(strides)
        self.padding = padding
        self.dilation_rate = tuple(dilation_rate)
        self.data_format = data_format
        self.channel_axis = -1 if data_format == "channels_last" else 1

    def __call__(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolves the inputs, in their dtype."""
        if self.padding == "causal":
            inputs = self._pad_the_past(inputs, kernel.shape[0])
        return keras.ops.conv(inputs, tf.cast(kernel, inputs.dtype), **self._arguments())

    def _arguments(self) -> dict[str, Any]:
        return {
            "strides": self.strides,
            "padding": "valid" if self.padding == "causal" else self.padding,
            "dilation_rate": self.dilation_rate,
            "data_format": self.data_format,
        }

    def _pad_the_past(self, inputs: tf.Tensor, kernel_size: int) -> tf.Tensor:
        padding = [(0, 0)] * 3
        padding[1 if self.data_format == "channels_last" else 2] = (self.dilation_rate[0] * (kernel_size - 1), 0)
        return keras.ops.pad(inputs, padding)


class DepthwiseConvolution(Convolution):
    """Separate convolution of each channel: the operation of `keras.layers.DepthwiseConv2D`."""

    def __call__(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolves each channel of the inputs separately, in their dtype."""
        return keras.ops.depthwise_conv(inputs, tf.cast(kernel, inputs.dtype), **self._arguments())


class TransposedConvolution(Convolution):
    """The transpose of a convolution: the operation of `keras.layers.Conv2DTranspose`.

    Args:
        strides: Tuple with one stride per spatial dimension.
        padding: `"valid"` or `"same"`.
        dilation_rate: Tuple with one rate per spatial dimension.
        data_format: `"channels_last"` or `"channels_first"`.
        output_padding: Tuple with one value per spatial dimension, or None.
    """

    def __init__(
        self,
        strides: Sequence[int],
        padding: str,
        dilation_rate: Sequence[int],
        data_format: str,
        output_padding: Sequence[int] | None,
    ) -> None:
        super().__init__(strides, padding, dilation_rate, data_format)
        self.output_padding = None if output_padding is None else tuple(output_padding)

    def __call__(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Applies the transposed convolution to the inputs, in their dtype."""
        return keras.ops.conv_transpose(
            inputs, tf.cast(kernel, inputs.dtype), output_padding=self.output_padding, **self._arguments()
        )


class Einsum(LinearOperation):
    """`einsum(equation, inputs, kernel)`: the operation of `keras.layers.EinsumDense`.

    Flipout draws the signs of an example along the axes that the inputs share with the kernel, and along those that the
    outputs share with it: each weight is then multiplied by one sign of each kind. Along all other axes, the positions,
    the kernel is the same.

    Args:
        equation: Equation in the form of `keras.layers.EinsumDense`, such as `"abc,cd->abd"` or `"...x,xy->...y"`. The
            first axis of the inputs is that of the examples.
    """

    def __init__(self, equation: str) -> None:
        self.equation = equation

    def __call__(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Computes the product, in the dtype of the inputs."""
        return keras.ops.einsum(self.equation, inputs, tf.cast(kernel, inputs.dtype))

    def add_bias(self, outputs: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """Adds a bias, cast to the dtype of the outputs. Keras gives it a shape that broadcasts."""
        return outputs + tf.cast(bias, outputs.dtype)

    def sign_shapes(self, inputs: tf.Tensor, outputs: tf.Tensor) -> tuple[list[Any], list[Any]]:
        """Returns the shapes of one sign per example and axis of the kernel."""
        of_inputs, of_kernel, of_outputs = self.axes(len(inputs.shape))
        return _sign_shape(inputs, of_inputs, of_kernel), _sign_shape(outputs, of_outputs, of_kernel)

    def sign_shape_of_bias(self, shape: Sequence[int], of_outputs: list[Any]) -> list[Any]:
        """Returns the shape of the signs along those of their axes that the bias has: each entry has one sign."""
        of_bias = [1] * (len(of_outputs) - len(shape)) + list(shape)
        return [of_outputs[0], *(1 if b == 1 else size for size, b in zip(of_outputs[1:], of_bias[1:], strict=True))]

    def axes(self, input_rank: int) -> tuple[str, str, str]:
        """Returns a letter for each axis of inputs, kernel and outputs; axes under the dots are dots.

        Args:
            input_rank: Rank of the inputs.
        """
        of_inputs, rest = self.equation.split(",")
        of_kernel, of_outputs = rest.split("->")
        dots = "." * (input_rank - len(of_inputs.replace("...", "")))
        return of_inputs.replace("...", dots), of_kernel, of_outputs.replace("...", dots)


def _sign_shape(tensor: tf.Tensor, axes: str, of_kernel: str) -> list[Any]:
    sizes = tensor.shape[1:]
    return [tf.shape(tensor)[0], *(n if axis in of_kernel else 1 for n, axis in zip(sizes, axes[1:], strict=True))]


class Scaling(LinearOperation):
    """Product with a gain along some axes: the last step of a normalization.

    Args:
        axes: Axes of the inputs that have a gain, in ascending order; may be negative.
    """

    def __init__(self, axes: Sequence[int]) -> None:
        self.axes = tuple(axes)

    def __call__(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Multiplies the inputs by the gain, in their dtype."""
        return inputs * self._along_axes(kernel, inputs)

    def add_bias(self, outputs: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """Adds an offset that has the sizes of the axes, cast to the dtype of the outputs."""
        return outputs + self._along_axes(bias, outputs)

    def _along_axes(self, vector: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
        shape = [1] * len(like.shape)
        for axis in self.axes:
            shape[axis] = like.shape[axis]
        return tf.reshape(tf.cast(vector, like.dtype), shape)
