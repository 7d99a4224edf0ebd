"""Contents of a report on a regression model. `classification` has the same functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfp_bnn import figures, metrics
from zoo.evaluation.report.drawing import image
from zoo.evaluation.report.measured import MOST_EXAMPLES, UNIT_OF_TARGET, Measured
from zoo.evaluation.report.page import Image, Table

# Unit and meaning of each score.
SCORES = {
    "rmse": (UNIT_OF_TARGET, "root mean squared error of the predictive means"),
    "mae": (UNIT_OF_TARGET, "mean absolute error of the predictive means"),
    "nll": ("nats per example", "negative log-likelihood of the predictive, at the targets"),
    "coverage_90": ("share", "targets in their central 90 % intervals"),
    "aleatoric_std": (UNIT_OF_TARGET, "root of the mean variance that knowing the weights would not remove"),
    "epistemic_std": (UNIT_OF_TARGET, "root of the mean variance that comes from not knowing the weights"),
    "interval_width_90": (UNIT_OF_TARGET, "mean width of the central 90 % intervals"),
    "quantile_calibration_error": ("probability", "mean distance of shares below the quantiles from their levels"),
}
# How the uncertainties are called in figures, and their unit.
UNCERTAINTIES = {"epistemic_std": ("epistemic standard deviation", UNIT_OF_TARGET)}

# Central intervals of 90 %, 70 %, ..., 10 %.
_LEVELS = [(2 * index + 1) / 20 for index in range(10)]
_MOST_PANELS = 6


def further_scores(predictive: Any, targets: npt.NDArray[Any]) -> dict[str, float]:
    """Returns scores in addition to those of `zoo.evaluate`, of predictions and their targets."""
    quantiles, observed = predictive.quantiles(_LEVELS), ~predictive.likelihood.is_missing(targets)
    return {
        "interval_width_90": metrics.interval_width(quantiles[0], quantiles[-1]),
        "quantile_calibration_error": metrics.quantile_calibration_error(
            targets[observed], quantiles[:, observed], _LEVELS
        ),
    }


resampled_scores = further_scores


def columns(measured: Measured) -> list[tuple[str, Sequence[Any]]]:
    """Returns names and values of the columns of `predictions.csv`, one value per example, grouped by target."""
    targets, predictive = measured.part.y, measured.predictive
    lower, upper = predictive.quantiles([0.05, 0.95])
    inside = ((lower <= targets) & (targets <= upper)).astype(int).astype(object)
    inside[predictive.likelihood.is_missing(targets)] = ""
    found: list[tuple[str, Sequence[Any]]] = [("index", range(len(targets)))]
    for index in range(targets.shape[1]):
        of_target: dict[str, Any] = {
            "target": targets,
            "mean": predictive.mean(),
            "lower_90": lower,
            "upper_90": upper,
            "inside_90": inside,
            "std": np.sqrt(predictive.aleatoric() + predictive.epistemic()),
            "aleatoric_std": np.sqrt(predictive.aleatoric()),
            "epistemic_std": np.sqrt(predictive.epistemic()),
        }
        if predictive.entropy().shape == targets.shape:
            of_target["entropy"] = predictive.entropy()
        suffix = "" if targets.shape[1] == 1 else f"_{index}"
        found += [(f"{name}{suffix}", values[:, index]) for name, values in of_target.items()]
    return found


def least_certain(measured: Measured) -> Table:
    """Returns a table of the examples with the highest predictive variance."""
    predictive, targets = measured.predictive, measured.part.y
    variance = (predictive.aleatoric() + predictive.epistemic()).mean(axis=1)
    rows = np.argsort(-variance, kind="stable")[:MOST_EXAMPLES]
    lower, upper = predictive.quantiles([0.05, 0.95])
    inputs = measured.inputs_of(rows)
    cells = {
        "index": [str(row) for row in rows],
        **inputs,
        "target": _texts(np.where(predictive.likelihood.is_missing(targets), np.nan, targets)[rows]),
        "mean": _texts(predictive.mean()[rows]),
        "lower 5 %": _texts(lower[rows]),
        "upper 95 %": _texts(upper[rows]),
        "aleatoric std": _texts(np.sqrt(predictive.aleatoric()[rows])),
        "epistemic std": _texts(np.sqrt(predictive.epistemic()[rows])),
    }
    return Table(
        measured.in_units(
            f"The {len(rows)} examples of highest predictive variance, in {UNIT_OF_TARGET}; index: the row of the "
            "split, from 0."
        ),
        list(cells),
        list(zip(*cells.values(), strict=True)),
        "l" + "r" * (len(cells) - 1),
    )


def images(measured: Measured) -> list[Image]:
    """How well means and quantiles fit."""
    targets, mean = measured.part.y, measured.predictive.mean()
    quantiles = measured.predictive.quantiles(_LEVELS)
    observed, shown = ~measured.predictive.likelihood.is_missing(targets), slice(0, _MOST_PANELS)
    # A panel for each target, of the same rows.
    rows = observed[:, shown].all(axis=1)
    names = _names(measured)[shown] or None
    lower, upper = measured.predictive.quantiles([0.05, 0.95])
    more = "" if targets.shape[1] <= _MOST_PANELS else f" The first {_MOST_PANELS} of {targets.shape[1]} targets."
    found = []
    if rows.any():
        y, means, low, high = (values[rows, shown] for values in (targets, mean, lower, upper))
        drawn = image(
            "predictions.png",
            figures.regression_predictions(y, means, low, high, names=names),
            f"Predictive means and 90 % intervals of {rows.sum()} examples against their targets: "
            f"{100 * measured.scores['coverage_90']:.1f} % of the targets are inside.",
            f"An interval that meets the diagonal holds its target.{more}",
        )
        found.append(drawn)
    drawn = image(
        "quantiles.png",
        figures.quantile_calibration(targets[observed], quantiles[:, observed], _LEVELS),
        f"Share of {observed.sum()} targets below each predictive quantile and in each central interval, against its "
        "nominal level.",
        "On the diagonal, quantiles are calibrated. Coverage of intervals below it: they are too narrow.",
    )
    return [*found, drawn]


def per_class(measured: Measured, errors: Mapping[str, float]) -> list[Table]:
    """None: there are no classes."""
    return []


def images_of_least_certain(measured: Measured) -> list[Image]:
    """None: the table says it."""
    return []


def _names(measured: Measured) -> list[str]:
    """Names of the targets with their units; empty if these have no name."""
    units = measured.target_units
    return [f"target{'' if len(units) == 1 else f' {index}'} ({unit})" for index, unit in enumerate(units)]


def _texts(values: npt.NDArray[Any]) -> list[str]:
    return ["; ".join("" if np.isnan(value) else f"{value:.4g}" for value in row) for row in values]
