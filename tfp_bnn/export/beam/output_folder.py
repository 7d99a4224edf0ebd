"""The folder that a batch prediction writes to: whether it can be used, and when what is in it counts."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import filelock
import pyarrow.parquet as pq

STARTED, SUCCESS, LOCK = "_STARTED", "_SUCCESS", "_LOCK"
PREDICTIONS, REJECTED = "predictions", "rejected"


class OutputFolder:
    """A folder on any file system of Beam.

    `_STARTED` is written first, and `_SUCCESS`, the report, last. What a run without `_SUCCESS` left behind is deleted
    by the next one, so a row is never there twice.

    Args:
        path: Path of the folder, which need not exist.

    Raises:
        ValueError: If the path is a pattern.
    """

    def __init__(self, path: Any) -> None:
        self._systems = importlib.import_module("apache_beam.io.filesystems").FileSystems
        self.is_local = self._systems.get_scheme(str(path)) is None
        self.path = os.path.abspath(path) if self.is_local else str(path)
        if set(self.path) & set("*?["):
            raise ValueError(f"The output folder {self.path!r} has one of *, ? and [ in it, which are for patterns.")

    def prefix(self, part: str) -> str:
        """The beginning of the paths of the Parquet files of `PREDICTIONS` or `REJECTED`."""
        return self._systems.join(self.path, part, "part")

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """A context in which no other run on this machine writes to the folder. It starts empty.

        Raises:
            ValueError: If there are finished predictions, files of others, or another run; or it cannot be written to.
        """
        with self._written(), contextlib.ExitStack() as stack:
            self._require_usable()
            if self.is_local:
                os.makedirs(self.path, exist_ok=True)
                stack.enter_context(self._locked())
                # A run that had the lock may have finished in between.
                self._require_usable()
            for part in (PREDICTIONS, REJECTED):
                self._delete(part)
            self._write(STARTED, {})
            self._make(PREDICTIONS)
            self._make(REJECTED)
            left = stack.pop_all()
        with left:
            yield

    def count(self, part: str) -> int:
        """The rows of the files of `PREDICTIONS` or `REJECTED`."""
        total = 0
        for result in self._systems.match([f"{self.prefix(part)}-*"]):
            for each in result.metadata_list:
                with self._systems.open(each.path) as file:
                    total += pq.read_metadata(file).num_rows
        return total

    def finish(self, report: Mapping[str, Any]) -> None:
        """Declares the predictions finished."""
        self._write(SUCCESS, report)
        self._systems.delete([self._systems.join(self.path, STARTED)])

    def _require_usable(self) -> None:
        files = {each.path for result in self._systems.match([f"{self.path}/**"]) for each in result.metadata_list}
        names = {path.removeprefix(self.path).lstrip("/") for path in files} - {LOCK}
        if SUCCESS in names:
            raise ValueError(
                f"{self.path!r} has the predictions of a run that finished. Give another folder, or delete this one."
            )
        if names and STARTED not in names:
            raise ValueError(
                f"{self.path!r} has files that are no unfinished predictions, such as {min(names)!r}. Give the path of "
                "a new folder."
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with filelock.FileLock(os.path.join(self.path, LOCK), timeout=0):
                yield
        except filelock.Timeout:
            raise ValueError(f"Another run writes its predictions to {self.path!r}. Wait for it, or end it.") from None

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ValueError(
                f"{self.path!r} cannot be written to: {error}. Expected the path of a folder, new or empty."
            ) from error

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes a JSON file that is whole as soon as it is there."""
        path = self._systems.join(self.path, name)
        with self._systems.create(f"{path}.writing", "application/json") as file:
            file.write(json.dumps(content, indent=2).encode() + b"\n")
        self._systems.rename([f"{path}.writing"], [path])

    def _make(self, part: str) -> None:
        if self.is_local:
            os.makedirs(os.path.join(self.path, part), exist_ok=True)

    def _delete(self, part: str) -> None:
        folder = self._systems.join(self.path, part)
        results = self._systems.match([f"{folder}/**"])
        if paths := [each.path for result in results for each in result.metadata_list]:
            self._systems.delete(paths)
        # Object stores have no empty folders.
        if self.is_local and self._systems.exists(folder):
            self._systems.delete([folder])
