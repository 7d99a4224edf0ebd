"""The tags under which `BayesianTensorBoard` logs, their meaning, and how names become part of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

# The runs: the log folder, for what is of no split, and folders below it.
ROOT = ""
TRAIN, VALIDATION, EVALUATION = "train", "validation", "evaluation"
MARGINS = "margins"


class Tag(NamedTuple):
    """A tag, or a family of tags with a part in angle brackets.

    Attributes:
        pattern: Tag, or pattern such as `"kl/layers/<layer>"`.
        runs: Runs that have it.
        meaning: What is logged, with its unit.
    """

    pattern: str
    runs: str
    meaning: str


_BOTH = f"{TRAIN}, {VALIDATION}"
TAGS = (
    Tag("elbo/elbo", _BOTH, "evidence lower bound at beta = 1, -(nll + kl / N), nats per example"),
    Tag("elbo/nll", _BOTH, "expected negative log-likelihood under one weight draw, nats per example"),
    Tag("elbo/kl_per_example", _BOTH, "kl / N, nats per example"),
    Tag("elbo/kl", _BOTH, "KL(posterior || prior) of all weights, nats, mean over the epoch"),
    Tag("elbo/loss", _BOTH, "what is minimized: nll + beta * kl / N, and regularizers, nats per example"),
    Tag("elbo/minimized", TRAIN, "`elbo/loss` of training alone, with its beta; in validation beta is 1"),
    Tag("elbo/beta", _BOTH, "annealing weight of the KL; 1 in validation"),
    Tag("metrics/<name>", _BOTH, "any other number of `fit`: metrics of `compile`, learning rate"),
    Tag("kl/total", TRAIN, "KL of all weights at the end of the epoch, nats"),
    Tag("kl/layers/<layer>", TRAIN, "KL of the weights of a layer at the end of the epoch, nats"),
    Tag("log10_kl/<layer>", TRAIN, "log10 of the KL of a layer, whose sizes differ by powers of ten; at least -3"),
    Tag("kl/priors/<prior>", TRAIN, "KL of a prior scale that is inferred, nats"),
    Tag("posterior/<layer>/signal_to_noise", TRAIN, "median of abs(mean) / scale over the weights of a layer"),
    Tag("posterior/<layer>/active_fraction", TRAIN, "share of the weights of a layer with abs(mean) > scale"),
    Tag(
        "prior_scale/<prior>",
        TRAIN,
        "prior scale that is learned or inferred, of groups the median, unit of the weights",
    ),
    Tag("curvature/<layer>/determined", TRAIN, "weights that the data determine, the sum of h / (h + delta)"),
    Tag("curvature/<layer>/h_to_delta", TRAIN, "median curvature h of the NLL, relative to delta, that of the prior"),
    Tag("natural_gradient/temperature", TRAIN, "beta * temperature = N / lambda; 1 is the Bayesian posterior"),
    Tag("natural_gradient/learning_rate", TRAIN, "step of the means, fraction of a Newton step"),
    Tag("natural_gradient/curvature_rate", TRAIN, "step of the precisions, fraction of a Newton step"),
    Tag("predictive/accuracy", VALIDATION, "share of correct predictions, averaged over weight draws"),
    Tag("predictive/nll", VALIDATION, "negative log-likelihood of the predictive, nats per example"),
    Tag("predictive/rmse", VALIDATION, "root mean squared error of the predictive mean, unit of the target"),
    Tag("predictive/mae", VALIDATION, "mean absolute error of the predictive mean, unit of the target"),
    Tag("predictive/<name>", VALIDATION, "any other score: of one of several outputs, or of a likelihood of your own"),
    Tag("calibration/ece", VALIDATION, "expected calibration error, 15 bins of equal width"),
    Tag("calibration/brier", VALIDATION, "Brier score, 0 to 2"),
    Tag("calibration/coverage_90", VALIDATION, "share of targets in the central 90 % interval"),
    Tag("uncertainty/predictive_entropy", VALIDATION, "total uncertainty, mean over the rows, nats"),
    Tag("uncertainty/mutual_information", VALIDATION, "epistemic uncertainty, mean over the rows, nats"),
    Tag("uncertainty/aleatoric_std", VALIDATION, "root of the expected noise variance, unit of the target"),
    Tag("uncertainty/epistemic_std", VALIDATION, "root of the mean variance of the mean, unit of the target"),
    Tag("out_of_distribution/<uncertainty>", VALIDATION, "an uncertainty, mean over `ood_data`, unit as above"),
    Tag("out_of_distribution/auroc/<uncertainty>", VALIDATION, "P(a row of `ood_data` is less certain than another)"),
    Tag(f"{MARGINS}/<tag>/lower", VALIDATION, "2 Monte Carlo standard errors below a tag"),
    Tag(f"{MARGINS}/<tag>/upper", VALIDATION, "2 Monte Carlo standard errors above a tag"),
    Tag("weights/<layer>/posterior_mean", TRAIN, "histogram of the posterior means of a layer"),
    Tag("weights/<layer>/posterior_scale", TRAIN, "histogram of the posterior standard deviations of a layer"),
    Tag("weights/<layer>/signal_to_noise_db", TRAIN, "histogram of 10 log10(abs(mean) / scale) of a layer, decibels"),
    Tag("rows/<uncertainty>", VALIDATION, "histogram of an uncertainty over the validation rows"),
    Tag("rows/out_of_distribution_<uncertainty>", VALIDATION, "histogram of an uncertainty over `ood_data`"),
    Tag("precision_recall/<class>", VALIDATION, "precision-recall curve of a class against the rest"),
    Tag("figures/kl_by_layer", TRAIN, "KL of each layer, as bars"),
    Tag("figures/reliability_diagram", VALIDATION, "accuracy against confidence"),
    Tag("figures/confidence_histogram", VALIDATION, "confidence of correct and of wrong predictions"),
    Tag("figures/risk_coverage", VALIDATION, "error rate among the most certain rows"),
    Tag("figures/uncertainty_histograms", VALIDATION, "uncertainty in and out of distribution"),
    Tag("figures/least_certain", VALIDATION, "the least certain images with their class probabilities"),
    Tag("figures/decision_surface", VALIDATION, "predictions and epistemic uncertainty over the plane"),
    Tag("figures/regression_predictions", VALIDATION, "predictive means and 90 % intervals against targets"),
    Tag("figures/quantile_calibration", VALIDATION, "share of targets below each predictive quantile"),
    Tag("diagnostics/<name>", EVALUATION, "of the inference method: R-hat and ESS of chains, evidence of Laplace"),
    Tag("about/inference", ".", "inference method, and what ELBO and KL are, or why they are not defined"),
    Tag("about/model", ".", "summary of the model, before training"),
    Tag("about/recipe", ".", "how the model is trained, as given to the callback"),
    Tag("about/tags", ".", "this table"),
)

# Where the scores of `tfp_bnn.predictive.score` are found.
_SCORE_TAGS = {
    "accuracy": "predictive/accuracy",
    "nll": "predictive/nll",
    "rmse": "predictive/rmse",
    "mae": "predictive/mae",
    "ece": "calibration/ece",
    "brier": "calibration/brier",
    "coverage_90": "calibration/coverage_90",
    "entropy": "uncertainty/predictive_entropy",
    "mutual_information": "uncertainty/mutual_information",
    "aleatoric_std": "uncertainty/aleatoric_std",
    "epistemic_std": "uncertainty/epistemic_std",
}


def score_tags(names: Iterable[str]) -> Mapping[str, str]:
    """The tag of each score; those that a likelihood of the user adds are `predictive/<name>`."""
    parts = safe_names(names)
    return {name: _SCORE_TAGS.get(name, f"predictive/{part}") for name, part in parts.items()}


def tag_table() -> str:
    """Returns all tags as a table in Markdown."""
    return markdown_table(("tag", "runs", "meaning"), [(f"`{tag.pattern}`", tag.runs, tag.meaning) for tag in TAGS])


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""Formats a table in Markdown.

    Args:
        header: Titles of the columns.
        rows: Cells. Bars in them, as in `KL(q || p)`, would end a cell and are escaped.

    Example:
        >>> print(markdown_table(["what", "is"], [["KL", "KL(q || p)"]]))
        | what | is |
        |---|---|
        | KL | KL(q \|\| p) |
    """
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *escaped)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


@cache
def meaning(tag: str) -> str:
    """Returns the meaning of a tag with its unit; empty for a tag that is not in the table."""
    return next((known.meaning for known in TAGS if re.fullmatch(_expression(known.pattern), tag)), "")


def safe_names(names: Iterable[str]) -> Mapping[str, str]:
    """Returns a part of a tag for each name: printable, without empty levels, and unique."""
    parts: dict[str, str] = {}
    for name in names:
        printable = "".join(character if character.isprintable() else " " for character in name)
        levels = (" ".join(level.split()) for level in printable.split("/"))
        part = wanted = "/".join(filter(None, levels)) or "unnamed"
        count = 1
        while part in parts.values():
            count += 1
            part = f"{wanted}#{count}"
        parts[name] = part
    return parts


def _expression(pattern: str) -> str:
    return ".+".join(re.escape(part) for part in re.split("<.*?>", pattern))
