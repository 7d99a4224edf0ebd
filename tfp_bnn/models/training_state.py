"""The state of a training run between two steps, as arrays, to save it and to resume bit-for-bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfp_bnn.core.layer_tree import recurrent_states
from tfp_bnn.core.noise import NoNoise
from tfp_bnn.models.derived_state import derive_state
from tfp_bnn.models.variational_mixin import VariationalMixin

_STEPS = "steps_before"
_RECURRENT = "recurrent_state/"


def training_state(model: VariationalMixin) -> dict[str, npt.NDArray[Any]]:
    """The weights, the optimizer, N, beta, the number of steps and every source of noise of a compiled model.

    Recurrent layers with `stateful=True` have their states in it.

    Metrics are left out: they are reset at the start of each epoch. For a state within an epoch, `metrics_state` has
    them.

    Args:
        model: A built and compiled model.

    Returns:
        Arrays by name, in their own dtypes, for `restore_training_state`.

    Raises:
        ValueError: If the model is not built or not compiled.
    """
    return {name: np.asarray(variable).copy() for name, variable in _variables(model)}


def restore_training_state(model: VariationalMixin, state: Mapping[str, npt.NDArray[Any]]) -> None:
    """Restores a model to a state of `training_state`. The next step is the one that would have followed.

    Args:
        model: A model that was built and compiled in the same way.
        state: Arrays from `training_state`.

    Raises:
        ValueError: If names, shapes or dtypes differ. The message lists them, and the model does not change.
    """
    variables = dict(_variables(model))
    # Older states, and their optimizers, are from models whose steps were all taken by one optimizer. They lack the
    # states of recurrent layers, which start anew.
    later = [name for name in variables if name == _STEPS or name.startswith(_RECURRENT)]
    state = {**{name: np.zeros_like(np.asarray(variables[name])) for name in later}, **state}
    wrong = [f"missing {name}" for name in variables if name not in state]
    wrong += [f"unknown {name}" for name in state if name not in variables]
    for name, variable in variables.items():
        if name in state:
            expected, found = np.asarray(variable), state[name]
            if (found.shape, found.dtype) != (expected.shape, expected.dtype):
                wrong.append(
                    f"{name}: {found.dtype} {found.shape} where {expected.dtype} {expected.shape} was expected"
                )
    if wrong:
        raise ValueError(f"The training state is not one of this model: {'; '.join(wrong)}.")
    for name, variable in variables.items():
        variable.assign(state[name])
    derive_state(model)


def metrics_state(model: VariationalMixin) -> dict[str, npt.NDArray[Any]]:
    """The running means of the current epoch: the ELBO, its parts and all metrics given to `compile`.

    Args:
        model: A compiled model after at least one step of training or evaluation, which creates the metrics.

    Returns:
        Arrays by name, each starting with `metric/`, for `restore_metrics_state`.
    """
    return {name: np.asarray(variable).copy() for name, variable in _metrics_variables(model).items()}


def restore_metrics_state(
    model: VariationalMixin, state: Mapping[str, npt.NDArray[Any]], x: npt.NDArray[Any], y: npt.NDArray[Any]
) -> None:
    """Restores the running means of an epoch from `metrics_state`. No counter of noise changes.

    Args:
        model: A model that was built and compiled in the same way.
        state: Arrays from `metrics_state`.
        x: Inputs of shape `(n, ...)`. One row is used, because metrics exist only after a first batch.
        y: Targets of the inputs.

    Raises:
        ValueError: If the model has different metrics.
    """
    if _metrics_variables(model).keys() != state.keys():
        outputs = model.call_with_noise(x[:1], NoNoise())
        model.compute_metrics(x[:1], y[:1], outputs)
    variables = _metrics_variables(model)
    if variables.keys() != state.keys():
        raise ValueError(
            f"The state of the metrics is not one of this model: expected {sorted(variables)}, but got {sorted(state)}."
        )
    for name, variable in variables.items():
        variable.assign(state[name])


def _metrics_variables(model: VariationalMixin) -> dict[str, keras.Variable]:
    variables = model.metrics_variables  # type: ignore[attr-defined]
    return {f"metric/{index}/{variable.name}": variable for index, variable in enumerate(variables)}


def _variables(model: VariationalMixin) -> Iterator[tuple[str, keras.Variable]]:
    optimizer = getattr(model, "optimizer", None)
    if not model.built or optimizer is None:  # type: ignore[attr-defined]
        raise ValueError("A training state needs a model that is built and compiled.")
    if not optimizer.built:
        optimizer.build(model.trainable_variables)  # type: ignore[attr-defined]
    # Names are positions, because paths repeat, and those of an optimizer contain counters of the process.
    for index, variable in enumerate(model.variables):  # type: ignore[attr-defined]
        yield f"model/{index}/{variable.name}", variable
    for index, variable in enumerate(optimizer.variables):
        yield f"optimizer/{index}", variable
    yield from model.noise_variables.items()
    for index, variable in enumerate(recurrent_states(model)):
        yield f"{_RECURRENT}{index}", variable
    model._step_count.settle(optimizer)
    yield _STEPS, model._step_count.before
