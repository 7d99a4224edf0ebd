"""Training by several processes together, on the loop of `tfp_bnn.models.elbo_step`."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import tensorflow as tf

import tfp_bnn
from tfp_bnn.models import elbo_step, restore_training_state, training_state
from tfp_bnn.models.data_checks import check_examples
from zoo.training.batches import Batches
from zoo.training.checkpoints import CheckpointError, Checkpoints, Progress
from zoo.training.log import write_log
from zoo.training.workers import WorkerMissingError, Workers

# What the others get to see when a process dies or is too slow to answer, depending on what they wait for.
_GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


def run_on_workers(
    build: Callable[[], tfp_bnn.VariationalModel],
    batches: Batches,
    *,
    workers: Workers | None = None,
    patience: float = 300.0,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
) -> tuple[tfp_bnn.VariationalModel, Progress]:
    """Trains a model with all processes that TF_CONFIG names. Each of them calls this, in the same way.

    Keras' `fit` does not work under `MultiWorkerMirroredStrategy` (https://github.com/keras-team/keras/issues/20585),
    so this is a loop of its own, without callbacks and validation. Every process makes the same batches, and trains on
    its own rows of each; see `tfp_bnn.models.elbo_step`. So a batch, its learning rate and its steps are those of one
    process, and only the noise differs. Without TF_CONFIG, this process trains alone.

    The chief writes a checkpoint at the end of each epoch, in a folder that all can read. If a worker dies, the others
    cannot go on: start all of them again, with `resume=True`. The result is that of a run that was not interrupted, bit
    for bit.

    Args:
        build: Function that builds and compiles the model. The others get the initial weights of the chief.
        batches: Training batches.
        workers: The processes. Default: those of TF_CONFIG.
        patience: Seconds to wait for all workers at the start.
        checkpoints: Destination of checkpoints, or None.
        resume: Whether to continue from the newest checkpoint.

    Returns:
        The trained model, the same in all processes, and the progress with its history, as in `fit`.

    Raises:
        WorkerMissingError: If a worker does not come, or goes away in the middle.
        ValueError: If the data do not fit the model, or a batch is refused.
        CheckpointError: If there is nothing to resume.
    """
    if resume and checkpoints is None:
        raise CheckpointError("There is nothing to resume without checkpoints. Pass the `checkpoints` of the run.")
    workers = workers or Workers.of_environment()
    strategy = workers.strategy(patience)
    with strategy.scope():
        model = build()
    check_examples(batches.split.x, batches.split.y, model.likelihood, model.input_shape, model.output_shape[1:])
    step = elbo_step(model, len(batches.split))
    progress = Progress()
    if resume and checkpoints is not None:
        progress, arrays, skipped = checkpoints.load()
        for message in skipped:
            warnings.warn(message, UserWarning, stacklevel=2)
        restore_training_state(model, arrays)
    try:
        for epoch in range(progress.epoch, batches.epochs):
            model.reset_metrics()
            for index in range(batches.steps(epoch)):
                step(*batches.batch(epoch, index))
            for name, value in model.get_metrics_result().items():
                progress.history.setdefault(name, []).append(float(value))
            progress.epoch = epoch + 1
            if checkpoints is not None and workers.is_chief:
                checkpoints.save(batches.steps_before(progress.epoch), progress, training_state(model))
                write_log(checkpoints.folder, progress.history)
    except _GONE as error:
        raise WorkerMissingError(
            f"Another worker went away in epoch {progress.epoch + 1}, and {workers.name} cannot go on alone. "
            f"Start all workers again, with resume=True if there are checkpoints. TensorFlow says: {error.message}"
        ) from error
    return model, progress
