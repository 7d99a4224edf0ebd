"""The command `predict`."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.models import TrustOption
from zoo.cli.progress import working
from zoo.core.files import write_atomically
from zoo.core.shown import cell

if TYPE_CHECKING:
    from tfp_bnn import PosteriorPredictive


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("predict")(predict)


def predict(
    name: Annotated[str, typer.Argument(help="Name of a pretrained model, or the folder of an artifact.")],
    files: Annotated[list[Path], typer.Argument(help="One CSV or NPY file, or image files.")],
    num_samples: Annotated[int, typer.Option(min=1, help="Number of Monte Carlo samples of the weights.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    trust: TrustOption = False,
    out: Annotated[Path | None, typer.Option(help="CSV file to write. Default: stdout.")] = None,
) -> None:
    """Predict with uncertainty: a CSV with mean, entropy, aleatoric and epistemic part for each input.

    A CSV file has one row per input and one column per feature, with or without a header. If the header has the model's
    names of the columns, they may stand in any order. An NPY file contains an array of shape (n, ...). Images are
    converted to the size and pixel range of the model.
    """
    from zoo.datasets.input_files import read_inputs
    from zoo.hub.loading import open_model

    # The config is validated and trusted before any of it is used.
    model: Any = open_model(name, trust)
    config = model.card["config"]
    labels, x = read_inputs(
        files,
        tuple(config["config"]["input_shape"]),
        config["config"].get("pixel_max") or 255.0,
        config.get("data", {}).get("feature_names"),
    )
    with working(f"predicting {len(x)} inputs, {num_samples} samples"):
        predictive = model.posterior_predictive(x, num_samples=num_samples, seed=seed)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([cell(str(value)) for value in row] for row in _rows(labels, predictive, model.class_names))
    if out is None:
        sys.stdout.write(text.getvalue())
    else:
        write_atomically(out, text.getvalue())


def _rows(
    labels: Sequence[str | int], predictive: PosteriorPredictive, classes: Sequence[str] | None
) -> list[list[Any]]:
    mean = predictive.mean()
    if classes and len(classes) == mean.shape[-1]:
        header = ["input", "prediction", *(f"mean_{name}" for name in classes), "entropy", "aleatoric", "epistemic"]
        best = [[classes[index]] for index in mean.argmax(axis=-1)]
    else:
        names = ["mean"] if mean.shape[-1] == 1 else [f"mean_{index}" for index in range(mean.shape[-1])]
        header = ["input", *names, "entropy", "aleatoric", "epistemic"]
        best = [[] for _ in labels]
    # Regression with several targets has an uncertainty for each. They are summed into one column.
    parts = [
        getattr(predictive, name)().reshape(len(labels), -1).sum(axis=1)
        for name in ("entropy", "aleatoric", "epistemic")
    ]
    rows = [
        [label, *first, *(f"{value:.6g}" for value in means), *(f"{part[index]:.6g}" for part in parts)]
        for index, (label, first, means) in enumerate(zip(labels, best, mean, strict=True))
    ]
    return [header, *rows]
