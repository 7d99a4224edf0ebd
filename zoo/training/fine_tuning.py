"""Fine-tuning: the posterior learned from one dataset is the prior for another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

import tfp_bnn
from tfp_bnn.models.data_checks import check_examples
from tfp_bnn.priors import Prior
from zoo.datasets import Dataset
from zoo.evaluation.data_checks import check_names, check_task, with_groups_of
from zoo.recipes import FineTuneRecipe
from zoo.training.adaptation import Head
from zoo.training.fine_tuning_run import FineTuning, Options, Task, run_fine_tuning
from zoo.training.fine_tuning_settings import AUTO, POSTERIOR, Settings, examples_of, source_of
from zoo.training.run_folder import RunFolder


def fine_tune(
    model: str | os.PathLike[str] | tfp_bnn.VariationalModel,
    dataset: str | Dataset | tuple[npt.NDArray[Any], npt.NDArray[Any]] | tf.data.Dataset,
    *,
    prior: str | Mapping[str, Any] | Prior = POSTERIOR,
    inflate: float | str = AUTO,
    head_scale: float | str = AUTO,
    mix: float | None = None,
    freeze: Sequence[str] = (),
    head: Head = "new",
    adapt_inputs: bool = False,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float = 4e-3,
    seed: int = 0,
    measure: bool = True,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    trust: bool = False,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tensorboard: str | os.PathLike[str] | None = None,
    tell: Callable[[str], None] = lambda message: None,
) -> FineTuning:
    """Fine-tunes a model of the zoo on another dataset, with its posterior as the prior.

    Each weight of the body gets the prior N(mu, (inflate * sigma)^2), where mu and sigma are those of the source's
    posterior. Training starts from that posterior. A new head (the last layer) has the prior N(0, head_scale^2).
    Training runs for a fixed number of steps on all rows, without a validation split. The test split is only read at
    the end, for evaluation. The same arguments give bit-for-bit identical weights on the same machine, because
    TensorFlow's deterministic operations are enabled during training. The caller's random state is not changed.

    With few rows and tens of thousands of weights, these steps do not reach the maximum of the ELBO. They should not:
    at the maximum the posterior is as wide as the prior and predicts little. The number of steps is part of the method.

    Checkpoints, signals and `resume` work as in `zoo.train`, with a tenth of the steps as an epoch. The result of the
    cross-validation is stored with the checkpoints. The artifact contains a `recipe.yaml` that `zoo.train` can run
    again.

    Args:
        model: Name of a pretrained model, folder or address of an artifact (with `trust`), or a model of the zoo. It
            is not changed.
        dataset: Dataset or its name, of which the training split is used. Or arrays `(x, y)` or a `tf.data.Dataset` of
            batches, for which nothing is measured.
        prior: `"posterior"`, as above. `"default"` is the prior that the source was trained with. Any name, config or
            object of `tfp_bnn.priors` except `informed` is possible too. With these, training only starts from the
            source's posterior.
        inflate: Factor > 0, or `"auto"` to choose it by cross-validation on the training rows; see
            `tfp_bnn.transfer.choose_inflate`. 1 is Bayes' rule, for more data of the same task. A number can only be
            used with `prior="posterior"`.
        head_scale: Number > 0, or `"auto"` to choose it in the same way. Only for a new head.
        mix: Share of a broad component N(0, 1) in the informed prior, in (0, 1). None for no such component.
        freeze: Names of layers whose posterior is not trained.
        head: `"new"`: the last layer starts from scratch, with as many outputs as the data need and, for regression,
            their mean and spread. `"keep"`: it is copied like the other layers, for more data of the same task.
        adapt_inputs: Whether the model resizes images to the input size of the source, turns RGB images grey for a
            source of grey ones, if the architecture is one for images, and rescales other pixel ranges. If False, such
            inputs are an error.
        steps: Number of optimizer steps. Default: 10 passes over the rows, but at least 300 steps.
        batch_size: Rows per step. Default: 16 for up to 500 rows, 32 for up to 5,000, else 128.
        learning_rate: Initial learning rate of Adam. It decays to 0 along a cosine.
        seed: Determines the new head, the order of the rows, the noise and the folds; 0 to 2**31 - 1.
        measure: Whether to evaluate on the dataset's test split.
        out: Folder for the artifact, or None to save nothing. The prior is saved too.
        overwrite: Whether to replace an existing artifact in `out` or an unfinished run.
        trust: See `load_artifact`.
        resume: Whether to continue the unfinished run of `out`.
        checkpoint_seconds: Seconds between checkpoints.
        callbacks: Keras callbacks.
        tensorboard: Folder for a TensorBoard log `seed-<seed>`, written by `tfp_bnn.callbacks.BayesianTensorBoard`, or
            None. The log includes scores on the dataset's validation split.
        tell: Function that receives messages for the user.

    Returns:
        A `FineTuning`.

    Raises:
        ArtifactError: For an unknown model, a folder without `trust`, or damaged files.
        ValueError: For an unknown dataset, prior, layer to freeze or head; a model that is not of the zoo;
            inputs or a task that do not fit the source (the message names both); with `head="keep"`, a different
            number of classes, or columns or classes in another order; a number out of range; an existing folder; a
            network that is too large for an artifact, if there is one to be; an unfinished run without `resume`; or a
            run with different settings. All are raised before training starts.
        DataMissingError: If the dataset is not on this machine.
        TrainingInterrupted: On SIGINT or SIGTERM.
        NonFiniteError: If a number is NaN or infinite. Nothing is saved then.
        OSError: If a checkpoint cannot be written, or the log for TensorBoard cannot be opened.

    Example:
        >>> import zoo
        >>> digits = zoo.load_dataset("digits")
        >>> x, y = digits.train.x[:30], digits.train.y[:30]
        >>> tuned = zoo.fine_tune("mlp_flipout.digits", (x, y), inflate=10.0, head_scale=1.0, steps=5)
        >>> tuned.model.posterior_predictive(digits.test.x[:2], num_samples=10).mean().shape
        (2, 10)
    """
    settings = Settings(
        prior, inflate, head_scale, mix, freeze, head, adapt_inputs, steps, batch_size, learning_rate, seed
    )
    options = Options(measure, out, overwrite, resume, checkpoint_seconds, callbacks, tensorboard, tell)
    return _fine_tune(model, dataset, settings, options, trust)


def fine_tune_by_recipe(recipe: FineTuneRecipe, data: Any, options: Options, trust: bool) -> FineTuning:
    """Fine-tunes a model from a recipe with `start_from`, for `zoo.train`.

    Args:
        recipe: Recipe of a fine-tuning.
        data: Training data, as `dataset` in `fine_tune`, or None for the dataset of the recipe.
        options: Options that do not affect the weights.
        trust: See `load_artifact`.

    Raises:
        ValueError: As in `fine_tune`, and for a recipe without a model or a dataset.
    """
    start = recipe.start_from
    if start.model is None:
        raise ValueError(
            f"The recipe {recipe.name!r} starts from a model without a name. Call zoo.fine_tune(model, ...), or set "
            "start_from.model to a pretrained model's name or the folder of an artifact."
        )
    if data is None and recipe.dataset is None:
        raise ValueError(
            f"The recipe {recipe.name!r} names no dataset. Pass `data`, as in data=(x, y), or name one (--dataset)."
        )
    settings = Settings(
        start.prior,
        start.inflate,
        start.head_scale,
        start.mix,
        start.freeze,
        start.head,
        start.adapt_inputs,
        recipe.steps,
        recipe.batch_size,
        recipe.learning_rate,
        recipe.seed,
    )
    return _fine_tune(start.model, recipe.dataset if data is None else data, settings, options, trust, recipe)


def _fine_tune(
    model: Any, dataset: Any, settings: Settings, options: Options, trust: bool, of: FineTuneRecipe | None = None
) -> FineTuning:
    source = source_of(model, trust)
    folder = RunFolder(options.out, settings.seed, options.overwrite, options.resume)
    data, rows = examples_of(dataset)
    if data is not None:
        check_task(source, data)
        data = with_groups_of(source, data)
        if settings.head == "keep":
            # What is kept is of the columns and the classes of the source.
            check_names(source, data)
    # The shape of the inputs and the range of the labels depend on the target and are checked later.
    check_examples(rows.x, rows.y, source.likelihood, None, None)
    task = Task(
        source,
        None if isinstance(model, keras.Model) else str(model),
        data,
        rows,
        dataset if isinstance(dataset, str) else None,
    )
    return run_fine_tuning(task, settings.checked(len(rows)), options, folder, of)
