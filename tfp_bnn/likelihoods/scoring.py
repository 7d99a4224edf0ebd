"""The default scores of a predictive by the kind of its targets, also of other mixtures over its draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import entr, logsumexp

from tfp_bnn import metrics
from tfp_bnn.likelihoods.positions import Shape

# Of memory: a mixture has as many numbers as a draw.
_MIXTURES_AT_ONCE = 10
_OF_PROBABILITIES = ("accuracy", "nll", "ece", "brier", "entropy", "mutual_information")
STEPS = ("accuracy", "ece", "coverage_90")
"""Scores that move in steps, when a single example moves over a threshold."""

# By the kind of target.
SCORE_NAMES = {
    "class": _OF_PROBABILITIES,
    "labels": _OF_PROBABILITIES,
    "number": ("rmse", "mae", "nll", "coverage_90", "aleatoric_std", "epistemic_std"),
}


def for_each_class(probabilities: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Probabilities of shape `(..., classes)`; for a single column, those of class 0 and class 1."""
    if probabilities.shape[-1] > 1:
        return probabilities
    return np.concatenate([1.0 - probabilities, probabilities], axis=-1)


def _each_label(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`(..., n, labels)` -> `(..., n, labels, 1)`: every label is a question with two answers."""
    return values[..., np.newaxis]


def _as_rows(values: npt.NDArray[Any], draws: bool = False) -> npt.NDArray[Any]:
    """`(n, ..., columns)` -> `(rows, columns)`; with `draws`, their axis stays the first."""
    return values.reshape(*values.shape[:draws], -1, values.shape[-1])


def _score_classes(likelihood: Any, predictive: Any, y: Any) -> dict[str, float]:
    return _score_probabilities(likelihood, predictive, y, predictive.mean)


def _score_labels(likelihood: Any, predictive: Any, y: Any) -> dict[str, float]:
    return _score_probabilities(likelihood, predictive, y, lambda: _each_label(predictive.mean()))


def _score_probabilities(likelihood: Any, predictive: Any, y: Any, probabilities_of: Any) -> dict[str, float]:
    uncertainty = {
        "entropy": float(predictive.entropy().mean(dtype=np.float64)),
        "mutual_information": float(predictive.epistemic().mean(dtype=np.float64)),
    }
    if y is None:
        return uncertainty
    # First, because it checks the targets.
    nll = float(-predictive.log_prob(y).mean(dtype=np.float64))
    labels, observed = _labels(likelihood, y, predictive.positions, predictive.num_outputs)
    probabilities = for_each_class(_as_rows(probabilities_of()))[observed]
    return {
        "accuracy": metrics.accuracy(labels, probabilities),
        "nll": nll,
        "ece": metrics.expected_calibration_error(labels, probabilities),
        "brier": metrics.brier_score(labels, probabilities),
        **uncertainty,
    }


def _score_numbers(likelihood: Any, predictive: Any, y: Any) -> dict[str, float]:
    epistemic_std = float(np.sqrt(predictive.epistemic().mean(dtype=np.float64)))
    if y is None:
        return {"epistemic_std": epistemic_std}
    # First, because it checks the targets.
    nll = float(-predictive.log_prob(y).mean(dtype=np.float64))
    targets, pick = _numbers(likelihood, y, predictive.positions, predictive.num_outputs)
    mean = pick(predictive.mean())
    lower, upper = map(pick, predictive.quantiles([0.05, 0.95]))
    return {
        "rmse": metrics.rmse(targets, mean),
        "mae": metrics.mae(targets, mean),
        "nll": nll,
        "coverage_90": metrics.interval_coverage(targets, lower, upper),
        "aleatoric_std": float(np.sqrt(predictive.aleatoric().mean(dtype=np.float64))),
        "epistemic_std": epistemic_std,
    }


def _classes_without(likelihood: Any, outputs: Any, weights: Any, by_draw: Any, y: Any) -> Iterator[dict[str, float]]:
    samples = likelihood.mean(outputs, weights).numpy()
    log_probs = None if y is None else _log_probs(likelihood, y, outputs, weights)
    return _probabilities_without(likelihood, outputs, log_probs, y, samples, for_each_class(samples))


def _labels_without(likelihood: Any, outputs: Any, weights: Any, by_draw: Any, y: Any) -> Iterator[dict[str, float]]:
    samples = likelihood.mean(outputs, weights).numpy()
    log_probs = None if y is None else _log_probs(likelihood, y, outputs, weights)
    return _probabilities_without(likelihood, outputs, log_probs, y, samples, for_each_class(_each_label(samples)))


def _probabilities_without(
    likelihood: Any, outputs: Any, log_probs: Any, y: Any, samples: npt.NDArray[Any], pooled: npt.NDArray[Any]
) -> Iterator[dict[str, float]]:
    """The scores with each draw left out; `pooled` has two classes for each label of `samples`."""
    rows = int(np.prod(samples.shape[1:-1]))
    pooled = _as_rows(pooled, draws=True)
    total = pooled.sum(axis=0, dtype=np.float64)
    aleatoric = np.array([_mean_entropy(sample, rows) for sample in pooled])
    if y is not None:
        labels, observed = _labels(likelihood, y, outputs.shape[2:-1], outputs.shape[-1])
    for draw, sample in enumerate(pooled):
        # Rounding may give a negative value where the other draws say 0.
        probabilities = np.maximum(total - sample, 0.0) / (len(pooled) - 1)
        entropy = _mean_entropy(probabilities, rows)
        scores = {"entropy": entropy, "mutual_information": entropy - np.delete(aleatoric, draw).mean()}
        if y is not None:
            probabilities = probabilities[observed]
            scores["accuracy"] = metrics.accuracy(labels, probabilities)
            scores["nll"] = _nll(np.delete(log_probs, draw, axis=0))
            scores["ece"] = metrics.expected_calibration_error(labels, probabilities)
            scores["brier"] = metrics.brier_score(labels, probabilities)
        yield scores


def _numbers_without(likelihood: Any, outputs: Any, weights: Any, by_draw: Any, y: Any) -> Iterator[dict[str, float]]:
    if y is not None:
        targets, pick = _numbers(likelihood, y, outputs.shape[2:-1], outputs.shape[-1])
    of_all = None
    for draw in range(len(outputs)):
        others = np.delete(np.arange(len(outputs)), draw)
        moved = likelihood.outputs_of(outputs, weights, others)
        if moved is not None:
            parts = _parts_of_numbers(likelihood, moved, _weights_of(weights, by_draw, others), by_draw, y)
        else:
            of_all = of_all or _parts_of_numbers(likelihood, outputs, weights, by_draw, y)
            parts = {name: np.delete(values, draw, axis=0) for name, values in of_all.items()}
        means = parts["mean"]
        scores = {"epistemic_std": float(np.sqrt(means.var(axis=0).mean()))}
        if y is not None:
            mean = pick(means.mean(axis=0))
            below, at_most = pick(parts["below"].mean(axis=0)), pick(parts["at_most"].mean(axis=0))
            scores["rmse"] = metrics.rmse(targets, mean)
            scores["mae"] = metrics.mae(targets, mean)
            scores["nll"] = _nll(parts["log_prob"])
            scores["coverage_90"] = _coverage_90(below, at_most)
            scores["aleatoric_std"] = float(np.sqrt(parts["variance"].mean()))
        yield scores


def _parts_of_numbers(
    likelihood: Any, outputs: Any, weights: Any, by_draw: Any, y: Any
) -> dict[str, npt.NDArray[np.float64]]:
    """What each draw says, with the draws on the first axis, float64."""
    parts = {"mean": likelihood.mean(outputs, weights)}
    if y is not None:
        parts["below"], parts["at_most"] = likelihood.levels(outputs, weights, y)
        parts["log_prob"] = _log_probs(likelihood, y, outputs, weights)
        # Each draw as a mixture of its own.
        parts["variance"] = [
            likelihood.aleatoric(outputs[[draw]], _weights_of(weights, by_draw, [draw])) for draw in range(len(outputs))
        ]
    return {name: np.asarray(values, np.float64) for name, values in parts.items()}


def _weights_of(weights: Any, by_draw: Any, draws: Any) -> dict[str, Any]:
    return {role: value[draws] if role in by_draw else value for role, value in weights.items()}


def _coverage_90(below: npt.NDArray[Any], at_most: npt.NDArray[Any]) -> float:
    """The distribution function of a mixture tells whether a target lies in its central 90 % interval."""
    return float(np.mean((at_most >= 0.05) & (below < 0.95)))


def _log_probs(likelihood: Any, y: Any, outputs: Any, weights: Any) -> npt.NDArray[np.float64]:
    """The log-likelihood of each example under each draw, `(S, n)`."""
    return np.asarray(likelihood.log_likelihood(y, outputs, weights, draws=True), np.float64)


def _nll(log_probs: npt.NDArray[np.float64]) -> float:
    return float(np.log(len(log_probs)) - logsumexp(log_probs, axis=0).mean())


def _mean_entropy(probabilities: npt.NDArray[Any], rows: int) -> float:
    return float(entr(probabilities.astype(np.float64)).sum() / rows)


def _labels(
    likelihood: Any, y: Any, positions: Shape, num_outputs: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The observed labels as integers `(m,)`, and which of all labels these are, `(rows,)` or `(rows * labels,)`."""
    rows, observed = likelihood.observed_rows(np.asarray(y), positions, num_outputs)
    labels = np.rint(likelihood.target_array(rows, num_outputs)).astype(np.int64).reshape(len(rows), -1)
    kept = np.broadcast_to(True if observed is None else observed.reshape(len(rows), -1), labels.shape)
    return labels[kept], kept.reshape(-1)


def _numbers(
    likelihood: Any, y: Any, positions: Shape, num_outputs: int
) -> tuple[npt.NDArray[Any], Callable[[npt.NDArray[Any]], npt.NDArray[Any]]]:
    """The targets `(rows, targets)`, or the observed ones `(m,)`; and what picks the predictions of these."""
    rows, observed = likelihood.observed_rows(np.asarray(y), positions, num_outputs)
    targets = likelihood.target_array(rows, num_outputs)
    if observed is None:
        return targets, _as_rows
    kept = np.broadcast_to(observed.reshape(len(observed), -1), targets.shape)
    return targets[kept], lambda values: _as_rows(values)[kept]


# === Of other mixtures ===


def resampled_scores(
    likelihood: Any, outputs: Any, weights: Any, by_draw: Any, y: Any, draws: npt.NDArray[np.intp]
) -> dict[str, npt.NDArray[np.float64]]:
    """The scores that move in steps, such as the accuracy, of mixtures over some of the draws.

    Args:
        likelihood: Likelihood. If it has scores of its own, there are none.
        outputs: Raw outputs of shape `(S, n, channels)`.
        weights: Learned parameters of the likelihood, and those added by a calibration.
        by_draw: Roles of the weights that differ between draws.
        y: Targets.
        draws: The numbers of the draws of R mixtures, `(R, K)`, with repetitions.

    Returns:
        Arrays `(R,)` by the name of the score.
    """
    kind = likelihood.target_kind(outputs.shape[-1])
    if likelihood.score_names(outputs.shape[-1]) is not SCORE_NAMES[kind]:
        return {}
    return _RESAMPLED[kind](likelihood, outputs, weights, by_draw, y, draws)


def _classes_resampled(
    likelihood: Any, outputs: Any, weights: Any, by_draw: Any, y: Any, draws: npt.NDArray[np.intp]
) -> dict[str, npt.NDArray[np.float64]]:
    return _probabilities_resampled(likelihood, outputs, y, draws, likelihood.mean(outputs, weights).numpy())


def _labels_resampled(
    likelihood: Any, outputs: Any, weights: Any, by_draw: Any, y: Any, draws: npt.NDArray[np.intp]
) -> dict[str, npt.NDArray[np.float64]]:
    samples = _each_label(likelihood.mean(outputs, weights).numpy())
    return _probabilities_resampled(likelihood, outputs, y, draws, samples)


def _probabilities_resampled(
    likelihood: Any, outputs: Any, y: Any, draws: npt.NDArray[np.intp], samples: npt.NDArray[Any]
) -> dict[str, npt.NDArray[np.float64]]:
    labels, observed = _labels(likelihood, y, outputs.shape[2:-1], outputs.shape[-1])
    pooled = _as_rows(for_each_class(samples), draws=True)[:, observed]
    flat = pooled.reshape(len(pooled), -1)
    found: dict[str, list[float]] = {"accuracy": [], "ece": []}
    for block in np.array_split(draws, -(-len(draws) // _MIXTURES_AT_ONCE)):
        shares = np.stack([np.bincount(chosen, minlength=len(flat)) for chosen in block]) / block.shape[1]
        for mixture in shares.astype(np.float32) @ flat:
            probabilities = mixture.reshape(pooled.shape[1:])
            found["accuracy"].append(metrics.accuracy(labels, probabilities))
            found["ece"].append(metrics.expected_calibration_error(labels, probabilities))
    return {name: np.array(values) for name, values in found.items()}


def _numbers_resampled(
    likelihood: Any, outputs: Any, weights: Any, by_draw: Any, y: Any, draws: npt.NDArray[np.intp]
) -> dict[str, npt.NDArray[np.float64]]:
    _, pick = _numbers(likelihood, y, outputs.shape[2:-1], outputs.shape[-1])
    of_all = None
    coverages = []
    for chosen in draws:
        moved = likelihood.outputs_of(outputs, weights, chosen)
        if moved is not None:
            levels = likelihood.levels(moved, _weights_of(weights, by_draw, chosen), y)
        else:
            of_all = of_all or [np.asarray(level) for level in likelihood.levels(outputs, weights, y)]
            levels = [level[chosen] for level in of_all]
        coverages.append(_coverage_90(*(pick(np.asarray(level).mean(axis=0, dtype=np.float64)) for level in levels)))
    return {"coverage_90": np.array(coverages)}


# By the kind of target.
SCORES = {"class": _score_classes, "labels": _score_labels, "number": _score_numbers}
WITHOUT_EACH_DRAW = {"class": _classes_without, "labels": _labels_without, "number": _numbers_without}
_RESAMPLED = {"class": _classes_resampled, "labels": _labels_resampled, "number": _numbers_resampled}
