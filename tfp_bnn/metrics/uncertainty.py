"""The uncertainty of predictions, and its decomposition. Entropies are in nats.

`probabilities`, of shape `(n, classes)`, are averaged over Monte Carlo samples; `sample_probabilities`, of shape
`(samples, n, classes)`, are not. Every function computes in float64, and raises a ValueError for shapes that do not
match and values that are not probabilities. All results are finite, even for one sample, one row and probabilities of
exactly 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.metrics.arrays import Array, float64, mean_over_samples, namespace
from tfp_bnn.metrics.validation import averaged, sampled

# === Cores: NumPy arrays or tensors (n, classes) or (samples, n, classes) to a float64 value per row ===


def entropy_of_rows(probabilities: Array) -> Array:
    """-sum p log p over the last axis, in nats, never below 0."""
    xp, p = namespace(probabilities), float64(probabilities)
    # Subtracted from 0, because negating 0 gives -0.
    entropy = 0.0 - xp.sum(p * xp.log(xp.where(p > 0, p, xp.ones_like(p))), axis=-1)
    # A float32 probability may round to just above 1, where -p log p is negative.
    return xp.maximum(entropy, 0.0)


def expected_error_of_rows(probabilities: Array) -> Array:
    """1 - max p over the last axis, never below 0."""
    xp = namespace(probabilities)
    # A float32 probability may round to just above 1.
    return xp.maximum(1.0 - float64(xp.max(probabilities, axis=-1)), 0.0)


def mean_of_samples(samples: Array) -> Array:
    """The probabilities averaged over the samples, `(n, classes)`, float64."""
    return mean_over_samples(lambda sample: sample, samples)


def expected_entropy_of_rows(samples: Array) -> Array:
    """The mean over samples of the entropy of each row, in nats."""
    return mean_over_samples(entropy_of_rows, samples)


def mutual_information_of_rows(samples: Array) -> Array:
    """The entropy of the mean minus the mean entropy, in nats, never below 0."""
    difference = entropy_of_rows(mean_of_samples(samples)) - expected_entropy_of_rows(samples)
    return namespace(samples).maximum(difference, 0.0)


def variance_of_rows(samples: Array) -> Array:
    """The variance over samples, summed over classes."""
    xp, mean = namespace(samples), mean_of_samples(samples)
    return mean_over_samples(lambda sample: xp.sum(xp.square(sample - mean), axis=-1), samples)


SCORES: dict[str, Callable[[Array], Array]] = {
    "entropy": lambda samples: entropy_of_rows(mean_of_samples(samples)),
    "expected_entropy": expected_entropy_of_rows,
    "mutual_information": mutual_information_of_rows,
    "expected_error": lambda samples: expected_error_of_rows(mean_of_samples(samples)),
    "variance": variance_of_rows,
}
# They measure how much the samples disagree, so they are 0 for a single sample.
SCORES_OF_SEVERAL_SAMPLES = ("mutual_information", "variance")


def known_score(score: str) -> str:
    """Returns the name if it is in `SCORES`. Otherwise raises a ValueError that suggests the nearest name."""
    if score not in SCORES:
        raise ValueError(unknown_name_message("score", score, SCORES))
    return score


# === Metrics ===


def predictive_entropy(probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The entropy of each predictive distribution, -sum p log p: its total uncertainty.

    Args:
        probabilities: Class probabilities `(n, classes)`.

    Returns:
        Nats, shape `(n,)`, from 0 to log(classes).

    Raises:
        ValueError: If the values are not probabilities.

    Example:
        >>> from tfp_bnn.metrics import predictive_entropy
        >>> predictive_entropy([[0.5, 0.5], [1.0, 0.0]]).round(4).tolist()
        [0.6931, 0.0]
    """
    entropy: npt.NDArray[np.float64] = entropy_of_rows(averaged(probabilities))
    return entropy


def expected_entropy(sample_probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The mean entropy of the Monte Carlo samples, E_w[H(p(y | x, w))]: the aleatoric part of `predictive_entropy`.

    It is what remains uncertain once the weights are known.

    Args:
        sample_probabilities: One distribution per draw of the weights, `(samples, n, classes)`.

    Returns:
        Nats, shape `(n,)`, from 0 to log(classes).

    Raises:
        ValueError: If the values are not probabilities.

    Example:
        >>> from tfp_bnn.metrics import expected_entropy
        >>> expected_entropy([[[0.5, 0.5]], [[1.0, 0.0]]]).round(4).tolist()
        [0.3466]

    References:
        S. Depeweg, J. M. Hernandez-Lobato, F. Doshi-Velez, S. Udluft, Decomposition of uncertainty in Bayesian deep
        learning for efficient and risk-sensitive learning, ICML 2018. https://arxiv.org/abs/1710.07283
    """
    return _score(sample_probabilities, "expected_entropy")


def mutual_information(sample_probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The mutual information of label and weights, H(E_w[p]) - E_w[H(p)]: the epistemic part of `predictive_entropy`.

    It is 0 where all draws of the weights agree. Negative values, which only rounding can produce, are returned as 0.

    Args:
        sample_probabilities: One distribution per draw of the weights, `(samples, n, classes)`.

    Returns:
        Nats, shape `(n,)`, from 0 to log(min(samples, classes)).

    Raises:
        ValueError: If the values are not probabilities.

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
    return _score(sample_probabilities, "mutual_information")


def class_variance(sample_probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The variance of the class probabilities over the Monte Carlo samples, sum_k Var_w[p(k | x, w)].

    It is 0 where all draws of the weights agree. The sum of squares is divided by the number of samples.

    Args:
        sample_probabilities: One distribution per draw of the weights, `(samples, n, classes)`.

    Returns:
        Squared probabilities, shape `(n,)`, from 0 to 1 - 1 / min(samples, classes).

    Raises:
        ValueError: If the values are not probabilities.

    Example:
        >>> from tfp_bnn.metrics import class_variance
        >>> class_variance([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]]).tolist()
        [0.5, 0.0]

    References:
        L. Smith, Y. Gal, Understanding measures of uncertainty for adversarial example detection, UAI 2018.
        https://arxiv.org/abs/1803.08533
    """
    return _score(sample_probabilities, "variance")


def expected_error_rate(probabilities: npt.ArrayLike) -> float:
    """The error rate that the predictions themselves expect, mean(1 - max p).

    For a calibrated model it is close to the actual error rate, 1 - `accuracy`. It needs no labels.

    Args:
        probabilities: Class probabilities `(n, classes)`.

    Returns:
        A fraction from 0 to 1 - 1 / classes.

    Raises:
        ValueError: If the values are not probabilities.

    Example:
        >>> from tfp_bnn.metrics import expected_error_rate
        >>> round(expected_error_rate([[0.9, 0.1], [0.6, 0.4]]), 4)
        0.25
    """
    return float(expected_error_of_rows(averaged(probabilities)).mean())


def uncertainty_scores(sample_probabilities: npt.ArrayLike) -> dict[str, npt.NDArray[np.float64]]:
    """Scores of each row that can detect errors or out-of-distribution inputs; higher is less certain.

    Args:
        sample_probabilities: One distribution per draw of the weights, `(samples, n, classes)`.

    Returns:
        Arrays of shape `(n,)` by name: `entropy` (of the mean, nats), `expected_entropy` (nats), `mutual_information`
        (nats), `expected_error` (1 - the highest mean probability), and `variance` (`class_variance`).

    Raises:
        ValueError: If the values are not probabilities.

    Example:
        >>> from tfp_bnn.metrics import uncertainty_scores
        >>> scores = uncertainty_scores([[[1.0, 0.0]], [[0.5, 0.5]]])
        >>> {name: score.round(4).tolist() for name, score in scores.items()}
        {'entropy': [0.5623], 'expected_entropy': [0.3466], 'mutual_information': [0.2158], 'expected_error': [0.25],
         'variance': [0.125]}
    """
    samples = sampled(sample_probabilities)
    return {name: score(samples) for name, score in SCORES.items()}


def _score(sample_probabilities: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = SCORES[name](sampled(sample_probabilities))
    return values
