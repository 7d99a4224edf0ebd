"""The parts of a report that classification and regression have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfp_bnn import figures, metrics
from tfp_bnn.inference.ways import meaning_of
from zoo.core.shown import rounded
from zoo.evaluation.card_numbers import UNIFORM, uncertainties
from zoo.evaluation.report.drawing import image
from zoo.evaluation.report.measured import Measured
from zoo.evaluation.report.page import NONE, Section, Table, as_precise, with_error
from zoo.evaluation.report.provenance import likelihood_in_words, provenance
from zoo.hub.members import count_all_weights

# Unit and meaning of a score that a likelihood of the user adds.
_UNKNOWN_SCORE = ("", "score of the likelihood")


def lead(measured: Measured) -> str:
    """What was measured, in one sentence."""
    return (
        f"On {measured.rows}: {len(measured.part):,} examples, {measured.draws}, calibration: {measured.calibration}."
    )


def scores(
    task: Any, measured: Measured, further: Mapping[str, float | None], errors: Mapping[str, Mapping[str, float]]
) -> Section:
    """The scores of `zoo.evaluate` and further ones with their errors, and what they are about.

    Args:
        task: Contents of the kind of target.
        measured: Predictions and scores.
        further: Other scores by name; None for one that is not defined.
        errors: Standard errors over the `examples` and the `draws`, by the name of the score.
    """
    facts = {
        **provenance(measured.model, measured.name),
        "network": f"{measured.model.name}, {count_all_weights(measured.model):,} weights",
        "likelihood": measured.in_units(likelihood_in_words(measured.model)),
        "dataset": f"{measured.data.name} ({measured.data.task}). {measured.data.description}",
        "split": f"{measured.split}, {len(measured.part):,} examples",
        "averaged over": measured.draws,
        "calibration": measured.calibration,
    }
    rows = [
        [
            name,
            with_error(value, errors["examples"].get(name)),
            f"± {as_precise(2 * errors['draws'][name], value)}"
            if name in errors["draws"] and value is not None
            else NONE,
            *map(measured.in_units, task.SCORES.get(name, _UNKNOWN_SCORE)),
        ]
        for name, value in {**measured.scores, **further}.items()
    ]
    return Section(
        "Metrics",
        tables=[
            Table(
                "Of the predictive distribution, averaged over the samples, ± 2 standard errors: how far the value "
                "would move with other test examples (bootstrap), and with other draws of the weights.",
                ["metric", "value", "of the draws", "unit", "meaning"],
                rows,
                "lrrls",
            ),
            *task.per_class(measured, errors["examples"]),
            Table("What was measured.", (), [[name, value] for name, value in facts.items()], "ls"),
        ],
    )


def out_of_distribution(task: Any, measured: Measured) -> dict[str, Any] | None:
    """How well each uncertainty tells the out-of-distribution inputs from those of the split."""
    if measured.outside is None:
        return None
    inside, outside = uncertainties(measured.predictive), uncertainties(measured.outside)
    return {
        "data": measured.outside_name,
        "num_examples": len(measured.outside),
        **{
            name: {
                "mean": float(outside[name].mean(dtype=float)),
                "auroc": metrics.out_of_distribution_auroc(inside[name], outside[name]),
                "aupr": metrics.out_of_distribution_aupr(inside[name], outside[name]),
                "fpr_95": metrics.out_of_distribution_fpr(inside[name], outside[name]),
            }
            for name in inside
        },
    }


def uncertainty(task: Any, measured: Measured, outside: Mapping[str, Any] | None) -> Section:
    """How uncertain the predictions are, in the split and out of distribution."""
    inside_scores = uncertainties(measured.predictive)
    outside_scores = None if measured.outside is None else uncertainties(measured.outside)
    drawn = []
    for name, (label, unit_of_any) in task.UNCERTAINTIES.items():
        unit = measured.in_units(unit_of_any)
        others = None if outside_scores is None else outside_scores[name]
        figure = figures.uncertainty_histograms(inside_scores[name], others, label, unit)
        alt = f"Histogram of the {label} of {len(measured.part)} examples of the split"
        alt += "." if outside is None else f" and of {outside['num_examples']} out-of-distribution inputs."
        drawn.append(image(f"{name}.png", figure, alt, f"{label[0].upper()}{label[1:]} of each example, in {unit}."))
    if outside is None:
        return Section("Uncertainty", images=drawn)
    rows = [
        [label, *(_number(value) for value in (float(inside_scores[name].mean(dtype=float)), *outside[name].values()))]
        for name, (label, _) in task.UNCERTAINTIES.items()
    ]
    noise = f"noise, uniform over the range of the inputs in the training split of {measured.data.name}"
    kind = noise if outside["data"] == UNIFORM else outside["data"]
    text = (
        f"{outside['num_examples']:,} inputs that the model was not trained for ({kind}) are told from the split by "
        "their uncertainty. AUROC, 0.5 by chance, and AUPR: the higher the better. FPR, the share of the split above "
        "the threshold that 95 % of the others pass: the lower the better."
    )
    units = measured.in_units(", ".join(f"{label} in {unit}" for label, unit in task.UNCERTAINTIES.values()))
    table = Table(
        f"{units[0].upper()}{units[1:]}.",
        ["uncertainty", f"mean, {measured.split}", f"mean, {outside['data']}", "AUROC", "AUPR", "FPR at 95 % recall"],
        rows,
        "lrrrrr",
    )
    return Section("Uncertainty, in and out of distribution", [text], [table], drawn)


def kl(measured: Measured) -> Section:
    """What each layer has learned beyond its prior."""
    meaning = meaning_of(measured.model)
    if not measured.kl:
        reason = "the network has no Bayesian weights" if meaning.kl else meaning.reason
        return Section("KL", [f"Not defined: {reason}."])
    total = sum(measured.kl.values())
    rows = [[layer, f"{nats:,.2f}", _percentage(nats, total)] for layer, nats in measured.kl.items()]
    text = (
        "KL(posterior || prior) of a layer, in nats, is what its weights have learned beyond their prior. Near 0 its "
        "posterior has collapsed to the prior."
    )
    if meaning.reason:
        text = "The weights are points: what stands for the KL of a layer is -log p(weights), in nats."
    table = Table(
        "KL of each layer.",
        ["layer", "KL (nats)", "share"],
        [*rows, ["all", f"{total:,.2f}", _percentage(total, total)]],
        "lrr",
    )
    drawn = image(
        "kl_by_layer.png",
        figures.kl_by_layer(measured.kl),
        f"Bar chart of the KL of {len(measured.kl)} layers, {total:,.1f} nats in all.",
        "The KL of each layer, from the input at the top to the output at the bottom.",
    )
    return Section("KL by layer", [text], [table], [drawn])


def reproduction(measured: Measured, command: str, versions: Mapping[str, str]) -> Section:
    """How the report is made again."""
    made_with = ", ".join(f"{package} {number}" for package, number in versions.items())
    return Section(
        "Reproduce",
        [
            "This makes the page again, and the files next to it: predictions.csv with a row for each of the "
            f"{len(measured.part):,} examples, metrics.json with all numbers, and the figures.",
            f"Made with {made_with}.",
        ],
        code=[command],
    )


def _percentage(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole > 0 else "-"


def _number(value: float | None) -> str:
    return "not defined" if value is None else rounded(value)
