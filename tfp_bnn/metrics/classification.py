"""Scores of predictive class probabilities.

`labels` are integers of shape `(n,)` or one-hot rows of shape `(n, classes)`. `probabilities` have shape
`(n, classes)`, with rows that sum to 1, and are already averaged over Monte Carlo samples. Every function sums in
float64, and raises a ValueError for shapes that do not fit, labels out of range, and values that are not
probabilities. A class that no row has changes nothing, and neither does a single row: each score is finite.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfp_bnn.metrics.validation import labelled

PROBABILITY_FLOOR = float(np.finfo(np.float32).tiny)


def accuracy(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """The fraction of rows whose most probable class is the label.

    Of equally probable classes the first one counts as the prediction.

    Args:
        labels: integers `(n,)` or one-hot `(n, classes)`.
        probabilities: `(n, classes)`.

    Returns:
        A fraction from 0 to 1.

    Raises:
        ValueError: for labels or probabilities that are not valid, or do not fit together.

    Example:
        >>> from tfp_bnn.metrics import accuracy
        >>> accuracy([0, 1], [[0.9, 0.1], [0.6, 0.4]])
        0.5
    """
    p, y = labelled(labels, probabilities)
    return float(np.mean(p.argmax(axis=1) == y))


def nll(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """The negative log-likelihood, -mean(log p(label)), in nats per example.

    It is taken at the label only, not averaged over classes. A probability below 1.2e-38, the smallest normal float32,
    counts as that number: a label that was given probability 0 costs 87.3 nats and not infinitely many.

    Args:
        labels: integers `(n,)` or one-hot `(n, classes)`.
        probabilities: `(n, classes)`.

    Returns:
        Nats per example, from 0 to 87.3.

    Raises:
        ValueError: for labels or probabilities that are not valid, or do not fit together.

    Example:
        >>> from tfp_bnn.metrics import nll
        >>> round(nll([0, 1], [[0.9, 0.1], [0.6, 0.4]]), 4)
        0.5108
    """
    p, y = labelled(labels, probabilities)
    at_label = p[np.arange(len(y)), y].astype(np.float64)
    return float(-np.log(np.clip(at_label, PROBABILITY_FLOOR, 1.0)).mean())


def brier_score(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """The Brier score, mean over rows of sum over classes of (p - one_hot(label))^2.

    This is Brier's own definition, from 0 to 2; for two classes it is twice the one that looks at the second class
    only.

    Args:
        labels: integers `(n,)` or one-hot `(n, classes)`.
        probabilities: `(n, classes)`.

    Returns:
        A number from 0 (sure and right) to 2 (sure and wrong).

    Raises:
        ValueError: for labels or probabilities that are not valid, or do not fit together.

    Example:
        >>> from tfp_bnn.metrics import brier_score
        >>> round(brier_score([0, 1], [[0.9, 0.1], [0.6, 0.4]]), 4)
        0.37

    References:
        G. W. Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78, 1950.
        https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    """
    p, y = labelled(labels, probabilities)
    errors = p.astype(np.float64)
    errors[np.arange(len(y)), y] -= 1.0
    return float(np.square(errors).sum(axis=1).mean())
