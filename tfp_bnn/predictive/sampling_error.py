"""Sampling error of a metric, by the bootstrap over the examples: how far it would move with another test set.

Not the Monte Carlo error of `standard_errors`, which says how far it would move with other draws of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfp_bnn.core.arguments import require_integer
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive

Scores = Callable[[Any, np.ndarray], Mapping[str, float]]
# A metric that fewer of the resampled sets have, such as an AUROC without an error, has no error bar.
_LEAST_SHARE = 0.5


class ExampleRows:
    """The moments of a predictive for some of its examples, which may be repeated: what scores ask for.

    Args:
        predictive: Predictions for n inputs.
        y: Their targets.
        rows: Indices of the rows; None for all.
    """

    def __init__(self, predictive: PosteriorPredictive, y: np.ndarray, rows: np.ndarray | None = None) -> None:
        self.likelihood = predictive.likelihood
        self.num_outputs, self.positions = predictive.num_outputs, predictive.positions
        self._predictive, self._y = predictive, y
        self._rows: Any = slice(None) if rows is None else rows
        self._known: dict[Any, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._y[self._rows])

    def taken(self, rows: np.ndarray) -> ExampleRows:
        """Other rows of the same predictions; what was computed of all rows is not computed again."""
        found = ExampleRows(self._predictive, self._y, rows)
        found._known = self._known
        return found

    def mean(self) -> np.ndarray:
        """As in `PosteriorPredictive`, as are the others."""
        return self._of_rows("mean", self._predictive.mean)

    def entropy(self) -> np.ndarray:
        """Entropies."""
        return self._of_rows("entropy", self._predictive.entropy)

    def aleatoric(self) -> np.ndarray:
        """Aleatoric uncertainties."""
        return self._of_rows("aleatoric", self._predictive.aleatoric)

    def epistemic(self) -> np.ndarray:
        """Epistemic uncertainties."""
        return self._of_rows("epistemic", self._predictive.epistemic)

    def log_prob(self, y: Any) -> np.ndarray:
        """Log-probabilities of the targets of these rows, which were given before."""
        return self._of_rows("log_prob", lambda: self._predictive.log_prob(self._y))

    def quantiles(self, levels: Sequence[float]) -> np.ndarray:
        """Quantiles, with the levels on the first axis."""
        key = ("quantiles", *np.asarray(levels, float).tolist())
        if key not in self._known:
            self._known[key] = self._predictive.quantiles(levels)
        return self._known[key][:, self._rows]

    def _of_rows(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        if name not in self._known:
            self._known[name] = compute()
        return self._known[name][self._rows]


def sampling_errors(
    predictive: PosteriorPredictive, y: Any, further: Scores | None = None, num_resamples: int = 100, seed: int = 0
) -> dict[str, float]:
    """The standard error of each metric over test sets of this size: the bootstrap over the examples.

    It is the standard deviation of the metric over sets of n examples, drawn from the n examples with repetition. The
    weights and their draws stay the same, so it says nothing about another training.

    Args:
        predictive: Predictions for n inputs, of one output.
        y: Targets of the inputs.
        further: Function that computes other metrics, by name, from a predictive and its targets; it may use `mean`,
            `entropy`, `aleatoric`, `epistemic`, `log_prob` and `quantiles`. None for those of `score` alone.
        num_resamples: Number of resampled sets, at least 2. Default: 100.
        seed: Integer seed of the sets.

    Returns:
        Standard errors by the name of the metric, in its unit. A metric that is undefined for more than half of the
        sets is left out. Empty for a single example.

    Raises:
        ValueError: If the draws did not fit into memory, or the targets do not fit.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> from tfp_bnn.core.draws import FiniteDraws
        >>> from tfp_bnn.predictive import sampling_errors
        >>> draws, x = FiniteDraws([lambda x: x]), np.eye(2)[np.arange(100) % 2]
        >>> predictive = tfp_bnn.PosteriorPredictive.from_draws(draws, x, tfp_bnn.likelihoods.Categorical())
        >>> # Of 100 examples, half are right: the root of 0.5 * 0.5 / 100 is 0.05.
        >>> 0.04 < sampling_errors(predictive, np.zeros(100, int))["accuracy"] < 0.06
        True

    References:
        B. Efron, Bootstrap methods: another look at the jackknife, Annals of Statistics 7, 1979.
        https://doi.org/10.1214/aos/1176344552
    """
    return spread(scores_of_resamples([predictive], y, further, num_resamples, seed)[0])


def scores_of_resamples(
    predictives: Sequence[PosteriorPredictive],
    y: Any,
    further: Scores | None = None,
    num_resamples: int = 100,
    seed: int = 0,
) -> list[list[dict[str, float]]]:
    """The scores of several predictives of the same inputs, all on the same resampled test sets.

    Args:
        predictives: Predictions of one output for the same n inputs.
        y: Targets of the inputs.
        further: Function that computes other metrics, or None; see `sampling_errors`.
        num_resamples: Number of resampled sets, at least 2. Default: 100.
        seed: Integer seed of the sets.

    Returns:
        For each predictive the scores of each set, by name; no sets for a single example, and no scores of a set whose
        targets are all missing.

    Raises:
        ValueError: As in `sampling_errors`.
    """
    require_integer("num_resamples", num_resamples, 2)
    require_integer("seed", seed, 0)
    targets = np.asarray(y)
    number = len(targets)
    everything = [ExampleRows(predictive, targets) for predictive in predictives]
    found: list[list[dict[str, float]]] = [[] for _ in predictives]
    rng = np.random.default_rng(seed)
    for _ in range(num_resamples if number > 1 else 0):
        rows = rng.integers(number, size=number)
        for of_all, of_sets in zip(everything, found, strict=True):
            taken = of_all.taken(rows)
            if not taken.likelihood.has_targets(targets[rows]):
                of_sets.append({})
                continue
            values = dict(taken.likelihood.scores(taken, targets[rows]))
            of_sets.append(values if further is None else {**values, **further(taken, targets[rows])})
    return found


def spread(sets: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The standard deviation of each score over the sets, without scores that fewer than half of the sets have.

    Args:
        sets: Scores of each set by name, as in the lists of `scores_of_resamples`.
    """
    names = dict.fromkeys(name for of_set in sets for name in of_set)
    finite = {name: [of_set[name] for of_set in sets if np.isfinite(of_set.get(name, np.nan))] for name in names}
    enough = max(2.0, _LEAST_SHARE * len(sets))
    return {name: float(np.std(values, ddof=1)) for name, values in finite.items() if len(values) >= enough}
