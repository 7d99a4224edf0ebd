"""Training from a recipe: from the data to an artifact with a measured card."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.library_state import deterministic_operations
from tfp_bnn.core.randomness import default_seeds_from
from tfp_bnn.inference.stored_posterior import StoredPosterior
from tfp_bnn.likelihoods import LIKELIHOODS
from tfp_bnn.models.preparation import attach_optimizer
from zoo.architectures import ARCHITECTURES
from zoo.architectures.base import require_one_output
from zoo.architectures.moments import check_noise_fits, column_moments
from zoo.core.shown import rounded
from zoo.datasets import Dataset, load_dataset
from zoo.evaluation import card_numbers as evaluation
from zoo.evaluation.data_checks import with_groups_of
from zoo.hub.artifacts import GOLDEN_ROWS, check_description, check_size
from zoo.hub.catalog import create_model
from zoo.hub.members import ZooModel
from zoo.recipes import FineTuneRecipe, OptimizerRecipe, Recipe
from zoo.recipes.baselines import starting_recipe
from zoo.training.batches import ShuffledBatches
from zoo.training.board import board_of
from zoo.training.calibrating import calibrate_by_recipe, check_calibration, conformalize_by_recipe
from zoo.training.checkpoints import Checkpoints
from zoo.training.engine import run
from zoo.training.fine_tuning import fine_tune_by_recipe
from zoo.training.fine_tuning_run import Options
from zoo.training.inference import architecture_arguments, member_recipes
from zoo.training.planning import divergence, fitted_to, planned, seeds_of
from zoo.training.results import TrainingRun
from zoo.training.run_folder import RunFolder, describe_splits
from zoo.training.starting import check_start, start_at_a_point
from zoo.training.strategies import check_replicas, strategy_of
from zoo.training.user_data import dataset_from
from zoo.training.ways import Trainer, check_way_fits, train_model

_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "nadam": keras.optimizers.Nadam,
    "sgd": keras.optimizers.SGD,
}


def train(
    recipe: str | Path | dict[str, Any] | Recipe | FineTuneRecipe,
    out: str | os.PathLike[str] | None = None,
    *,
    data: Any = None,
    validation_data: Any = None,
    test_data: Any = None,
    epochs: int | None = None,
    seed: int | None = None,
    seeds: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    measure: bool = True,
    overwrite: bool = False,
    resume: bool = False,
    trust: bool = False,
    checkpoint_seconds: float = 30.0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tensorboard: str | os.PathLike[str] | None = None,
    strategy: str | tf.distribute.Strategy | None = None,
    tell: Callable[[str], None] = lambda message: None,
) -> TrainingRun:
    """Trains a model from a recipe, calibrates and evaluates it, and saves it as an artifact.

    The test split is only read after training. The spread is computed over all training seeds, and the posterior of the
    first seed is kept. The same recipe gives bit-for-bit identical weights on the same machine, because TensorFlow's
    deterministic operations are enabled during training. The caller's random state is not changed.

    With `out`, the run keeps checkpoints and a log in the folder `<out>.training` until the artifact is written. A run
    that was killed can be continued with `resume=True`, and its result is bit-for-bit identical. SIGINT and SIGTERM end
    the run after the current step, with a checkpoint. After the last step of an epoch, its validation runs first.

    Args:
        recipe: Name from `zoo.list_recipes()`, path, mapping or `Recipe`. A recipe with the key `start_from` is run as
            a fine-tuning; see `zoo.fine_tune`.
        out: Folder for the artifact, or None to save nothing.
        data: Training data, instead of the recipe's dataset: a `Dataset`, arrays `(x, y)` or a `tf.data.Dataset` of
            batches; see `zoo.training.user_data.dataset_from`. The artifact then names no dataset, so `verify` cannot
            check its numbers. A network that divides pixels by `pixel_max` divides by the maximum of these data, unless
            `overrides` say otherwise; see `zoo.training.planning.fitted_to`.
        validation_data: Validation data in the same form, if `data` is not a `Dataset`. If None, the last 20 % of the
            rows are set aside.
        test_data: Test data in the same form. If None, a model trained on such `data` is not evaluated.
        epochs: Number of epochs, shorthand for an override.
        seed: Training seed, shorthand for an override. Spread seeds that count up from the recipe's count up from it.
        seeds: Number of training seeds for the spread, counted up from `seed`; shorthand for an override.
        overrides: Other changes to the recipe, such as `{"optimizer.learning_rate": 1e-3}`. They are recorded in the
            artifact.
        measure: Whether to evaluate on the test split. This also trains the recipe's `spread_seeds`.
        overwrite: Whether to replace an existing artifact in `out` or an unfinished run.
        resume: Whether to continue the unfinished run of `out`.
        trust: Whether a recipe may start from the folder of an artifact; see `load_artifact`.
        checkpoint_seconds: Seconds between checkpoints.
        callbacks: Keras callbacks, used for every seed.
        tensorboard: Folder for TensorBoard logs, one subfolder `seed-<seed>` per training seed, or per member of an
            ensemble with `ensemble-<seed>` for the whole, written by `tfp_bnn.callbacks.BayesianTensorBoard`.
            Posteriors that `fit` does not find are in its run `evaluation`. None for no log.
        strategy: Several devices, which share each batch: `"mirrored"` for all GPUs of this process, or a
            `tf.distribute.MirroredStrategy`. Each draws its own noise, and the KL counts once, so batch size and
            learning rate mean what they do on one device. Default: one device.
        tell: Function that receives messages for the user, such as that a damaged checkpoint was skipped.

    Returns:
        A `TrainingRun`, or a `FineTuning` for a recipe with `start_from`.

    Raises:
        ValueError: For an unknown recipe or key (the message gives the nearest), a value out of bounds, data that do
            not fit, a network that is too large for an artifact, if there is one to be, an existing folder, an
            unfinished run without `resume`, a run with different settings (the message names each field), or what the
            devices of `strategy` cannot train together. All are raised before training starts.
        DataMissingError: If the dataset is not on this machine.
        TrainingInterrupted: On SIGINT or SIGTERM.
        NonFiniteError: If a number is NaN or infinite. Nothing is saved then.
        OSError: If a checkpoint cannot be written, or the log for TensorBoard cannot be opened.
    """
    recipe = planned(recipe, overrides, epochs=epochs, seed=seed, seeds=seeds)
    if isinstance(recipe, FineTuneRecipe):
        if strategy is not None:
            raise ValueError("A fine-tuning trains on one device. Leave out `strategy` (--strategy).")
        if validation_data is not None or test_data is not None:
            raise ValueError("A fine-tuning trains on all rows: leave out `validation_data` and `test_data`.")
        options = Options(measure, out, overwrite, resume, checkpoint_seconds, callbacks, tensorboard, tell)
        return fine_tune_by_recipe(recipe, data, options, trust)
    devices = strategy_of(strategy)
    replicas = devices.num_replicas_in_sync
    folder = RunFolder(out, member_recipes(recipe)[0].seed, overwrite, resume)
    examples, named = _examples(recipe, data, validation_data, test_data)
    recipe = fitted_to(recipe, examples, tell)
    if not named and not isinstance(data, Dataset) and test_data is None and measure:
        measure = False
        tell("no test split was given: the model is not measured")
    seeds_to_run = seeds_of(recipe) if measure else [recipe.seed]
    if len(seeds_to_run) > 1:
        tell(f"{len(seeds_to_run)} training seeds, {', '.join(map(str, seeds_to_run))}; the first one is kept")

    def callbacks_of(recipe: Recipe) -> list[keras.callbacks.Callback]:
        # The log comes last, so it sees what the other callbacks add to the logs of an epoch.
        board = [] if tensorboard is None else [board_of(recipe, examples, Path(tensorboard), tell)]
        return [*callbacks, *board]

    def fresh(recipe: Recipe) -> tfp_bnn.VariationalModel:
        with default_seeds_from(recipe.seed), devices.scope():
            return build(recipe, examples)

    def fit_one(recipe: Recipe) -> tuple[tfp_bnn.VariationalModel, Mapping[str, list[float]]]:
        checkpoints = folder.checkpoints(recipe.seed, _fingerprint(recipe, examples, replicas))
        model = fresh(recipe)
        if recipe.deterministic_start is not None:
            start_at_a_point(model, recipe, fresh, go_on)
        return model, _fit(model, recipe, examples, checkpoints, checkpoint_seconds, callbacks_of(recipe), tell)

    def go_on(
        recipe: Recipe,
        model: tfp_bnn.VariationalModel,
        part: str,
        epochs: int,
        further: Sequence[keras.callbacks.Callback] = (),
    ) -> Mapping[str, list[float]]:
        checkpoints = folder.checkpoints(recipe.seed, _fingerprint(recipe, examples, replicas))
        of_part = None if checkpoints is None else checkpoints.part(part)
        # First, since the state of callbacks is found by their position, and users may resume with others.
        return _run(model, recipe, examples, epochs, of_part, checkpoint_seconds, [*further, *callbacks], tell)

    def fit(recipe: Recipe) -> tuple[ZooModel, Mapping[str, list[float]]]:
        trainer = Trainer(examples, lambda recipe: build(recipe, examples), fit_one, go_on, tell)
        model, history = train_model(recipe, trainer)
        calibrate_by_recipe(model, recipe, examples)
        if tensorboard is not None and isinstance(model, StoredPosterior):
            # `fit` logged its networks, if it ran at all.
            board_of(recipe, examples, Path(tensorboard), tell, name=_log_of(recipe)).write(model)
        return model, history

    with deterministic_operations(recipe.seed), default_seeds_from(recipe.seed):
        # A recipe that does not fit its data is refused before anything is written.
        network = build(recipe, examples)
        examples = with_groups_of(network, examples)
        check_replicas(recipe, network, examples, replicas)
        if strategy is not None:
            tell(f"devices that share each batch: {replicas}")
        check_way_fits(recipe, network, examples)
        about = {**examples.about(), "dataset": examples.name if named else None}
        if folder.target is not None:
            check_size(network, len(member_recipes(recipe)))
            check_description(about)
        if recipe.deterministic_start is not None:
            build(starting_recipe(recipe), examples)
            check_start(recipe, named, seeds_to_run)
        how = recipe.evaluation
        outside = None
        if measure:
            outside = evaluation.out_of_distribution_block(examples, how.out_of_distribution, how.num_samples)
        if tensorboard is not None:
            Path(tensorboard).mkdir(parents=True, exist_ok=True)
        with folder.held(tell):
            model, history = fit(recipe)
            conformalize_by_recipe(model, recipe, examples)
            metrics = {} if outside is None else _measure(model, recipe, examples, outside, fit)
            golden = examples.test.x[:GOLDEN_ROWS]
            done = TrainingRun(model, recipe, history, metrics, folder.target, about, golden)
            folder.save(done)
    done.name_outputs()
    return done


def _examples(recipe: Recipe, data: Any, validation_data: Any, test_data: Any) -> tuple[Dataset, bool]:
    """Returns the data, and whether they come from the recipe's named dataset."""
    if data is not None:
        likelihood = recipe.model.get("likelihood")
        require_one_output(likelihood)
        task = None if likelihood is None else LIKELIHOODS.get(likelihood).task
        return dataset_from(data, validation_data, test_data, task), False
    if validation_data is not None or test_data is not None:
        raise ValueError("`validation_data` and `test_data` can only be used with `data`. Pass the training data too.")
    if recipe.dataset is None:
        raise ValueError(
            f"The recipe {recipe.name!r} names no dataset. Pass `data`, as in data=(x, y), or name one (--dataset)."
        )
    return load_dataset(recipe.dataset), True


def build(recipe: Recipe, data: Dataset) -> tfp_bnn.VariationalModel:
    """Builds the compiled, untrained network of a recipe. Its preprocessing is fitted to the training split.

    Args:
        recipe: Recipe; for an ensemble, that of one member.
        data: Data to train on.

    Raises:
        ValueError: If the recipe contradicts itself or does not fit the data.
    """
    if recipe.augmentation is not None and len(data.input_shape) != 3:
        raise ValueError(
            f"The recipe {recipe.name!r} has augmentation, which is for images of rows, columns and channels, but an "
            f"input has the shape {data.input_shape}. Remove augmentation, or set it to null."
        )
    config = {
        "input_shape": data.input_shape,
        **architecture_arguments(recipe),
    }
    if data.num_classes is None:
        # A learned scale starts where the targets are, whatever their unit, and in their precision.
        variance = column_moments(data.train.y, LIKELIHOODS.get(config.get("likelihood", "normal")))[1]
        scale = float(np.float32(math.sqrt(np.mean(variance))))
        told = config.setdefault("likelihood", {"name": "normal", "initial_scale": scale})
        if isinstance(told, str) or "initial_scale" not in told:
            config["likelihood"] = LIKELIHOODS.get(told).rescaled(scale)
    likelihood = LIKELIHOODS.get(config.get("likelihood", ARCHITECTURES[recipe.architecture].default_likelihood))
    if data.num_classes is None:
        check_noise_fits(likelihood, variance)
    config.setdefault("num_outputs", likelihood.num_outputs_for(data.train.y, data.num_classes))
    check_calibration(recipe, likelihood, config["num_outputs"], data)
    if recipe.standardize_inputs:
        config["input_mean"], config["input_variance"] = column_moments(data.train.x)
    if recipe.standardize_targets:
        config["target_mean"], config["target_variance"] = column_moments(data.train.y, likelihood)
    own = recipe.optimizer.natural_gradient
    if own is not None and own.initial_precision is not None:
        config["initial_scale"] = math.sqrt(recipe.beta * own.temperature / (len(data.train) * own.initial_precision))
    steps = recipe.epochs * -(-len(data.train) // recipe.batch_size)
    schedule = {"name": "constant", "beta": recipe.beta}
    if recipe.warmup > 0:
        schedule = {"name": "linear_warmup", "steps": max(1, round(recipe.warmup * steps)), "final": recipe.beta}
    model = create_model(recipe.architecture, seed=recipe.seed, beta_schedule=schedule, way=recipe.inference, **config)
    model.objective, model.num_draws = recipe.objective, recipe.num_draws
    model.objective.check(model.variational_layers)
    if model.objective.weighs_draws and recipe.batch_size < len(data.train):
        raise ValueError(
            f"The objective {recipe.objective!r} needs all {len(data.train)} examples in each batch, but the recipe "
            f"{recipe.name!r} has batch_size: {recipe.batch_size}. Raise it, or use the objective 'elbo' or 'pac_m'."
        )
    model.compile(_optimizer(recipe.optimizer, steps), metrics=likelihood.training_metrics(config["num_outputs"]))
    # Refuses posteriors that the optimizer cannot train.
    attach_optimizer(model)
    return model


def _optimizer(how: OptimizerRecipe, steps: int) -> keras.optimizers.Optimizer:
    def decayed(rate: float) -> Any:
        if how.decay is None:
            return rate
        rising = round(how.learning_rate_warmup * steps)
        if not rising:
            return keras.optimizers.schedules.CosineDecay(rate, steps)
        return keras.optimizers.schedules.CosineDecay(0.0, steps - rising, warmup_target=rate, warmup_steps=rising)

    if how.natural_gradient is None:
        of_sgd = {} if how.momentum is None else {"momentum": how.momentum, "nesterov": True}
        return _OPTIMIZERS[how.name](decayed(how.learning_rate), clipnorm=how.clipnorm, **of_sgd)
    own = how.natural_gradient.model_dump(exclude={"initial_precision"})
    companion = keras.optimizers.Adam(decayed(own.pop("companion_learning_rate")))
    return tfp_bnn.NaturalGradient(decayed(how.learning_rate), **own, companion=companion)


def _fit(
    model: tfp_bnn.VariationalModel,
    recipe: Recipe,
    data: Dataset,
    checkpoints: Checkpoints | None,
    checkpoint_seconds: float,
    callbacks: Sequence[keras.callbacks.Callback],
    tell: Callable[[str], None],
) -> Mapping[str, list[float]]:
    """Trains the network of one seed for the epochs of its recipe and returns the history."""
    history = _run(model, recipe, data, recipe.epochs, checkpoints, checkpoint_seconds, callbacks, tell)
    of_epochs = enumerate(history.get("val_nll", []), start=1)
    values = [(nll, epoch) for epoch, nll in of_epochs if math.isfinite(nll)]
    if values:
        # The first epoch of those with the same value.
        nll, epoch = min(values)
        tell(f"seed {recipe.seed}: lowest validation NLL {rounded(nll)} in epoch {epoch}")
        if complaint := divergence(history["val_nll"][-1], data, model.likelihood):
            remedy = "--set optimizer.learning_rate=..."
            tell(f"warning: the training with seed {recipe.seed} diverged: {complaint}: {remedy}")
    return history


def _run(
    model: tfp_bnn.VariationalModel,
    recipe: Recipe,
    data: Dataset,
    epochs: int,
    checkpoints: Checkpoints | None,
    checkpoint_seconds: float,
    callbacks: Sequence[keras.callbacks.Callback],
    tell: Callable[[str], None],
) -> Mapping[str, list[float]]:
    """Trains a compiled network for some epochs, from its newest checkpoint if there is one; returns the history."""
    return run(
        model,
        ShuffledBatches(data.train, recipe.batch_size, epochs, recipe.seed, recipe.augmentation),
        data.validation,
        checkpoints=checkpoints,
        resume=checkpoints is not None and bool(checkpoints.generations()),
        checkpoint_seconds=checkpoint_seconds,
        callbacks=callbacks,
        tell=tell,
    ).history


def _measure(
    model: ZooModel,
    recipe: Recipe,
    data: Dataset,
    outside: evaluation.Block,
    fit: Callable[[Recipe], tuple[ZooModel, Mapping[str, list[float]]]],
) -> dict[str, Any]:
    """Measures the numbers of the card, and trains the other seeds for their spread."""
    how, others = recipe.evaluation, {}
    for seed in seeds_of(recipe)[1:]:
        other, _ = fit(recipe.model_copy(update={"seed": seed}))
        others[seed] = evaluation.evaluate(other, data, num_samples=how.num_samples, seed=how.seed)
    return evaluation.with_spread(evaluation.measure(model, data, how, outside), recipe.seed, others)


def _log_of(recipe: Recipe) -> str | None:
    """The name of the log of a posterior of several networks, where each of them has logs of its own seed."""
    return f"ensemble-{recipe.seed}" if recipe.inference == "ensemble" else None


def _fingerprint(recipe: Recipe, data: Dataset, replicas: int) -> dict[str, Any]:
    """Returns everything under the user's control that determines the result of a run."""
    # Checkpoints that exist do not know these, nor `replicas`.
    fields = type(recipe).model_fields
    unset = {name for name in ("objective", "num_draws") if getattr(recipe, name) == fields[name].default}
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"notes", "evaluation", "comparison", "overrides", *unset}),
        "num_classes": data.num_classes,
        **({"replicas": replicas} if replicas > 1 else {}),
        **describe_splits(train=data.train, validation=data.validation),
    }
