"""Random augmentation of training images that depends only on (seed, epoch, index).

A random generator inside a parallel `tf.data` map is not reproducible and may repeat itself. A resumed run must see
exactly the images that an uninterrupted one would have seen.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from zoo.recipes.schema import AugmentationRecipe

# Random numbers per transformation.
_NUM_DRAWS = 7


def augmentation_draws(seed: int, epoch: int, num_examples: int) -> npt.NDArray[np.float32]:
    """Draws the random numbers of an epoch.

    Args:
        seed: Training seed.
        epoch: Counted from 0.
        num_examples: Number of examples in the training split.

    Returns:
        Uniform float32 numbers in [0, 1) of shape `(num_examples, 7)`. Row i belongs to example i.
    """
    return tf.random.stateless_uniform((num_examples, _NUM_DRAWS), (seed, epoch), alg="philox").numpy()


def augment(images: npt.NDArray[Any], draws: npt.NDArray[np.float32], recipe: AugmentationRecipe) -> npt.NDArray[Any]:
    """Crops, rotates, flips and shifts each image by its own draws, in one interpolation. Gaps are filled with black.

    Args:
        images: Images of shape `(batch, height, width, channels)` and any real dtype.
        draws: Rows of `augmentation_draws`, one per image.
        recipe: Limits of each transformation.

    Returns:
        Images of the same shape and dtype. Whole shifts and flips move pixels without changing them; crops and
        rotations are bilinear.
    """
    if recipe.crop == 1 and not recipe.rotation:
        return _moved(images, draws, recipe)
    return _interpolated(images, draws, recipe).numpy()


def _moved(images: npt.NDArray[Any], draws: npt.NDArray[np.float32], recipe: AugmentationRecipe) -> npt.NDArray[Any]:
    """Flips and shifts by whole pixels: the same as `_interpolated`, bit for bit, at a fraction of its cost."""
    height, width = images.shape[1:3]
    right, down = _whole(draws[:, -2:], recipe.shift).astype(np.int64).T
    if recipe.flip:
        mirrored = draws[:, 0] < 0.5
        images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        # The shift is one of the original.
        right = np.where(mirrored, -right, right)
    # Beyond the image there is nothing more to see.
    right, down = np.clip(right, -width, width), np.clip(down, -height, height)
    moved = np.zeros_like(images)
    # Image by image: one gather of all makes large arrays between, which cost more in a training than the loop.
    for image, original, x, y in zip(moved, images, right.tolist(), down.tolist(), strict=True):
        image[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)] = original[
            max(-y, 0) : height - max(y, 0), max(-x, 0) : width - max(x, 0)
        ]
    return moved


def _interpolated(images: npt.NDArray[Any], draws: npt.NDArray[np.float32], recipe: AugmentationRecipe) -> tf.Tensor:
    height, width = images.shape[1:3]
    flip, angle, crop, crop_x, crop_y = tf.unstack(draws[:, :-2], axis=1)
    mirror = tf.where(flip < 0.5, -1.0, 1.0) if recipe.flip else tf.ones_like(flip)
    angle = math.radians(recipe.rotation) * (2.0 * angle - 1.0)
    side = recipe.crop + (1.0 - recipe.crop) * crop
    # Maps pixel (x, y) of the result to the input, relative to the centre: rotation, mirror and zoom, then the offset
    # of the window and the shift.
    a, b = side * mirror * tf.cos(angle), -side * tf.sin(angle)
    c, d = side * mirror * tf.sin(angle), side * tf.cos(angle)
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    # From the centre of one outermost pixel to that of the other: beyond it the interpolation would mix in black.
    room_x, room_y = (1.0 - side) * centre_x, (1.0 - side) * centre_y
    offset_x = (2.0 * crop_x - 1.0) * room_x - _whole(draws[:, -2], recipe.shift)
    offset_y = (2.0 * crop_y - 1.0) * room_y - _whole(draws[:, -1], recipe.shift)
    zeros = tf.zeros_like(a)
    transforms = tf.stack(
        [
            *(a, b, centre_x + offset_x - a * centre_x - b * centre_y),
            *(c, d, centre_y + offset_y - c * centre_x - d * centre_y),
            *(zeros, zeros),
        ],
        axis=1,
    )
    changed = keras.ops.image.affine_transform(tf.cast(images, tf.float32), transforms, interpolation="bilinear")
    if np.issubdtype(images.dtype, np.integer):
        changed = tf.round(changed)
    return tf.cast(changed, images.dtype)


def _whole(draw: npt.NDArray[np.float32], most: int) -> npt.NDArray[np.float32]:
    """Returns a whole number from -most to most, all equally likely."""
    return np.floor(draw * (2 * most + 1)) - np.float32(most)
