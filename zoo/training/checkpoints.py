"""Checkpoints of a training run: generations in a folder, each written completely or not at all.

    lock                       held by the process that is training here
    log.csv                    one row per finished epoch
    saved                      there from the first generation on, so that a run that has lost all of them is told from
                               one that has none yet
    generation-0000000392/     after 392 steps
        state.json             epoch, step, history, state of the callbacks, fingerprint
        state.safetensors      weights, optimizer, noise, means of the epoch
        manifest.json          length and SHA-256 of both

A generation is written under a temporary name, synced, and then renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, Field

from zoo.core.files import UNFINISHED, sync, take_place, write_atomically
from zoo.core.shown import differences, shown
from zoo.core.validation import validate
from zoo.hub import manifest as hub
from zoo.hub.manifest import MANIFEST_NAME, describe_files, read_manifest, read_verified
from zoo.hub.reading import parse_tensors

# Version of `state.json`. Version 1 had sums of logs instead of metric states, version 2 also the best epoch, which
# `history` tells too.
SCHEMA_VERSION = 3
_PREFIX, _WORKING, _SAVED, _LOCK = "generation-", ".writing-", "saved", "lock"


class CheckpointError(ValueError):
    """Raised if a run cannot be resumed from its folder."""


@dataclass
class Progress:
    """Progress of a run.

    Attributes:
        epoch: Number of finished epochs.
        step: Number of finished steps of the current epoch.
        history: Lists by name, one number per finished epoch.
        callbacks: State of the callbacks. JSON values only.
    """

    epoch: int = 0
    step: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    callbacks: list[dict[str, Any]] = field(default_factory=list)

    def record(self, numbers: Mapping[str, Any]) -> None:
        """Ends an epoch with its numbers; text and arrays are left out. NaN stands for a name in epochs without it."""
        arrays = {name: np.asarray(value) for name, value in numbers.items()}
        found = {name: float(of) for name, of in arrays.items() if of.ndim == 0 and np.issubdtype(of.dtype, np.number)}
        for name in found:
            self.history.setdefault(name, [math.nan] * self.epoch)
        for name, values in self.history.items():
            values.append(found.get(name, math.nan))
        self.epoch += 1


class _CallbackState(BaseModel):
    """One entry of `Progress.callbacks`: first that of the run, then those of the callbacks."""

    model_config = ConfigDict(extra="forbid")

    stopped: Annotated[bool, Field(strict=True)] | None = None
    class_name: Annotated[str | None, Field(alias="class", strict=True)] = None
    attributes: dict[str, bool | int | float | str | dict[str, int] | None] = Field(default_factory=dict)


class _State(BaseModel):
    """What `state.json` may hold; losses in `history` may be infinite or NaN."""

    model_config = ConfigDict(extra="forbid")

    fingerprint: dict[str, Any]
    epoch: Annotated[int, Field(strict=True, ge=0, lt=2**31)]
    step: Annotated[int, Field(strict=True, ge=0, lt=2**53)]
    history: dict[str, list[Annotated[float, Field(strict=True)]]]
    callbacks: list[_CallbackState]


class Checkpoints:
    """Checkpoint generations of one run.

    Args:
        folder: Folder of the run. Created if missing; partial files of a killed process are removed.
        fingerprint: Nested mapping of JSON values with everything that determines the run.
        keep: Number of generations to keep.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any], keep: int = 3) -> None:
        self.folder = folder
        self.keep = keep
        self._fingerprint = _flat(json.loads(json.dumps(fingerprint)))
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob(f"{_WORKING}*"):
            shutil.rmtree(unfinished)

    def part(self, name: str) -> Checkpoints:
        """Returns the checkpoints of a later part of the same run, such as one with another optimizer."""
        return Checkpoints(self.folder / name, self._fingerprint, self.keep)

    def generations(self) -> list[Path]:
        """Returns the folders of the generations, newest last."""
        return sorted(self.folder.glob(f"{_PREFIX}*"))

    def lost(self) -> bool:
        """Whether there were generations, and none is left."""
        return (self.folder / _SAVED).exists() and not self.generations()

    def save(self, steps: int, progress: Progress, arrays: Mapping[str, npt.NDArray[Any]]) -> Path:
        """Writes a generation, then removes those that are too old and damaged ones that `load` skipped.

        Args:
            steps: Number of finished steps of the whole run.
            progress: Progress of the run.
            arrays: Arrays of `training_state`, `metrics_state` and the callbacks, by name.

        Returns:
            Its folder.

        Raises:
            OSError: If it cannot be written. Earlier generations are not touched.
        """
        target = self.folder / f"{_PREFIX}{steps:010d}"
        try:
            working = Path(tempfile.mkdtemp(prefix=_WORKING, dir=self.folder))
            try:
                state = {"schema": SCHEMA_VERSION, "fingerprint": self._fingerprint, **asdict(progress)}
                # Losses in `history` may be infinite or NaN; Python's JSON preserves them and every other bit.
                _write(working / "state.json", json.dumps(state).encode())
                _write(working / "state.safetensors", safetensors.numpy.save(_contiguous(arrays)))
                manifest = {"schema": hub.SCHEMA_VERSION, "files": describe_files(working)}
                _write(working / MANIFEST_NAME, json.dumps(manifest).encode())
                sync(working)
                # A partly removed generation would look damaged.
                take_place(working, target)
                (self.folder / _SAVED).touch()
                sync(self.folder)
            finally:
                shutil.rmtree(working, ignore_errors=True)
        except OSError as error:
            others = (
                "Earlier checkpoints are intact. Free some space or make the folder writable, and resume"
                if self.folder.is_dir()
                else "The folder is gone, and all checkpoints of this run with it. Start again"
            )
            raise OSError(
                error.errno,
                f"The checkpoint after {steps} steps could not be written to {str(self.folder)!r}: {error.strerror}. "
                f"{others}",
            ) from error
        generations = self.generations()
        # Later generations are damaged and were skipped, so they must not count towards `keep`.
        position = generations.index(target) + 1
        for old in [*generations[: max(0, position - self.keep)], *generations[position:]]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def load(self) -> tuple[Progress, dict[str, npt.NDArray[Any]], list[str]]:
        """Reads the newest intact generation.

        Returns:
            Progress, arrays by name, and a message for each damaged generation that was skipped.

        Raises:
            CheckpointError: If there is none, none is intact, or the run had different settings (the message names each
                field).
        """
        messages: list[str] = []
        for folder in reversed(self.generations()):
            try:
                state, arrays = _read(folder)
            except (ValueError, OSError) as error:
                messages.append(f"the checkpoint {folder.name} is damaged and was skipped: {error}")
                continue
            self._refuse_another_run(state.pop("fingerprint"))
            return Progress(**state), arrays, messages
        if messages:
            raise CheckpointError(
                f"No checkpoint in {str(self.folder)!r} can be read: {'; '.join(messages)}. Start again with "
                "--overwrite (overwrite=True)."
            )
        raise CheckpointError(
            f"There is no checkpoint in {str(self.folder)!r}. Start the run without --resume (resume=False)."
        )

    def remember(self, name: str, value: Any) -> None:
        """Stores a JSON value found before the first step, for `recall` in a resumed run."""
        write_atomically(self.folder / f"{name}.json", json.dumps({"fingerprint": self._fingerprint, "value": value}))

    def recall(self, name: str) -> Any:
        """Returns what `remember` stored for this run, or None if it is missing or cannot be read."""
        try:
            kept = json.loads((self.folder / f"{name}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return kept["value"] if isinstance(kept, dict) and kept.get("fingerprint") == self._fingerprint else None

    def _refuse_another_run(self, stored: Mapping[str, Any]) -> None:
        if found := differences(stored, self._fingerprint):
            raise CheckpointError(
                f"The run in {str(self.folder)!r} has different settings: {'; '.join(found)}. Resume it with the "
                "settings it was started with, or start again with --overwrite (overwrite=True)."
            )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in a folder. Creates the folder if it does not exist.

    The lock is released when the process ends, however it ends.

    Raises:
        CheckpointError: If another process is training there.
    """
    file = None
    while file is None:
        folder.mkdir(parents=True, exist_ok=True)
        # Not there if the process before has removed the folder meanwhile; see `remove_locked`.
        with contextlib.suppress(FileNotFoundError):
            file = _lock(folder)
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield


def remove_locked(folder: Path) -> None:
    """Removes a folder that this process has `locked`, as far as it can be removed.

    It goes in one step, to another name, so a process that is killed meanwhile leaves no half of it. From then on
    another process can lock a folder of that name, and what it writes there stays.
    """
    with contextlib.suppress(OSError):
        aside = tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=UNFINISHED, dir=folder.parent)
        folder.rename(aside)
        shutil.rmtree(aside)


def _lock(folder: Path) -> TextIO:
    """Raises a FileNotFoundError if another process has removed the lock since it was opened."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context((folder / _LOCK).open("a+"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CheckpointError(
                f"Another process ({file.read().strip() or 'unknown'}) trains in {str(folder)!r}. Wait for it, or "
                "choose another folder."
            ) from None
        if not os.path.samestat(os.fstat(file.fileno()), os.stat(folder / _LOCK)):
            raise FileNotFoundError(folder / _LOCK)
        stack.pop_all()
    return file


def describe_array(values: npt.NDArray[Any]) -> dict[str, Any]:
    """Returns shape, dtype and SHA-256 of an array, for a fingerprint."""
    # Without the copy of `tobytes`.
    digest = hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data).hexdigest()
    return {"shape": list(values.shape), "dtype": str(values.dtype), "sha256": digest}


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    entry = read_manifest(folder)
    if not isinstance(entry, dict):
        raise ValueError(f"the manifest holds {type(entry).__name__}")
    files = read_verified(folder, entry, max_bytes=None)
    if set(files) != {"state.json", "state.safetensors"}:
        raise ValueError(f"it holds {sorted(files)}")
    state = json.loads(files["state.json"])
    if not isinstance(state, dict) or state.pop("schema", None) != SCHEMA_VERSION:
        raise ValueError("it was written by another release of tfp_bnn")
    validate(_State, state, "its state.json")
    epochs = max(map(len, state["history"].values()), default=0)
    if epochs != state["epoch"]:
        raise ValueError(f"its state.json says epoch {shown(state['epoch'])}, but has the history of {epochs} epochs")
    return state, parse_tensors(files["state.safetensors"], str(folder / "state.safetensors"))


def _contiguous(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {name: np.array(value, order="C") for name, value in arrays.items()}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
