"""Rows of results that a benchmark appends one by one, so that a stopped run can be continued."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def append_row(path: Path, columns: Sequence[str], row: Mapping[str, Any]) -> None:
    """Appends a row to a CSV file, after the header if the file is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
