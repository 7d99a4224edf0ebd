"""Training by a recipe: from the data to an artifact with its measured card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import tfp_bnn
from tfp_bnn.calibration import calibrate
from zoo.architectures.base import column_moments
from zoo.datasets import Dataset, load_dataset
from zoo.evaluation import card_numbers as evaluation
from zoo.hub.artifacts import check_target, save_artifact
from zoo.hub.catalog import create_model
from zoo.recipes import Recipe, change_recipe, load_recipe
from zoo.training.board import board_of
from zoo.training.checkpoints import CheckpointError, Checkpoints, describe_array, locked
from zoo.training.log import log_text
from zoo.training.loop import run

_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "nadam": keras.optimizers.Nadam,
    "sgd": keras.optimizers.SGD,
}
_GOLDEN_ROWS = 4


@dataclass(frozen=True)
class TrainingRun:
    """What `train` gives back.

    Attributes:
        model: the trained model.
        recipe: that was followed, overrides included.
        history: a list of a number for each epoch, by name.
        metrics: what the card shows; empty when nothing was measured.
        path: of the artifact, or None.
    """

    model: tfp_bnn.VariationalModel
    recipe: Recipe
    history: Mapping[str, list[float]]
    metrics: Mapping[str, Any]
    path: Path | None


def train(
    recipe: str | Path | dict[str, Any] | Recipe,
    out: str | os.PathLike[str] | None = None,
    *,
    epochs: int | None = None,
    seed: int | None = None,
    seeds: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    measure: bool = True,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tensorboard: str | os.PathLike[str] | None = None,
    tell: Callable[[str], None] = lambda message: None,
) -> TrainingRun:
    """Trains a model by a recipe, calibrates and measures it, and saves it as an artifact.

    The test split is read once, after training. The metrics of all training seeds give the spread; the first seed's
    posterior is kept. The same recipe gives the same weights, bit for bit, on the same machine: TensorFlow's
    deterministic operations are switched on for the process.

    With `out`, the run keeps checkpoints and a log in the folder `<out>.training` beside it until the artifact is
    written. A run that was killed goes on with `resume=True` and ends with the same bits. SIGINT and SIGTERM end the
    run after the step that is under way, with a checkpoint.

    Args:
        recipe: a name of `zoo.list_recipes()`, a path, a mapping or a `Recipe`.
        out: the folder of the artifact; None to save nothing.
        epochs: instead of the recipe's; short for an override.
        seed: instead of the recipe's; short for an override.
        seeds: how many training seeds give the spread, counted up from `seed`; short for an override.
        overrides: other changes of the recipe, such as `{"optimizer.learning_rate": 1e-3}`; recorded in the artifact.
        measure: whether to evaluate on the test split, which trains the recipe's `spread_seeds` too.
        overwrite: whether an artifact in `out`, or an unfinished run, may be replaced.
        resume: whether to go on with the unfinished run of `out`.
        checkpoint_seconds: time between checkpoints.
        callbacks: as in `fit`, for every seed.
        tensorboard: a folder for TensorBoard, in which each training seed has a log, `seed-<seed>`, as
            `tfp_bnn.callbacks.BayesianTensorBoard` writes it; None for no log.
        tell: takes messages for the user, such as that a damaged checkpoint was passed over.

    Returns:
        A `TrainingRun`.

    Raises:
        ValueError: for an unknown recipe or key (names the nearest), a value out of bounds, an existing folder, an
            unfinished run without `resume`, or one that was another (names each field); all before training starts.
        DataMissingError: when the dataset is not on this machine.
        TrainingInterrupted: when SIGINT or SIGTERM arrived.
        NonFiniteError: when a number is NaN or infinite; nothing is saved then.
        OSError: when a checkpoint cannot be written, or the log for TensorBoard cannot be opened.
    """
    recipe = change_recipe(load_recipe(recipe), overrides or {})
    recipe = change_recipe(recipe, _short_overrides(recipe, epochs, seed, seeds))
    if resume and out is None:
        raise CheckpointError("There is nothing to resume without a folder. Pass the `out` of the run (--out).")
    target = folder = None
    if out is not None:
        target = check_target(out, overwrite)
        folder = target.with_name(f"{target.name}.training")
        _check_unfinished(folder, recipe.seed, overwrite, resume)
    tf.config.experimental.enable_op_determinism()
    data = load_dataset(recipe.dataset)
    # A recipe that does not fit its data is refused before anything is written.
    build(recipe, data)
    if tensorboard is not None:
        Path(tensorboard).mkdir(parents=True, exist_ok=True)

    def callbacks_of(recipe: Recipe) -> list[keras.callbacks.Callback]:
        # The log comes last, so that it has what the others add to the numbers of an epoch.
        board = [] if tensorboard is None else [board_of(recipe, data, Path(tensorboard), tell)]
        return [*callbacks, *board]

    if target is None or folder is None:
        return _train(recipe, data, None, measure, overwrite, None, checkpoint_seconds, callbacks_of, tell)
    if resume and not any(folder.glob(f"seed-{recipe.seed}/generation-*")):
        tell("the run was stopped before its first checkpoint, and starts from its first step")
    with locked(folder):
        if not resume:
            for old in folder.glob("seed-*"):
                shutil.rmtree(old)
        done = _train(recipe, data, target, measure, overwrite, folder, checkpoint_seconds, callbacks_of, tell)
    shutil.rmtree(folder, ignore_errors=True)
    return done


def build(recipe: Recipe, data: Dataset) -> tfp_bnn.VariationalModel:
    """The compiled, untrained model of a recipe; its preprocessing is fitted to the training split."""
    config = {
        "input_shape": data.input_shape,
        "num_outputs": data.num_classes or data.train.y.shape[-1],
        **recipe.model,
    }
    if data.task == "regression":
        config.setdefault("likelihood", {"name": "normal", "initial_scale": float(data.train.y.std())})
    if recipe.standardize_inputs:
        config["input_mean"], config["input_variance"] = column_moments(data.train.x)
    if recipe.standardize_targets:
        config["target_mean"], config["target_variance"] = column_moments(data.train.y)
    steps = recipe.epochs * -(-len(data.train) // recipe.batch_size)
    schedule = {"name": "constant", "beta": recipe.beta}
    if recipe.warmup > 0:
        schedule = {"name": "linear_warmup", "steps": max(1, round(recipe.warmup * steps)), "final": recipe.beta}
    model = create_model(recipe.architecture, seed=recipe.seed, beta_schedule=schedule, **config)
    rate: Any = recipe.optimizer.learning_rate
    if recipe.optimizer.decay == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    optimizer = _OPTIMIZERS[recipe.optimizer.name](rate, clipnorm=recipe.optimizer.clipnorm)
    model.compile(optimizer, metrics=["accuracy"] if data.task == "classification" else ["mae"])
    return model


def _train(
    recipe: Recipe,
    data: Dataset,
    target: Path | None,
    measure: bool,
    overwrite: bool,
    folder: Path | None,
    checkpoint_seconds: float,
    callbacks_of: Callable[[Recipe], Sequence[keras.callbacks.Callback]],
    tell: Callable[[str], None],
) -> TrainingRun:
    def fit(recipe: Recipe) -> tuple[tfp_bnn.VariationalModel, Mapping[str, list[float]]]:
        # Seeds the initializers.
        keras.utils.set_random_seed(recipe.seed)
        model = build(recipe, data)
        checkpoints = None
        if folder is not None:
            checkpoints = Checkpoints(folder / f"seed-{recipe.seed}", _fingerprint(recipe, data))
        progress = run(
            model,
            recipe,
            data,
            checkpoints=checkpoints,
            resume=checkpoints is not None and bool(checkpoints.generations()),
            checkpoint_seconds=checkpoint_seconds,
            callbacks=callbacks_of(recipe),
            tell=tell,
        )
        if progress.best is not None:
            epoch = int(progress.best["epoch"]) + 1
            tell(f"seed {recipe.seed}: lowest validation NLL {progress.best['val_nll']:.4f} in epoch {epoch}")
        if recipe.calibration is not None:
            how = recipe.evaluation
            calibrate(model, data.validation.x, data.validation.y, num_samples=how.num_samples, seed=how.seed)
        return model, progress.history

    model, history = fit(recipe)
    metrics: dict[str, Any] = {}
    if measure:
        others = {}
        for seed in dict.fromkeys(recipe.evaluation.spread_seeds):
            if seed != recipe.seed:
                other, _ = fit(recipe.model_copy(update={"seed": seed}))
                others[seed] = evaluation.evaluate(
                    other, data, num_samples=recipe.evaluation.num_samples, seed=recipe.evaluation.seed
                )
        metrics = evaluation.with_spread(evaluation.measure(model, data, recipe.evaluation), recipe.seed, others)
    if target is not None:
        save_artifact(
            model,
            target,
            recipe=recipe,
            metrics=metrics or None,
            data=data.about(),
            golden_inputs=data.test.x[:_GOLDEN_ROWS],
            log=log_text(history),
            overwrite=overwrite,
        )
    return TrainingRun(model, recipe, history, metrics, target)


def _short_overrides(recipe: Recipe, epochs: int | None, seed: int | None, seeds: int | None) -> dict[str, Any]:
    changes: dict[str, Any] = {key: value for key, value in (("epochs", epochs), ("seed", seed)) if value is not None}
    if seeds is not None:
        first = recipe.seed if seed is None else seed
        changes["evaluation.spread_seeds"] = list(range(first + 1, first + seeds))
    return changes


def _check_unfinished(folder: Path, seed: int, overwrite: bool, resume: bool) -> None:
    unfinished = sorted(path.name.removeprefix("seed-") for path in folder.glob("seed-*"))
    if resume and not unfinished:
        raise CheckpointError(
            f"There is nothing to resume: {str(folder)!r} holds no unfinished run. Start it without --resume "
            "(resume=False)."
        )
    if resume and str(seed) not in unfinished:
        raise CheckpointError(
            f"The run in {str(folder)!r} was another one: its training seeds are {', '.join(unfinished)}, and this one "
            f"has {seed}. Resume it with what it was started with, or start anew with --overwrite (overwrite=True)."
        )
    if unfinished and not resume and not overwrite:
        raise CheckpointError(
            f"{str(folder)!r} holds an unfinished run. Go on with it with --resume (resume=True), or start anew with "
            "--overwrite (overwrite=True)."
        )


def _fingerprint(recipe: Recipe, data: Dataset) -> dict[str, Any]:
    """All that the bits of a run depend on, as far as a user can change it."""
    splits = {"train": data.train, "validation": data.validation}
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"notes", "evaluation", "overrides"}),
        "data": {name: {"x": describe_array(split.x), "y": describe_array(split.y)} for name, split in splits.items()},
        "num_classes": data.num_classes,
        "dtype_policy": keras.config.dtype_policy().name,
    }
