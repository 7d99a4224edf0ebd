"""The training step of a model as a function, for loops of one's own on several replicas or in several processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.checks import invalid_arguments_as_value_errors
from tfp_bnn.models.preparation import attach_optimizer, check_setup, forget_calibration, set_num_examples
from tfp_bnn.models.variational_mixin import VariationalMixin

Step = Callable[[Any, Any], None]


def elbo_step(model: VariationalMixin, num_examples: int) -> Step:
    """Sets N and returns the compiled training step of a model, which `fit` would take on a batch.

    For distribution strategies under which Keras' `fit` does not work, such as `MultiWorkerMirroredStrategy`. All
    processes call the step with the same batch. Row k is for replica k modulo their number, so a replica may have one
    row less than another, or none. Each replica draws its own noise, the gradient of the NLL is that of the mean over
    all rows of the batch, and that of the KL the mean over the replicas, so the KL counts once.

    `model.get_metrics_result()` has the running means of `fit`, over all replicas, and `model.reset_metrics()` starts
    them again. All processes must call the former together.

    Args:
        model: Built and compiled model, under the scope of its strategy, if it has one.
        num_examples: N, the number of distinct training examples.

    Returns:
        A function `step(x, y)` of arrays `(batch, ...)`. It is traced once: later batches have the dtypes of the first
        and its shapes, up to the number of rows. It raises a ValueError for a batch that is refused, in all processes;
        weights then stay as they were.

    Raises:
        ValueError: If the model was compiled with a loss or does not fit its optimizer, as in `fit`.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> from tfp_bnn.models import elbo_step
        >>> layers = [keras.Input((2,)), tfp_bnn.layers.DenseFlipout(2)]
        >>> model = tfp_bnn.VariationalSequential(layers, seed=0)
        >>> model.compile("adam")
        >>> step = elbo_step(model, num_examples=3)
        >>> step(np.eye(3, 2, dtype="float32"), np.array([0, 1, 1]))
        >>> sorted(model.get_metrics_result()), model.num_steps
        (['beta', 'elbo', 'kl', 'loss', 'nll'], 1)
    """
    check_setup(model)
    set_num_examples(model, None, num_examples)
    strategy = model.distribute_strategy  # type: ignore[attr-defined]
    with strategy.scope():
        attach_optimizer(model)
        model.optimizer.build(model.trainable_weights)
    model._step_count.settle(model.optimizer)
    forget_calibration(model)

    def on_replica(batch: Any) -> None:
        replica = tf.distribute.get_replica_context()
        index, number = replica.replica_id_in_sync_group, replica.num_replicas_in_sync
        model.train_step(keras.tree.map_structure(lambda values: values[index::number], batch))

    @tf.function(autograph=False)
    def on_replicas(batch: Any) -> None:
        strategy.run(on_replica, args=(batch,))

    # Replicas wait for each other by the order of their operations. A process that traced the step again, for another
    # number of rows, would wait for ever.
    traced: list[Any] = []

    def on_batch(batch: Any) -> None:
        if not traced:
            specs = keras.tree.map_structure(lambda v: tf.TensorSpec((None, *v.shape[1:]), v.dtype), batch)
            traced.append(on_replicas.get_concrete_function(specs))
        traced[0](batch)

    guarded = model._step_guard.watch(on_batch)

    def step(x: Any, y: Any) -> None:
        with invalid_arguments_as_value_errors():
            guarded(keras.tree.map_structure(tf.convert_to_tensor, (x, y)))

    return step
