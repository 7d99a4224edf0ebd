"""Random changes of training images that depend on (seed, epoch, index) and on nothing else.

A generator inside a parallel `tf.data` map is neither reproducible nor free of repetitions; and a run that is resumed
must see the images that it would have seen.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from zoo.recipes.schema import AugmentationRecipe

# One column of draws for each number that a transformation needs.
_NUM_DRAWS = 7


def augmentation_draws(seed: int, epoch: tf.Tensor, num_examples: int) -> tf.Tensor:
    """The random numbers of an epoch.

    Args:
        seed: Of the training.
        epoch: Counts from 0; integer scalar.
        num_examples: In the training split.

    Returns:
        Uniform numbers in [0, 1), `(num_examples, 7)`, float32: row i is that of example i.
    """
    return tf.random.stateless_uniform((num_examples, _NUM_DRAWS), (seed, epoch), alg="philox")


def augment(images: tf.Tensor, draws: tf.Tensor, recipe: AugmentationRecipe) -> tf.Tensor:
    """Crops, rotates, flips and shifts each image by its own draws, in one interpolation; what comes in is black.

    Args:
        images: `(batch, height, width, channels)`, any real dtype.
        draws: Rows of `augmentation_draws`, one for each image.
        recipe: How much.

    Returns:
        Images of the same shape and dtype. Whole shifts and flips move pixels without changing them; crops and
        rotations are bilinear.
    """
    height, width = images.shape[1:3]
    flip, angle, crop, crop_x, crop_y, shift_x, shift_y = tf.unstack(draws, axis=1)
    mirror = tf.where(flip < 0.5, -1.0, 1.0) if recipe.flip else tf.ones_like(flip)
    angle = math.radians(recipe.rotation) * (2.0 * angle - 1.0)
    side = recipe.crop + (1.0 - recipe.crop) * crop
    # About the centre, where pixel (x, y) of the result is looked up: rotation, mirror and zoom, then the offset of the
    # window and the shift.
    a, b = side * mirror * tf.cos(angle), -side * tf.sin(angle)
    c, d = side * mirror * tf.sin(angle), side * tf.cos(angle)
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    # From the centre of one outermost pixel to that of the other: beyond it the interpolation would mix in black.
    room_x, room_y = (1.0 - side) * centre_x, (1.0 - side) * centre_y
    offset_x = (2.0 * crop_x - 1.0) * room_x - _whole(shift_x, recipe.shift)
    offset_y = (2.0 * crop_y - 1.0) * room_y - _whole(shift_y, recipe.shift)
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
    if images.dtype.is_integer:
        changed = tf.round(changed)
    return tf.cast(changed, images.dtype)


def _whole(draw: tf.Tensor, most: int) -> tf.Tensor:
    """A whole number from -most to most, each equally likely."""
    return tf.floor(draw * (2 * most + 1)) - float(most)
