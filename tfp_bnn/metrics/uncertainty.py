"""How uncertain predictions are, and what their uncertainty is made of. Entropies are in nats.

`probabilities`, of shape `(n, classes)`, are averaged over Monte Carlo samples; `sample_probabilities`, of shape
`(samples, n, classes)`, are not. Every function sums in float64, and raises a ValueError for shapes that do not fit and
values that are not probabilities. All results are finite, for one sample, one row and probabilities of exactly 0 and 1
too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from tfp_bnn.metrics.validation import averaged, sampled


def predictive_entropy(probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The entropy of each predictive distribution, -sum p log p: its total uncertainty.

    Args:
        probabilities: `(n, classes)`.

    Returns:
        Nats, shape `(n,)`, from 0 to log(classes).

    Raises:
        ValueError: for values that are not probabilities.

    Example:
        >>> from tfp_bnn.metrics import predictive_entropy
        >>> predictive_entropy([[0.5, 0.5], [1.0, 0.0]]).round(4).tolist()
        [0.6931, 0.0]
    """
    return _entropy(averaged(probabilities))


def expected_entropy(sample_probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The mean entropy of the Monte Carlo samples, E_w[H(p(y | x, w))]: the aleatoric part of `predictive_entropy`.

    It is what remains uncertain once the weights are known.

    Args:
        sample_probabilities: `(samples, n, classes)`, one distribution per draw of the weights.

    Returns:
        Nats, shape `(n,)`, from 0 to log(classes).

    Raises:
        ValueError: for values that are not probabilities.

    Example:
        >>> from tfp_bnn.metrics import expected_entropy
        >>> expected_entropy([[[0.5, 0.5]], [[1.0, 0.0]]]).round(4).tolist()
        [0.3466]

    References:
        S. Depeweg, J. M. Hernandez-Lobato, F. Doshi-Velez, S. Udluft, Decomposition of uncertainty in Bayesian deep
        learning for efficient and risk-sensitive learning, ICML 2018. https://arxiv.org/abs/1710.07283
    """
    return _mean_entropy(sampled(sample_probabilities))


def mutual_information(sample_probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The mutual information of label and weights, H(E_w[p]) - E_w[H(p)]: the epistemic part of `predictive_entropy`.

    It is 0 where all draws of the weights agree. Negative values, which only rounding can give, are returned as 0.

    Args:
        sample_probabilities: `(samples, n, classes)`, one distribution per draw of the weights.

    Returns:
        Nats, shape `(n,)`, from 0 to log(min(samples, classes)).

    Raises:
        ValueError: for values that are not probabilities.

    Example:
        >>> from tfp_bnn.metrics import mutual_information
        >>> mutual_information([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]]).round(4).tolist()
        [0.6931, 0.0]

    References:
        N. Houlsby, F. Huszar, Z. Ghahramani, M. Lengyel, Bayesian active learning for classification and preference
        learning, 2011. https://arxiv.org/abs/1112.5745
        S. Depeweg, J. M. Hernandez-Lobato, F. Doshi-Velez, S. Udluft, Decomposition of uncertainty in Bayesian deep
        learning for efficient and risk-sensitive learning, ICML 2018. https://arxiv.org/abs/1710.07283
    """
    samples = sampled(sample_probabilities)
    total = _entropy(samples.mean(axis=0, dtype=np.float64))
    return np.maximum(total - _mean_entropy(samples), 0.0)


def class_variance(sample_probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The variance of the class probabilities over the Monte Carlo samples, sum_k Var_w[p(k | x, w)].

    It is 0 where all draws of the weights agree. The variance is that of the samples at hand, divided by their number.

    Args:
        sample_probabilities: `(samples, n, classes)`, one distribution per draw of the weights.

    Returns:
        Squared probabilities, shape `(n,)`, from 0 to 1 - 1 / min(samples, classes).

    Raises:
        ValueError: for values that are not probabilities.

    Example:
        >>> from tfp_bnn.metrics import class_variance
        >>> class_variance([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]]).tolist()
        [0.5, 0.0]

    References:
        L. Smith, Y. Gal, Understanding measures of uncertainty for adversarial example detection, UAI 2018.
        https://arxiv.org/abs/1803.08533
    """
    samples = sampled(sample_probabilities)
    return _variance(samples, samples.mean(axis=0, dtype=np.float64))


def expected_error_rate(probabilities: npt.ArrayLike) -> float:
    """The error rate that the predictions themselves expect, mean(1 - max p).

    Of a calibrated model it is near the rate of errors, 1 - `accuracy`; no labels are needed.

    Args:
        probabilities: `(n, classes)`.

    Returns:
        A fraction from 0 to 1 - 1 / classes.

    Raises:
        ValueError: for values that are not probabilities.

    Example:
        >>> from tfp_bnn.metrics import expected_error_rate
        >>> round(expected_error_rate([[0.9, 0.1], [0.6, 0.4]]), 4)
        0.25
    """
    return float(_expected_error(averaged(probabilities)).mean())


def uncertainty_scores(sample_probabilities: npt.ArrayLike) -> dict[str, npt.NDArray[np.float64]]:
    """Scores of each row by which errors or out-of-distribution inputs may be told; higher is less certain.

    Args:
        sample_probabilities: `(samples, n, classes)`, one distribution per draw of the weights.

    Returns:
        Arrays of shape `(n,)` by name: `entropy` (of the mean, nats), `expected_entropy` (nats), `mutual_information`
        (nats), `expected_error` (1 - the highest mean probability), and `variance` (`class_variance`).

    Raises:
        ValueError: for values that are not probabilities.

    Example:
        >>> from tfp_bnn.metrics import uncertainty_scores
        >>> scores = uncertainty_scores([[[1.0, 0.0]], [[0.5, 0.5]]])
        >>> {name: score.round(4).tolist() for name, score in scores.items()}
        {'entropy': [0.5623], 'expected_entropy': [0.3466], 'mutual_information': [0.2158], 'expected_error': [0.25],
         'variance': [0.125]}
    """
    samples = sampled(sample_probabilities)
    mean = samples.mean(axis=0, dtype=np.float64)
    entropy, aleatoric = _entropy(mean), _mean_entropy(samples)
    return {
        "entropy": entropy,
        "expected_entropy": aleatoric,
        "mutual_information": np.maximum(entropy - aleatoric, 0.0),
        "expected_error": _expected_error(mean),
        "variance": _variance(samples, mean),
    }


def _expected_error(p: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    # A float32 probability may round to just above 1.
    return np.maximum(1.0 - p.max(axis=1).astype(np.float64), 0.0)


def _entropy(p: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    entropy: npt.NDArray[np.float64] = entr(p.astype(np.float64)).sum(axis=-1)
    # A float32 probability may round to just above 1, where -p log p is negative.
    return np.maximum(entropy, 0.0)


def _mean_entropy(samples: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    # One sample at a time: a float64 copy of all of them may not fit into memory.
    total = np.zeros(samples.shape[1])
    for sample in samples:
        total += _entropy(sample)
    return total / len(samples)


def _variance(samples: npt.NDArray[np.floating[Any]], mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    total = np.zeros(samples.shape[1])
    for sample in samples:
        total += np.square(sample - mean).sum(axis=-1)
    return total / len(samples)
