"""The draws of a training step: the outputs under each, and the terms of the loss that belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfp_bnn.core.layer_tree import mask_of, set_mask


class OneDraw(NamedTuple):
    """One draw of all weights and masks.

    Attributes:
        outputs: Raw outputs.
        kl: KL of the model in nats, float32 scalar.
        log_ratio: log q(w) - log p(w) in nats, float32 scalar, or None if it is not needed.
        regularizers: Losses of regularizers, float32 scalars.
    """

    outputs: Any
    kl: tf.Tensor
    log_ratio: tf.Tensor | None
    regularizers: list[tf.Tensor]


class DrawsOfStep(list[OneDraw]):
    """What `compute_loss` and `compute_metrics` receive as `y_pred` if a step has several draws."""


def mean_over_draws(values: Sequence[tf.Tensor]) -> tf.Tensor:
    """The mean of one tensor per draw; a single one as it is."""
    return values[0] if len(values) == 1 else tf.add_n(list(values)) / len(values)


def mean_prediction(predictions: Sequence[Any]) -> Any:
    """The mean of the probabilities or means under each draw, with the mask that Keras metrics look for."""

    def mean(*of_draws: tf.Tensor) -> tf.Tensor:
        averaged = mean_over_draws(of_draws)
        if mask_of(averaged) is None and mask_of(of_draws[0]) is not None:
            set_mask(averaged, mask_of(of_draws[0]))
        return averaged

    return keras.tree.map_structure(mean, *predictions)
