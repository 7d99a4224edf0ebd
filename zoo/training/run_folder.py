"""Folder `<out>.training`, which holds checkpoints and log until the artifact is written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfp_bnn
from tfp_bnn.models.weight_record import weight_distributions
from zoo.core.files import remove_unfinished
from zoo.datasets import Split
from zoo.hub.artifacts import Run, save_artifact
from zoo.hub.manifest import MANIFEST_NAME, check_target
from zoo.training.checkpoints import CheckpointError, Checkpoints, describe_array, locked, remove_locked

# In the folder from the moment the artifact is written, so that what is in its place is known to be of this run, or to
# be replaced by it.
_SAVING = "saving"


class RunFolder:
    """Destination of a run, checked against what already exists there.

    Args:
        out: Folder for the artifact, or None to save nothing.
        seed: Training seed.
        overwrite: Whether to replace an existing artifact in `out` or an unfinished run.
        resume: Whether to continue the unfinished run of `out`.

    Attributes:
        target: Folder for the artifact, or None.

    Raises:
        ValueError: If the folder exists and must not be replaced.
        CheckpointError: If there is an unfinished run without `resume`, or none with `resume`.
    """

    def __init__(self, out: str | os.PathLike[str] | None, seed: int, overwrite: bool, resume: bool) -> None:
        if resume and out is None:
            raise CheckpointError("There is nothing to resume without a folder. Pass the `out` of the run (--out).")
        self.target = None if out is None else Path(out).absolute()
        self._folder = None if self.target is None else _folder_of(self.target)
        self._seed, self._overwrite, self._resume = seed, overwrite, resume
        if self.target is not None and self._folder is not None:
            self._check(self.target, self._folder)

    @contextlib.contextmanager
    def held(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Locks the folder for a block that ends by writing the artifact, then removes it.

        Args:
            tell: Function that receives messages for the user.

        Raises:
            CheckpointError: If another process is training there, or the checkpoints of a run to resume are gone.
            ValueError: If another process has written the artifact since this object was made.
        """
        if self._folder is None or self.target is None:
            yield
            return
        with locked(self._folder):
            # Another process may have begun or finished a run since.
            self._check(self.target, self._folder)
            if self._resume:
                self._find_checkpoints(self._folder, tell)
            else:
                for old in self._folder.glob("seed-*"):
                    shutil.rmtree(old)
                (self._folder / _SAVING).unlink(missing_ok=True)
            yield
            # Of this run, if it was killed while it wrote the artifact.
            remove_unfinished(self.target)
            remove_locked(self._folder)
            remove_unfinished(self._folder)

    def save(self, run: Run, **how: Any) -> None:
        """Writes the artifact of a run, if there is a folder for it. The run may be killed meanwhile, and resumed.

        Args:
            run: What was trained.
            **how: Further arguments of `save_artifact`.

        Raises:
            ValueError: As in `save_artifact`.
            OSError: If the artifact cannot be written.
        """
        if self.target is None or self._folder is None:
            return
        overwrite = self._may_replace(self._folder)
        check_target(self.target, overwrite)
        (self._folder / _SAVING).touch()
        save_artifact(run, self.target, overwrite=overwrite, **how)

    def _may_replace(self, folder: Path) -> bool:
        """Whether an artifact may be replaced, such as that of this run, if it was killed once that was written."""
        return self._overwrite or (self._resume and (folder / _SAVING).is_file())

    def _check(self, target: Path, folder: Path) -> None:
        if self._resume and (target / MANIFEST_NAME).is_file() and not any(folder.glob("seed-*")):
            raise CheckpointError(
                f"There is nothing to resume: {str(target)!r} is a finished model, and no unfinished run is next to "
                "it. Use it as it is, or train again with --overwrite instead of --resume (overwrite=True)."
            )
        check_target(target, self._may_replace(folder))
        _check_unfinished(folder, self._seed, self._overwrite, self._resume)

    def _find_checkpoints(self, folder: Path, tell: Callable[[str], None]) -> None:
        if any(folder.glob(f"seed-{self._seed}/**/generation-*")):
            return
        if Checkpoints(folder / f"seed-{self._seed}", {}).lost():
            raise CheckpointError(
                f"All checkpoints in {str(folder)!r} are gone. Put them back, or start again with --overwrite "
                "(overwrite=True)."
            )
        tell("the run was stopped before its first checkpoint, and starts from its first step")

    def checkpoints(self, seed: int, fingerprint: Mapping[str, Any]) -> Checkpoints | None:
        """Returns the checkpoints of one training seed, or None if nothing is saved.

        Args:
            seed: Training seed.
            fingerprint: Everything that determines the run.
        """
        return None if self._folder is None else Checkpoints(self._folder / f"seed-{seed}", fingerprint)


def describe_model(model: tfp_bnn.VariationalModel) -> str:
    """Returns a SHA-256 of the weights of a model, for the fingerprint of a run that starts from it."""
    digest = hashlib.sha256()
    for name, values in sorted(weight_distributions(model).items()):
        digest.update(f"{name} {values.shape} {values.dtype}".encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def describe_splits(**splits: Split | None) -> dict[str, Any]:
    """Returns the part of a fingerprint that identifies the rows and the precision."""
    described = {
        name: {"x": describe_array(split.x), "y": describe_array(split.y)}
        for name, split in splits.items()
        if split is not None
    }
    return {"data": described, "dtype_policy": keras.config.dtype_policy().name}


def has_unfinished(out: str | os.PathLike[str]) -> bool:
    """Whether there is an unfinished run of the artifact `out`, which could be resumed."""
    target = Path(out).absolute()
    return any(_folder_of(target).glob("seed-*"))


def _folder_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.training")


def _check_unfinished(folder: Path, seed: int, overwrite: bool, resume: bool) -> None:
    unfinished = sorted(path.name.removeprefix("seed-") for path in folder.glob("seed-*"))
    if resume and not unfinished:
        raise CheckpointError(
            f"There is nothing to resume: {str(folder)!r} holds no unfinished run. Start it without --resume "
            "(resume=False)."
        )
    if resume and str(seed) not in unfinished:
        raise CheckpointError(
            f"The run in {str(folder)!r} has different settings: its training seeds are {', '.join(unfinished)}, "
            f"and this one has {seed}. Resume it with the settings it was started with, or start again with "
            "--overwrite (overwrite=True)."
        )
    if unfinished and not resume and not overwrite:
        raise CheckpointError(
            f"{str(folder)!r} holds an unfinished run. Continue it with --resume (resume=True), or start again with "
            "--overwrite (overwrite=True)."
        )
