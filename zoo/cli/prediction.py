"""The command `predict`."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json as json_module
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from zoo.cli.early import check_inputs, check_model, is_name_of_dataset
from zoo.cli.early_recipes import check_option
from zoo.cli.models import ModelArgument, TrustOption
from zoo.cli.progress import counted
from zoo.cli.starting import start
from zoo.core.files import check_file_target, replaceable
from zoo.core.shown import cell, encodable, printable

if TYPE_CHECKING:
    from tfp_bnn import PosteriorPredictive
    from zoo.datasets.input_files import Inputs

_SAMPLES = 100
_BATCH_SIZE = 1024
_LEVEL = 0.9

Columns = dict[str, Any]
"""A sequence of one value for each input, by the name of the column."""


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("predict", short_help="Predict with uncertainty for files or a dataset.")(predict)


def predict(
    name: ModelArgument,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="One .csv, .parquet, .npy or .npz file; - for CSV from stdin; images, folders of images and patterns; "
            "or the name of a dataset.",
        ),
    ],
    num_samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of Monte Carlo samples of the weights. Default: as its sets or intervals, else 100.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of the samples. Default: as there, else 0.")
    ] = None,
    trust: TrustOption = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File to write. Default: stdout.")] = None,
    draws: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="NPY file for the prediction of each sample of the weights, (samples, inputs, outputs).",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="A list in JSON, one object per input, instead of CSV.")] = False,
) -> None:
    """Predict with uncertainty: a CSV with a row for each input, in their order.

    Classes: the column prediction has the most probable class, mean_CLASS the probabilities, and entropy, aleatoric
    and epistemic the uncertainty and its parts, in nats. Numbers: mean, std, the ends lower_90 and upper_90 of the
    central 90 % interval, and aleatoric_std and epistemic_std, all in units of the target; entropy, in nats; and unit,
    if the model knows it.

    If the model has a conformal prediction, of a level of 90 % for example, there is also the column set_90, with the
    classes separated by |, or its ends lower_90 and upper_90. Their coverage holds for the samples of the fit.

    A CSV file has one row per input and one column per feature, with or without a header. If the header has the model's
    names of the columns, they may stand in any order. An NPY file contains an array of shape (n, ...), an NPZ file an
    array x. Images are converted to the size and pixel range of the model. Of a dataset, the test split is predicted.
    """
    check_model(name, trust)
    check_option("--seed", seed, "EvaluationRecipe", "seed")
    check_inputs(files)
    for path in (out, draws):
        check_file_target(path)
    start()
    from zoo.hub.loading import open_model

    # The config is validated and trusted before any of it is used.
    model: Any = open_model(name, trust)
    inputs = inputs_for(model, files)
    of_fit = {} if model.conformal is None else model.conformal.get_config()
    num_samples = num_samples or of_fit.get("num_samples") or _SAMPLES
    seed = next(value for value in (seed, of_fit.get("seed"), 0) if value is not None)
    what = f"predicting {len(inputs):,} input{'s' if len(inputs) > 1 else ''}, {num_samples} samples"
    with _written(out) as file, _draws_file(draws, len(inputs)) as keep, counted(what, len(inputs)) as advance:
        write = _json_writer(file) if json else _csv_writer(file)
        done = 0
        for predictive in _predictives(model, inputs, num_samples, seed):
            labels = inputs.labels[done : done + len(predictive)]
            columns = _columns(predictive, model.class_names, model.conformal)
            write({"input": labels, **columns, **_units(model.target_units, len(predictive))})
            keep(done, predictive)
            done += len(predictive)
            advance(len(predictive))
        if json:
            file.write("\n]\n")
    for path in (out, draws):
        if path is not None:
            typer.echo(printable(f"saved: {path}"), err=out is None)


def inputs_for(model: Any, files: Sequence[str]) -> Inputs:
    """Opens the inputs of a command for a model; see `zoo.datasets.input_files.open_inputs`.

    Args:
        model: Model of an artifact.
        files: Files, folders and patterns, or the name of a dataset alone, for its test split.
    """
    import numpy as np

    from zoo.datasets import load_dataset
    from zoo.datasets.input_files import Inputs, fitting, open_inputs

    config = model.card["config"]
    shape, pixel_max = tuple(config["config"]["input_shape"]), config["config"].get("pixel_max") or 255.0
    if len(files) == 1 and is_name_of_dataset(files[0]):
        x = fitting(files[0], load_dataset(files[0]).test.x.astype(np.float32), shape)
        return Inputs(range(len(x)), x, (), shape, pixel_max)
    return open_inputs(files, shape, pixel_max, config.get("data", {}).get("feature_names"))


def _predictives(model: Any, inputs: Inputs, num_samples: int, seed: int) -> Iterator[PosteriorPredictive]:
    """Yields the predictives of some inputs at a time, all for the same draws of the weights."""
    x = inputs.x if inputs.x is not None else inputs.batches(_BATCH_SIZE)
    for predictive, _ in model.stream_predictive(x, num_samples=num_samples, seed=seed, batch_size=_BATCH_SIZE):
        yield predictive


def _columns(predictive: PosteriorPredictive, classes: Sequence[str] | None, conformal: Any) -> Columns:
    from tfp_bnn.predictive import for_each_class

    mean = predictive.mean()
    flat = mean.reshape(len(mean), -1)
    more = {} if conformal is None else _OF_KIND[conformal.target_kind](conformal, predictive, classes)
    if predictive.target_kind == "number":
        return _numbers(predictive, more)
    is_class = predictive.target_kind == "class"
    if is_class:
        flat = for_each_class(flat)
    named = classes is not None and len(classes) == flat.shape[1]
    names = list(classes) if named and classes is not None else [str(index) for index in range(flat.shape[1])]
    # Of several labels, any number may hold.
    columns: Columns = {"prediction": [names[index] for index in flat.argmax(axis=1)]} if named and is_class else {}
    columns |= {"mean" if flat.shape[1] == 1 else f"mean_{name}": flat[:, k] for k, name in enumerate(names)}
    for part in ("entropy", "aleatoric", "epistemic"):
        # Several labels of an input have an uncertainty each. They are summed into one column.
        columns[part] = getattr(predictive, part)().reshape(len(mean), -1).sum(axis=1)
    return {**columns, **more}


def _numbers(predictive: PosteriorPredictive, more: Columns) -> Columns:
    import numpy as np

    columns = _for_each_target(
        {
            "mean": predictive.mean(),
            "std": predictive.std(),
            **_ends(_LEVEL, predictive.interval(_LEVEL)),
            "aleatoric_std": np.sqrt(predictive.aleatoric()),
            "epistemic_std": np.sqrt(predictive.epistemic()),
        }
    )
    columns["entropy"] = predictive.entropy().reshape(len(predictive), -1).sum(axis=1)
    # A conformal interval of the same level takes the place of the predictive's.
    return {**{name: values for name, values in columns.items() if name not in more}, **more}


def _units(units: Sequence[str] | None, rows: int) -> Columns:
    """The unit of the targets in every row: once, or for each target if they have different ones."""
    if not units:
        return {}
    if len(set(units)) == 1:
        return {"unit": [units[0]] * rows}
    return {f"unit_{index}": [unit] * rows for index, unit in enumerate(units)}


def _ends(level: float, interval: tuple[Any, Any]) -> dict[str, Any]:
    return {f"{end}_{100 * level:g}": values for end, values in zip(("lower", "upper"), interval, strict=True)}


def _for_each_target(arrays: dict[str, Any]) -> Columns:
    """Returns the columns of arrays `(n, targets)`, by name; those of a target are next to each other."""
    flat = {name: values.reshape(len(values), -1) for name, values in arrays.items()}
    targets = next(iter(flat.values())).shape[1]
    suffixes = [""] if targets == 1 else [f"_{index}" for index in range(targets)]
    return {f"{name}{suffix}": values[:, k] for k, suffix in enumerate(suffixes) for name, values in flat.items()}


def _sets(conformal: Any, predictive: PosteriorPredictive, classes: Sequence[str] | None) -> Columns:
    sets = conformal.predict(predictive)
    names = classes if classes and len(classes) == sets.shape[-1] else [str(k) for k in range(sets.shape[-1])]
    rows = ["|".join(name for name, is_in in zip(names, row, strict=True) if is_in) for row in sets]
    return {f"set_{100 * conformal.level:g}": rows}


def _intervals(conformal: Any, predictive: PosteriorPredictive, classes: Sequence[str] | None) -> Columns:
    return _for_each_target(_ends(conformal.level, conformal.predict(predictive)))


_OF_KIND: dict[str, Callable[..., Columns]] = {"class": _sets, "number": _intervals}


def _csv_writer(file: TextIO) -> Callable[[Columns], None]:
    writer = csv.writer(file, lineterminator="\n")
    begun = False

    def write(columns: Columns) -> None:
        nonlocal begun
        if not begun:
            writer.writerow([cell(name) for name in columns])
            begun = True
        texts = [[_text(value) for value in values] for values in columns.values()]
        writer.writerows(zip(*texts, strict=True))

    return write


def _text(value: Any) -> str:
    return cell(str(value)) if isinstance(value, str | int) else f"{value:.6g}"


def _json_writer(file: TextIO) -> Callable[[Columns], None]:
    begun = False

    def write(columns: Columns) -> None:
        nonlocal begun
        for row in zip(*columns.values(), strict=True):
            values = [value if isinstance(value, str | int) else _finite(value) for value in row]
            file.write(",\n" if begun else "[\n")
            text = json_module.dumps(dict(zip(columns, values, strict=True)), ensure_ascii=False, allow_nan=False)
            file.write(encodable(text))
            begun = True

    return write


def _finite(value: Any) -> float | None:
    """Returns a number with six digits; JSON has no infinity."""
    return float(f"{value:.6g}") if abs(value) < float("inf") else None


@contextlib.contextmanager
def _written(path: Path | None) -> Iterator[TextIO]:
    """Yields a file that takes its name when the block ends without an error; stdout without a name."""
    if path is None and sys.stdout.isatty():
        # After the progress bar, not among its lines.
        text = io.StringIO()
        yield text
        sys.stdout.write(text.getvalue())
        return
    if path is None:
        yield sys.stdout
        return
    path = replaceable(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _draws_file(path: Path | None, rows: int) -> Iterator[Callable[[int, PosteriorPredictive], None]]:
    """Yields a function that keeps the draws of some rows, which begin at a row, in an NPY file."""
    if path is None:
        yield lambda begin, predictive: None
        return
    import numpy as np

    path = replaceable(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    array: Any = None

    def keep(begin: int, predictive: PosteriorPredictive) -> None:
        nonlocal array
        samples = predictive.samples
        if array is None:
            shape = (len(samples), rows, *samples.shape[2:])
            array = np.lib.format.open_memmap(temporary, "w+", samples.dtype, shape)
            _reserve(temporary, path)
        array[:, begin : begin + samples.shape[1]] = samples

    try:
        yield keep
        if array is not None:
            array.flush()
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _reserve(file: Path, path: Path) -> None:
    """Takes the disk space of a file before it is written to in memory, where a full disk would end the process."""
    # Other systems than Linux may lack it.
    if not hasattr(os, "posix_fallocate"):
        return
    size = file.stat().st_size
    with file.open("r+b") as opened:
        try:
            os.posix_fallocate(opened.fileno(), 0, size)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                # The file system cannot.
                return
            why = f"{error.strerror}: the draws need {size:,} bytes. Make room, or ask for fewer with --num-samples"
            raise OSError(error.errno, why, str(path)) from None
