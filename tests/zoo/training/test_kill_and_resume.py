"""T1, T2, T3: a run that is killed and resumed is bit-for-bit identical to an uninterrupted one.

`benchmarks/kill_and_resume.py` shows the same with many more kills.
"""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tfp_bnn
import zoo
from tfp_bnn.core.library_state import deterministic_operations
from tfp_bnn.core.randomness import default_seeds_from
from tfp_bnn.models.training_state import training_state
from zoo.recipes import recipe_text
from zoo.training.batches import ShuffledBatches
from zoo.training.by_recipe import build
from zoo.training.checkpoints import Checkpoints
from zoo.training.engine import run

# Flipout noise, Adam with cosine decay, warm-up of the KL over the first half, augmentation, and 1,149 images in
# batches of 400, 400 and 349.
RECIPE = zoo.load_recipe(
    {
        "name": "mlp_flipout.killed",
        "architecture": "mlp_flipout",
        "dataset": "digits",
        "model": {"hidden": [8], "pixel_max": 16.0, "kernel_prior": {"name": "normal", "empirical_bayes": True}},
        "augmentation": {"shift": 1, "flip": True, "crop": 0.9, "rotation": 10.0},
        "optimizer": {"name": "adam", "learning_rate": 1e-2, "decay": "cosine", "clipnorm": 1.0},
        "batch_size": 400,
        "epochs": 2,
        "warmup": 0.5,
    }
)
STEPS = 3


class Killed(BaseException):
    """Raised in the middle of a run, and caught by nothing in it."""


class KillAfter(keras.callbacks.Callback):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._left -= 1
        if self._left == 0:
            raise Killed


class Photograph(keras.callbacks.Callback):
    """Copies the folder as it is at many moments: that is what a SIGKILL at that moment leaves."""

    def __init__(self, source: Path, target: Path) -> None:
        super().__init__()
        self._source, self._target, self._epoch = source, target, 0
        self.taken: list[str] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._take(f"epoch {self._epoch} step {batch}")

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        self._take(f"epoch {self._epoch} validation")

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self._take("end")

    def _take(self, moment: str) -> None:
        shutil.copytree(self._source, self._target / moment)
        self.taken.append(moment)


@dataclass
class Ended:
    """All that a run leaves."""

    state: dict[str, np.ndarray]
    history: dict[str, list[float]]
    log: str
    told: list[str]


def go(
    folder: Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpoint_seconds: float = 0.0,
    resume: bool = False,
) -> Ended:
    """One process: a fresh model, which continues from the checkpoints if requested."""
    data = zoo.load_dataset(RECIPE.dataset)
    told: list[str] = []
    with deterministic_operations(0):
        with default_seeds_from(RECIPE.seed):
            model: tfp_bnn.VariationalModel = build(RECIPE, data)
        progress = run(
            model,
            ShuffledBatches(data.train, RECIPE.batch_size, RECIPE.epochs, RECIPE.seed, RECIPE.augmentation),
            data.validation,
            checkpoints=Checkpoints(folder, {"recipe": "the same"}),
            resume=resume,
            checkpoint_seconds=checkpoint_seconds,
            callbacks=callbacks,
            tell=told.append,
        )
    return Ended(training_state(model), progress.history, (folder / "log.csv").read_text(), told)


def assert_same_bits(ended: Ended, expected: Ended) -> None:
    assert list(ended.state) == list(expected.state)
    different = [name for name, value in expected.state.items() if value.tobytes() != ended.state[name].tobytes()]
    assert different == []
    assert repr(ended.history) == repr(expected.history)
    assert ended.log == expected.log


# The moments at which the uninterrupted run is photographed, and what is told by the run that goes on from there. The
# last step of an epoch is saved with the epoch, after its validation.
MOMENTS = {
    "epoch 0 step 1": "resuming after epoch 0, step 1",
    "epoch 0 validation": "resuming after epoch 0, step 2",
    "epoch 1 step 0": "resuming after epoch 1, step 0",
    "epoch 1 step 2": "resuming after epoch 1, step 2",
    "end": "resuming after epoch 2, step 0",
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("photographs")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Ended:
    folder = tmp_path_factory.mktemp("uninterrupted")
    camera = Photograph(folder, photographs)
    ended = go(folder, [camera])
    assert set(camera.taken) >= set(MOMENTS)
    return ended


class TestT2KilledAtEveryStep:
    def test_the_run_has_all_that_could_go_wrong(self, uninterrupted):
        assert uninterrupted.told == []
        rows = np.array([400, 400, 349])
        first, second = uninterrupted.history["beta"]
        assert first == pytest.approx((rows * np.array([0, 1 / 3, 2 / 3])).sum() / rows.sum(), rel=1e-6)
        assert second == 1.0
        assert {"epoch", "loss", "nll", "kl", "val_nll"} <= set(uninterrupted.log.splitlines()[0].split(","))
        assert len(uninterrupted.log.splitlines()) == 1 + RECIPE.epochs

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "moment",
        [
            moment
            if moment in ("epoch 0 step 1", "epoch 0 validation")
            else pytest.param(moment, marks=pytest.mark.thorough)
            for moment in MOMENTS
        ],
    )
    def test_a_fresh_process_goes_on_with_the_same_bits(self, uninterrupted, photographs, tmp_path, moment):
        folder = Path(shutil.copytree(photographs / moment, tmp_path / "seed-0"))
        ended = go(folder, resume=True)
        assert ended.told == [MOMENTS[moment]]
        assert_same_bits(ended, uninterrupted)

    @pytest.mark.thorough
    def test_killed_again_and_again_with_few_checkpoints(self, uninterrupted, tmp_path):
        """Checkpoints at the start, after one step, and none until the end: what was lost is done again."""
        for steps, seconds in ((2, 0.0), (3, 1e9), (1, 1e9)):
            with pytest.raises(Killed):
                go(tmp_path, [KillAfter(steps)], seconds, resume=bool(list(tmp_path.glob("generation-*"))))
        ended = go(tmp_path, checkpoint_seconds=1e9, resume=True)
        assert ended.told == ["resuming after epoch 0, step 1"]
        assert_same_bits(ended, uninterrupted)

    @pytest.mark.slow
    def test_t6_a_damaged_generation_is_passed_over_with_a_word(self, uninterrupted, photographs, tmp_path):
        folder = Path(shutil.copytree(photographs / "epoch 1 step 2", tmp_path / "seed-0"))
        newest = sorted(folder.glob("generation-*"))[-1] / "state.safetensors"
        newest.write_bytes(newest.read_bytes()[:-1])
        ended = go(folder, resume=True)
        damaged, resuming = ended.told
        assert "generation-0000000005 is damaged and was skipped" in damaged
        assert resuming == "resuming after epoch 1, step 1"
        assert_same_bits(ended, uninterrupted)


# === Real processes, real signals ===

LENET = {
    "name": "lenet5_flipout.killed",
    "architecture": "lenet5_flipout",
    "dataset": "digits",
    "model": {"pixel_max": 16.0, "resize": [14, 14], "widths": [2, 3, 8, 8]},
    "augmentation": {"shift": 1, "rotation": 10.0},
    "batch_size": 200,
    "epochs": 5,
    "evaluation": {"num_samples": 3, "spread_seeds": []},
}
PROGRAM = (
    "import json, sys, zoo; "
    "zoo.train(json.loads(sys.argv[1]), sys.argv[2], resume=sys.argv[3] == 'resume', checkpoint_seconds=0.0)"
)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def newest_step(folder: Path) -> int:
    return max((int(path.name[-10:]) for path in folder.glob("seed-*/generation-*")), default=-1)


@pytest.mark.thorough
def test_t1_sigkill_at_random_points_of_a_real_process(tmp_path):
    """Three kills, at steps drawn with the seed 0; the moment within the step is the operating system's."""
    out = tmp_path / "killed"
    training = tmp_path / "killed.training"
    # 6 steps in each of 5 epochs.
    for at in sorted(np.random.default_rng(0).choice(np.arange(1, 29), 3, replace=False)):
        how = "resume" if training.exists() else "start"
        with subprocess.Popen([sys.executable, "-c", PROGRAM, json.dumps(LENET), str(out), how]) as process:
            while process.poll() is None and newest_step(training) < at:
                time.sleep(0.002)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert newest_step(training) >= at
    told: list[str] = []
    ended = zoo.train(LENET, out, resume=True, tell=told.append)
    assert told[0].startswith("resuming after epoch")
    assert not [message for message in told if "damaged" in message]
    assert not training.exists()
    expected = zoo.train(LENET, tmp_path / "uninterrupted")
    assert repr(ended.history) == repr(expected.history)
    assert files(out) == files(tmp_path / "uninterrupted")


@pytest.mark.thorough
def test_t3_sigterm_then_sigint_then_to_the_end(tmp_path):
    """The commands are those that the interrupted process prints."""
    recipe = zoo.load_recipe(
        {
            "name": "mlp_flipout.stopped",
            "architecture": "mlp_flipout",
            "dataset": "iris",
            "model": {"hidden": [8]},
            "batch_size": 40,
            "epochs": 120,
            "evaluation": {"num_samples": 3, "spread_seeds": []},
        }
    )
    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe))
    out = tmp_path / "stopped"
    command = ["tfp-bnn", "train", str(tmp_path / "recipe.yaml"), "--out", str(out), "--json"]
    program = [sys.executable, "-c", "from zoo.cli import main; main()"]
    for signum, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen([*program, *command[1:]], **streams) as process:
            if "--resume" in command:
                while "resuming" not in (line := process.stderr.readline()):
                    assert line
            else:
                while not list(tmp_path.glob("stopped.training/seed-0/generation-*")):
                    assert process.poll() is None
                    time.sleep(0.002)
            before = newest_step(tmp_path / "stopped.training")
            process.send_signal(signum)
            output, errors = process.communicate()
        assert process.returncode == code, errors
        assert output == ""
        *_, said, printed = errors.strip().splitlines()
        assert "a checkpoint is written. To continue:" in said
        assert "Traceback" not in errors
        assert newest_step(tmp_path / "stopped.training") > before
        assert not out.exists()
        command = shlex.split(printed)
        assert command[-1] == "--resume"
        assert command.count("--resume") == 1
    done = subprocess.run([*program, *command[1:]], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["path"] == str(out)
    zoo.train(recipe, tmp_path / "uninterrupted")
    assert files(out) == files(tmp_path / "uninterrupted")
