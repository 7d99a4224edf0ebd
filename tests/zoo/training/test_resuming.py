"""Resumed runs, and attempts to resume a different run."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from tfp_bnn.models.training_state import training_state
from zoo.datasets import Split
from zoo.training.checkpoints import CheckpointError

# What happens around the steps is tested here; test_kill_and_resume.py and test_bad_numbers.py compile them.
pytestmark = pytest.mark.usefixtures("steps_run_eagerly")


@pytest.fixture(scope="module")
def killed(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unfinished run, killed after a step of the second epoch. Tests must not change it."""
    out = tmp_path_factory.mktemp("killed") / "out"
    with pytest.raises(tiny.Killed):
        zoo.train(tiny.recipe, out, checkpoint_seconds=0.0, callbacks=[tiny.At("on_train_batch_end", 5, tiny.die)])
    return out.with_name("out.training")


@pytest.fixture
def unfinished(killed: Path, tmp_path: Path) -> Path:
    """The folder for the artifact of a copy of the unfinished run."""
    shutil.copytree(killed, tmp_path / "out.training")
    return tmp_path / "out"


class TestT7ResumedAsAnotherRun:
    @pytest.mark.parametrize(
        ("changes", "differences"),
        [
            ({"model.hidden": [5]}, ["recipe.model.hidden was [4] and is [5]"]),
            ({"model.activation": "tanh"}, ["recipe.model.activation was 'not set' and is 'tanh'"]),
            (
                {"dataset": "wine"},
                ["recipe.dataset was 'iris' and is 'wine'", "data.train.x.shape was [96, 4] and is [113, 13]"],
            ),
            ({"optimizer.learning_rate": 0.5}, ["recipe.optimizer.learning_rate was 0.001 and is 0.5"]),
            ({"epochs": 3}, ["recipe.epochs was 2 and is 3"]),
            ({"beta": 0.5, "warmup": 0.1}, ["recipe.beta was 1.0 and is 0.5", "recipe.warmup was 0.0 and is 0.1"]),
            ({"seed": 3}, ["its training seeds are 0, and this one has 3"]),
        ],
    )
    def test_is_refused_with_every_difference(self, tiny, unfinished, changes, differences):
        before = tiny.digests(unfinished.parent)
        with pytest.raises(CheckpointError, match="has different settings") as caught:
            zoo.train(tiny.recipe, unfinished, resume=True, overrides=changes)
        for difference in differences:
            assert difference in str(caught.value)
        assert "--overwrite" in str(caught.value)
        assert {name: digest for name, digest in tiny.digests(unfinished.parent).items() if "lock" not in name} == {
            name: digest for name, digest in before.items() if "lock" not in name
        }

    def test_other_classes_and_other_data(self, tiny, unfinished, monkeypatch):
        iris = zoo.load_dataset("iris")
        fewer = dataclasses.replace(iris, train=Split(iris.train.x[:90], iris.train.y[:90]))
        more_classes = dataclasses.replace(iris, class_names=(*iris.class_names, "another"))
        changed = dataclasses.replace(iris, validation=Split(iris.validation.x + 1e-3, iris.validation.y))
        for data, difference in (
            (fewer, "data.train.x.shape was [96, 4] and is [90, 4]"),
            (more_classes, "num_classes was 3 and is 4"),
            (changed, "data.validation.x.sha256 was"),
        ):
            monkeypatch.setattr("zoo.training.by_recipe.load_dataset", lambda name, data=data: data)
            with pytest.raises(CheckpointError, match="has different settings") as caught:
                zoo.train(tiny.recipe, unfinished, resume=True)
            assert difference in str(caught.value)
        assert "train" not in str(caught.value).split("data.validation")[1]

    def test_another_precision(self, tiny, unfinished):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            with pytest.raises(CheckpointError, match="dtype_policy was 'float32' and is 'mixed_bfloat16'"):
                zoo.train(tiny.recipe, unfinished, resume=True)
        finally:
            keras.config.set_dtype_policy(before)

    @pytest.mark.slow
    def test_notes_and_evaluation_may_change(self, tiny, unfinished):
        told: list[str] = []
        changes = {"notes": "better", "evaluation.num_samples": 3}
        ended = zoo.train(tiny.recipe, unfinished, resume=True, overrides=changes, tell=told.append)
        assert told[0] == "resuming after epoch 1, step 1"
        # Of the epochs before and after the kill.
        best = int(np.argmin(ended.history["val_nll"]))
        assert f"lowest validation NLL {ended.history['val_nll'][best]:.4f} in epoch {best + 1}" in told[1]
        assert ended.metrics["num_samples"] == 3
        assert zoo.load_recipe(unfinished / "recipe.yaml").notes == "better"
        assert not unfinished.with_name("out.training").exists()


class TestUnfinishedRun:
    def test_is_refused_without_resume(self, tiny, unfinished):
        before = tiny.digests(unfinished.parent)
        with pytest.raises(CheckpointError, match=r"holds an unfinished run.*--resume .*--overwrite"):
            zoo.train(tiny.recipe, unfinished)
        assert tiny.digests(unfinished.parent) == before

    @pytest.mark.thorough
    def test_starts_again_with_overwrite(self, tiny, unfinished):
        told: list[str] = []
        ended = zoo.train(tiny.recipe, unfinished, overwrite=True, overrides={"epochs": 1}, tell=told.append)
        assert not [message for message in told if "resuming" in message]
        assert {len(values) for values in ended.history.values()} == {1}
        assert not unfinished.with_name("out.training").exists()
        assert (unfinished / "log.csv").read_text().startswith("epoch,")

    def test_nothing_to_resume(self, tiny, tmp_path):
        with pytest.raises(CheckpointError, match=r"nothing to resume: .*out\.training"):
            zoo.train(tiny.recipe, tmp_path / "out", resume=True)
        assert list(tmp_path.iterdir()) == []

    def test_stopped_before_its_first_checkpoint(self, tiny, tmp_path):
        """That it starts from the first step is said, never silent."""
        (tmp_path / "out.training" / "seed-0").mkdir(parents=True)
        told: list[str] = []
        with pytest.raises(tiny.Killed):
            zoo.train(
                tiny.recipe,
                tmp_path / "out",
                resume=True,
                tell=told.append,
                callbacks=[tiny.At("on_train_begin", 1, tiny.die)],
            )
        assert told == ["the run was stopped before its first checkpoint, and starts from its first step"]

    def test_t17_all_checkpoints_gone_is_an_error_and_never_the_first_step(self, tiny, unfinished):
        for path in [*unfinished.parent.rglob("generation-*")]:
            shutil.rmtree(path)
        with pytest.raises(CheckpointError, match=r"All checkpoints in .* are gone. Put them back"):
            zoo.train(tiny.recipe, unfinished, resume=True)

    def test_t6_all_checkpoints_damaged_is_an_error_and_never_the_first_step(self, tiny, unfinished):
        for path in unfinished.parent.rglob("manifest.json"):
            path.write_text("{")
        seen: list[Any] = []
        note = tiny.At("on_train_batch_begin", 1, seen.append)
        with pytest.raises(CheckpointError, match=r"No checkpoint in .* can be read.*--overwrite"):
            zoo.train(tiny.recipe, unfinished, resume=True, callbacks=[note])
        assert seen == []

    @pytest.mark.slow
    def test_the_folder_of_a_finished_run_is_gone_and_its_log_is_in_the_artifact(self, tiny, unfinished, tmp_path):
        ended = zoo.train(tiny.recipe, unfinished, resume=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
        lines = (unfinished / "log.csv").read_text().splitlines()
        assert len(lines) == 1 + tiny.recipe["epochs"]
        names = lines[0].split(",")
        for epoch, line in enumerate(lines[1:]):
            values = dict(zip(names, line.split(","), strict=True))
            assert values.pop("epoch") == str(epoch + 1)
            assert {name: float(value) for name, value in values.items()} == {
                name: values_of[epoch] for name, values_of in ended.history.items()
            }

    def test_a_second_run_into_the_same_folder_is_refused(self, tiny, tmp_path):
        def second(callback: keras.callbacks.Callback) -> None:
            with pytest.raises(CheckpointError, match=f"Another process .process {os.getpid()}. trains in"):
                zoo.train(tiny.recipe, tmp_path / "out", resume=True)
            raise tiny.Killed

        with pytest.raises(tiny.Killed):
            zoo.train(tiny.recipe, tmp_path / "out", callbacks=[tiny.At("on_train_begin", 1, second)])

    @pytest.mark.thorough
    def test_early_stopping_survives_a_resume(self, tiny, tmp_path):
        """It stops on the epoch on which it would have, with the weights of the epoch that was best."""

        def stopping() -> keras.callbacks.EarlyStopping:
            # Nothing is an improvement of 100: epoch 1 is the best, and patience is over with epoch 4.
            return keras.callbacks.EarlyStopping("val_nll", patience=3, min_delta=100.0, restore_best_weights=True)

        expected, history = tiny.go(tmp_path / "a", [stopping()], epochs=9)
        assert len(history["loss"]) == 4
        with pytest.raises(tiny.Killed):
            tiny.go(tmp_path / "b", [stopping(), tiny.At("on_train_batch_end", 8, tiny.die)], epochs=9)
        ended, resumed = tiny.go(tmp_path / "b", [stopping()], epochs=9, resume=True)
        assert repr(resumed) == repr(history)
        for name, value in training_state(expected).items():
            np.testing.assert_array_equal(training_state(ended)[name], value)
        # Once stopped it stays stopped.
        again, repeated = tiny.go(tmp_path / "b", [stopping()], epochs=9, resume=True)
        assert repr(repeated) == repr(history)
        np.testing.assert_array_equal(again.get_weights()[0], expected.get_weights()[0])


def test_a_run_that_was_killed_once_its_artifact_was_written_comes_to_its_end(tiny, killed, unfinished, monkeypatch):
    def again():
        return zoo.train(tiny.recipe, unfinished, resume=True, measure=False)

    with monkeypatch.context() as patch:
        patch.setattr("zoo.training.run_folder.remove_locked", tiny.die)
        with pytest.raises(tiny.Killed):
            again()
    written = tiny.digests(unfinished)
    assert written
    assert again().path == unfinished
    assert tiny.digests(unfinished.parent) == {f"out/{name}": digest for name, digest in written.items()}
    with pytest.raises(CheckpointError, match=r"There is nothing to resume: .* is a finished model"):
        again()
    # What another run has written stays.
    shutil.copytree(killed, unfinished.with_name("out.training"))
    with pytest.raises(ValueError, match=r"exists\. Pass overwrite=True"):
        again()
    assert tiny.digests(unfinished) == written
