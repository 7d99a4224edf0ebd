"""Fitting a calibration to validation data."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.optimize

from tfp_bnn.core.batches import read_examples
from tfp_bnn.predictive.calibrators import HIGHEST, LOWEST, Calibration, calibration_for

if TYPE_CHECKING:
    from tfp_bnn.models.predictive_model import PredictiveModel

_GRID_RATIO = 2.5


def calibrate(
    model: PredictiveModel, x: Any, y: Any = None, num_samples: int = 50, seed: int = 0, sharpen: bool = False
) -> Calibration:
    """Fits the calibration of a trained model, and sets `model.calibration`.

    Minimizes the negative log-likelihood of the Monte Carlo predictive, in nats; that of each position on its own, if
    there are positions, such as pixels. The search starts on a grid, because that of a mixture can have several minima,
    and takes about 25 evaluations. The network is run once, and any calibration the model already has is ignored.

    Only numbers of at least 1 are considered, which make predictions less confident. A number below 1 makes them more
    confident for all inputs, also for those that are unlike the validation data, where nothing says that they should
    be: there it does more harm than it helps here (`benchmarks/sharpening.py` measures both). A result of exactly 1
    therefore means that the predictions are not overconfident. If they are underconfident, train the posterior further.

    Memory: a few copies of the raw outputs, `num_samples` x n x outputs float32 numbers.

    Args:
        model: A trained model, or an ensemble.
        x: Validation inputs, used neither to train nor to test the model, in every form that `fit` takes. Batches of a
            `tf.data.Dataset`, a `PyDataset` or a generator are read into memory; sample weights are refused.
        y: Targets of the inputs, as for training. Those of batches are in them.
        num_samples: S, the number of weight draws.
        seed: Integer seed of the draws.
        sharpen: Whether to consider numbers below 1, too. Only for inputs that are all like the validation data.

    Returns:
        A `Temperature` for the likelihoods 'categorical' and 'bernoulli', a `Scale` for 'normal', 'laplace',
        'student_t' and 'multivariate_normal'. Warns if the data do not determine it and it ends up at the end of its
        range.

    Raises:
        ValueError: If the likelihood has no calibrator; if the data are empty, have the wrong shape, NaN, or labels out
            of range; if `num_samples` or `seed` is invalid; or if the raw outputs have NaN or take more than 1 GiB.

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
    x, y = read_examples(x, y)
    model._check_examples(x, y)
    raw = model.posterior_predictive(x, num_samples, seed, calibrated=False)

    def nll(value: float) -> float:
        return -float(raw.calibrated_by(cls(value)).log_prob(y, by_position=True).mean(dtype=np.float64))

    lowest = LOWEST if sharpen else 1.0
    grid = np.geomspace(lowest, HIGHEST, 1 + round(math.log(HIGHEST / lowest, _GRID_RATIO))).tolist()
    heights = [nll(value) for value in grid]
    if np.isnan(heights).any():
        raise ValueError("The predictions of the model have NaN or infinite values. Train it again before calibrating.")
    best = int(np.argmin(heights))
    around = np.log([grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]])
    found = scipy.optimize.minimize_scalar(
        lambda logarithm: nll(math.exp(logarithm)), bounds=around, method="bounded", options={"xatol": 1e-5}
    )
    # The search never returns its ends, so a grid point wins a tie.
    value = math.exp(found.x) if found.fun < heights[best] else grid[best]
    if value in (LOWEST, HIGHEST):
        warnings.warn(
            f"The calibration that fits these {len(raw)} examples best is at the end of its range, {LOWEST} to "
            f"{HIGHEST:g}. Either they do not determine it (all are predicted correctly, or none better than by "
            "chance), or the model does not fit them at all. Use more validation data, or train the model further; "
            "model.calibration = None removes it.",
            stacklevel=2,
        )
    model.calibration = cls(value)
    return model.calibration
