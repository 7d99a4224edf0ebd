"""The folder `<out>.training`, where a run keeps its checkpoints and its log until the artifact is written."""

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
from zoo.datasets import Split
from zoo.hub.artifacts import check_target
from zoo.training.checkpoints import CheckpointError, Checkpoints, describe_array, locked


class RunFolder:
    """Where a run is to be saved, and what is there already.

    Args:
        out: The folder of the artifact; None to save nothing.
        seed: The training seed.
        overwrite: Whether an artifact in `out`, or an unfinished run, may be replaced.
        resume: Whether to go on with the unfinished run of `out`.

    Attributes:
        target: The folder of the artifact, or None.

    Raises:
        ValueError: For a folder that exists and may not be replaced.
        CheckpointError: For an unfinished run without `resume`, or none with it.
    """

    def __init__(self, out: str | os.PathLike[str] | None, seed: int, overwrite: bool, resume: bool) -> None:
        if resume and out is None:
            raise CheckpointError("There is nothing to resume without a folder. Pass the `out` of the run (--out).")
        self.target = None if out is None else check_target(out, overwrite)
        self._folder = None if self.target is None else self.target.with_name(f"{self.target.name}.training")
        self._seed, self._resume = seed, resume
        if self._folder is not None:
            _check_unfinished(self._folder, seed, overwrite, resume)

    @contextlib.contextmanager
    def held(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Keeps the folder for a block that ends with the artifact; then there is nothing left to resume.

        Args:
            tell: Takes messages for the user.

        Raises:
            CheckpointError: If another process trains there.
        """
        if self._folder is None:
            yield
            return
        if self._resume and not any(self._folder.glob(f"seed-{self._seed}/generation-*")):
            tell("the run was stopped before its first checkpoint, and starts from its first step")
        with locked(self._folder):
            if not self._resume:
                for old in self._folder.glob("seed-*"):
                    shutil.rmtree(old)
            yield
        shutil.rmtree(self._folder, ignore_errors=True)

    def checkpoints(self, seed: int, fingerprint: Mapping[str, Any]) -> Checkpoints | None:
        """The checkpoints of one training seed; None where nothing is saved.

        Args:
            seed: The training seed.
            fingerprint: All that the run depends on.
        """
        return None if self._folder is None else Checkpoints(self._folder / f"seed-{seed}", fingerprint)


def describe_model(model: tfp_bnn.VariationalModel) -> str:
    """The part of a fingerprint that says which weights a run started from: a SHA-256."""
    digest = hashlib.sha256()
    for name, values in sorted(weight_distributions(model).items()):
        digest.update(f"{name} {values.shape} {values.dtype}".encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def describe_splits(**splits: Split | None) -> dict[str, Any]:
    """The part of a fingerprint that says which rows there were, and in which precision."""
    described = {
        name: {"x": describe_array(split.x), "y": describe_array(split.y)}
        for name, split in splits.items()
        if split is not None
    }
    return {"data": described, "dtype_policy": keras.config.dtype_policy().name}


def _check_unfinished(folder: Path, seed: int, overwrite: bool, resume: bool) -> None:
    unfinished = sorted(path.name.removeprefix("seed-") for path in folder.glob("seed-*"))
    if resume and not unfinished:
        raise CheckpointError(
            f"There is nothing to resume: {str(folder)!r} holds no unfinished run. Start it without --resume "
            "(resume=False)."
        )
    if resume and str(seed) not in unfinished:
        raise CheckpointError(
            f"The run in {str(folder)!r} was another one: its training seeds are {', '.join(unfinished)}, and this one "
            f"has {seed}. Resume it with what it was started with, or start again with --overwrite (overwrite=True)."
        )
    if unfinished and not resume and not overwrite:
        raise CheckpointError(
            f"{str(folder)!r} holds an unfinished run. Go on with it with --resume (resume=True), or start again with "
            "--overwrite (overwrite=True)."
        )
