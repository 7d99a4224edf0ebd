"""Fitting a calibration to validation data."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.optimize

from tfp_bnn.predictive.calibrators import HIGHEST, LOWEST, Calibration, calibration_for

if TYPE_CHECKING:
    from tfp_bnn.models.predictive_model import PredictiveModel

_GRID_POINTS = 11


def calibrate(model: PredictiveModel, x: Any, y: Any, num_samples: int = 50, seed: int = 0) -> Calibration:
    """Fits the calibration of a trained model, and sets `model.calibration`.

    Minimizes the negative log-likelihood, in nats, of the Monte Carlo predictive, over a grid first, because that of a
    mixture can have several minima. The network is run once, without a calibration that the model may have; the search
    takes about 25 evaluations. Memory: a few copies of the raw outputs, `num_samples` x n x outputs float32 numbers.

    Args:
        model: A trained model, or an ensemble.
        x: inputs of shape `(n, ...)`, an array; of validation data, that neither trained the model nor test it.
        y: their targets, as for training.
        num_samples: S, the number of weight draws.
        seed: of the draws, an integer.

    Returns:
        A `Temperature` for the likelihoods 'categorical' and 'bernoulli', a `Scale` for 'normal'. With a warning when
        the data do not determine it, so that it is at the end of its range.

    Raises:
        ValueError: For a likelihood that names no calibrator, with the reason; for empty data, another shape, NaN or
            labels out of range; for a bad `num_samples` or `seed`; for raw outputs that have NaN, or take more than
            1 GiB.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> layers = [keras.Input((1,)), tfp_bnn.layers.DenseFlipout(1, kernel_initializer="zeros")]
        >>> model = tfp_bnn.VariationalSequential(layers, likelihood={"name": "normal", "scale": 0.1}, seed=0)
        >>> x, y = np.zeros((100, 1)), np.random.default_rng(0).normal(size=100)
        >>> calibrated = tfp_bnn.calibrate(model, x, y)
        >>> round(calibrated.scale * 0.1, 2), round(float(np.sqrt(np.mean(y**2))), 2)
        (0.97, 0.97)
        >>> model.calibration == calibrated
        True
    """
    cls = calibration_for(model.likelihood)
    model._check_examples(x, y)
    raw = model.posterior_predictive(x, num_samples, seed, calibrated=False)

    def nll(value: float) -> float:
        return -float(raw.calibrated_by(cls(value)).log_prob(y).mean(dtype=np.float64))

    grid = np.geomspace(LOWEST, HIGHEST, _GRID_POINTS).tolist()
    heights = [nll(value) for value in grid]
    if np.isnan(heights).any():
        raise ValueError("The predictions of the model have NaN or infinite values. Train it again before calibrating.")
    best = int(np.argmin(heights))
    around = np.log([grid[max(best - 1, 0)], grid[min(best + 1, _GRID_POINTS - 1)]])
    found = scipy.optimize.minimize_scalar(
        lambda logarithm: nll(math.exp(logarithm)), bounds=around, method="bounded", options={"xatol": 1e-5}
    )
    # The search stays between its ends: they win a tie.
    value = math.exp(found.x) if found.fun < heights[best] else grid[best]
    if value in (LOWEST, HIGHEST):
        warnings.warn(
            f"The calibration that fits these {len(raw)} examples best is at the end of its range, {LOWEST} to "
            f"{HIGHEST:g}. Either they do not determine it (all are predicted rightly, or none better than by "
            "chance), or the model does not fit them at all. Use more validation data, or train the model further; "
            "model.calibration = None takes it back.",
            stacklevel=2,
        )
    model.calibration = cls(value)
    return model.calibration
