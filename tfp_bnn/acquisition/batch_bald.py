"""BatchBALD: a batch of inputs whose labels together say most about the weights."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from tfp_bnn.acquisition.scores import require_one_predictive, require_probabilities
from tfp_bnn.core.arguments import require_integer
from tfp_bnn.predictive import PosteriorPredictive

# Inputs are evaluated in blocks of at most so many probabilities, 64 MiB.
_BLOCK = 2**23
# How many inputs are looked at before asking whether any other can still be better.
_AT_A_TIME = 64

Array = npt.NDArray[np.float64]


def batch_bald(
    predictive: PosteriorPredictive, number: int, seed: int = 0, most_configurations: int = 2_000
) -> npt.NDArray[np.int64]:
    """Chooses inputs whose labels together say most about the weights, one after the other.

    The batch maximizes I(y_1, ..., y_b; w) = H(y_1, ..., y_b) - sum_i E_w H(y_i | w) greedily. The best inputs by
    `bald` are often alike, and the label of one tells those of the others: BatchBALD counts what they share once. By
    the chain rule, the next input adds

        H(y_i | y_1, ..., y_m) - E_w H(y_i | w)

    where the first term is the mean, over the labels that the m inputs so far may have, of the entropy under the draws
    weighted by how well they predict these labels. All C^m sets of labels are enumerated as long as there are at most
    `most_configurations`, which is exact for the given draws. Beyond, so many are drawn from the joint predictive.

    The gain of an input never grows with the batch, so inputs whose former gain is below the best new one are not
    evaluated again (lazy greedy). If sets of labels are drawn, this holds up to Monte Carlo error.

    Args:
        predictive: Predictions of one class for each of n inputs. All draws must be in memory.
        number: Number of inputs to choose, 1 to n.
        seed: Integer seed of the sets of labels that are drawn.
        most_configurations: Largest number of sets of labels, 1 or more. Time and memory grow with it.

    Returns:
        Indices of the inputs in the order of choice, `(number,)`, int64. The first maximizes `bald`.

    Raises:
        TypeError: If there are several outputs.
        ValueError: If the targets are not one class for each input, an argument is out of range, a probability is NaN,
            or the draws did not fit into memory.

    References:
        Kirsch, van Amersfoort and Gal 2019, BatchBALD: Efficient and Diverse Batch Acquisition for Deep Bayesian
        Active Learning, https://arxiv.org/abs/1906.08158
    """
    probabilities = _class_probabilities(predictive)
    number = require_number(number, probabilities.shape[1])
    labels = _Labels(
        probabilities, require_integer("most_configurations", most_configurations, 1), require_integer("seed", seed)
    )
    gains = labels.gains(np.arange(probabilities.shape[1]))
    chosen = [int(np.argmax(gains))]
    while len(chosen) < number:
        labels.add(chosen[-1])
        gains[chosen[-1]] = -np.inf
        order = np.argsort(-gains, kind="stable")[: len(gains) - len(chosen)]
        best = -np.inf
        for start in range(0, len(order), _AT_A_TIME):
            block = order[start : start + _AT_A_TIME]
            if best >= gains[block[0]]:
                break
            gains[block] = labels.gains(block)
            if gains[block].max() > best:
                best, winner = gains[block].max(), int(block[gains[block].argmax()])
        chosen.append(winner)
    return np.array(chosen, np.int64)


def require_number(number: int, available: int) -> int:
    """Returns the number of inputs to choose. Raises a ValueError unless it lies between 1 and `available`."""
    if require_integer("number", number, 1) > available:
        raise ValueError(f"`number` is {number}, but there are only {available} inputs to choose from.")
    return int(number)


class _Labels:
    """The labels that the inputs chosen so far may have.

    Args:
        probabilities: Class probabilities under each draw, `(S, n, classes)`.
        most: Largest number of sets of labels.
        seed: Seed of those that are drawn.
    """

    def __init__(self, probabilities: Array, most: int, seed: int) -> None:
        self._probabilities = probabilities
        self._expected_entropy = entr(probabilities).sum(axis=-1).mean(axis=0)
        self._most = most
        self._rng = np.random.default_rng(seed)
        self._chosen: list[int] = []
        num_draws = len(probabilities)
        # Without labels: one set, of which every draw is equally probable.
        self._share = np.ones(1)
        self._log_likelihood = np.full((num_draws, 1), -math.log(num_draws))
        self._weights = np.full((num_draws, 1), 1 / num_draws)

    def gains(self, indices: npt.NDArray[np.integer]) -> Array:
        """What each of some inputs would add to the mutual information of the batch and the weights, in nats."""
        num_classes = self._probabilities.shape[-1]
        at_a_time = max(1, _BLOCK // (len(self._share) * num_classes))
        found = []
        for start in range(0, len(indices), at_a_time):
            of_inputs = self._probabilities[:, indices[start : start + at_a_time]]
            predicted = np.tensordot(self._weights, of_inputs, axes=(0, 0))
            found.append(self._share @ entr(predicted).sum(axis=-1))
        return np.concatenate(found) - self._expected_entropy[indices]

    def add(self, index: int) -> None:
        """Adds an input to the batch."""
        self._chosen.append(index)
        num_draws, _, num_classes = self._probabilities.shape
        if num_classes ** len(self._chosen) <= self._most:
            with np.errstate(divide="ignore"):
                of_input = np.log(self._probabilities[:, index])
            self._log_likelihood = (self._log_likelihood[:, :, None] + of_input[:, None, :]).reshape(num_draws, -1)
            self._share = np.exp(self._log_likelihood).sum(axis=0)
        else:
            self._draw()
        self._weights = _softmax(self._log_likelihood)

    def _draw(self) -> None:
        """Draws sets of labels of the chosen inputs from the joint predictive: a draw of the weights, then labels."""
        of_chosen = self._probabilities[:, self._chosen]
        draws = self._rng.integers(len(of_chosen), size=self._most)
        uniform = self._rng.uniform(size=(self._most, len(self._chosen), 1))
        cumulative = of_chosen.cumsum(axis=-1)
        # Rounding may leave the last cumulative probability below the uniform number.
        labels = (uniform * cumulative[draws][..., -1:] > cumulative[draws]).sum(axis=-1)
        with np.errstate(divide="ignore"):
            log_probabilities = np.log(of_chosen)
        of_labels = [log_probabilities[:, m, labels[:, m]] for m in range(len(self._chosen))]
        self._log_likelihood = np.sum(of_labels, axis=0)
        self._share = np.full(self._most, 1 / self._most)


def _softmax(log_values: Array) -> Array:
    """Weights over the first axis; equal ones for a set of labels that is impossible under every draw."""
    highest = log_values.max(axis=0)
    values = np.exp(log_values - np.where(np.isfinite(highest), highest, 0.0))
    total = values.sum(axis=0)
    return np.where(total > 0, values / np.where(total > 0, total, 1.0), 1 / len(values))


def _class_probabilities(predictive: PosteriorPredictive) -> Array:
    """The probabilities of each class under each draw, `(S, n, classes)`, float64."""
    predictive = require_one_predictive(predictive, "batch_bald")
    require_probabilities(predictive, "batch_bald", "by='standard_deviation'")
    samples = predictive.samples.astype(np.float64)
    if predictive.positions or predictive.target_kind == "labels":
        raise ValueError(
            f"'batch_bald' takes one class for each input, but these predictions have the shape "
            f"{samples.shape[1:]}: an input has several. Use by='bald'."
        )
    lost = np.isnan(samples).any(axis=(0, 2))
    if lost.any():
        raise ValueError(
            f"The probabilities of {int(lost.sum())} of {lost.size} inputs are NaN; the first is input "
            f"{int(lost.argmax())}. Expected numbers from 0 to 1. Check the weights of the model, and the inputs."
        )
    if samples.shape[-1] == 1:
        samples = np.concatenate([1 - samples, samples], axis=-1)
    return samples / samples.sum(axis=-1, keepdims=True)
