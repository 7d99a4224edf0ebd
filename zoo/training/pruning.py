"""Pruned models of the zoo: what is left is trained further, calibrated and measured like the model that it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

import tfp_bnn
from tfp_bnn.compression import sparsity
from tfp_bnn.core.arguments import is_number
from tfp_bnn.core.library_state import deterministic_operations
from tfp_bnn.core.randomness import default_seeds_from
from tfp_bnn.models.preparation import attach_optimizer
from tfp_bnn.models.weight_record import count_weights
from tfp_bnn.predictive.conformal import ConformalSets
from tfp_bnn.variational.schedules import Constant
from zoo.core.validation import validate
from zoo.core.yaml_text import parse_mapping
from zoo.datasets import DataMissingError, Dataset, load_dataset
from zoo.evaluation import card_numbers as evaluation
from zoo.evaluation.data_checks import check_names, check_task, with_groups_of
from zoo.hub.artifacts import GOLDEN_ROWS, calibration_config, check_description, save_artifact
from zoo.hub.loading import open_model
from zoo.hub.manifest import bundled_models, check_target
from zoo.hub.pruning import prune, shrink
from zoo.recipes import ConformalRecipe, FineTuneRecipe, Recipe
from zoo.training.batches import ShuffledBatches
from zoo.training.calibrating import calibrate_by_recipe, check_calibration, conformalize_by_recipe
from zoo.training.engine import run
from zoo.training.log import continued
from zoo.training.pruning_settings import LEARNING_RATE, Settings, settings_of
from zoo.training.results import TrainingRun
from zoo.training.run_folder import describe_splits

_RECIPE = "The recipe of the model"


def prune_artifact(
    name: str | os.PathLike[str],
    how: Settings | float | None = None,
    *,
    data: Dataset | str | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    trust: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tell: Callable[[str], None] = lambda message: None,
    **settings: Any,
) -> TrainingRun:
    """Prunes a model of the zoo, trains what is left further, calibrates it again, evaluates and saves it.

    With `units`, the result is a smaller dense network; see `zoo.shrink`. The calibration and the conformal prediction
    of the source are fitted again, to the validation split.

    Args:
        name: Name of a pretrained model, or folder or address of an artifact (with `trust`).
        how: `Settings`, or the share to remove, with the other fields of `Settings` by name.
        data: Dataset, or its name, to train and measure with. Default: that of the source. With other data, inputs are
            uniform for the numbers out of distribution. A `Dataset` other than that of the source is named neither in
            the artifact nor in the command of its card, so `verify` cannot check its numbers.
        out: Folder for the artifact, or None to save nothing.
        overwrite: Whether to replace an existing artifact.
        trust: See `zoo.load_artifact`.
        callbacks: Keras callbacks of the training.
        tell: Function that receives messages for the user.
        **settings: Fields of `Settings`, such as `units=True` or `epochs=3`.

    Returns:
        The model with its numbers. `about["pruning"]` says how it was made, with the share of pruned weights.

    Raises:
        ArtifactError: For an unknown model, a folder without `trust`, or damaged files.
        TypeError: For a setting that there is not.
        ValueError: As in `Settings` and `zoo.prune`; if the posterior of the model cannot be pruned; if the folder
            exists; or if the model has no dataset to train with. All before anything is trained.
        DataMissingError: If the dataset is not on this machine.
        NonFiniteError: If a number of the training is NaN or infinite. Nothing is saved then.
    """
    how = settings_of(how, settings)
    if out is not None:
        check_target(out, overwrite)
    model: Any = open_model(name, trust)
    # What cannot be pruned is refused before anything is read or trained.
    try:
        small = prune(model, **how.what)
    except TypeError as error:
        # The posterior is that of a file, not an argument of the wrong type.
        raise ValueError(f"{str(name)!r} cannot be pruned: {error}") from None
    if how.units:
        shrink(small)
    about = dict(model.card["config"].get("data", {}))
    recipe = recipe_of(model)
    fitting = _calibrated_as(model, recipe)
    own = about.get("dataset")
    dataset = None
    if data is None or isinstance(data, str):
        dataset = own if data is None else data
        data = None if dataset is None else load_dataset(dataset)
    elif own == data.name and _are_registered(data):
        dataset = own
    is_other = dataset is None or dataset != own
    if data is None and how.epochs:
        raise ValueError(f"{str(name)!r} was trained on data without a name. Give them to train what is left of it.")
    if data is not None:
        check_task(model, data)
        check_names(model, data)
        data = with_groups_of(model, data)
        check_calibration(fitting, model.likelihood, model.output_shape[-1], data, f"The pruned {str(name)!r}")
    history: Mapping[str, list[float]] = {}
    metrics: dict[str, Any] = {}
    measuring, outside = recipe.evaluation, None
    if data is not None:
        if is_other:
            about = _about_others(about, data, dataset, trained=how.epochs > 0)
        if out is not None:
            check_description(about)
        if is_other and own is not None:
            # The others were chosen for the dataset of the source, and may be these data.
            measuring = measuring.model_copy(update={"out_of_distribution": evaluation.UNIFORM})
        outside = evaluation.out_of_distribution_block(data, measuring.out_of_distribution, measuring.num_samples)
    if data is not None and how.epochs:
        small, history = prune_in_rounds(model, recipe, data, how, callbacks=callbacks, tell=tell)
    small = shrink(small) if how.units else small
    tell(f"{count_weights(model):,} weights before, {_number_kept(small):,} are left")
    if data is not None:
        calibrate_by_recipe(small, fitting, data)
        conformalize_by_recipe(small, fitting, data)
        measured = evaluation.measure(small, data, measuring, outside)
        # A network that was not trained further has made no step: its posterior has the beta of the source.
        metrics = evaluation.with_spread({**measured, "beta": getattr(recipe, "beta", 1.0)}, how.seed, {})
    else:
        tell("there is no dataset: the model is neither calibrated nor measured")
    about["pruning"] = {
        "source": str(name),
        # Where they are not those of the source: what they are called, and the name that `--dataset` takes.
        "data": data.name if data is not None and is_other else None,
        "dataset": dataset if is_other else None,
        "trust": not (isinstance(name, str) and name in bundled_models()),
        **how.described(),
        "weights_before": count_weights(model),
        "weights_kept": _number_kept(small),
        "sparsity": sparsity(small),
        "layer_units": dict(small.architecture.config.layer_units),
    }
    golden = None if data is None else data.test.x[:GOLDEN_ROWS]
    path = None if out is None else Path(out).absolute()
    done = TrainingRun(small, recipe if model.card["recipe"] else None, history, metrics, path, about, golden)
    if about.get("inputs"):
        done.name_outputs()
    if out is not None:
        license = model.card["config"].get("license")
        save_artifact(done, out, name=Path(out).absolute().name, license=license, overwrite=overwrite)
    return done


def prune_in_rounds(
    model: tfp_bnn.VariationalModel,
    recipe: Recipe | FineTuneRecipe,
    data: Dataset,
    how: Settings | float | None = None,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tell: Callable[[str], None] = lambda message: None,
    **settings: Any,
) -> tuple[Any, Mapping[str, list[float]]]:
    """Prunes a model of the zoo in some rounds that remove less and less, and trains what is left.

    After round r of R, the share `1 - (1 - fraction) ** (r / R)` is removed, the same share of what is left in each
    (Han et al. 2015). A large share in one round removes weights that others would have taken over from. Between the
    rounds the learning rate stays at its start, so that others can take over; it decays after the last one only.

    Args:
        model: Model of the zoo. It is not changed.
        recipe: Recipe of its training.
        data: Data of its training.
        how: `Settings`, or the share to remove, with the other fields of `Settings` by name.
        callbacks: Keras callbacks.
        tell: Function that receives messages for the user.
        **settings: Fields of `Settings`.

    Returns:
        The pruned model, and the history of all rounds: lists by name, one number per epoch. With `units` the model has
        masks; `zoo.shrink` makes the smaller network.

    Raises:
        TypeError: For a setting that there is not.
        ValueError: As in `Settings`, `zoo.prune` and `train_further`.
        NonFiniteError: If a number is NaN or infinite.

    References:
        Han et al. 2015, Learning both Weights and Connections for Efficient Neural Networks,
        https://arxiv.org/abs/1506.02626; Zhu and Gupta 2017, To prune, or not to prune,
        https://arxiv.org/abs/1710.01878
    """
    how = settings_of(how, settings)
    history: dict[str, list[float]] = {}
    # A loaded model has no seed: the noise of its copies gets one here.
    with default_seeds_from(how.seed):
        for number, step in enumerate(how.steps, start=1):
            model = prune(model, **step.what)
            if how.rounds > 1:
                what = "units" if how.units else "weights"
                tell(f"round {number}/{how.rounds}: {step.fraction:.1%} of the {what} are removed")
            last = number == len(how.steps)
            epochs = how.epochs if last else how.epochs_between
            seed = (how.seed + number - 1) % 2**31
            of_round = train_further(model, recipe, data, epochs, how.learning_rate, seed, callbacks, decay=last)
            history = continued(history, of_round)
    return model, history


def train_further(
    model: tfp_bnn.VariationalModel,
    recipe: Recipe | FineTuneRecipe,
    data: Dataset,
    epochs: int,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    *,
    decay: bool = True,
) -> Mapping[str, list[float]]:
    """Trains a pruned model on: pruned weights stay pruned, and the others get better.

    The objective is that of the recipe, with its final beta, batch size and augmentation. The optimizer is Adam.

    Args:
        model: Model of the zoo. It is changed.
        recipe: Recipe of its training.
        data: Data of its training.
        epochs: Number of passes over the training split.
        learning_rate: Initial learning rate.
        seed: Seed of the order of the rows and of the augmentation.
        callbacks: Keras callbacks.
        decay: Whether the learning rate decays to 0 along a cosine.

    Returns:
        Lists by name, one number per epoch.

    Raises:
        ValueError: If a number is out of range, or the data do not fit the model.
        NonFiniteError: If a number is NaN or infinite.
    """
    checked = Settings(0.0, epochs=epochs, learning_rate=learning_rate, seed=seed)
    batch_size = recipe.batch_size or 128
    steps = epochs * -(-len(data.train) // batch_size)
    augmentation = None
    if isinstance(recipe, Recipe):
        model.beta_schedule = Constant(recipe.beta)
        augmentation = recipe.augmentation
        model.objective, model.num_draws = recipe.objective, recipe.num_draws
    rate: Any = checked.learning_rate
    if decay:
        rate = keras.optimizers.schedules.CosineDecay(rate, max(1, steps))
    with deterministic_operations(seed):
        model.compile(keras.optimizers.Adam(rate))
        attach_optimizer(model)
        batches = ShuffledBatches(data.train, batch_size, epochs, seed, augmentation)
        return run(model, batches, callbacks=callbacks).history


def recipe_of(model: Any) -> Recipe | FineTuneRecipe:
    """The recipe of a loaded model; if it has none, one with the final beta of its card and otherwise the defaults."""
    text = model.card["recipe"]
    if text:
        values = parse_mapping(text, _RECIPE)
        tuned = "start_from" in values
        return validate(FineTuneRecipe, values, _RECIPE) if tuned else validate(Recipe, values, _RECIPE)
    built, beta = model.architecture, model.card["metrics"].get("beta", 1.0)
    return Recipe(name=f"{built.name}.without_recipe", architecture=built.name, beta=beta)


def _calibrated_as(model: Any, recipe: Recipe | FineTuneRecipe) -> Recipe:
    """A recipe with the calibration and the conformal prediction that a model has, whatever its own recipe says."""
    if not isinstance(recipe, Recipe):
        recipe = Recipe(name=recipe.name, architecture=model.architecture.name, evaluation=recipe.evaluation)
    calibration, conformal = calibration_config(model), None
    if model.conformal is not None:
        by_class = isinstance(model.conformal, ConformalSets) and not is_number(model.conformal.thresholds)
        conformal = ConformalRecipe(level=model.conformal.level, by_class=by_class)
    return recipe.model_copy(
        update={"calibration": None if calibration is None else calibration["name"], "conformal": conformal}
    )


def _are_registered(data: Dataset) -> bool:
    """Whether data are those that their name stands for."""
    try:
        known = load_dataset(data.name)
    except (DataMissingError, ValueError):
        return False
    first, second = (describe_splits(a=of.train, b=of.validation, c=of.test) for of in (data, known))
    return first == second


def _about_others(of_source: Mapping[str, Any], data: Dataset, dataset: str | None, trained: bool) -> dict[str, Any]:
    """What an artifact says of its data, if the model was trained further or only measured on others than its source.

    Args:
        of_source: What that of the source says.
        data: The other data.
        dataset: Their registered name, or None.
        trained: Whether the model was trained on them.
    """
    if of_source.get("dataset") is None and not trained:
        return dict(of_source)
    # The card of the source says how that was fine-tuned, and on what.
    before = {name: value for name, value in of_source.items() if name != "fine_tuning"}
    if not trained:
        # The name is of the data of training and of measuring, which are two here.
        return {**before, "dataset": None}
    # Columns and outputs are those of the source. The data may say less of them.
    names = {name: before.get(name) for name in ("class_names", "feature_names", "target_units")}
    found = {name: value for name, value in data.about().items() if value is not None or not names.get(name)}
    return {**{name: value for name, value in names.items() if value is not None}, **found, "dataset": dataset}


def _number_kept(model: tfp_bnn.VariationalModel) -> int:
    weights = [weight for layer in model.variational_layers for weight in layer.variational_weights.values()]
    return count_weights(model) - sum(int((~weight.kept).sum()) for weight in weights)
