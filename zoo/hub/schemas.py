"""Schemas of the JSON files of an artifact. Every verb validates against them before it uses anything."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from zoo.core.validation import Strict

MOST_FILES = 32

_Count = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
_Name = Annotated[str, Field(max_length=200)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}$")]


class FileEntry(Strict):
    """What a manifest says of a file.

    Attributes:
        bytes: Its length.
        sha256: Its SHA-256, 64 hexadecimal digits.
    """

    bytes: _Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]


class Manifest(Strict):
    """A manifest: what `save_artifact` and checkpoints write.

    Attributes:
        version: Version of the schema.
        files: The files, by name.
        architecture: Name of the architecture.
        dataset: Name of the dataset, if it has one.
        task: Task of the likelihood.
        num_weights: Number of weights.
        metrics: Numbers of the card, for `tfp-bnn list`.
    """

    version: Annotated[int, Field(strict=True, alias="schema", ge=1)]
    files: Annotated[dict[FileName, FileEntry], Field(min_length=1, max_length=MOST_FILES)]
    architecture: _Name | None = None
    dataset: _Name | None = None
    task: _Name | None = None
    num_weights: _Count | None = None
    metrics: dict[_Name, Any] = Field(default_factory=dict)
