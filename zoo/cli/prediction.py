"""The command `predict`."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.models import TrustOption
from zoo.cli.progress import working
from zoo.core.files import write_atomically
from zoo.core.shown import cell

if TYPE_CHECKING:
    from tfp_bnn import PosteriorPredictive
    from tfp_bnn.predictive import Conformal

_SAMPLES = 100


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("predict")(predict)


def predict(
    name: Annotated[str, typer.Argument(help="Name of a pretrained model, or folder or address of an artifact.")],
    files: Annotated[list[Path], typer.Argument(help="One CSV or NPY file, or image files.")],
    num_samples: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of Monte Carlo samples of the weights. Default: as its sets or intervals, else 100."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the samples. Default: as there, else 0.")] = None,
    trust: TrustOption = False,
    out: Annotated[Path | None, typer.Option(help="CSV file to write. Default: stdout.")] = None,
) -> None:
    """Predict with uncertainty: a CSV with mean, entropy, aleatoric and epistemic part for each input.

    If the model has a conformal prediction, of a level of 90 % for example, there is also the column set_90, with the
    classes separated by |, or the columns lower_90 and upper_90. Their coverage holds for the samples of the fit.

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
    conformal = model.conformal
    of_fit = {} if conformal is None else conformal.get_config()
    num_samples = num_samples or of_fit.get("num_samples") or _SAMPLES
    seed = next(value for value in (seed, of_fit.get("seed"), 0) if value is not None)
    with working(f"predicting {len(x)} inputs, {num_samples} samples"):
        predictive = model.posterior_predictive(x, num_samples=num_samples, seed=seed)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = _rows(labels, predictive, model.class_names)
    if conformal is not None:
        more = _OF_KIND[conformal.target_kind](conformal, predictive, model.class_names)
        rows = [[*row, *further] for row, further in zip(rows, more, strict=True)]
    writer.writerows([cell(str(value)) for value in row] for row in rows)
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


def _sets(conformal: Conformal, predictive: PosteriorPredictive, classes: Sequence[str] | None) -> list[list[str]]:
    """The header and a row for each input."""
    sets = conformal.predict(predictive)
    names = classes if classes and len(classes) == sets.shape[-1] else [str(k) for k in range(sets.shape[-1])]
    rows = [["|".join(name for name, is_in in zip(names, row, strict=True) if is_in)] for row in sets]
    return [[f"set_{100 * conformal.level:g}"], *rows]


def _intervals(conformal: Conformal, predictive: PosteriorPredictive, classes: Sequence[str] | None) -> list[list[str]]:
    """The header and a row for each input; the ends of each target are next to each other."""
    import numpy as np

    lower, upper = conformal.predict(predictive)
    targets = lower.shape[-1]
    of_target = [""] if targets == 1 else [f"_{k}" for k in range(targets)]
    header = [f"{end}_{100 * conformal.level:g}{suffix}" for suffix in of_target for end in ("lower", "upper")]
    # (n, targets, 2)
    ends = np.stack([lower, upper], axis=-1).reshape(len(lower), -1)
    return [header, *([f"{end:.6g}" for end in row] for row in ends)]


_OF_KIND: dict[str, Callable[..., list[list[str]]]] = {"class": _sets, "number": _intervals}
