"""What each weight is worth, by its posterior and prior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.layers.variational_weight import VariationalWeight

Criterion = Literal["signal_to_noise", "kl", "magnitude", "l1"]
"""What a weight is worth; `"l1"` is another name of `"magnitude"`, that of filters in the literature."""

# Exact for polynomials of degree 63; for densities with a kink the error is far below what separates weights.
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(32)


def signal_to_noise(weight: VariationalWeight) -> npt.NDArray[np.float32]:
    """|mean| / standard deviation of each weight, float32, of the shape of the weight."""
    return np.abs(weight.mean.numpy()) / np.sqrt(np.where(weight.kept, weight.variance.numpy(), 1.0))


def magnitude(weight: VariationalWeight) -> npt.NDArray[np.float32]:
    """|mean| of each weight, float32, of the shape of the weight."""
    return np.abs(weight.mean.numpy())


def kl(weight: VariationalWeight) -> npt.NDArray[np.float32]:
    """KL(q || p) of each weight in nats, 0 for a pruned one, float32, of the shape of the weight.

    In closed form if TFP registers one, otherwise by Gauss-Hermite quadrature with 32 nodes.
    """
    posterior, prior = (_of_each(distribution) for distribution in (weight.posterior, weight.prior))
    try:
        found = tfd.kl_divergence(posterior, prior)
    except NotImplementedError:
        mean, scale = posterior.mean(), posterior.stddev()
        expected = tf.zeros_like(mean)
        for node, of_node in zip(_NODES, _NODE_WEIGHTS / _NODE_WEIGHTS.sum(), strict=True):
            expected += np.float32(of_node) * prior.log_prob(mean + scale * np.float32(node))
        found = -posterior.entropy() - expected
    return np.where(weight.kept, found.numpy(), np.float32(0))


CRITERIA: Mapping[str, Callable[[VariationalWeight], npt.NDArray[np.float32]]] = {
    "signal_to_noise": signal_to_noise,
    "kl": kl,
    "magnitude": magnitude,
}
OF_POINTS = "magnitude"
"""The criterion that needs no spread."""
TOTALS = ("kl",)
"""The criteria by which a unit is worth the sum over its weights, and not the mean: nats are added."""
_OTHER_NAMES = {"l1": "magnitude"}


def name_of(by: str) -> Any:
    """The one name of a criterion, a `Criterion`.

    Raises:
        ValueError: If there is no such criterion.
    """
    known = [*CRITERIA, *_OTHER_NAMES]
    if by not in known:
        raise ValueError(unknown_name_message("criterion of pruning", by, known))
    return _OTHER_NAMES.get(by, by)


def _of_each(distribution: Any) -> tfd.Distribution:
    """The distributions of the single weights, before any were pruned."""
    return getattr(distribution, "whole", distribution).distribution
