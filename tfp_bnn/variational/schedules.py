"""Schedules of beta, the annealing weight of the KL in the training loss."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from tfp_bnn.core.arguments import is_integer, is_number
from tfp_bnn.core.registry import Spec, SpecRegistry


class Schedule(Spec):
    """Schedule of beta as a function of the number of training steps of a model. Abstract."""

    def __call__(self, iteration: tf.Tensor) -> tf.Tensor:
        """Returns beta at a step of the model, counted from 0, as a float32 scalar."""
        raise NotImplementedError


SCHEDULES: SpecRegistry[Schedule] = SpecRegistry("schedule")


@SCHEDULES.register("constant")
class Constant(Schedule):
    """Constant beta. 1 gives the ELBO; below 1 the posterior is "cold" and no longer the Bayesian one.

    Args:
        beta: Weight of the KL, >= 0. Default: 1.
    """

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = _checked("constant", "beta", beta)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {"beta": self.beta}

    def __call__(self, iteration: tf.Tensor) -> tf.Tensor:
        """Returns the constant as a float32 scalar, at every iteration."""
        return tf.constant(self.beta, tf.float32)


@SCHEDULES.register("linear_warmup")
class LinearWarmup(Schedule):
    """Linear increase from `initial` to `final` over the first `steps` training steps, then `final`.

    A warm-up lets the network fit the data before the prior prunes it (Sønderby et al. 2016,
    https://arxiv.org/abs/1602.02282).

    Args:
        steps: Length of the warm-up in training steps, >= 1. A second `compile` or a new optimizer does not start it
            again; `model.num_steps = 0` does.
        initial: beta at step 0, >= 0.
        final: beta from step `steps` on, >= 0.
    """

    def __init__(self, steps: int = 1000, initial: float = 0.0, final: float = 1.0) -> None:
        if not is_integer(steps) or steps < 1:
            raise ValueError(f"`steps` of the schedule 'linear_warmup' must be an integer >= 1, but got {steps!r}.")
        self.steps = int(steps)
        self.initial = _checked("linear_warmup", "initial", initial)
        self.final = _checked("linear_warmup", "final", final)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        return {"steps": self.steps, "initial": self.initial, "final": self.final}

    def __call__(self, iteration: tf.Tensor) -> tf.Tensor:
        """Returns the interpolated beta at an iteration, counted from 0, as a float32 scalar."""
        done = tf.minimum(tf.cast(iteration, tf.float32) / self.steps, 1.0)
        return self.initial + (self.final - self.initial) * done


def _checked(schedule: str, name: str, value: object) -> float:
    if not is_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"`{name}` of the schedule {schedule!r} must be a finite number >= 0, but got {value!r}.")
    return float(value)
