"""The linear operations of the layers: what is computed with a kernel, however it was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class LinearOperation:
    """An operation that is linear in its inputs and in its kernel. Abstract.

    `channel_axis` is the axis of the channels in inputs and outputs: flipout draws one sign per example and channel.
    """

    channel_axis = -1

    def __call__(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Applies the kernel, cast to the dtype of the inputs."""
        raise NotImplementedError

    def along_channels(self, vector: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
        """Reshapes `(channels,)` so that it broadcasts against `like`, and casts it to its dtype."""
        shape = [1] * len(like.shape)
        shape[self.channel_axis] = -1
        return tf.reshape(tf.cast(vector, like.dtype), shape)

    def sign_shape(self, tensor: tf.Tensor) -> list[Any]:
        """Shape of one sign per example and channel of `tensor`, broadcastable against it."""
        shape: list[Any] = [1] * len(tensor.shape)
        shape[0] = tf.shape(tensor)[0]
        shape[self.channel_axis] = tensor.shape[self.channel_axis]
        return shape


class MatMul(LinearOperation):
    """`inputs @ kernel` over the last axis: the operation of `keras.layers.Dense`."""

    def __call__(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return keras.ops.matmul(inputs, tf.cast(kernel, inputs.dtype))


class Convolution(LinearOperation):
    """Convolution of any rank: the operation of `keras.layers.Conv*D`.

    Args:
        strides: one for each spatial dimension.
        padding: `"valid"` or `"same"`.
        dilation_rate: one for each spatial dimension.
        data_format: `"channels_last"` or `"channels_first"`.
    """

    def __init__(self, strides: Sequence[int], padding: str, dilation_rate: Sequence[int], data_format: str) -> None:
        self.strides = tuple(strides)
        self.padding = padding
        self.dilation_rate = tuple(dilation_rate)
        self.data_format = data_format
        self.channel_axis = -1 if data_format == "channels_last" else 1

    def __call__(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return keras.ops.conv(
            inputs,
            tf.cast(kernel, inputs.dtype),
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
