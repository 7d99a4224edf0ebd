"""The command `export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.early import check_inputs, check_model
from zoo.cli.early_recipes import check_option
from zoo.cli.models import ModelArgument, TrustOption
from zoo.cli.prediction import inputs_for
from zoo.cli.progress import working
from zoo.cli.starting import start
from zoo.core.files import check_file_target, check_folder_target


class Format(StrEnum):
    """The formats by their names on the command line."""

    SAVED_MODEL = "saved_model"
    ONNX = "onnx"
    LITERT = "litert"


_OF_KERAS = {Format.SAVED_MODEL: "tf_saved_model", Format.ONNX: "onnx", Format.LITERT: "litert"}
_FILES = {Format.SAVED_MODEL: "", Format.ONNX: "model.onnx", Format.LITERT: "model.tflite"}


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("export", short_help="Export the predictive: TensorFlow, ONNX or LiteRT.")(export)


def export(
    name: ModelArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "--out", metavar="DIR", help="Folder to write to. An earlier export in it is replaced."
        ),
    ],
    format: Annotated[Format, typer.Option(help="Format of the file.")] = Format.SAVED_MODEL,
    num_samples: Annotated[
        int,
        typer.Option(
            "--num-samples", "--samples", min=1, metavar="N", help="Number of Monte Carlo samples of the weights."
        ),
    ] = 50,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the samples.")] = 0,
    plug_in: Annotated[
        bool, typer.Option("--plug-in", help="Only the mean of the plug-in prediction, for onnx and litert.")
    ] = False,
    int8: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Inputs like those to come, as in predict, for a plug-in in 8 bits: litert. Can be repeated.",
        ),
    ] = None,
    trust: TrustOption = False,
) -> None:
    """Export the predictive to files that other programs answer from: TensorFlow, ONNX Runtime or LiteRT.

    The answers are the mean, the entropy, its aleatoric and epistemic part, and the ends of the 90 % interval, for the
    samples of the seed. saved_model is a SavedModel in the folder itself; the others are model.onnx and model.tflite,
    and contain the samples. What a format cannot compute is left out and named.
    """
    check_model(name, trust)
    check_option("--seed", seed, "EvaluationRecipe", "seed")
    if int8:
        check_inputs(int8)
    if output.exists() and not output.is_dir():
        raise ValueError(f"The export could not be written to {str(output)!r}: it is a file. Give a folder.")
    if format is Format.SAVED_MODEL or not output.exists():
        check_folder_target(output)
    else:
        check_file_target(output / _FILES[format])
    start()
    from zoo.hub.loading import open_model

    model: Any = open_model(name, trust)
    int8_from = None
    if int8:
        inputs = inputs_for(model, int8)
        int8_from = next(inputs.batches(len(inputs)))
    with working(f"exporting {name} to {output}"):
        model.export(
            output / _FILES[format],
            format=_OF_KERAS[format],
            num_samples=num_samples,
            seed=seed,
            plug_in=plug_in,
            int8_from=int8_from,
        )
