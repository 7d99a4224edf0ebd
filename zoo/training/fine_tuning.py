"""Fine-tuning: what one data set taught, a posterior over the weights, as the prior for another."""

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
from zoo.evaluation import card_numbers as evaluation
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
    """Fine-tunes a model of the zoo on another data set, with its posterior as the prior.

    Each weight of the body gets the prior N(mu, (inflate * sigma)^2), with mu and sigma those of the source's
    posterior, and starts there. A new head, the last layer, has the prior N(0, head_scale^2). Training is a fixed
    number of steps, without a validation split: all rows are trained on. The test split is read once, at the end, to
    measure. The same arguments give the same weights, bit for bit, on the same machine: TensorFlow's deterministic
    operations are switched on meanwhile. The caller's random state stays as it is.

    With few rows and tens of thousands of weights, these steps do not reach the maximum of the ELBO, and should not:
    there the posterior is as wide as the prior, and predicts little. The number of steps is a part of the method.

    Checkpoints, signals and `resume` are those of `zoo.train`, with a tenth of the steps in the place of an epoch. The
    choice by cross-validation is kept with them. The artifact holds a `recipe.yaml` that `zoo.train` can run again.

    Args:
        model: A pretrained model's name, the folder of an artifact (with `trust`), or a model of the zoo. It stays as
            it is.
        dataset: A dataset or its name, whose training split is learned; or `(x, y)`, arrays, or a `tf.data.Dataset` of
            batches of them, which are not measured.
        prior: `"posterior"`, as above. `"default"`: the prior that the source was trained with, or any name, config
            or object of `tfp_bnn.priors` but `informed`; only the start is the source's posterior then.
        inflate: Factor, > 0; or `"auto"`, to choose it by cross-validation on the training rows, see
            `tfp_bnn.transfer.choose_inflate`. 1 is Bayes' rule, for more data of the same task. Without effect at other
            priors, where a number is refused.
        head_scale: A number > 0, or `"auto"`, likewise; for a new head only.
        mix: Share of a broad component N(0, 1) of the informed prior, in (0, 1); None for none.
        freeze: Names of layers whose posterior is not trained.
        head: `"new"`: the last layer starts from scratch, with as many outputs as the data need, and in a regression
            with their mean and spread. `"keep"`: it is taken over like the others, for more data of the same task.
        adapt_inputs: Whether images of another size are resized within the model to the size that the source knows,
            where the architecture can, and other pixel ranges are rescaled; otherwise they are refused.
        steps: Steps of the optimizer. Default: 10 passes over the rows, but at least 300 steps.
        batch_size: Rows in a step. Default: 16 for up to 500 rows, 32 for up to 5,000, else 128.
        learning_rate: That of Adam, at the start; it falls to 0 along a cosine.
        seed: Determines the new head, the order of the rows, the noise and the folds; 0 to 2**32 - 1.
        measure: Whether to measure a dataset's test split.
        out: The folder of the artifact; None to save nothing. The prior is saved with it.
        overwrite: Whether an artifact in `out`, or an unfinished run, may be replaced.
        trust: See `load_artifact`.
        resume: Whether to go on with the unfinished run of `out`.
        checkpoint_seconds: Time between checkpoints.
        callbacks: As in `fit`.
        tensorboard: A folder for a log, `seed-<seed>`, as `tfp_bnn.callbacks.BayesianTensorBoard` writes it, or None.
            A dataset's validation split is watched.
        tell: Takes messages for the user.

    Returns:
        A `FineTuning`.

    Raises:
        ValueError: For an unknown model, dataset, prior, layer to freeze or head; a model that is not of the zoo;
            inputs of another shape or range, or a task, that the source is not for (both are named); another number of
            classes with `head="keep"`; a number out of range; an existing folder; an unfinished run without `resume`,
            or one that was another. All before training starts.
        DataMissingError: If the dataset is not on this machine.
        TrainingInterrupted: If SIGINT or SIGTERM arrived.
        NonFiniteError: If a number is NaN or infinite; nothing is saved then.
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
    """Fine-tunes a model as a recipe says, which `zoo.train` does with such a recipe.

    Args:
        recipe: What to start from, and how.
        data: What to train on, as `dataset` in `fine_tune`; None for the dataset of the recipe.
        options: Where to save, and so on.
        trust: See `load_artifact`.

    Raises:
        ValueError: As `fine_tune` does, and for a recipe without a model or a dataset.
    """
    start = recipe.start_from
    if start.model is None:
        raise ValueError(
            f"The recipe {recipe.name!r} starts from a model that had no name. Call zoo.fine_tune(model, ...), or set "
            "start_from.model to a pretrained model's name or the folder of an artifact."
        )
    if data is None and recipe.dataset is None:
        raise ValueError(f"The recipe {recipe.name!r} names no dataset. Pass `data`, as in data=(x, y), or name one.")
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
        evaluation.check_task(source, data)
    # All but the shape of the inputs and the range of the labels, which depend on the target.
    check_examples(rows.x, rows.y, source.likelihood, None, None)
    task = Task(
        source,
        None if isinstance(model, keras.Model) else str(model),
        data,
        rows,
        dataset if isinstance(dataset, str) else None,
    )
    return run_fine_tuning(task, settings.checked(len(rows)), options, folder, of)
