"""Scores of inputs: how much there is to learn from the label of each one alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfp_bnn.predictive import PosteriorPredictive


def bald(predictive: PosteriorPredictive) -> np.ndarray:
    """The mutual information of label and weights, in nats: what the label is expected to say about the weights.

    I(y; w | x) = H(E_w p(y | x, w)) - E_w H(p(y | x, w)). An input that is ambiguous under every draw has a high
    entropy, but teaches nothing and scores 0.

    Args:
        predictive: Predictions of classes or labels for n inputs.

    Returns:
        Array of shape `(n,)`, float32; the mean over positions, such as pixels.

    Raises:
        TypeError: If the predictive is that of several outputs.
        ValueError: If the targets are numbers, for which `standard_deviation` is.

    References:
        Houlsby et al. 2011, Bayesian Active Learning for Classification and Preference Learning,
        https://arxiv.org/abs/1112.5745
    """
    predictive = require_one_predictive(predictive, "bald")
    require_probabilities(predictive, "bald", "the epistemic standard deviation, by='standard_deviation'")
    return _of_inputs(predictive.epistemic())


def entropy(predictive: PosteriorPredictive) -> np.ndarray:
    """The entropy of the predictive, in nats: everything that is uncertain, noise included.

    Args:
        predictive: Predictions for n inputs.

    Returns:
        Array of shape `(n,)`, float32; the mean over positions, and over the targets if these are numbers.

    Raises:
        TypeError: If the predictive is that of several outputs.
    """
    return _of_inputs(require_one_predictive(predictive, "entropy").entropy())


def variation_ratio(predictive: PosteriorPredictive) -> np.ndarray:
    """The probability that the most probable class is wrong, 1 - max_c p(c | x, data).

    Args:
        predictive: Predictions of classes or labels for n inputs.

    Returns:
        Array of shape `(n,)`, float32; the mean over positions, and over the labels if each input has several.

    Raises:
        TypeError: If the predictive is that of several outputs.
        ValueError: If the targets are numbers.

    References:
        Freeman 1965, Elementary Applied Statistics; Gal, Islam and Ghahramani 2017, Deep Bayesian Active Learning with
        Image Data, https://arxiv.org/abs/1703.02910
    """
    predictive = require_one_predictive(predictive, "variation_ratio")
    require_probabilities(predictive, "variation_ratio", "by='standard_deviation' or 'entropy'")
    probabilities = predictive.mean()
    # The one column of a question with two answers is the probability of yes.
    if predictive.target_kind == "labels" or probabilities.shape[-1] == 1:
        return _of_inputs(np.minimum(probabilities, 1 - probabilities))
    return _of_inputs(1 - probabilities.max(axis=-1))


def standard_deviation(predictive: PosteriorPredictive) -> np.ndarray:
    """The epistemic standard deviation: how far the means of the draws lie apart, in units of the target.

    Args:
        predictive: Predictions of numbers for n inputs.

    Returns:
        Array of shape `(n,)`, float32: the root of the variance, averaged over targets and positions. With several
        targets, that with the largest unit counts most.

    Raises:
        TypeError: If the predictive is that of several outputs.
        ValueError: If the targets are classes or labels, for which `bald` is.
    """
    predictive = require_one_predictive(predictive, "standard_deviation")
    if predictive.likelihood.has_probabilities:
        raise ValueError(
            f"'standard_deviation' is for numbers, but {predictive.likelihood!r} predicts classes or labels. Use "
            "by='bald', the mutual information."
        )
    return np.sqrt(_of_inputs(predictive.epistemic()))


def require_probabilities(predictive: PosteriorPredictive, name: str, instead: str) -> None:
    """Refuses predictions of numbers. The ValueError names the acquisition and what to use instead."""
    if not predictive.likelihood.has_probabilities:
        raise ValueError(
            f"{name!r} is for classes and labels, but {predictive.likelihood!r} predicts numbers. Use {instead}."
        )


def require_one_predictive(predictive: Any, function: str) -> PosteriorPredictive:
    """Refuses anything but the predictive of one output. The TypeError says how to get one."""
    if not isinstance(predictive, PosteriorPredictive):
        raise TypeError(
            f"`{function}` takes a PosteriorPredictive, as from model.posterior_predictive(x), but got a "
            f"{type(predictive).__name__}. Of a model with several outputs, pass one: predictive['class']."
        )
    return predictive


def _of_inputs(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).mean(axis=1, dtype=np.float64).astype(np.float32)
