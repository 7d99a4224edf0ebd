"""Judging a model: the numbers of a card, measured again by anyone."""

from __future__ import annotations

from typing import Any

import numpy as np

import tfp_bnn
from tfp_bnn import metrics
from zoo.artifacts import load_model
from zoo.cards import read_artifact
from zoo.datasets import Dataset, load_dataset


def evaluate(
    model: str | tfp_bnn.VariationalModel,
    dataset: str | Dataset | None = None,
    split: str = "test",
    num_samples: int = 50,
    seed: int = 0,
) -> dict[str, float]:
    """Measures a model on a split of a dataset, by its posterior predictive.

    Args:
        model: a pretrained model's name, or a model.
        dataset: a dataset or its name; by default the one that a pretrained model was trained on.
        split: `"train"`, `"validation"` or `"test"`.
        num_samples: Monte Carlo samples of the weights.
        seed: of the samples.

    Returns:
        Classification: `accuracy`, `nll` (of the predictive, nats), `ece` (15 equal-width bins), `brier`, and the means
        of `entropy` and `mutual_information` (nats). Regression: `rmse`, `mae` (units of the target), `nll` (nats),
        `coverage_90` (share of targets in the central 90 % interval), `aleatoric_std`, `epistemic_std` (roots of the
        mean variances, units of the target).

    Raises:
        ValueError: for an unknown model, dataset or split (names the nearest), or a dataset that does not fit the
            model.
    """
    if isinstance(model, str):
        if dataset is None:
            dataset = str(read_artifact(model)["config"]["data"]["dataset"])
        model = load_model(model)
    if dataset is None:
        raise ValueError("Which dataset? Pass `dataset`; only a pretrained model given by its name has one by itself.")
    data = load_dataset(dataset) if isinstance(dataset, str) else dataset
    part = data.split(split)
    if data.task != model.likelihood.task:
        raise ValueError(
            f"The dataset {data.name!r} is for {data.task}, but the model has the likelihood {model.likelihood!r}, for "
            f"{model.likelihood.task}. Choose a dataset of the same task."
        )
    predictive = model.posterior_predictive(part.x, num_samples=num_samples, seed=seed)
    return (_classification if data.task == "classification" else _regression)(predictive, part.y)


def _classification(predictive: tfp_bnn.PosteriorPredictive, labels: Any) -> dict[str, float]:
    probabilities = predictive.mean()
    if probabilities.shape[-1] == 1:
        probabilities = np.concatenate([1.0 - probabilities, probabilities], axis=-1)
    return {
        "accuracy": metrics.accuracy(labels, probabilities),
        "nll": float(-predictive.log_prob(labels).mean(dtype=np.float64)),
        "ece": metrics.expected_calibration_error(labels, probabilities),
        "brier": metrics.brier_score(labels, probabilities),
        "entropy": float(predictive.entropy().mean(dtype=np.float64)),
        "mutual_information": float(predictive.epistemic().mean(dtype=np.float64)),
    }


def _regression(predictive: tfp_bnn.PosteriorPredictive, targets: Any) -> dict[str, float]:
    lower, upper = predictive.quantiles([0.05, 0.95])
    return {
        "rmse": metrics.rmse(targets, predictive.mean()),
        "mae": metrics.mae(targets, predictive.mean()),
        "nll": float(-predictive.log_prob(targets).mean(dtype=np.float64)),
        "coverage_90": metrics.interval_coverage(targets, lower, upper),
        "aleatoric_std": float(np.sqrt(predictive.aleatoric().mean(dtype=np.float64))),
        "epistemic_std": float(np.sqrt(predictive.epistemic().mean(dtype=np.float64))),
    }
