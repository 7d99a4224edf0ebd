"""Files of the suite: its numbers as CSV, its probabilities as NPZ."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np

from zoo.core.files import write_atomically
from zoo.core.shown import cell
from zoo.evaluation.suite import Suite


def write_suite(suite: Suite, name: str, path: str | os.PathLike[str]) -> None:
    """Writes the numbers as CSV, one to a row, to six digits; see `Suite.rows`.

    Args:
        suite: Results.
        name: Name of the model.
        path: Path of the file, which is replaced if it exists.
    """
    write_atomically(Path(path), suite_csv(suite, name))


def suite_csv(suite: Suite, name: str) -> str:
    """Returns the text that `write_suite` writes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    about = {"name": name, "dataset": suite.dataset, "split": suite.split, "seed": suite.seed}
    about["calibrated"] = suite.calibrated
    for index, row in enumerate(suite.rows()):
        corrupted = row["part"] == "corruption"
        counts = {
            "num_examples": suite.num_corrupted if corrupted else suite.num_examples,
            "num_samples": suite.num_samples_corrupted if corrupted else suite.num_samples,
        }
        entries = {**about, **counts, **row, "value": f"{row['value']:.6g}"}
        if index == 0:
            writer.writerow(entries)
        writer.writerow(cell(str(value)) for value in entries.values())
    return text.getvalue()


def write_probabilities(suite: Suite, name: str, path: str | os.PathLike[str]) -> None:
    """Writes predictive probabilities in 16 bit, as an NPZ file of NumPy.

    The file has `log_probabilities`, `(n, classes)`, float16, natural logarithms; `labels`, `(n,)`; and `name`,
    `dataset`, `split`, `num_samples`, `seed`, `calibrated`. `np.exp(file["log_probabilities"])` are the
    probabilities. The logarithms have a relative error of at most 0.05 %, or an absolute one of 3e-8 nats where that is
    more, so those of certain predictions, whose probabilities in 16 bit would be 1, and of improbable classes are kept,
    and with them the NLL.

    Args:
        suite: Results.
        name: Name of the model.
        path: Path of the file, which is replaced if it exists.
    """
    file = io.BytesIO()
    np.savez_compressed(
        file,
        log_probabilities=suite.log_probabilities.astype(np.float16),
        labels=suite.labels,
        name=name,
        dataset=suite.dataset,
        split=suite.split,
        num_samples=suite.num_samples,
        seed=suite.seed,
        calibrated=suite.calibrated,
    )
    write_atomically(Path(path), file.getvalue())
