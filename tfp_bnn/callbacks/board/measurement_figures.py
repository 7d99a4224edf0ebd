"""The figures of a measurement, each drawn only on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from tfp_bnn import figures
from tfp_bnn.callbacks.measuring import Measurement
from tfp_bnn.core.expected_inputs import any_inputs
from tfp_bnn.models.predictive_model import PredictiveModel
from tfp_bnn.predictive import for_each_class

_NUM_IMAGES = 4
_LEVELS = tuple(np.arange(0.05, 1.0, 0.05).round(2).tolist())
# What an uncertainty is called in a figure, and its unit.
_TITLES = {
    "predictive_entropy": ("predictive entropy", "nats"),
    "mutual_information": ("mutual information", "nats"),
    "epistemic_std": ("epistemic standard deviation", "unit of the target"),
}


def measurement_figures(
    model: PredictiveModel,
    inside: Measurement,
    outside: Measurement | None,
    class_names: Sequence[str] | None,
    num_samples: int,
    seed: int,
) -> Mapping[str, Callable[[], Figure]]:
    """Returns the figures of a measurement by name, as functions that draw them.

    Of an output without any target, only what needs none.

    Args:
        model: Model that was measured.
        inside: Predictions for rows with targets.
        outside: Predictions for out-of-distribution rows, or None.
        class_names: One name per class, or None for their numbers.
        num_samples: Number of draws of the weights for the decision surface.
        seed: Seed of these draws.
    """
    found: dict[str, Callable[[], Figure]] = {}
    for head, measured in inside.heads.items():
        others = None if outside is None else outside.heads[head]
        of_head = _of_one_output(model, measured, others, class_names, num_samples, seed, head)
        found |= {f"{head}/{name}" if head else name: draw for name, draw in of_head.items()}
    return found


def _of_one_output(
    model: PredictiveModel,
    inside: Measurement,
    outside: Measurement | None,
    class_names: Sequence[str] | None,
    num_samples: int,
    seed: int,
    head: str,
) -> Mapping[str, Callable[[], Figure]]:
    found: dict[str, Callable[[], Figure]] = {}
    if inside.has_classes and inside.has_targets:
        labels, probabilities = inside.targets, inside.probabilities
        names = class_names or [str(index) for index in range(probabilities.shape[-1])]
        by_title = {
            _TITLES[name][0]: inside.of_rows(values) for name, values in inside.uncertainties_at_positions.items()
        }
        found["reliability_diagram"] = partial(figures.reliability_diagram, labels, probabilities)
        found["confidence_histogram"] = partial(figures.confidence_histogram, labels, probabilities)
        found["risk_coverage"] = partial(figures.risk_coverage, labels, probabilities, by_title)
        x = inside.rows.x
        one_by_one = inside.has_all_targets and not inside.has_positions
        if one_by_one and _are_images(x) and inside.predictive.has_draws:
            found["least_certain"] = partial(_least_certain, inside, names)
        is_numbers = isinstance(x, np.ndarray) and np.issubdtype(x.dtype, np.number)
        if one_by_one and is_numbers and x.shape[1:] == (2,):

            def predict(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
                with any_inputs():
                    predictive: Any = model.posterior_predictive(points, num_samples, seed)
                    return for_each_class((predictive[head] if head else predictive).samples)

            found["decision_surface"] = partial(figures.decision_surface, predict, x, labels, names)
    elif inside.has_numbers and inside.has_targets and inside.predictive.has_draws:
        found["regression_predictions"] = partial(_regression_predictions, inside)
        found["quantile_calibration"] = partial(_quantile_calibration, inside)
    name, values = next(iter(inside.uncertainties.items()))
    others = None if outside is None else outside.uncertainties[name]
    found["uncertainty_histograms"] = partial(figures.uncertainty_histograms, values, others, *_TITLES[name])
    return found


def _are_images(x: object) -> bool:
    leaves = keras.tree.flatten(x)
    return len(leaves) == 1 and leaves[0].ndim == 4 and leaves[0].shape[-1] in (1, 3)


def _least_certain(inside: Measurement, names: Sequence[str]) -> Figure:
    entropy, labels = inside.uncertainties["predictive_entropy"], inside.targets
    rows = np.argsort(-entropy, kind="stable")[:_NUM_IMAGES]
    titles = [f"{names[labels[row]]}, entropy {entropy[row]:.2f} nats" for row in rows]
    images = keras.tree.flatten(inside.rows.x)[0][rows]
    shown = images, inside.sample_probabilities[:, rows], titles, names
    return figures.image_predictions(*shown, columns=1, labels=labels[rows])


def _regression_predictions(inside: Measurement) -> Figure:
    lower, upper = inside.of_rows(inside.predictive.quantiles([0.05, 0.95]), axis=1)
    return figures.regression_predictions(inside.targets, inside.of_rows(inside.predictive.mean()), lower, upper)


def _quantile_calibration(inside: Measurement) -> Figure:
    quantiles = inside.of_rows(inside.predictive.quantiles(list(_LEVELS)), axis=1)
    return figures.quantile_calibration(inside.targets, quantiles, _LEVELS)
