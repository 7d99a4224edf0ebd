"""Scores of predictive class probabilities.

`labels` are integers of shape `(n,)` or one-hot rows of shape `(n, classes)`. `probabilities` have shape
`(n, classes)`, with rows that sum to 1, and are already averaged over Monte Carlo samples. Every function computes in
float64, and raises a ValueError for shapes that do not match, labels out of range, and values that are not
probabilities. Every score is finite, even for a single row. A class without rows does not change it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfp_bnn.metrics.arrays import Array, float64, namespace
from tfp_bnn.metrics.validation import labelled

PROBABILITY_FLOOR = float(np.finfo(np.float32).tiny)


# === Cores: integer labels (n,) and probabilities (n, classes), NumPy arrays or tensors, to a float64 value per row ===


def is_correct(labels: Array, probabilities: Array) -> Array:
    """Whether the most probable class is the label, booleans `(n,)`. Ties go to the first class."""
    return namespace(probabilities).argmax(probabilities, axis=-1) == labels


def nll_of_rows(labels: Array, probabilities: Array) -> Array:
    """-log p(label) of each row in nats, with p at least `PROBABILITY_FLOOR`, `(n,)`."""
    xp = namespace(probabilities)
    at_label = float64(xp.take_along_axis(probabilities, labels[:, None], axis=-1)[:, 0])
    return -xp.log(xp.clip(at_label, PROBABILITY_FLOOR, 1.0))


def brier_of_rows(labels: Array, probabilities: Array) -> Array:
    """The sum over classes of (p - one_hot(label))^2 of each row, `(n,)`."""
    xp = namespace(probabilities)
    one_hot = labels[:, None] == xp.arange(probabilities.shape[-1])
    return xp.sum(xp.square(float64(probabilities) - float64(one_hot)), axis=-1)


# === Metrics ===


def accuracy(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """The fraction of rows whose most probable class is the label.

    Ties go to the first class.

    Args:
        labels: Integers `(n,)` or one-hot rows `(n, classes)`.
        probabilities: Class probabilities `(n, classes)`.

    Returns:
        A fraction from 0 to 1.

    Raises:
        ValueError: If labels or probabilities are invalid or do not match.

    Example:
        >>> from tfp_bnn.metrics import accuracy
        >>> accuracy([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        0.5
    """
    p, y = labelled(labels, probabilities)
    return float(is_correct(y, p).mean())


def nll(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """The negative log-likelihood, -mean(log p(label)), in nats per example.

    It is the negative log-probability of the label only, not averaged over classes. A probability below 1.2e-38, the
    smallest normal float32, counts as that number: a label with probability 0 costs 87.3 nats instead of infinitely
    many.

    Args:
        labels: Integers `(n,)` or one-hot rows `(n, classes)`.
        probabilities: Class probabilities `(n, classes)`.

    Returns:
        Nats per example, from 0 to 87.3.

    Raises:
        ValueError: If labels or probabilities are invalid or do not match.

    Example:
        >>> from tfp_bnn.metrics import nll
        >>> round(nll([0, 1], [[0.9, 0.1], [0.6, 0.4]]), 4)
        0.5108
    """
    p, y = labelled(labels, probabilities)
    return float(nll_of_rows(y, p).mean())


def brier_score(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """The Brier score, mean over rows of sum over classes of (p - one_hot(label))^2.

    This is Brier's own definition, from 0 to 2. For two classes it is twice the version that only uses the second
    class.

    Args:
        labels: Integers `(n,)` or one-hot rows `(n, classes)`.
        probabilities: Class probabilities `(n, classes)`.

    Returns:
        A number from 0 (certain and correct) to 2 (certain and wrong).

    Raises:
        ValueError: If labels or probabilities are invalid or do not match.

    Example:
        >>> from tfp_bnn.metrics import brier_score
        >>> round(brier_score([0, 1], [[0.9, 0.1], [0.6, 0.4]]), 4)
        0.37

    References:
        G. W. Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78, 1950.
        https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    """
    p, y = labelled(labels, probabilities)
    return float(brier_of_rows(y, p).mean())
