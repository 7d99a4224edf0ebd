"""The command `export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.models import TrustOption
from zoo.cli.progress import working


class Format(StrEnum):
    """The formats by their names on the command line."""

    SAVED_MODEL = "saved_model"
    ONNX = "onnx"
    LITERT = "litert"


_OF_KERAS = {Format.SAVED_MODEL: "tf_saved_model", Format.ONNX: "onnx", Format.LITERT: "litert"}
_FILES = {Format.SAVED_MODEL: "", Format.ONNX: "model.onnx", Format.LITERT: "model.tflite"}


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("export")(export)


def export(
    name: Annotated[str, typer.Argument(help="Name of a pretrained model, or the folder of an artifact.")],
    output: Annotated[Path, typer.Option(help="Folder to write to. An earlier export in it is replaced.")],
    format: Annotated[Format, typer.Option(help="Format of the file.")] = Format.SAVED_MODEL,
    num_samples: Annotated[
        int, typer.Option("--num-samples", "--samples", min=1, help="Number of Monte Carlo samples of the weights.")
    ] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    plug_in: Annotated[
        bool, typer.Option("--plug-in", help="Only the mean of the plug-in prediction, for onnx and litert.")
    ] = False,
    int8: Annotated[
        list[Path] | None,
        typer.Option(help="CSV or NPY file, or images, of inputs like those to come, for a plug-in in 8 bits: litert."),
    ] = None,
    trust: TrustOption = False,
) -> None:
    """Export the predictive to files that other programs answer from: TensorFlow, ONNX Runtime or LiteRT.

    The answers are the mean, the entropy, its aleatoric and epistemic part, and the ends of the 90 % interval, for the
    samples of the seed. saved_model is a SavedModel in the folder itself; the others are model.onnx and model.tflite,
    and contain the samples. What a format cannot compute is left out and named.
    """
    from zoo.datasets.input_files import read_inputs
    from zoo.hub.loading import open_model

    model: Any = open_model(name, trust)
    int8_from = None
    if int8:
        config = model.card["config"]
        shape, pixel_max = tuple(config["config"]["input_shape"]), config["config"].get("pixel_max") or 255.0
        _, int8_from = read_inputs(int8, shape, pixel_max, config.get("data", {}).get("feature_names"))
    with working(f"exporting {name} to {output}"):
        model.export(
            output / _FILES[format],
            format=_OF_KERAS[format],
            num_samples=num_samples,
            seed=seed,
            plug_in=plug_in,
            int8_from=int8_from,
        )
