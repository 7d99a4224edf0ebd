"""Means and variances of columns, by which networks standardize their inputs and targets."""

from __future__ import annotations

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
    missing = np.ma.nomask if likelihood is None or likelihood.missing is None else likelihood.is_missing(columns)
    there = np.ma.array(columns.astype(np.float64), mask=missing)
    mean, variance = (np.ma.filled(of(axis=0), 0.0) for of in (there.mean, there.var))
    return tuple(mean.tolist()), tuple(np.where(variance > 0, variance, 1.0).tolist())
