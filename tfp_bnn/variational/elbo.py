"""The ELBO of a batch, put together so that it can be neither mis-scaled nor applied when it is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfp_bnn.core.checks import assert_terms_finite


def mean_over_rows(log_prob: tf.Tensor) -> tf.Tensor:
    """The mean of a replica's rows, with the gradient that the mean over all replicas' rows gives them.

    A distribution strategy deals the last batch out unevenly, and may leave a replica without rows.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return tf.reduce_mean(log_prob)
    rows = tf.cast(tf.shape(log_prob)[0], log_prob.dtype)
    mean = tf.math.divide_no_nan(tf.reduce_sum(log_prob), rows)
    share = replica.num_replicas_in_sync * rows / replica.all_reduce(tf.distribute.ReduceOp.SUM, rows)
    return mean + (share - 1.0) * (mean - tf.stop_gradient(mean))


def training_loss(
    nll: tf.Tensor, weighted_kl: tf.Tensor, kl: tf.Tensor, regularizers: Sequence[tf.Tensor], checks: Sequence[Any]
) -> tf.Tensor:
    """The loss of a training step, nll + beta * kl / N + regularizers, which exists once all checks have passed.

    Args:
        nll: of the batch, nats per example.
        weighted_kl: beta * kl / N.
        kl: raw, in nats.
        regularizers: of the user.
        checks: operations that must have passed as well.
    """
    # A factor that exists only once all checks have passed, so that no gradient is applied before: the gradients do not
    # depend on the checks otherwise.
    with tf.control_dependencies([*checks, *assert_terms_finite(nll, kl)]):
        checked = tf.identity(tf.constant(1.0))
    return checked * tf.add_n([nll, weighted_kl, *regularizers])
