"""Means and variances of columns, by which networks standardize their inputs and targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfp_bnn.likelihoods import Likelihood


def column_moments(
    values: npt.NDArray[Any], likelihood: Likelihood | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and variance over the last axis, as for `input_mean`; a constant column gets variance 1.

    Args:
        values: Numbers of shape `(n, ..., columns)`.
        likelihood: Likelihood, if the values are targets. Those that mark a missing one are left out; a column of
            nothing else gets mean 0 and variance 1.
    """
    columns = values.reshape(-1, values.shape[-1])
    # What is too large for float32 is refused as a mean.
    with np.errstate(over="ignore", invalid="ignore"):
        # In float32 first, as the network has them: there, a constant column has no variance from rounding.
        numbers = columns.astype(np.float32).astype(np.float64)
        there: Any = True
        if likelihood is not None and likelihood.missing is not None:
            there = ~likelihood.is_missing(columns)
            empty = ~there.any(axis=0)
            numbers[:, empty], there[:, empty] = 0.0, True
        mean, variance = numbers.mean(axis=0, where=there), numbers.var(axis=0, where=there)
    return tuple(mean.tolist()), tuple(np.where(variance > 0, variance, 1.0).tolist())


def check_noise_fits(likelihood: Likelihood, variance: Sequence[float]) -> None:
    """Refuses targets whose standard deviation is below the least noise that outputs of a network can describe.

    Args:
        likelihood: Likelihood of the targets.
        variance: Variance of each target, in its squared units.

    Raises:
        ValueError: Says in what unit the targets would fit.
    """
    least = math.sqrt(min(variance))
    if least < likelihood.least_scale:
        raise ValueError(
            f"The targets have a standard deviation of {least:.3g}, but where the network describes the noise, as in "
            f"{likelihood!r}, it is at least {likelihood.least_scale:g}. Give the targets a smaller unit, such as pF "
            "instead of F, or use a learned scale."
        )
