"""What a likelihood's distribution looks like, found out with dummy outputs."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.likelihoods.targets import probe_weights


def probed(likelihood: Any, num_outputs: int) -> tfd.Distribution:
    """Returns the distribution for dummy outputs of this size, checked with and without an axis of samples.

    Args:
        likelihood: A `Likelihood`.
        num_outputs: Size of the last axis of the outputs.

    Raises:
        ValueError: If `distribution` fails, or returns something else or other shapes than it must.
    """
    with tf.init_scope():
        weights = probe_weights(likelihood.add_weights)
        for shape in ((2, 3), (3,)):
            try:
                distribution = likelihood.distribution(tf.ones((*shape, num_outputs)), weights)
            except (ValueError, TypeError, IndexError, tf.errors.OpError) as error:
                raise ValueError(
                    f"The likelihood {likelihood!r} cannot take outputs of shape {('batch', num_outputs)}: {error} "
                    "Build the model with another number of outputs, or change `distribution`."
                ) from error
            check_distribution(likelihood, distribution, tf.TensorShape(shape), num_outputs)
    return distribution


def check_distribution(likelihood: Any, distribution: Any, expected: tf.TensorShape, num_outputs: int) -> None:
    """Refuses what `distribution` of a likelihood returned if it is not one distribution for each row.

    Args:
        likelihood: A `Likelihood`.
        distribution: What its `distribution` returned.
        expected: Batch shape that it must have.
        num_outputs: Size of the last axis of the outputs.

    Raises:
        ValueError: If it is no distribution, or its batch or event shape is another one. The message gives both.
    """
    if not isinstance(distribution, tfd.Distribution):
        raise ValueError(
            f"`distribution` of the likelihood {likelihood!r} gave a {type(distribution).__name__}. Expected a "
            "distribution of tensorflow_probability."
        )
    found, event = distribution.batch_shape, distribution.event_shape
    if found.rank != expected.rank or not found.is_compatible_with(expected):
        raise ValueError(
            f"The likelihood {likelihood!r} gave a distribution of batch shape {tuple(found)} for outputs of shape "
            f"{(*expected, num_outputs)}. Expected the batch shape {tuple(expected)}: one distribution for each "
            "example. For several independent targets wrap it in tfd.Independent(..., "
            "reinterpreted_batch_ndims=1); for one target take a channel, as in outputs[..., 0]."
        )
    if event.rank not in (0, 1) or not event.is_fully_defined():
        raise ValueError(
            f"The likelihood {likelihood!r} gave a distribution of event shape {event}. Expected () for one target, or "
            "(targets,)."
        )
