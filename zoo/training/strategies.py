"""Training on several devices of one process: which strategies there are, and what cannot be trained under them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import keras
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.layer_tree import sublayers
from tfp_bnn.core.registry import unknown_name_message
from zoo.datasets import Dataset
from zoo.recipes import Recipe
from zoo.training.ways import trains_by_fit

StrategyName = Literal["mirrored"]
STRATEGIES: dict[str, Callable[[], tf.distribute.Strategy]] = {"mirrored": tf.distribute.MirroredStrategy}
"""Strategies by the names that `train` takes. `mirrored` uses all GPUs, or the CPU if there is none."""

_FIT_WORKS_UNDER = (tf.distribute.MirroredStrategy, tf.distribute.OneDeviceStrategy)


def strategy_of(strategy: str | tf.distribute.Strategy | None) -> tf.distribute.Strategy:
    """Returns a strategy by its name, or as it is; for None that of the current scope, usually TensorFlow's default.

    Raises:
        ValueError: For an unknown name (the message gives the nearest), a strategy of several processes, or one under
            which `fit` was not tried.
    """
    if strategy is None and not tf.distribute.has_strategy():
        return tf.distribute.get_strategy()
    strategy = strategy or tf.distribute.get_strategy()
    if isinstance(strategy, str):
        if strategy not in STRATEGIES:
            raise ValueError(unknown_name_message("strategy", strategy, STRATEGIES))
        return STRATEGIES[strategy]()
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        raise ValueError(
            "Keras' `fit` does not work under MultiWorkerMirroredStrategy. Train with several processes by "
            "zoo.training.run_on_workers, or pass strategy='mirrored' for the devices of this one."
        )
    if not isinstance(strategy, _FIT_WORKS_UNDER):
        names = ", ".join(map(repr, STRATEGIES))
        raise ValueError(
            f"`strategy` must be {names}, a tf.distribute.MirroredStrategy or a OneDeviceStrategy, but got "
            f"{type(strategy).__name__}."
        )
    return strategy


def check_replicas(recipe: Recipe, network: tfp_bnn.VariationalModel, data: Dataset, replicas: int) -> None:
    """Refuses, before training, what several replicas cannot train.

    Args:
        recipe: Recipe.
        network: Its untrained network.
        data: Data to train on.
        replicas: Number of replicas.

    Raises:
        ValueError: If the inference method takes no steps on batches, the replicas cannot share a batch evenly, the
            objective needs all examples in one replica, or batch normalization would have a replica without rows.
    """
    if replicas == 1:
        return
    if not trains_by_fit(recipe.inference):
        raise ValueError(
            f"The recipe {recipe.name!r}: inference: {recipe.inference} takes no steps on batches that {replicas} "
            "replicas could share. Leave out `strategy`."
        )
    if recipe.batch_size % replicas:
        nearest = max(replicas, round(recipe.batch_size / replicas) * replicas)
        raise ValueError(
            f"The recipe {recipe.name!r} has batch_size: {recipe.batch_size}, which {replicas} replicas cannot share "
            f"evenly. Set it to {nearest}."
        )
    if network.objective.weighs_draws:
        raise ValueError(
            f"The objective {recipe.objective!r} needs all examples in one replica, but there are {replicas}. Leave "
            "out `strategy`, or use the objective 'elbo' or 'pac_m'."
        )
    last = len(data.train) % recipe.batch_size or recipe.batch_size
    if last < replicas and any(isinstance(layer, keras.layers.BatchNormalization) for layer in sublayers(network)):
        raise ValueError(
            f"The last batch of an epoch has {last} rows, so batch normalization would have none in some of the "
            f"{replicas} replicas. Change batch_size: {recipe.batch_size} of the recipe {recipe.name!r}."
        )
