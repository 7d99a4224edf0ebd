"""The commands `push` and `index`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.progress import working
from zoo.core.shown import printable, shown


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("push", short_help="Upload an artifact to the Hugging Face Hub.")(push)
    app.command("index", short_help="Write an index of published artifacts.")(index)


def push(
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="Folder of an artifact, or name of a pretrained model.")
    ],
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="Repository of the Hugging Face Hub: hf://user/name.")
    ],
    license: Annotated[
        str | None,
        typer.Option(metavar="LICENCE", help="Licence of the model, such as Apache-2.0. Default: the artifact's."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="Message of the commit.")] = None,
) -> None:
    """Upload an artifact to the Hugging Face Hub, and print the address of the commit with the hash of its manifest.

    All of its files are published, also golden.safetensors with a few inputs, by default the first rows of the test
    split.
    """
    from zoo.hub.remote.pushing import push as push_to_hub

    with working(f"uploading {artifact}, with the few inputs in its golden.safetensors"):
        published = push_to_hub(artifact, address, license=license, private=private, message=message)
    typer.echo(published)


def index(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file to write.")],
    models: Annotated[
        list[str], typer.Argument(metavar="NAME=ADDRESS", help="Model, and its address or its folder beside the file.")
    ],
) -> None:
    """Write an index of published artifacts, so that others find them: `tfp-bnn list --index FILE`.

    The artifacts are fetched and verified first. An address is https://host/folder, hf://user/name@revision, or a
    folder relative to the index.
    """
    from zoo.hub.remote.index import write_index

    named = dict(_named(model) for model in models)
    with working(f"verifying {len(named)} artifacts"):
        written = write_index(file, named)
    typer.echo(printable(str(written)))


def _named(model: str) -> tuple[str, str]:
    name, sign, address = model.partition("=")
    if not sign:
        raise ValueError(f"Got {shown(model)}; NAME=ADDRESS was expected, as in mlp_flipout.iris=hf://user/iris.")
    return name, address
