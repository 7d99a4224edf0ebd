"""The ELBO of a batch, built so it cannot be mis-scaled, or applied when it is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfp_bnn.core.checks import assert_terms_finite


def mean_over_rows(log_prob: tf.Tensor) -> tf.Tensor:
    """The mean over a replica's rows, with the gradient of the mean over the rows of all replicas.

    A distribution strategy splits the last batch unevenly and may leave a replica without rows.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return tf.reduce_mean(log_prob)
    rows = tf.cast(tf.shape(log_prob)[0], log_prob.dtype)
    mean = tf.math.divide_no_nan(tf.reduce_sum(log_prob), rows)
    share = replica.num_replicas_in_sync * rows / replica.all_reduce(tf.distribute.ReduceOp.SUM, rows)
    return mean + (share - 1.0) * (mean - tf.stop_gradient(mean))


def training_loss(terms: Sequence[tf.Tensor], nll: tf.Tensor, kl: tf.Tensor, checks: Sequence[Any]) -> tf.Tensor:
    """The loss of a training step, the sum of its terms, computed once all checks have passed.

    Args:
        terms: Terms of the objective and losses of regularizers, in nats per example.
        nll: Negative log-likelihood of the batch, in nats per example.
        kl: Unscaled KL, in nats.
        checks: Further operations that must have passed.
    """
    # The gradients themselves do not depend on the checks. A factor that exists only once all checks have passed keeps
    # them from being applied earlier.
    with tf.control_dependencies([*checks, *assert_terms_finite(nll, kl)]):
        checked = tf.identity(tf.constant(1.0))
    return checked * tf.add_n([*terms])
