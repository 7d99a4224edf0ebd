"""The default scores of a predictive by the kind of its targets, also with each draw left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import entr, logsumexp

from tfp_bnn import metrics
from tfp_bnn.likelihoods.positions import Shape

_OF_PROBABILITIES = ("accuracy", "nll", "ece", "brier", "entropy", "mutual_information")
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
    labels, observed = _labels(likelihood, y, predictive.positions, predictive.num_outputs)
    probabilities = for_each_class(_as_rows(probabilities_of()))[observed]
    return {
        "accuracy": metrics.accuracy(labels, probabilities),
        "nll": float(-predictive.log_prob(y).mean(dtype=np.float64)),
        "ece": metrics.expected_calibration_error(labels, probabilities),
        "brier": metrics.brier_score(labels, probabilities),
        **uncertainty,
    }


def _score_numbers(likelihood: Any, predictive: Any, y: Any) -> dict[str, float]:
    epistemic_std = float(np.sqrt(predictive.epistemic().mean(dtype=np.float64)))
    if y is None:
        return {"epistemic_std": epistemic_std}
    targets, pick = _numbers(likelihood, y, predictive.positions, predictive.num_outputs)
    mean = pick(predictive.mean())
    lower, upper = map(pick, predictive.quantiles([0.05, 0.95]))
    return {
        "rmse": metrics.rmse(targets, mean),
        "mae": metrics.mae(targets, mean),
        "nll": float(-predictive.log_prob(y).mean(dtype=np.float64)),
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
        others = likelihood.outputs_without(outputs, weights, draw)
        if others is not None:
            parts = _parts_of_numbers(likelihood, others, _weights_without(weights, by_draw, draw), by_draw, y)
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
            # The distribution function of the mixture tells whether a target lies in the central interval.
            scores["coverage_90"] = float(np.mean((at_most >= 0.05) & (below < 0.95)))
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
            likelihood.aleatoric(outputs[draw : draw + 1], _weights_of(weights, by_draw, draw))
            for draw in range(len(outputs))
        ]
    return {name: np.asarray(values, np.float64) for name, values in parts.items()}


def _weights_without(weights: Any, by_draw: Any, draw: int) -> dict[str, Any]:
    return {role: np.delete(value, draw, axis=0) if role in by_draw else value for role, value in weights.items()}


def _weights_of(weights: Any, by_draw: Any, draw: int) -> dict[str, Any]:
    return {role: value[draw : draw + 1] if role in by_draw else value for role, value in weights.items()}


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


# By the kind of target.
SCORES = {"class": _score_classes, "labels": _score_labels, "number": _score_numbers}
WITHOUT_EACH_DRAW = {"class": _classes_without, "labels": _labels_without, "number": _numbers_without}
