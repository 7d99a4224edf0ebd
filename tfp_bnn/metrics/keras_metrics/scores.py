"""Scores of uncertainty, as `tfp_bnn.metrics.uncertainty_scores` gives them, for the Keras metrics."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.metrics.keras_metrics.rows import ClassRows


def uncertainty(rows: ClassRows, score: str) -> tf.Tensor:
    """A score of each row, `(n,)`, float64, never below 0.

    Args:
        rows: n rows of class probabilities.
        score: one of `SCORES`.

    Raises:
        ValueError: for a score that is 0 for any single draw, if there is one draw only.
    """
    if rows.one_draw and score in ("mutual_information", "variance"):
        raise ValueError(
            f"The {score.replace('_', ' ')} needs samples, predictions of shape (samples, n, classes), but got (n, "
            "classes): of a single draw it is 0. A compiled model gives its metrics one draw only; update this metric "
            "with the `samples` of `posterior_predictive` instead."
        )
    return SCORES[score](tf.cast(rows.samples, tf.float64))


def check_score(score: str) -> str:
    """The score, or a ValueError that names the nearest, unless it is one of `SCORES`."""
    if score not in SCORES:
        raise ValueError(unknown_name_message("score", score, SCORES))
    return score


def _entropy(p: tf.Tensor) -> tf.Tensor:
    # A float32 probability may round to just above 1, where -p log p is negative.
    return tf.maximum(-tf.reduce_sum(tf.math.xlogy(p, p), axis=-1), 0.0)


def _entropy_of_mean(samples: tf.Tensor) -> tf.Tensor:
    return _entropy(tf.reduce_mean(samples, axis=0))


def _expected_entropy(samples: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(_entropy(samples), axis=0)


def _mutual_information(samples: tf.Tensor) -> tf.Tensor:
    return tf.maximum(_entropy_of_mean(samples) - _expected_entropy(samples), 0.0)


def _expected_error(samples: tf.Tensor) -> tf.Tensor:
    return tf.maximum(1.0 - tf.reduce_max(tf.reduce_mean(samples, axis=0), axis=-1), 0.0)


def _variance(samples: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.math.reduce_variance(samples, axis=0), axis=-1)


SCORES: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "entropy": _entropy_of_mean,
    "expected_entropy": _expected_entropy,
    "mutual_information": _mutual_information,
    "expected_error": _expected_error,
    "variance": _variance,
}
