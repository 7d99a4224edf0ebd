"""A tiny run that the tests of this room train, kill, spoil and resume."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest

import tfp_bnn
import zoo
from tfp_bnn.core.randomness import default_seeds_from
from zoo.datasets import Dataset, Split
from zoo.training.batches import ShuffledBatches
from zoo.training.by_recipe import build
from zoo.training.checkpoints import Checkpoints, Progress
from zoo.training.engine import run
from zoo.training.fine_tuning_run import FineTuning


class Killed(BaseException):
    """As if the process had been killed: caught by nothing in a run."""


class At(keras.callbacks.Callback):
    """Does something when a hook is called for the n-th time, counted from 1."""

    def __init__(self, hook: str, number: int, act: Callable[[At], None]) -> None:
        super().__init__()
        self._left, self._act = number, act
        setattr(self, hook, self._called)

    def _called(self, index: int | None = None, logs: dict[str, float] | None = None) -> None:
        self._left -= 1
        if self._left == 0:
            self._act(self)


class Saver(keras.callbacks.Callback):
    """As greedy as a ModelCheckpoint can be: looks at the weights after each step and each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[bool] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.saved.append(all(np.isfinite(weight.numpy()).all() for weight in self.model.trainable_variables))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.on_train_batch_end(0)


class TinyRun:
    """What the tests share; a fixture, because test modules cannot import one another."""

    Killed, At, Saver = Killed, At, Saver
    # 96 flowers in batches of 40: 3 steps an epoch, the last of 16.
    recipe: ClassVar[dict[str, Any]] = {
        "name": "mlp_flipout.tiny",
        "architecture": "mlp_flipout",
        "dataset": "iris",
        "model": {"hidden": [4], "kernel_prior": {"name": "normal", "empirical_bayes": True}},
        "standardize_inputs": True,
        "batch_size": 40,
        "epochs": 2,
        "warmup": 0.0,
        "evaluation": {"num_samples": 2, "spread_seeds": []},
    }

    @staticmethod
    def die(callback: keras.callbacks.Callback) -> None:
        """Ends a run where it is."""
        raise Killed

    @classmethod
    def go(
        cls,
        folder: Path | None = None,
        callbacks: Any = (),
        data: Dataset | None = None,
        resume: bool = False,
        checkpoint_seconds: float = 0.0,
        **changes: Any,
    ) -> tuple[tfp_bnn.VariationalModel, dict[str, list[float]]]:
        """Trains the tiny recipe with some changes, by the engine alone. Returns the model and its history."""
        recipe, data = zoo.load_recipe({**cls.recipe, **changes}), data or zoo.load_dataset("iris")
        with default_seeds_from(recipe.seed):
            model = build(recipe, data)
        batches = ShuffledBatches(data.train, recipe.batch_size, recipe.epochs, recipe.seed, recipe.augmentation)
        checkpoints = None if folder is None else Checkpoints(folder, {})
        options = {"resume": resume, "checkpoint_seconds": checkpoint_seconds, "callbacks": callbacks}
        return model, run(model, batches, data.validation, checkpoints=checkpoints, **options).history

    @staticmethod
    def digests(folder: Path) -> dict[str, str]:
        """Of all files of a folder: what a killed or refused run must not have touched."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="session")
def tiny() -> type[TinyRun]:
    """The tiny run and what happens to it."""
    return TinyRun


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the tiny run keeps its checkpoints."""
    return tmp_path / "seed-0"


# === Fine-tuning ===


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The dataset. Tests must not change it."""
    return zoo.load_dataset("digits")


@pytest.fixture(scope="session")
def few(digits: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Arrays: 30 digits of all classes."""
    return digits.train.x[:30], digits.train.y[:30]


@pytest.fixture(scope="session")
def five(digits: Dataset) -> Dataset:
    """The digits 0 to 4 as a dataset in memory, of 60 rows for training and 40 for testing."""

    def low(split: Split, rows: int) -> Split:
        return Split(split.x[split.y < 5][:rows], split.y[split.y < 5][:rows])

    return dataclasses.replace(
        digits,
        train=low(digits.train, 60),
        validation=low(digits.validation, 40),
        test=low(digits.test, 40),
        class_names=digits.class_names[:5],
    )


@pytest.fixture(scope="session")
def source() -> tfp_bnn.VariationalModel:
    """A pretrained model. Tests must not change it."""
    return zoo.load_model("mlp_flipout.digits")


@pytest.fixture(scope="session")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> FineTuning:
    """A model fine-tuned by names on all of digits, with its result. Tests must not change it or its folder."""
    options: dict[str, Any] = {"inflate": 10.0, "head_scale": 0.5, "freeze": ["dense1"]}
    options |= {"steps": 20, "batch_size": 64, "learning_rate": 3e-3, "seed": 7}
    out = tmp_path_factory.mktemp("artifacts") / "tuned"
    return zoo.fine_tune("mlp_flipout.digits", "digits", **options, out=out)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fine-tuned models end as they would have started; the numbers of rows that they would have been trained on."""
    fits: list[int] = []

    def no_run(model: Any, batches: Any, *arguments: Any, **options: Any) -> Progress:
        fits.append(len(batches.split))
        model.num_examples = len(batches.split)
        return Progress()

    monkeypatch.setattr("zoo.training.fine_tuning_run.run", no_run)
    return fits
