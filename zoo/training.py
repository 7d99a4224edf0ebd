"""Training by a recipe: from the data to an artifact with its measured card."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfp_bnn
from zoo.architectures.base import column_moments
from zoo.artifacts import check_target, save_artifact
from zoo.datasets import Dataset, load_dataset
from zoo.evaluation import evaluate
from zoo.recipes import Recipe, load_recipe
from zoo.registry import create_model

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
        recipe: that was followed.
        history: of `fit`: a list of a number for each epoch, by name.
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
    measure: bool = True,
    overwrite: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 0,
) -> TrainingRun:
    """Trains a model by a recipe, measures it, and saves it as an artifact.

    The test split is read once, after training. The metrics of all training seeds give the spread; the first seed's
    posterior is kept. Training is reproducible: the same recipe gives the same weights on the same machine.

    Args:
        recipe: a name of `zoo.list_recipes()`, a path, a mapping or a `Recipe`.
        out: the folder of the artifact; None to save nothing.
        epochs: instead of the recipe's.
        seed: instead of the recipe's.
        measure: whether to evaluate on the test split, which trains the recipe's `spread_seeds` too.
        overwrite: whether an artifact in `out` may be replaced.
        callbacks: for `fit`, of every seed.
        verbose: for `fit`.

    Returns:
        A `TrainingRun`.

    Raises:
        ValueError: for an unknown recipe or key (names the nearest), a value out of bounds, or an existing folder
            (before training starts).
    """
    changes = {key: value for key, value in (("epochs", epochs), ("seed", seed)) if value is not None}
    recipe = load_recipe(recipe)
    recipe = load_recipe({**recipe.model_dump(mode="json"), **changes})
    if out is not None:
        check_target(out, overwrite)
    data = load_dataset(recipe.dataset)
    model, history = _fit(recipe, data, callbacks, verbose)
    metrics = _measure(recipe, data, model, history, callbacks, verbose) if measure else {}
    path = None
    if out is not None:
        about = {
            "dataset": data.name,
            "task": data.task,
            "class_names": data.class_names,
            "feature_names": data.feature_names,
        }
        golden = data.test.x[:_GOLDEN_ROWS]
        path = save_artifact(
            model, out, recipe=recipe, metrics=metrics, data=about, golden_inputs=golden, overwrite=overwrite
        )
    return TrainingRun(model, recipe, history, metrics, path)


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


def _fit(
    recipe: Recipe, data: Dataset, callbacks: Sequence[keras.callbacks.Callback], verbose: int
) -> tuple[tfp_bnn.VariationalModel, dict[str, list[float]]]:
    # Seeds the initializers and Keras' shuffling of arrays.
    keras.utils.set_random_seed(recipe.seed)
    model = build(recipe, data)
    history = model.fit(
        data.train.x,
        data.train.y,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        validation_data=(data.validation.x, data.validation.y),
        validation_batch_size=max(recipe.batch_size, len(data.validation)),
        callbacks=list(callbacks),
        verbose=verbose,
    )
    return model, {name: [float(value) for value in values] for name, values in history.history.items()}


def _measure(
    recipe: Recipe,
    data: Dataset,
    model: tfp_bnn.VariationalModel,
    history: Mapping[str, list[float]],
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: int,
) -> dict[str, Any]:
    how = recipe.evaluation
    by_seed = [evaluate(model, data, num_samples=how.num_samples, seed=how.seed)]
    training_seeds = list(dict.fromkeys([recipe.seed, *how.spread_seeds]))
    for seed in training_seeds[1:]:
        other, _ = _fit(recipe.model_copy(update={"seed": seed}), data, callbacks, verbose)
        by_seed.append(evaluate(other, data, num_samples=how.num_samples, seed=how.seed))
    spread = {}
    if len(by_seed) > 1:
        for name in by_seed[0]:
            values = [metrics[name] for metrics in by_seed]
            spread[name] = {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}
    by_layer = {name: float(value) for name, value in model.kl_by_layer().items()}
    return {
        "num_samples": how.num_samples,
        "seed": how.seed,
        "split": "test",
        "num_examples": len(data.test),
        "test": by_seed[0],
        "validation": evaluate(model, data, "validation", how.num_samples, how.seed),
        "training_seeds": training_seeds,
        "spread": spread,
        "kl": {"total": sum(by_layer.values()), "by_layer": by_layer},
        "beta": model.beta,
        "last_epoch": {name: values[-1] for name, values in history.items()},
    }
