"""Scores of predictive means, intervals, quantiles, samples and normals.

Arrays have the shape of the targets, `(n,)` or `(n, outputs)`; samples and quantiles have one more axis, the first.
Scores are taken over all entries. Nothing is broadcast: targets of shape `(n,)` against means of shape `(n, 1)` would
quietly compare every row with every other. All scores are finite for finite arguments, of a single row too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, ndtr

from tfp_bnn.metrics.validation import refuse_not_finite

_LOG_2_PI = np.log(2.0 * np.pi)


def rmse(targets: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """The root mean squared error, sqrt(mean((target - prediction)^2)), over all rows and outputs.

    Args:
        targets: `(n,)` or `(n, outputs)`.
        predictions: predictive means, of the same shape.

    Returns:
        The error in the units of the targets.

    Raises:
        ValueError: for shapes that differ, no values, or NaN.

    Example:
        >>> from tfp_bnn.metrics import rmse
        >>> round(rmse([1.0, 2.0], [1.0, 4.0]), 4)
        1.4142
    """
    arrays = _validated(targets=targets, predictions=predictions)
    return float(np.sqrt(np.square(arrays["targets"] - arrays["predictions"]).mean()))


def mae(targets: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """The mean absolute error, mean(|target - prediction|), over all rows and outputs.

    Args:
        targets: `(n,)` or `(n, outputs)`.
        predictions: predictive means or medians, of the same shape.

    Returns:
        The error in the units of the targets.

    Raises:
        ValueError: for shapes that differ, no values, or NaN.

    Example:
        >>> from tfp_bnn.metrics import mae
        >>> mae([1.0, 2.0], [1.0, 4.0])
        1.0
    """
    arrays = _validated(targets=targets, predictions=predictions)
    return float(np.abs(arrays["targets"] - arrays["predictions"]).mean())


def interval_coverage(targets: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike) -> float:
    """The fraction of targets in their predictive interval, ends included.

    A calibrated 90 % interval covers about 0.9; judge it together with `interval_width`.

    Args:
        targets: `(n,)` or `(n, outputs)`.
        lower: lower ends, of the same shape.
        upper: upper ends, of the same shape.

    Returns:
        A fraction from 0 to 1.

    Raises:
        ValueError: for shapes that differ, no values, NaN, or a lower end above the upper one.

    Example:
        >>> from tfp_bnn.metrics import interval_coverage
        >>> interval_coverage([1.0, 2.0], lower=[0.0, 0.0], upper=[1.0, 1.0])
        0.5

    References:
        T. Gneiting, A. E. Raftery, Strictly proper scoring rules, prediction, and estimation, JASA 102, 2007.
        https://doi.org/10.1198/016214506000001437
    """
    arrays = _validated_interval(targets=targets, lower=lower, upper=upper)
    return float(np.mean((arrays["lower"] <= arrays["targets"]) & (arrays["targets"] <= arrays["upper"])))


def interval_width(lower: npt.ArrayLike, upper: npt.ArrayLike) -> float:
    """The mean width of predictive intervals, mean(upper - lower).

    Args:
        lower: lower ends, `(n,)` or `(n, outputs)`.
        upper: upper ends, of the same shape.

    Returns:
        The width in the units of the targets.

    Raises:
        ValueError: for shapes that differ, no values, NaN, or a lower end above the upper one.

    Example:
        >>> from tfp_bnn.metrics import interval_width
        >>> interval_width(lower=[0.0, 0.0], upper=[1.0, 2.0])
        1.5
    """
    arrays = _validated_interval(lower=lower, upper=upper)
    return float((arrays["upper"] - arrays["lower"]).mean())


def crps(targets: npt.ArrayLike, samples: npt.ArrayLike, fair: bool = True) -> float:
    """The continuous ranked probability score of samples of the predictive, mean |x_i - y| - mean |x_i - x_j| / 2.

    A proper score like the NLL, in the units of the targets: of a sure prediction it is the absolute error. The second
    mean is over the pairs of different samples, so that the number of samples makes no difference to the expectation;
    with `fair=False` it is over all pairs, which gives the score of the empirical distribution of the samples. Takes
    O(S log S) for S samples.

    Args:
        targets: `(n,)` or `(n, outputs)`.
        samples: `(samples, n)` or `(samples, n, outputs)`, draws of the target with its noise, as from
            `predictive.distribution().sample(1000)`. The means under each draw of the weights,
            `PosteriorPredictive.samples`, are something else: they have no noise.
        fair: whether the score is to be unbiased in the number of samples; needs two of them.

    Returns:
        The mean score over all rows and outputs, in the units of the targets. From 0 up, but a fair one may fall below
        0 by chance.

    Raises:
        ValueError: for shapes that do not fit, no values, NaN, or a single sample if `fair`.

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
    y, x = _validated_stack(targets, "samples", samples)
    number = len(x)
    if fair and number < 2:
        raise ValueError("A fair `crps` needs at least 2 samples, but got 1. Draw more, or pass `fair=False`.")
    # Once sorted, |x_i - x_j| over all pairs is a weighted sum; about the target, numbers and rounding are small.
    errors = np.sort(x - y, axis=0)
    ranks = (2.0 * np.arange(number) - number + 1.0).reshape(-1, *[1] * y.ndim)
    spread = (ranks * errors).sum(axis=0) / (number * (number - 1 if fair else number))
    return float((np.abs(errors).mean(axis=0) - spread).mean())


def normal_crps(targets: npt.ArrayLike, means: npt.ArrayLike, scales: npt.ArrayLike) -> float:
    """The continuous ranked probability score of normal predictions, in closed form.

        s * (z * (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)) with z = (y - mean) / s

    Args:
        targets: `(n,)` or `(n, outputs)`.
        means: of the same shape.
        scales: standard deviations s, of the same shape.

    Returns:
        The mean score over all rows and outputs, above 0, in the units of the targets.

    Raises:
        ValueError: for shapes that differ, no values, NaN, or a scale that is not above 0.

    Example:
        >>> from tfp_bnn.metrics import normal_crps
        >>> round(normal_crps([0.0], [0.0], [1.0]), 4)
        0.2337

    References:
        T. Gneiting, A. E. Raftery, A. H. Westveld, T. Goldman, Calibrated probabilistic forecasting using ensemble
        model output statistics and minimum CRPS estimation, Monthly Weather Review 133, 2005.
        https://doi.org/10.1175/MWR2904.1
    """
    arrays = _validated(targets=targets, means=means, scales=scales)
    _check_scales(arrays["scales"])
    z = (arrays["targets"] - arrays["means"]) / arrays["scales"]
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    scores = arrays["scales"] * (z * (2.0 * ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi))
    return float(scores.mean())


def normal_nll(targets: npt.ArrayLike, means: npt.ArrayLike, scales: npt.ArrayLike) -> float:
    """The negative log-likelihood of normal predictions or of an equal mixture of them, in nats per row.

        -mean_i log(1 / S * sum_s prod_k N(y_ik; mean_sik, scale_sik^2))

    Outputs are independent in each of the S components. It is a density: in other units of the targets it is another
    number, and it may be negative.

    Args:
        targets: `(n,)` or `(n, outputs)`.
        means: of the same shape, or with a first axis of the S components.
        scales: standard deviations, of the shape of `means`.

    Returns:
        Nats per row, summed over outputs.

    Raises:
        ValueError: for shapes that do not fit, no values, NaN, or a scale that is not above 0.

    Example:
        >>> from tfp_bnn.metrics import normal_nll
        >>> round(normal_nll([0.0], [0.0], [1.0]), 4), round(normal_nll([0.0], [[0.0], [3.0]], [[1.0], [1.0]]), 4)
        (0.9189, 1.601)
    """
    loc, scale = np.asarray(means), np.asarray(scales)
    if loc.ndim == np.ndim(targets):
        loc, scale = loc[np.newaxis], scale[np.newaxis]
    y, loc = _validated_stack(targets, "means", loc)
    _, scale = _validated_stack(targets, "scales", scale)
    if loc.shape != scale.shape:
        raise ValueError(f"Shapes must be equal, but got `means` {loc.shape}, `scales` {scale.shape}.")
    _check_scales(scale)
    log_density = -0.5 * ((y - loc) / scale) ** 2 - np.log(scale) - 0.5 * _LOG_2_PI
    of_rows = log_density.reshape(*loc.shape[:2], -1).sum(axis=-1)
    return float(np.log(len(loc)) - logsumexp(of_rows, axis=0).mean())


def quantile_calibration_error(
    targets: npt.ArrayLike, quantiles: npt.ArrayLike, levels: Sequence[float] | npt.NDArray[np.floating]
) -> float:
    """The calibration error of quantiles, mean over levels of |share of targets at or below the quantile - level|.

    Args:
        targets: `(n,)` or `(n, outputs)`.
        quantiles: `(levels, n)` or `(levels, n, outputs)`, as from `predictive.quantiles(levels)`.
        levels: of the quantiles, each above 0 and below 1, for example `[0.05, 0.15, ..., 0.95]`.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: for shapes that do not fit, no values, NaN, or levels out of range.

    Example:
        >>> from tfp_bnn.metrics import quantile_calibration_error
        >>> round(quantile_calibration_error([1.0, 2.0], quantiles=[[0.0, 0.0], [1.5, 1.5]], levels=[0.1, 0.9]), 4)
        0.25

    References:
        V. Kuleshov, N. Fenner, S. Ermon, Accurate uncertainties for deep learning using calibrated regression, ICML
        2018. https://arxiv.org/abs/1807.00263
    """
    y, q = _validated_stack(targets, "quantiles", quantiles)
    nominal = np.asarray(levels, dtype=np.float64)
    if nominal.shape != (len(q),) or not ((nominal > 0) & (nominal < 1)).all():
        raise ValueError(
            f"`levels` must be {len(q)} numbers above 0 and below 1, one for each of the `quantiles`, but got "
            f"{levels!r}."
        )
    empirical = (y <= q).reshape(len(q), -1).mean(axis=1)
    return float(np.abs(empirical - nominal).mean())


def _validated_interval(**values: npt.ArrayLike) -> dict[str, npt.NDArray[np.float64]]:
    arrays = _validated(**values)
    crossed = np.count_nonzero(arrays["lower"] > arrays["upper"])
    if crossed:
        raise ValueError(
            f"`lower` must not be above `upper`, but is for {crossed} of {arrays['lower'].size} intervals. Were they "
            "swapped?"
        )
    return arrays


def _check_scales(scales: npt.NDArray[np.float64]) -> None:
    if scales.min() <= 0:
        raise ValueError(f"`scales` must be above 0, but the lowest value is {scales.min()}. Are they log-scales?")


def _validated_stack(
    targets: npt.ArrayLike, name: str, values: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The targets, and an array with one more axis, the first, both float64."""
    y = _validated(targets=targets)["targets"]
    stack = np.asarray(values, dtype=np.float64)
    if stack.shape[1:] != y.shape or stack.size == 0:
        raise ValueError(
            f"`{name}` must have the shape of the targets, {y.shape}, after a first axis of its own, but got "
            f"{stack.shape}."
        )
    refuse_not_finite(name, stack)
    return y, stack


def _validated(**values: npt.ArrayLike) -> dict[str, npt.NDArray[np.float64]]:
    """The arguments as float64 arrays of one shape, by name."""
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        got = ", ".join(f"`{name}` {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"Shapes must be equal, but got {got}. Reshape one to the other; drop an axis of length 1 with array[:, 0]."
        )
    for name, array in arrays.items():
        if array.ndim not in (1, 2) or array.size == 0:
            raise ValueError(
                f"`{name}` must have shape (n,) or (n, outputs) and at least one value, but got {array.shape}."
            )
        refuse_not_finite(name, array)
    return arrays
