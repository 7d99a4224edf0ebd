"""The results of the suite as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.evaluation.suite import Suite

# Columns of the table of other data: name, and where it is found.
_TOLD_APART = ("auroc_entropy", "fpr95_entropy", "auroc_mutual_information", "fpr95_mutual_information")
_SHOWN_COVERAGES = (0.5, 0.8, 0.9, 0.95, 1.0)


def print_suite(suite: Suite) -> None:
    """Prints all results on stdout."""
    from rich.console import Console

    console = Console()
    for table in _tables(suite):
        console.print(table)


def _tables(suite: Suite) -> list[Any]:
    images = f"{suite.num_examples:,} images of {suite.dataset}, {suite.split}, {suite.num_samples} samples"
    scores = {name: (value, suite.plug_in[name]) for name, value in suite.scores.items()}
    outside = {
        name: (*(numbers.get(key) for key in _TOLD_APART), suite.out_of_distribution_plug_in[name]["auroc_entropy"])
        for name, numbers in suite.out_of_distribution.items()
    }
    risks = suite.risks()
    corrupted = f"{suite.num_corrupted:,} images, {suite.num_samples_corrupted} samples"
    return [
        _table(images, ("metric", "predictive", "plug-in mean"), scores),
        _table(
            "Out of distribution: AUROC and FPR at 95 % recall by entropy and by mutual information (MI)",
            ("data", "AUROC entropy", "FPR95 entropy", "AUROC MI", "FPR95 MI", "AUROC plug-in"),
            outside,
        ),
        *(
            _table(
                f"{label} by severity of corruption; {corrupted}",
                ("corruption", "1", "2", "3", "4", "5"),
                {
                    **{
                        name: [numbers[metric] for numbers in by_severity.values()]
                        for name, by_severity in suite.corruptions.items()
                    },
                    "mean": [numbers[metric] for severity, numbers in suite.by_severity().items() if severity],
                },
            )
            for metric, label in (("accuracy", "Accuracy"), ("nll", "NLL, nats"), ("ece", "ECE"))
        ),
        _table(
            "Error rate among the most certain images, by the share that is answered",
            ("", *(f"{coverage:g}" for coverage in _SHOWN_COVERAGES)),
            {"risk": [risks[coverage] for coverage in _SHOWN_COVERAGES]},
        ),
    ]


def _table(title: str, header: tuple[str, ...], rows: Mapping[str, Any]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left")
    for name, values in rows.items():
        table.add_row(name, *("-" if value is None else f"{value:.4f}" for value in values))
    return table
