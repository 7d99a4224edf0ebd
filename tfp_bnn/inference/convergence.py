"""Whether Markov chains agree, and how many independent draws they are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.special
import scipy.stats

ENOUGH_SAMPLES = 4
"""The fewest samples of a chain that have an R-hat."""
# An array of float64 of this size takes 32 MiB; a dozen of them are in memory.
_NUMBERS_AT_ONCE = 2**22

PREDICTIONS = "predictions"
"""Name of the predictions among the weights; those of a head are `<head>/predictions`."""


@dataclass(frozen=True)
class Convergence:
    """R-hat and effective sample size of the predictions and weights of chains.

    R-hat compares the spread between the halves of all chains with that within them. It is 1 if they agree; 1.01 is the
    usual bound for weights, and 1.05 is good for predictions. The effective sample size (ESS) is the number of
    independent draws whose mean is as precise. Both are those of Vehtari et al. 2021, of rank-normalized values, so
    heavy tails do no harm; the R-hat is the larger one of the values and of their distances from the median. They are
    NaN for what never changes, such as a probability of exactly 1, and the summaries leave these out. Of chains that
    stand still at different values, R-hat is infinite.

    Attributes:
        rhat: R-hat by name, `"predictions"` with the shape `(n, *)` of the predictive mean, and each weight. Of several
            outputs, there are the predictions of each head, as in `"class/predictions"`.
        ess: Effective sample sizes, with the same names and shapes.
        statistics: Means over all states of what the sampler reports, by name.

    References:
        Vehtari et al. 2021, Rank-normalization, folding, and localization: an improved R-hat,
        https://arxiv.org/abs/1903.08008
    """

    rhat: Mapping[str, npt.NDArray[np.float64]]
    ess: Mapping[str, npt.NDArray[np.float64]]
    statistics: Mapping[str, float]

    @classmethod
    def of(
        cls, values: Mapping[str, npt.NDArray[np.float32]], statistics: Mapping[str, npt.NDArray[np.float64]]
    ) -> Convergence:
        """Computes both for arrays `(chains, samples, *shape)` by name.

        Raises:
            ValueError: If there are fewer than four samples.
        """
        return cls(
            {name: rhat(array) for name, array in values.items()},
            {name: effective_sample_size(array) for name, array in values.items()},
            {name: float(np.mean(array)) for name, array in statistics.items()},
        )

    def worst_rhat(self, name: str = PREDICTIONS) -> float:
        """The largest R-hat under a name; `"predictions"` are those of all heads. NaN if nothing changes."""
        values = _under(self.rhat, name)
        return float(np.nanmax(values, initial=-np.inf)) if _varies(values) else np.nan

    def least_ess(self, name: str = PREDICTIONS) -> float:
        """The smallest effective sample size under a name, as in `worst_rhat`; NaN if nothing changes."""
        values = _under(self.ess, name)
        return float(np.nanmin(values, initial=np.inf)) if _varies(values) else np.nan

    def __str__(self) -> str:
        width = max(map(len, (*self.rhat, *self.statistics)))
        lines = [f"{'':{width}}  worst R-hat  least ESS"]
        lines += [f"{name:{width}}  {self.worst_rhat(name):11.3f}  {self.least_ess(name):9.0f}" for name in self.rhat]
        return "\n".join([*lines, *(f"{name:{width}}  mean {value:.4g}" for name, value in self.statistics.items())])


def rhat(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Rank-normalized split R-hat of arrays `(chains, samples, *shape)`: an array `shape`; see `Convergence`.

    Raises:
        ValueError: If there are fewer than four samples.
    """
    return _in_blocks(_rhat, values)


def _rhat(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    halves = _halves(values)
    folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    of_both = [_plain_rhat(_normal_scores(part)) for part in (halves, folded)]
    # Chains that stand still at different values have one that is infinite, and one that is 0 / 0.
    return np.fmax(*of_both)


def effective_sample_size(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Effective sample size of arrays `(chains, samples, *shape)`, of all chains together: an array `shape`.

    Rank-normalized values, and Geyer's initial monotone sequence of their autocorrelations.

    Raises:
        ValueError: If there are fewer than four samples.
    """
    return _in_blocks(_effective_sample_size, values)


def _effective_sample_size(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    chains = _normal_scores(_halves(values))
    number, samples = chains.shape[:2]
    centred = chains - chains.mean(axis=1, keepdims=True)
    power = np.abs(scipy.fft.rfft(centred, 2 * samples, axis=1)) ** 2
    covariance = scipy.fft.irfft(power, axis=1)[:, :samples].mean(axis=0) / samples
    within = covariance[0] * samples / (samples - 1)
    total = covariance[0] + chains.mean(axis=1).var(axis=0, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = 1 - (within - covariance) / total
    correlation[0] = 1.0
    pairs = correlation[: samples // 2 * 2].reshape(-1, 2, *correlation.shape[1:]).sum(axis=1)
    pairs = np.where(np.logical_and.accumulate(pairs > 0), np.minimum.accumulate(pairs), 0.0)
    time = np.maximum(2 * pairs.sum(axis=0) - 1, 1 / np.log10(number * samples))
    return np.where(np.isnan(correlation).any(axis=0), np.nan, number * samples / time)


def _in_blocks(
    function: Callable[[npt.NDArray[np.floating]], npt.NDArray[np.float64]], values: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """A function of arrays `(chains, samples, entries)`, which needs many times their memory, of blocks of entries."""
    chains, samples, *shape = values.shape
    entries = values.reshape(chains, samples, -1)
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, chains * samples))
    starts = range(0, max(1, entries.shape[2]), at_once)
    return np.concatenate([function(entries[:, :, start : start + at_once]) for start in starts]).reshape(shape)


def _halves(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    chains, samples, *shape = values.shape
    if samples < ENOUGH_SAMPLES:
        raise ValueError(f"R-hat and ESS need at least {ENOUGH_SAMPLES} samples of each chain, but got {samples}.")
    half = samples // 2
    # Without the middle one of an odd number, as in Stan and ArviZ.
    parts = values[:, :half], values[:, samples - half :]
    return np.concatenate(parts).astype(np.float64).reshape(2 * chains, half, *shape)


def _normal_scores(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The normal quantiles of the ranks over all chains and samples."""
    ranks = scipy.stats.rankdata(values.reshape(-1, *values.shape[2:]), axis=0)
    return scipy.special.ndtri((ranks - 0.375) / (len(ranks) + 0.25)).reshape(values.shape)


def _plain_rhat(chains: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    samples = chains.shape[1]
    within = chains.var(axis=1, ddof=1).mean(axis=0)
    between = chains.mean(axis=1).var(axis=0, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt((samples - 1) / samples + between / within)


def _under(values: Mapping[str, npt.NDArray[np.float64]], name: str) -> npt.NDArray[np.float64]:
    if name != PREDICTIONS or name in values:
        return values[name]
    return np.concatenate([array.ravel() for key, array in values.items() if key.endswith(f"/{name}")])


def _varies(values: npt.NDArray[np.float64]) -> bool:
    return not bool(np.isnan(values).all())
