"""All that a training run consists of between two steps, as arrays: to write down, and to go on from bit by bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfp_bnn.core.noise import NoNoise
from tfp_bnn.models.variational_mixin import VariationalMixin


def training_state(model: VariationalMixin) -> dict[str, npt.NDArray[Any]]:
    """The weights, the optimizer, N, beta and every source of noise of a compiled model.

    Metrics are left out: they are reset at the start of each epoch. `metrics_state` has them, for a state within one.

    Args:
        model: a built and compiled model.

    Returns:
        Arrays by name, in their own dtypes. `restore_training_state` takes them back.

    Raises:
        ValueError: when the model is not built or not compiled.
    """
    return {name: np.asarray(variable).copy() for name, variable in _variables(model)}


def restore_training_state(model: VariationalMixin, state: Mapping[str, npt.NDArray[Any]]) -> None:
    """Puts a model back to where `training_state` found it. The next step is the one that would have followed.

    Args:
        model: built and compiled in the same way.
        state: of `training_state`.

    Raises:
        ValueError: when names, shapes or dtypes differ; lists them, and changes nothing.
    """
    variables = dict(_variables(model))
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


def metrics_state(model: VariationalMixin) -> dict[str, npt.NDArray[Any]]:
    """The means of the epoch that runs, of the ELBO and its parts and of all metrics given to `compile`.

    Args:
        model: A compiled model that was trained or evaluated for at least one step, which makes the metrics.

    Returns:
        Arrays by name, each of which starts with `metric/`. `restore_metrics_state` takes them back.
    """
    return {name: np.asarray(variable).copy() for name, variable in _metrics_variables(model).items()}


def restore_metrics_state(
    model: VariationalMixin, state: Mapping[str, npt.NDArray[Any]], x: npt.NDArray[Any], y: npt.NDArray[Any]
) -> None:
    """Has the means of an epoch go on from where `metrics_state` found them. No counter of noise moves.

    Args:
        model: Built and compiled in the same way.
        state: What `metrics_state` gave.
        x: Inputs of shape `(n, ...)`, of which one row is used: metrics exist only after a first batch.
        y: Targets, one for each.

    Raises:
        ValueError: When there are other metrics.
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
    # Paths repeat, and those of an optimizer hold counters of the process: the position is the name.
    for index, variable in enumerate(model.variables):  # type: ignore[attr-defined]
        yield f"model/{index}/{variable.name}", variable
    for index, variable in enumerate(optimizer.variables):
        yield f"optimizer/{index}", variable
    yield from model.noise_variables.items()
