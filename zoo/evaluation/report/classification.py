"""Contents of a report on a classifier. `regression` has the same functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfp_bnn import figures, metrics
from tfp_bnn.predictive import for_each_class
from zoo.core.shown import rounded
from zoo.evaluation.card_numbers import uncertainties
from zoo.evaluation.report.drawing import image
from zoo.evaluation.report.measured import MOST_EXAMPLES, Measured
from zoo.evaluation.report.page import Image, Table, with_error

# Unit and meaning of each score.
SCORES = {
    "accuracy": ("share", "right predictions"),
    "nll": ("nats per example", "negative log-likelihood of the predictive, at the labels"),
    "ece": ("probability", "expected calibration error, 15 bins of equal width"),
    "brier": ("0 to 2", "sum over classes of squared errors of the probabilities"),
    "entropy": ("nats", "mean predictive entropy: the total uncertainty"),
    "mutual_information": ("nats", "mean mutual information of label and weights: the epistemic uncertainty"),
    "expected_error_rate": (
        "share",
        "error rate that the predictions expect: near 1 - accuracy if calibrated",
    ),
    "ece_equal_mass": ("probability", "expected calibration error, 15 bins of equally many examples"),
    "maximum_calibration_error": ("probability", "the worst of 15 bins of equally many examples"),
    "classwise_calibration_error": ("probability", "mean over classes of the calibration error of their probability"),
    "misclassification_auroc": ("area", "whether errors have the higher entropy: 0.5 by chance, 1 at best"),
    "misclassification_aupr": ("area", "average precision of finding errors by entropy: the error rate by chance"),
    "area_under_risk_coverage": ("share", "mean error rate over all coverages, the least entropy answered first"),
    "risk_at_coverage_90": ("share", "error rate among the 90 % of examples of least entropy"),
}
_MOST_IMAGES = 9
_IMAGES_IN_A_FIGURE = 3
_ABOUT_IMAGES = (
    "Above each image its index and its label. Bars: predictive probabilities; whiskers: the central 90 % of the "
    "draws of the weights. Long whiskers are epistemic uncertainty."
)
# Scores of each class.
_OF_CLASSES = ("recall", "precision", "F1", "entropy")
# How the uncertainties are called in figures, and their unit.
UNCERTAINTIES = {"entropy": ("predictive entropy", "nats"), "mutual_information": ("mutual information", "nats")}


def further_scores(predictive: Any, labels: npt.NDArray[Any]) -> dict[str, float]:
    """Returns scores in addition to those of `zoo.evaluate`, of predictions and their labels."""
    p, entropy = for_each_class(predictive.mean()), predictive.entropy()
    return {
        "expected_error_rate": metrics.expected_error_rate(p),
        "ece_equal_mass": metrics.expected_calibration_error(labels, p, binning="mass"),
        "maximum_calibration_error": metrics.maximum_calibration_error(labels, p, binning="mass"),
        "classwise_calibration_error": metrics.classwise_calibration_error(labels, p),
        "misclassification_auroc": metrics.misclassification_auroc(labels, p, entropy),
        "misclassification_aupr": metrics.misclassification_aupr(labels, p, entropy),
        "area_under_risk_coverage": metrics.area_under_risk_coverage(labels, p, entropy),
        "risk_at_coverage_90": metrics.risk_at_coverage(labels, p, entropy, 0.9),
    }


def resampled_scores(predictive: Any, labels: npt.NDArray[Any]) -> dict[str, float]:
    """Returns all scores in addition to those of `zoo.evaluate` that have an error bar."""
    return {**further_scores(predictive, labels), **_scores_of_classes(predictive, labels)}


def columns(measured: Measured) -> list[tuple[str, Sequence[Any]]]:
    """Returns names and values of the columns of `predictions.csv`, one value per example."""
    labels, p, names = measured.part.y, for_each_class(measured.predictive.mean()), _class_names(measured)
    best = p.argmax(axis=1)
    return [
        ("index", range(len(p))),
        ("label", [names[label] for label in labels]),
        ("predicted", [names[label] for label in best]),
        ("correct", (best == labels).astype(int)),
        ("confidence", p.max(axis=1)),
        ("entropy", measured.predictive.entropy()),
        ("aleatoric", measured.predictive.aleatoric()),
        ("epistemic", measured.predictive.epistemic()),
        *((f"probability_{name}", p[:, index]) for index, name in enumerate(names)),
    ]


def least_certain(measured: Measured) -> Table:
    """Returns a table of the examples with the highest predictive entropy."""
    labels, p, names = measured.part.y, for_each_class(measured.predictive.mean()), _class_names(measured)
    rows = _least_certain_rows(measured, MOST_EXAMPLES)
    best = p.argmax(axis=1)
    inputs = measured.inputs_of(rows)
    cells = {
        "index": [str(row) for row in rows],
        **inputs,
        "label": [names[labels[row]] for row in rows],
        "predicted": [names[best[row]] for row in rows],
        "answer": ["right" if best[row] == labels[row] else "wrong" for row in rows],
        "confidence": [f"{p[row].max():.4f}" for row in rows],
    }
    for name in ("entropy", "aleatoric", "epistemic"):
        cells[name] = [rounded(value) for value in getattr(measured.predictive, name)()[rows]]
    return Table(
        f"The {len(rows)} least certain examples. Entropy, aleatoric (expected entropy) and epistemic (mutual "
        "information) in nats; index: the row of the split, from 0.",
        list(cells),
        list(zip(*cells.values(), strict=True)),
        "l" + "r" * len(inputs) + "lllrrrr",
    )


def images(measured: Measured) -> list[Image]:
    """Returns figures of calibration, and of how well uncertainty predicts errors."""
    labels, p = measured.part.y, for_each_class(measured.predictive.mean())
    scores = {label: uncertainties(measured.predictive)[name] for name, (label, _) in UNCERTAINTIES.items()}
    count, errors = len(labels), int(np.sum(p.argmax(axis=1) != labels))
    return [
        image(
            "confusion.png",
            figures.confusion_matrix(labels, p, _class_names(measured)),
            f"Confusion matrix of {count} predictions: {count - errors} are right.",
            "A row has the examples of one class. The colour is their share of the row.",
        ),
        image(
            "reliability.png",
            figures.reliability_diagram(labels, p),
            f"Reliability diagram of {count} predictions: expected calibration error "
            f"{rounded(measured.scores['ece'])}.",
            "Points on the diagonal are calibrated; bars that cross it are no evidence against it. Below the diagonal: "
            "overconfident.",
        ),
        image(
            "confidence.png",
            figures.confidence_histogram(labels, p),
            f"Histogram of the confidence of {count - errors} right and {errors} wrong predictions.",
            "Errors should be where confidence is low. Accuracy left of the mean confidence: overconfident.",
        ),
        image(
            "risk_coverage.png",
            figures.risk_coverage(labels, p, {**scores, "1 - confidence": 1.0 - p.max(axis=1)}),
            f"Error rate against coverage, from {rounded(errors / count)} when all {count} examples are answered.",
            "The error rate that is left when the least certain examples are not answered, but given to a human.",
        ),
        *_surface(measured),
    ]


def per_class(measured: Measured, errors: Mapping[str, float]) -> list[Table]:
    """Returns a table with the scores of each class, and their errors from `resampled_scores`."""
    names = _class_names(measured)
    values = _scores_of_classes(measured.predictive, measured.part.y)
    counts = np.bincount(measured.part.y, minlength=len(names))
    rows = []
    for index, name in enumerate(names):
        cells = [with_error(values[key], errors.get(key)) for key in (f"{index}/{what}" for what in _OF_CLASSES)]
        rows.append([name, f"{counts[index]:,}", *cells])
    return [
        Table(
            "Each class. Recall: the share of its examples that are right; precision: the share of predictions of this "
            "class that are right; entropy: mean of its examples, in nats. ± 2 standard errors over the examples.",
            ["class", "examples", *_OF_CLASSES],
            rows,
            "l" + "r" * (1 + len(_OF_CLASSES)),
        )
    ]


def _scores_of_classes(predictive: Any, labels: npt.NDArray[Any]) -> dict[str, float]:
    p, entropy = for_each_class(predictive.mean()), predictive.entropy()
    best, found = p.argmax(axis=1), {}
    for index in range(p.shape[1]):
        of_class, given = labels == index, best == index
        right = float(np.sum(of_class & given))
        found[f"{index}/recall"] = right / of_class.sum() if of_class.any() else math.nan
        found[f"{index}/precision"] = right / given.sum() if given.any() else math.nan
        both = of_class.sum() + given.sum()
        found[f"{index}/F1"] = 2 * right / both if both else math.nan
        found[f"{index}/entropy"] = float(entropy[of_class].mean()) if of_class.any() else math.nan
    return found


def images_of_least_certain(measured: Measured) -> list[Image]:
    """Returns figures of the least certain images with class probabilities; none if inputs are not images."""
    shape = measured.data.input_shape
    if len(shape) != 3 or shape[-1] not in (1, 3):
        return []
    all_rows, names = _least_certain_rows(measured, _MOST_IMAGES), _class_names(measured)
    samples, found = for_each_class(measured.predictive.samples), []
    # A column each, which is legible on a small screen too.
    for index, rows in enumerate(np.array_split(all_rows, -(-len(all_rows) // _IMAGES_IN_A_FIGURE))):
        figure = figures.image_predictions(
            measured.part.x[rows],
            samples[:, rows],
            [f"{row}: {names[measured.part.y[row]]}" for row in rows],
            names,
            columns=1,
            labels=measured.part.y[rows],
        )
        first = 1 + index * _IMAGES_IN_A_FIGURE
        found.append(
            image(
                f"least_certain_{index + 1}.png",
                figure,
                f"Images {first} to {first + len(rows) - 1} of highest predictive entropy, each with a bar per class.",
                _ABOUT_IMAGES if index == 0 else "",
            )
        )
    return found


def _surface(measured: Measured) -> list[Image]:
    if measured.data.input_shape != (2,):
        return []
    figure = figures.decision_surface(
        measured.probabilities_of_draws,
        measured.part.x,
        measured.part.y,
        _class_names(measured),
        measured.data.feature_names or ("x1", "x2"),
    )
    return [
        image(
            "decision_surface.png",
            figure,
            "The plane of the inputs with the data: predictive probability on the left, mutual information on the "
            "right.",
            "Away from the data a good model stops being sure: mutual information is what more data there would teach.",
        )
    ]


def _least_certain_rows(measured: Measured, most: int) -> npt.NDArray[np.intp]:
    return np.argsort(-measured.predictive.entropy(), kind="stable")[:most]


def _class_names(measured: Measured) -> tuple[str, ...]:
    """Returns one name per output of the model, which may have other classes than the dataset."""
    names, outputs = measured.data.class_names or (), for_each_class(measured.predictive.mean()).shape[-1]
    return (*names[:outputs], *(f"class {index}" for index in range(len(names), outputs)))
