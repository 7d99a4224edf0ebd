"""What the networks for images share: raw pixels of any size and range, grey or in colour, are converted inside."""

from __future__ import annotations

from typing import Annotated, Any

import keras
from pydantic import Field, model_validator

from zoo.architectures.base import PixelMax, Width, rescaled
from zoo.architectures.convolutional import ConvolutionalConfig
from zoo.datasets.images import LUMA


@keras.saving.register_keras_serializable(package="zoo")
class Grey(keras.layers.Layer):
    """Lightness of RGB images, ITU-R BT.601: `(..., 3)` -> `(..., 1)`."""

    def call(self, inputs: Any) -> Any:
        """Returns the weighted sum of the channels."""
        return keras.ops.sum(inputs * keras.ops.convert_to_tensor(LUMA, inputs.dtype), axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of one channel."""
        return (*input_shape[:-1], 1)


class ImageConfig(ConvolutionalConfig):
    """Config shared by the networks for images.

    Attributes:
        pixel_max: Maximum of raw pixels, which start at 0; they are divided by it. None for no rescaling.
        grey: Whether the model turns RGB images into their lightness, one channel.
        resize: Rows and columns to which the model resizes the images (bilinear); None for no resizing.
    """

    input_shape: Annotated[tuple[Width, ...], Field(min_length=3, max_length=3)] = (28, 28, 1)
    num_outputs: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 10
    pixel_max: PixelMax = 255.0
    grey: Annotated[bool, Field(strict=True)] = False
    resize: tuple[Width, Width] | None = None

    @model_validator(mode="after")
    def _grey_has_colours(self) -> ImageConfig:
        if self.grey and self.input_shape[-1] != 3:
            raise ValueError(f"grey is for images of 3 channels, but input_shape is {self.input_shape}")
        return self

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Rows, columns and channels of the images that the first convolution gets."""
        return (*(self.resize or self.input_shape[:2]), 1 if self.grey else self.input_shape[-1])

    def check_size(self, least: int, reason: str) -> None:
        """Refuses images that are too small for the network.

        Args:
            least: Least number of rows and of columns.
            reason: What smaller ones are too small for, for the message.
        """
        rows, columns, _ = self.image_shape
        if min(rows, columns) < least:
            raise ValueError(
                f"images of {rows}x{columns} are too small{reason}. Expected at least {least}x{least}; use resize, as "
                f"in resize=({max(28, least)}, {max(28, least)})"
            )

    def images(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """The images of shape `image_shape`, from raw pixels."""
        x = rescaled(self.pixel_max, inputs)
        if self.grey:
            x = Grey(name="grey")(x)
        return x if self.resize is None else keras.layers.Resizing(*self.resize, name="resize")(x)
