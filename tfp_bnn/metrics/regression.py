"""Scores of predictive means, samples and normal distributions.

Arrays have the shape of the targets, `(n,)` or `(n, outputs)`; samples have one more axis, the first.
Scores are means over all entries. Nothing is broadcast: targets of shape `(n,)` against means of shape `(n, 1)` would
silently compare every row with every other. All scores are finite for finite arguments, even for a single row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, ndtr

from tfp_bnn.metrics.arrays import Array, float64, namespace
from tfp_bnn.metrics.validation import equal_shapes, refuse_scales_not_positive, stacked

_LOG_2_PI = np.log(2.0 * np.pi)


# === Core: float64 NumPy arrays or tensors ===


def crps_of_entries(targets: Array, samples: Array, fair: bool) -> Array:
    """The continuous ranked probability score of each target, of the shape of the targets."""
    xp = namespace(samples)
    # After sorting, |x_i - x_j| over all pairs is a weighted sum. Differences from the target keep numbers and rounding
    # small.
    errors = xp.sort(samples - targets, axis=0)
    number = xp.shape(samples)[0]
    ranks, count = xp.arange(number, dtype="float64"), float64(number)
    weights = xp.reshape(2.0 * ranks - count + 1.0, (-1, *[1] * len(targets.shape)))
    pairs = count * (count - 1.0 if fair else count)
    return xp.mean(xp.abs(errors), axis=0) - xp.sum(weights * errors, axis=0) / pairs


# === Metrics ===


def rmse(targets: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """The root mean squared error, sqrt(mean((target - prediction)^2)), over all rows and outputs.

    Args:
        targets: Targets `(n,)` or `(n, outputs)`.
        predictions: Predictive means, same shape.

    Returns:
        The error in the units of the targets.

    Raises:
        ValueError: If shapes differ, or values are missing or not finite.

    Example:
        >>> from tfp_bnn.metrics import rmse
        >>> round(rmse([1.0, 2.0], [1.0, 4.0]), 4)
        1.4142
    """
    arrays = equal_shapes(targets=targets, predictions=predictions)
    return float(np.sqrt(np.square(arrays["targets"] - arrays["predictions"]).mean()))


def mae(targets: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """The mean absolute error, mean(|target - prediction|), over all rows and outputs.

    Args:
        targets: Targets `(n,)` or `(n, outputs)`.
        predictions: Predictive means or medians, same shape.

    Returns:
        The error in the units of the targets.

    Raises:
        ValueError: If shapes differ, or values are missing or not finite.

    Example:
        >>> from tfp_bnn.metrics import mae
        >>> mae([1.0, 2.0], [1.0, 4.0])
        1.0
    """
    arrays = equal_shapes(targets=targets, predictions=predictions)
    return float(np.abs(arrays["targets"] - arrays["predictions"]).mean())


def crps(targets: npt.ArrayLike, samples: npt.ArrayLike, fair: bool = True) -> float:
    """The continuous ranked probability score of samples of the predictive, mean |x_i - y| - mean |x_i - x_j| / 2.

    It is a proper score like the NLL, in the units of the targets. For a deterministic prediction it is the absolute
    error. The second mean is over pairs of different samples, so the expectation does not depend on the number of
    samples. With `fair=False` it is over all pairs, which gives the score of the empirical distribution of the samples.
    The cost is O(S log S) for S samples.

    Args:
        targets: Targets `(n,)` or `(n, outputs)`.
        samples: Draws of the target including its noise, `(samples, n)` or `(samples, n, outputs)`, as from
            `predictive.distribution().sample(1000)`. Not `PosteriorPredictive.samples`: these are means under each draw
            of the weights, without the noise.
        fair: Whether the score is unbiased in the number of samples, which needs at least two.

    Returns:
        The mean score over all rows and outputs, in the units of the targets, at least 0. A fair score may be below 0
        by chance.

    Raises:
        ValueError: If shapes do not match, values are missing or not finite, or `fair` and there is a single sample.

    Example:
        >>> from tfp_bnn.metrics import crps
        >>> crps([1.0], [[0.0], [2.0]]), crps([1.0], [[0.0], [2.0]], fair=False)
        (0.0, 0.5)

    References:
        T. Gneiting, A. E. Raftery, Strictly proper scoring rules, prediction, and estimation, JASA 102, 2007.
        https://doi.org/10.1198/016214506000001437
        C. A. T. Ferro, Fair scores for ensemble forecasts, Quarterly Journal of the Royal Meteorological Society 140,
        2014. https://doi.org/10.1002/qj.2270
    """
    y, x = stacked(targets, "samples", samples)
    if fair and len(x) < 2:
        raise ValueError("A fair `crps` needs at least 2 samples, but got 1. Draw more, or pass `fair=False`.")
    return float(crps_of_entries(y, x, fair).mean())


def normal_crps(targets: npt.ArrayLike, means: npt.ArrayLike, scales: npt.ArrayLike) -> float:
    """The continuous ranked probability score of normal predictions, in closed form.

        s * (z * (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)) with z = (y - mean) / s

    Args:
        targets: Targets `(n,)` or `(n, outputs)`.
        means: Predictive means, same shape.
        scales: Standard deviations s, same shape.

    Returns:
        The mean score over all rows and outputs, above 0, in the units of the targets.

    Raises:
        ValueError: If shapes differ, values are missing or not finite, or a scale is not above 0.

    Example:
        >>> from tfp_bnn.metrics import normal_crps
        >>> round(normal_crps([0.0], [0.0], [1.0]), 4)
        0.2337

    References:
        T. Gneiting, A. E. Raftery, A. H. Westveld, T. Goldman, Calibrated probabilistic forecasting using ensemble
        model output statistics and minimum CRPS estimation, Monthly Weather Review 133, 2005.
        https://doi.org/10.1175/MWR2904.1
    """
    arrays = equal_shapes(targets=targets, means=means, scales=scales)
    refuse_scales_not_positive(arrays["scales"])
    z = (arrays["targets"] - arrays["means"]) / arrays["scales"]
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    scores = arrays["scales"] * (z * (2.0 * ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi))
    return float(scores.mean())


def normal_nll(targets: npt.ArrayLike, means: npt.ArrayLike, scales: npt.ArrayLike) -> float:
    """The negative log-likelihood of normal predictions, or of an equal mixture of normals, in nats per row.

        -mean_i log(1 / S * sum_s prod_k N(y_ik; mean_sik, scale_sik^2))

    Outputs are independent in each of the S components. The likelihood is a density, so the result depends on the units
    of the targets and may be negative.

    Args:
        targets: Targets `(n,)` or `(n, outputs)`.
        means: Predictive means, same shape, or with a first axis for the S components.
        scales: Standard deviations, of the shape of `means`.

    Returns:
        Nats per row, summed over outputs.

    Raises:
        ValueError: If shapes do not match, values are missing or not finite, or a scale is not above 0.

    Example:
        >>> from tfp_bnn.metrics import normal_nll
        >>> round(normal_nll([0.0], [0.0], [1.0]), 4), round(normal_nll([0.0], [[0.0], [3.0]], [[1.0], [1.0]]), 4)
        (0.9189, 1.601)
    """
    loc, scale = np.asarray(means), np.asarray(scales)
    if loc.ndim == np.ndim(targets):
        loc, scale = loc[np.newaxis], scale[np.newaxis]
    y, loc = stacked(targets, "means", loc)
    _, scale = stacked(targets, "scales", scale)
    if loc.shape != scale.shape:
        raise ValueError(f"Shapes must be equal, but got `means` {loc.shape}, `scales` {scale.shape}.")
    refuse_scales_not_positive(scale)
    log_density = -0.5 * ((y - loc) / scale) ** 2 - np.log(scale) - 0.5 * _LOG_2_PI
    of_rows = log_density.reshape(*loc.shape[:2], -1).sum(axis=-1)
    return float(np.log(len(loc)) - logsumexp(of_rows, axis=0).mean())
