"""Log of a run: `log.csv`, with one row per finished epoch."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo.core.files import write_atomically
from zoo.hub.artifacts import LOG_NAME


def log_text(history: Mapping[str, Sequence[float]]) -> str:
    """Formats the history as CSV: `epoch` (counted from 1) and one column per name, in full precision.

    Members of an ensemble may have been stopped after different epochs: the shorter columns end with NaN.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", *history])
    writer.writerows(
        [epoch, *map(repr, values)]
        for epoch, values in enumerate(itertools.zip_longest(*history.values(), fillvalue=math.nan), start=1)
    )
    return text.getvalue()


def continued(history: Mapping[str, Sequence[float]], more: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Joins the histories of two parts of a run. NaN stands for a name in the epochs of the part that lacks it."""
    first, second = (max(map(len, of_part.values()), default=0) for of_part in (history, more))
    return {
        name: [*history.get(name, [math.nan] * first), *more.get(name, [math.nan] * second)]
        for name in {**history, **more}
    }


def write_log(folder: Path, history: Mapping[str, Sequence[float]]) -> None:
    """Writes `log.csv` atomically into a folder. OSError if it cannot be written."""
    try:
        write_atomically(folder / LOG_NAME, log_text(history))
    except OSError as error:
        raise OSError(
            error.errno,
            f"The log could not be written to {str(folder)!r}: {error.strerror}. The checkpoints are unchanged. "
            "Free some space or make the folder writable, and resume",
        ) from error
