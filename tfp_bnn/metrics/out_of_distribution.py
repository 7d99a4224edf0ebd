"""Scores for the detection of out-of-distribution inputs by their uncertainty.

`in_distribution` and `out_of_distribution`, of shapes `(n,)` and `(m,)`, are scores that should be higher for
out-of-distribution inputs, such as the `uncertainty_scores` of the predictions for both sets of inputs. Out of
distribution is the positive class. (Some papers swap the classes; AUPR and FPR then mean something else.) Neither set
may be empty, so all results are finite.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfp_bnn.metrics import ranking
from tfp_bnn.metrics.validation import scores, share


def out_of_distribution_auroc(in_distribution: npt.ArrayLike, out_of_distribution: npt.ArrayLike) -> float:
    """The area under the ROC curve: P(an out-of-distribution input scores above one in distribution), ties one half.

    Args:
        in_distribution: Scores `(n,)` of inputs from the training distribution.
        out_of_distribution: Scores `(m,)` of inputs from another distribution.

    Returns:
        A number from 0 to 1, 0.5 by chance.

    Raises:
        ValueError: If scores are not finite, have another shape, or are missing.

    Example:
        >>> from tfp_bnn.metrics import out_of_distribution_auroc
        >>> out_of_distribution_auroc([0.1, 0.3], [0.3, 0.9])
        0.875

    References:
        D. Hendrycks, K. Gimpel, A baseline for detecting misclassified and out-of-distribution examples in neural
        networks, ICLR 2017. https://arxiv.org/abs/1610.02136
    """
    return ranking.auroc(*_joined(in_distribution, out_of_distribution))


def out_of_distribution_aupr(in_distribution: npt.ArrayLike, out_of_distribution: npt.ArrayLike) -> float:
    """The average precision of detecting out-of-distribution inputs: the area under the precision-recall curve.

    Args:
        in_distribution: Scores `(n,)` of inputs from the training distribution.
        out_of_distribution: Scores `(m,)` of inputs from another distribution.

    Returns:
        A number from 0 to 1; m / (n + m) by chance, so only results with the same ratio are comparable.

    Raises:
        ValueError: If scores are not finite, have another shape, or are missing.

    Example:
        >>> from tfp_bnn.metrics import out_of_distribution_aupr
        >>> round(out_of_distribution_aupr([0.1, 0.3], [0.3, 0.9]), 4)
        0.8333

    References:
        D. Hendrycks, K. Gimpel, A baseline for detecting misclassified and out-of-distribution examples in neural
        networks, ICLR 2017. https://arxiv.org/abs/1610.02136
    """
    return ranking.average_precision(*_joined(in_distribution, out_of_distribution))


def out_of_distribution_fpr(
    in_distribution: npt.ArrayLike, out_of_distribution: npt.ArrayLike, recall: float = 0.95
) -> float:
    """The share of in-distribution inputs above the threshold that detects 95 % of the others (FPR95).

    The threshold is the highest score reached by at least a share `recall` of the out-of-distribution inputs.

    Args:
        in_distribution: Scores `(n,)` of inputs from the training distribution.
        out_of_distribution: Scores `(m,)` of inputs from another distribution.
        recall: Share of out-of-distribution inputs to detect, above 0 and up to 1.

    Returns:
        A fraction from 0 to 1, lower is better; `recall` by chance.

    Raises:
        ValueError: If scores are not finite, have another shape, or are missing, or the recall is out of range.

    Example:
        >>> from tfp_bnn.metrics import out_of_distribution_fpr
        >>> out_of_distribution_fpr([0.1, 0.3], [0.3, 0.9])
        0.5

    References:
        S. Liang, Y. Li, R. Srikant, Enhancing the reliability of out-of-distribution image detection in neural
        networks, ICLR 2018. https://arxiv.org/abs/1706.02690
    """
    wanted = share("recall", recall)
    return ranking.false_positive_rate(*_joined(in_distribution, out_of_distribution), wanted)


def _joined(
    in_distribution: npt.ArrayLike, out_of_distribution: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    inside = scores("in_distribution", in_distribution)
    outside = scores("out_of_distribution", out_of_distribution)
    return np.repeat([False, True], [len(inside), len(outside)]), np.concatenate([inside, outside])
