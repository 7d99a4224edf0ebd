"""Fitting of conformal predictions to calibration data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfp_bnn.core.batches import read_examples
from tfp_bnn.predictive.conformal import Conformal, conformal_for, refuse_several_outputs

if TYPE_CHECKING:
    from tfp_bnn.models.predictive_model import PredictiveModel


def conformalize(
    model: PredictiveModel,
    x: Any,
    y: Any = None,
    level: float = 0.9,
    by_class: bool = False,
    num_samples: int = 100,
    seed: int = 0,
) -> Conformal:
    """Fits sets of classes, or intervals, that cover new targets with a given probability, and sets `model.conformal`.

    The guarantee needs no assumption about the model, only that the n examples and a new one are exchangeable: the
    probability of coverage is at least the level, on average over the calibration examples. If no two scores are equal,
    it is at most the level + 1 / (n + 1); with ties, as those of counts, it can be well above. With `by_class`, it
    holds within each class. The calibration of the model is applied first. Predict with the same `num_samples` and
    `seed`, which the result knows, so that both are the same function of the inputs.

    Args:
        model: A trained model, or an ensemble.
        x: Inputs, used neither to train nor to calibrate nor to test the model, in every form that `fit` takes.
        y: Targets of the inputs. Those of batches are in them; sample weights are refused.
        level: Probability of coverage, a number between 0 and 1. It needs level / (1 - level) examples.
        by_class: Whether to fit a threshold for each class, from at least that many examples of it.
        num_samples: S, the number of weight draws; all, if there are fewer. Default: 100, as of `posterior_predictive`.
        seed: Integer seed of the draws. Default: 0.

    Returns:
        `ConformalSets` for one class per example, `ConformalIntervals` for numbers. Its `predict` takes a predictive.

    Raises:
        ValueError: If there are several outputs or labels, or positions, or too few examples; if an argument is out of
            range; or if the data do not fit. `model.conformal` does not change then.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> layers = [keras.Input((1,)), tfp_bnn.layers.DenseFlipout(1, kernel_initializer="zeros")]
        >>> model = tfp_bnn.VariationalSequential(layers, likelihood={"name": "normal", "scale": 0.1}, seed=0)
        >>> x, y = np.zeros((99, 1)), np.linspace(-1.0, 1.0, 99)
        >>> conformal = tfp_bnn.conformalize(model, x, y, level=0.8)
        >>> lower, upper = conformal.predict(model.posterior_predictive(x[:1], seed=0))
        >>> np.round(lower, 2), np.round(upper, 2)
        (array([[-0.82]]), array([[0.82]]))
        >>> model.conformal == conformal
        True
    """
    refuse_several_outputs(model.likelihood)
    x, y = read_examples(x, y)
    model._check_examples(x, y)
    predictive = model.posterior_predictive(x, num_samples, seed)
    kind = conformal_for(model.likelihood, (*predictive.positions, predictive.num_outputs))
    # There may be fewer draws than were asked for.
    model.conformal = kind.fitted(predictive, y, level, by_class, predictive.num_samples, seed)
    return model.conformal
