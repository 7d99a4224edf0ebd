"""Selective prediction: detecting errors by their uncertainty, and answering only the most certain rows.

`labels` are integers of shape `(n,)` or one-hot rows; `probabilities` have shape `(n, classes)` and are averaged over
Monte Carlo samples. `uncertainty`, of shape `(n,)`, is any score that should be higher where the prediction is wrong,
such as one of `uncertainty_scores`. A row is an error where its most probable class is not the label; errors are the
positive class. For numbers, `error_retention_curve` takes the size of each error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfp_bnn.metrics import ranking
from tfp_bnn.metrics.validation import labelled_and_scored, scores, share


def misclassification_auroc(labels: npt.ArrayLike, probabilities: npt.ArrayLike, uncertainty: npt.ArrayLike) -> float:
    """The area under the ROC curve of detecting errors: P(an error is less certain than a correct prediction).

    Ties count one half. It measures how well uncertainty sorts the rows, not how many errors there are.

    Args:
        labels: Integers `(n,)` or one-hot rows `(n, classes)`.
        probabilities: Class probabilities `(n, classes)`.
        uncertainty: Scores `(n,)`, higher where less certain.

    Returns:
        A number from 0 to 1, 0.5 by chance. NaN, as in scikit-learn, if all rows are correct or all are wrong, because
        it is not defined then.

    Raises:
        ValueError: If the arguments are invalid or do not match.

    Example:
        >>> from tfp_bnn.metrics import misclassification_auroc, predictive_entropy
        >>> p = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]
        >>> misclassification_auroc([0, 1, 1], p, predictive_entropy(p))
        1.0

    References:
        D. Hendrycks, K. Gimpel, A baseline for detecting misclassified and out-of-distribution examples in neural
        networks, ICLR 2017. https://arxiv.org/abs/1610.02136
    """
    return ranking.auroc(*labelled_and_scored(labels, probabilities, uncertainty))


def misclassification_aupr(labels: npt.ArrayLike, probabilities: npt.ArrayLike, uncertainty: npt.ArrayLike) -> float:
    """The average precision of detecting errors by uncertainty: the area under the precision-recall curve.

    Args:
        labels: Integers `(n,)` or one-hot rows `(n, classes)`.
        probabilities: Class probabilities `(n, classes)`.
        uncertainty: Scores `(n,)`, higher where less certain.

    Returns:
        A number from 0 to 1; the share of errors by chance. 0, as in scikit-learn, if all rows are correct.

    Raises:
        ValueError: If the arguments are invalid or do not match.

    Example:
        >>> from tfp_bnn.metrics import misclassification_aupr, predictive_entropy
        >>> p = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]
        >>> misclassification_aupr([1, 0, 1], p, predictive_entropy(p))
        0.3333333333333333

    References:
        D. Hendrycks, K. Gimpel, A baseline for detecting misclassified and out-of-distribution examples in neural
        networks, ICLR 2017. https://arxiv.org/abs/1610.02136
    """
    return ranking.average_precision(*labelled_and_scored(labels, probabilities, uncertainty))


@dataclass(frozen=True, eq=False)
class RiskCoverageCurve:
    """The error rate, or the mean error, of the k most certain rows, for each k.

    Attributes:
        coverage: Share of rows that are answered, 1 / n, 2 / n, ..., 1, `(n,)`.
        risk: Share of errors among them, or their mean error, `(n,)`; the last one is that of all rows.
    """

    coverage: npt.NDArray[np.float64]
    risk: npt.NDArray[np.float64]


def risk_coverage_curve(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, uncertainty: npt.ArrayLike
) -> RiskCoverageCurve:
    """The error rate among the k most certain rows, for k from 1 to n.

    Rows with equal uncertainty have no order: the risk is its mean over all orders.

    Args:
        labels: Integers `(n,)` or one-hot rows `(n, classes)`.
        probabilities: Class probabilities `(n, classes)`.
        uncertainty: Scores `(n,)`, higher where less certain.

    Returns:
        The curve, with as many points as rows.

    Raises:
        ValueError: If the arguments are invalid or do not match.

    Example:
        >>> from tfp_bnn.metrics import predictive_entropy, risk_coverage_curve
        >>> p = [[0.9, 0.1], [0.6, 0.4]]
        >>> curve = risk_coverage_curve([0, 1], p, predictive_entropy(p))
        >>> curve.coverage.tolist(), curve.risk.tolist()
        ([0.5, 1.0], [0.0, 0.5])

    References:
        R. El-Yaniv, Y. Wiener, On the foundations of noise-free selective classification, JMLR 11, 2010.
        https://jmlr.org/papers/v11/el-yaniv10a.html
        Y. Geifman, R. El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017.
        https://arxiv.org/abs/1705.08500
    """
    return _curve(*labelled_and_scored(labels, probabilities, uncertainty))


def error_retention_curve(errors: npt.ArrayLike, uncertainty: npt.ArrayLike) -> RiskCoverageCurve:
    """The mean error of the k most certain rows, for k from 1 to n: `risk_coverage_curve` for numbers.

    Rows with equal uncertainty have no order: each counts as their mean error. With the errors themselves as
    uncertainty, it is the lowest curve that there can be. It is also called a sparsification curve. The retention curve
    of Malinin et al. 2021 counts the rows left out as errors of 0, so it is coverage * risk.

    Args:
        errors: Size of the error of each row, `(n,)`, such as squared errors in squared units of the target.
        uncertainty: Scores `(n,)`, higher where less certain, such as predictive variances.

    Returns:
        The curve, with as many points as rows. `risk` has the unit of `errors`.

    Raises:
        ValueError: If the arguments have different shapes, are not finite, or an error is negative.

    Example:
        >>> from tfp_bnn.metrics import error_retention_curve
        >>> curve = error_retention_curve([4.0, 1.0, 1.0], [0.9, 0.2, 0.3])
        >>> curve.coverage.round(2).tolist(), curve.risk.tolist()
        ([0.33, 0.67, 1.0], [1.0, 1.0, 2.0])

    References:
        E. Ilg et al., Uncertainty estimates and multi-hypotheses networks for optical flow, ECCV 2018.
        https://arxiv.org/abs/1802.07095; A. Malinin et al., Shifts: a dataset of real distributional shift across
        multiple large-scale tasks, 2021. https://arxiv.org/abs/2107.07455
    """
    of_rows, u = scores("errors", errors), scores("uncertainty", uncertainty)
    if of_rows.shape != u.shape:
        raise ValueError(f"`errors` and `uncertainty` must have equal shapes, but got {of_rows.shape} and {u.shape}.")
    if of_rows.min() < 0:
        raise ValueError(
            f"`errors` must not be negative, but the lowest is {of_rows.min()}. Give their absolute values or squares."
        )
    return _curve(of_rows, u)


def area_under_risk_coverage(labels: npt.ArrayLike, probabilities: npt.ArrayLike, uncertainty: npt.ArrayLike) -> float:
    """The area under the risk-coverage curve (AURC), the mean of its n risks.

    It is low if there are few errors and they are among the least certain rows.

    Args:
        labels: Integers `(n,)` or one-hot rows `(n, classes)`.
        probabilities: Class probabilities `(n, classes)`.
        uncertainty: Scores `(n,)`, higher where less certain.

    Returns:
        A number from 0 (no errors) to 1 (only errors); the error rate by chance.

    Raises:
        ValueError: If the arguments are invalid or do not match.

    Example:
        >>> from tfp_bnn.metrics import area_under_risk_coverage, predictive_entropy
        >>> p = [[0.9, 0.1], [0.6, 0.4]]
        >>> round(area_under_risk_coverage([0, 1], p, predictive_entropy(p)), 4)
        0.25

    References:
        Y. Geifman, G. Uziel, R. El-Yaniv, Bias-reduced uncertainty estimation for deep neural classifiers, ICLR 2019.
        https://arxiv.org/abs/1805.08206
    """
    counts = ranking.counts_of(*labelled_and_scored(labels, probabilities, uncertainty))
    return float(ranking.area_under_risk_coverage_of_counts(*counts))


def risk_at_coverage(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, uncertainty: npt.ArrayLike, coverage: float = 0.9
) -> float:
    """The error rate among the most certain rows, as many as make up at least a share `coverage` of all.

    Rows with equal uncertainty have no order: the risk is its mean over all orders.

    Args:
        labels: Integers `(n,)` or one-hot rows `(n, classes)`.
        probabilities: Class probabilities `(n, classes)`.
        uncertainty: Scores `(n,)`, higher where less certain.
        coverage: Share of rows that are answered, above 0 and up to 1.

    Returns:
        A fraction from 0 to 1.

    Raises:
        ValueError: If the arguments are invalid or do not match.

    Example:
        >>> from tfp_bnn.metrics import predictive_entropy, risk_at_coverage
        >>> p = [[0.9, 0.1], [0.6, 0.4]]
        >>> risk_at_coverage([0, 1], p, predictive_entropy(p), coverage=0.5)
        0.0
    """
    wanted = share("coverage", coverage)
    counts = ranking.counts_of(*labelled_and_scored(labels, probabilities, uncertainty))
    return float(ranking.risk_at_coverage_of_counts(*counts, wanted))


def _curve(errors: npt.NDArray[np.bool_] | npt.NDArray[np.float64], u: npt.NDArray[np.float64]) -> RiskCoverageCurve:
    _, index, counts = np.unique(u, return_inverse=True, return_counts=True)
    # Each tied row counts as the mean error of the tied rows: the mean over all their orders.
    risk = np.repeat(np.bincount(index, weights=errors) / counts, counts).cumsum()
    answered = np.arange(1, len(risk) + 1)
    return RiskCoverageCurve(coverage=answered / len(risk), risk=risk / answered)
