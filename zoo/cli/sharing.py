"""The command `push`."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli.progress import working


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("push")(push)


def push(
    artifact: Annotated[str, typer.Argument(help="Folder of an artifact, or name of a pretrained model.")],
    address: Annotated[str, typer.Argument(help="Repository of the Hugging Face Hub: hf://user/name.")],
    license: Annotated[
        str | None, typer.Option(help="Licence of the model, such as Apache-2.0. Default: the artifact's.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    message: Annotated[str | None, typer.Option(help="Message of the commit.")] = None,
) -> None:
    """Upload an artifact to the Hugging Face Hub, and print the address of the commit with the hash of its manifest."""
    from zoo.hub.remote.pushing import push as push_to_hub

    with working(f"uploading {artifact}"):
        published = push_to_hub(artifact, address, license=license, private=private, message=message)
    typer.echo(published)
