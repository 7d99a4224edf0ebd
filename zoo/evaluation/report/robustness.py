"""The section of a report on the results of the suite."""

from __future__ import annotations

from tfp_bnn import figures
from zoo.core.shown import rounded
from zoo.evaluation.report.drawing import image
from zoo.evaluation.report.page import Section, Table
from zoo.evaluation.suite import CLEAN, CORRUPTION_SCORES, Suite

_UNCERTAINTIES = {"entropy": "predictive entropy", "mutual_information": "mutual information"}
_ABOUT = "A good model is less sure where it is less accurate: accuracy falls, but ECE stays low."
_LABELS = {"accuracy": "accuracy", "nll": "NLL (nats per example)", "ece": "ECE"}


def robustness(suite: Suite) -> Section:
    """How the model behaves on other data and on corrupted images."""
    plug_in = [[name, rounded(value), rounded(suite.plug_in[name])] for name, value in suite.scores.items()]
    outside = []
    for name, numbers in suite.out_of_distribution.items():
        versions = [(label, numbers, of) for of, label in _UNCERTAINTIES.items() if f"auroc_{of}" in numbers]
        versions.append(("entropy of the plug-in mean", suite.out_of_distribution_plug_in[name], "entropy"))
        outside += [[name, label, rounded(of[f"auroc_{by}"]), rounded(of[f"fpr95_{by}"])] for label, of, by in versions]
    means = suite.by_severity()
    severities = [
        [str(severity), *(rounded(numbers[metric]) for metric in CORRUPTION_SCORES)]
        for severity, numbers in means.items()
    ]
    curves = {
        _LABELS[metric]: {
            name: [suite.corruptions[CLEAN][0][metric], *(numbers[metric] for numbers in by_severity.values())]
            for name, by_severity in suite.corruptions.items()
            if name != CLEAN
        }
        for metric in CORRUPTION_SCORES
    }
    kinds = len(suite.corruptions) - 1
    return Section(
        "Other data, corrupted images",
        [
            f"{kinds} corruptions of {suite.num_corrupted:,} images, {suite.num_samples_corrupted} samples of the "
            "weights. suite.csv has the numbers of each."
        ],
        [
            Table(
                "The predictive, and the plug-in mean of the weights.", ["metric", "value", "plug-in"], plug_in, "lrr"
            ),
            Table(
                "Out-of-distribution inputs told from the split by their uncertainty.",
                ["data", "uncertainty", "AUROC", "FPR at 95 % recall"],
                outside,
                "llrr",
            ),
            Table(
                f"Mean over {kinds} corruptions; severity 0 is without.",
                ["severity", "accuracy", "NLL (nats)", "ECE"],
                severities,
                "lrrr",
            ),
        ],
        [
            image(
                f"corruptions_{metric}.png",
                figures.severity_curves({_LABELS[metric]: curves[_LABELS[metric]]}),
                f"{_LABELS[metric]} against the severity of {kinds} corruptions: mean {rounded(means[0][metric])} "
                f"without and {rounded(means[5][metric])} at severity 5.",
                _ABOUT if index == 0 else "",
            )
            for index, metric in enumerate(CORRUPTION_SCORES)
        ],
    )
