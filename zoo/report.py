"""The README's table of pretrained models, made from the cards: `python -m zoo.report`."""

from __future__ import annotations

import sys
from pathlib import Path

from zoo.manifest import bundled_models, write_atomically

_BEGIN, _END = "<!-- models: written by `python -m zoo.report` -->", "<!-- /models -->"
_COLUMNS = ("accuracy", "rmse", "nll", "ece", "coverage_90")


def models_table() -> str:
    """The bundled models and their test metrics as a Markdown table."""
    rows = [
        "| model | weights | accuracy | RMSE | NLL | ECE | coverage of 90 % intervals |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, entry in bundled_models().items():
        cells = [f"{entry['metrics'][key]:.3g}" if key in entry["metrics"] else "" for key in _COLUMNS]
        rows.append(f"| `{name}` | {entry['num_weights']:,} | {' | '.join(cells)} |")
    return "\n".join(rows)


def with_table(text: str) -> str:
    """A README with its table replaced by the current one.

    Raises:
        ValueError: when the markers are not there.
    """
    if _BEGIN not in text or _END not in text:
        raise ValueError(f"The README has no place for the table: expected the lines {_BEGIN!r} and {_END!r}.")
    before, rest = text.split(_BEGIN, 1)
    return f"{before}{_BEGIN}\n{models_table()}\n{_END}{rest.split(_END, 1)[1]}"


if __name__ == "__main__":
    readme = Path(sys.argv[1] if len(sys.argv) > 1 else "README.md")
    write_atomically(readme, with_table(readme.read_text("utf-8")))
