"""The loop of a training under bad numbers, bad disks, bad data, signals, and resumes that are not what was started."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import math
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from zoo.training.loop import NonFiniteError, TrainingInterrupted, run

import tfp_bnn
import zoo
from tfp_bnn.models.training_state import training_state
from zoo.datasets import Dataset, Split
from zoo.training.by_recipe import build
from zoo.training.checkpoints import CheckpointError, Checkpoints

# 96 flowers in batches of 40: 3 steps an epoch, the last of 16.
RECIPE: dict[str, Any] = {
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


class Killed(BaseException):
    pass


def die(callback: keras.callbacks.Callback) -> None:
    raise Killed


def go(
    folder: Path | None = None,
    callbacks: Any = (),
    data: Dataset | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 0.0,
    **changes: Any,
) -> tuple[tfp_bnn.VariationalModel, dict[str, list[float]]]:
    recipe, data = zoo.load_recipe({**RECIPE, **changes}), data or zoo.load_dataset("iris")
    keras.utils.set_random_seed(recipe.seed)
    model = build(recipe, data)
    checkpoints = None if folder is None else Checkpoints(folder, {})
    options = {"resume": resume, "checkpoint_seconds": checkpoint_seconds, "callbacks": callbacks}
    return model, run(model, recipe, data, checkpoints=checkpoints, **options).history


def digests(folder: Path) -> dict[str, str]:
    """Of all files of a folder: what a killed or refused run must not have touched."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "seed-0"


# === T4: NaN and infinity ===


def spoil(layer: str, part: str, value: float) -> Callable[[keras.callbacks.Callback], None]:
    def act(callback: keras.callbacks.Callback) -> None:
        variables = [v for v in callback.model.trainable_variables if f"{layer}/" in v.path and part in v.path]
        variables[0].assign(np.full(variables[0].shape, value, np.float32))

    return act


class TestT4NonFinite:
    @pytest.mark.parametrize(
        ("layer", "part", "term", "where"),
        [
            ("dense1", "kernel_loc", "negative log-likelihood|KL", "the weights of the layer 'dense1'"),
            ("logits", "bias", "negative log-likelihood", "the weights of the layer 'logits'"),
            ("logits", "kernel_untransformed_scale", "negative log-likelihood|KL", "the weights of the layer 'logits'"),
            ("dense1", "prior", "KL", "the weights of the layer 'dense1'"),
        ],
    )
    def test_a_poisoned_layer_is_named_before_anything_is_saved(self, folder, layer, part, term, where):
        """Within step 5, that is in epoch 2, batch 2."""
        saver = Saver()
        before = []

        def act(callback: keras.callbacks.Callback) -> None:
            before.append(digests(folder))
            spoil(layer, part, math.nan)(callback)

        with pytest.raises(
            NonFiniteError, match=rf"in epoch 2, batch 2 of 3: The ({term}) of a training step is NaN .*{where}"
        ) as caught:
            go(folder, [At("on_train_batch_begin", 5, act), saver])
        assert "Nothing was saved since the last checkpoint" in str(caught.value)
        # Four steps and one epoch.
        assert saver.saved == [True] * 5
        assert digests(folder) == before[0]
        # What is there is the last good one.
        progress, arrays, messages = Checkpoints(folder, {}).load()
        assert (progress.epoch, progress.step, messages) == (1, 1, [])
        assert all(np.isfinite(value).all() for name, value in arrays.items() if name.startswith("model/"))

    @pytest.mark.parametrize("step", [2, 3, 6])
    def test_gradients_that_are_not_finite_though_the_loss_is(self, folder, monkeypatch, step):
        """Also in the last step of an epoch, and of all, after which no loss is computed any more."""
        seen = []

        def poison_gradients(callback: keras.callbacks.Callback) -> None:
            # As a gradient of inf would: the weights are not finite after a step whose loss was.
            train_on_batch = callback.model.train_on_batch

            def with_nan(*args: Any, **kwargs: Any) -> Any:
                logs = train_on_batch(*args, **kwargs)
                spoil("dense1", "kernel_loc", math.inf)(callback)
                return logs

            monkeypatch.setattr(callback.model, "train_on_batch", with_nan)
            seen.append(digests(folder))

        saver = Saver()
        epoch, batch = divmod(step - 1, 3)
        with pytest.raises(
            NonFiniteError,
            match=rf"in epoch {epoch + 1}, batch {batch + 1} of 3: The gradients .* the weights of the layer 'dense1'",
        ):
            go(folder, [At("on_train_batch_begin", step, poison_gradients), saver])
        assert all(saver.saved)
        assert len(saver.saved) == step - 1 + epoch
        assert digests(folder) == seen[0]

    def test_a_learning_rate_that_makes_it_blow_up(self, folder):
        optimizer = {"name": "sgd", "learning_rate": 10.0, "decay": None}

        def scale_up(callback: keras.callbacks.Callback) -> None:
            callback.model.optimizer.learning_rate = 1e30

        saver = Saver()
        with pytest.raises(NonFiniteError, match=r"in epoch \d, batch \d of 3: The (neg|KL|grad).* NaN or infinite"):
            go(folder, [At("on_train_batch_begin", 3, scale_up), saver], optimizer=optimizer)
        assert all(saver.saved)
        progress, arrays, _ = Checkpoints(folder, {}).load()
        assert all(np.isfinite(value).all() for name, value in arrays.items() if name.startswith("model/"))
        assert progress.epoch * 3 + progress.step >= 2

    def test_one_bad_batch(self, folder):
        """A dataset refuses NaN; one that changes under way meets the check of the batch."""
        data = zoo.load_dataset("iris")

        def damage(callback: keras.callbacks.Callback) -> None:
            data.train.x[:] = np.nan

        before = []
        note = At("on_train_batch_begin", 2, lambda callback: before.append(digests(folder)))
        with pytest.raises(NonFiniteError, match="in epoch 1, batch 2 of 3: `x` has 160 values that are NaN"):
            go(folder, [note, At("on_train_batch_end", 1, damage)], data=data)
        (generation,) = [name for name in before[0] if "0000000001/state.saf" in name]
        assert digests(folder)[generation] == before[0][generation]

    def test_weights_that_a_callback_made_infinite_are_not_saved(self, folder):
        before = []

        def act(callback: keras.callbacks.Callback) -> None:
            before.append(digests(folder))
            spoil("logits", "kernel_loc", math.inf)(callback)

        with pytest.raises(NonFiniteError, match=r"A callback made weights NaN or infinite\. .* layer 'logits'"):
            go(folder, [At("on_train_batch_end", 2, act)])
        assert digests(folder) == before[0]

    def test_without_checkpoints_too(self):
        with pytest.raises(NonFiniteError, match="epoch 1, batch 2 of 3: The KL"):
            go(None, [At("on_train_batch_begin", 2, spoil("dense1", "prior", math.nan))])


# === T5: the disk under a run ===


class TestT5Disk:
    def test_full(self, folder, monkeypatch):
        def fill(callback: keras.callbacks.Callback) -> None:
            def full(descriptor: int) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr("zoo.training.checkpoints.os.fsync", full)

        with pytest.raises(OSError, match=r"after 5 steps could not be written .* No space left on device"):
            go(folder, [At("on_train_batch_end", 5, fill)])
        assert not list(folder.glob(".writing-*"))
        progress, _, messages = Checkpoints(folder, {}).load()
        assert (progress.epoch, progress.step, messages) == (1, 1, [])
        monkeypatch.undo()
        _, history = go(folder, resume=True)
        assert [len(values) for values in history.values()] == [2] * len(history)

    def test_no_room_for_the_log(self, folder, monkeypatch):
        """Of which no part may be left either."""

        def full(path: Path, text: str, encoding: str) -> None:
            path.write_bytes(text.encode()[:3])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match=r"The log could not be written to .*seed-0.*No space left on device"):
            go(folder)
        assert not list(folder.glob("*log.csv*"))
        assert Checkpoints(folder, {}).load()[0].step == 3

    @pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_end"])
    def test_folder_deleted_mid_run(self, folder, hook):
        with pytest.raises(OSError, match=r"could not be written to .*seed-0.*No such file"):
            go(folder, [At(hook, 1, lambda callback: shutil.rmtree(folder))])

    def test_a_file_where_the_folder_should_be(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="file"):
            zoo.train(RECIPE, tmp_path / "file" / "out")


# === T7: resumed as something else ===


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unfinished run, killed after a step of the second epoch. Nobody may change it."""
    out = tmp_path_factory.mktemp("killed") / "out"
    with pytest.raises(Killed):
        zoo.train(RECIPE, out, checkpoint_seconds=0.0, callbacks=[At("on_train_batch_end", 5, die)])
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
            ({"optimizer.name": "sgd"}, ["recipe.optimizer.name was 'adam' and is 'sgd'"]),
            ({"optimizer.learning_rate": 0.5}, ["recipe.optimizer.learning_rate was 0.001 and is 0.5"]),
            ({"optimizer.decay": None}, ["recipe.optimizer.decay was 'cosine' and is None"]),
            ({"batch_size": 41}, ["recipe.batch_size was 40 and is 41"]),
            ({"epochs": 3}, ["recipe.epochs was 2 and is 3"]),
            ({"beta": 0.5, "warmup": 0.1}, ["recipe.beta was 1.0 and is 0.5", "recipe.warmup was 0.0 and is 0.1"]),
            ({"standardize_inputs": False}, ["recipe.standardize_inputs was True and is False"]),
            ({"seed": 3}, ["its training seeds are 0, and this one has 3"]),
        ],
    )
    def test_is_refused_with_every_difference(self, unfinished, changes, differences):
        before = digests(unfinished.parent)
        with pytest.raises(CheckpointError, match="was another one") as caught:
            zoo.train(RECIPE, unfinished, resume=True, overrides=changes)
        for difference in differences:
            assert difference in str(caught.value)
        assert "--overwrite" in str(caught.value)
        assert {name: digest for name, digest in digests(unfinished.parent).items() if "lock" not in name} == {
            name: digest for name, digest in before.items() if "lock" not in name
        }

    def test_other_classes_and_other_data(self, unfinished, monkeypatch):
        iris = zoo.load_dataset("iris")
        fewer = dataclasses.replace(iris, train=Split(iris.train.x[:90], iris.train.y[:90]))
        more_classes = dataclasses.replace(iris, class_names=(*iris.class_names, "another"))
        changed = dataclasses.replace(iris, validation=Split(iris.validation.x + 1e-3, iris.validation.y))
        for data, difference in (
            (fewer, "data.train.x.shape was [96, 4] and is [90, 4]"),
            (more_classes, "num_classes was 3 and is 4"),
            (changed, "data.validation.x.sha256 was"),
        ):
            monkeypatch.setattr("zoo.training.load_dataset", lambda name, data=data: data)
            with pytest.raises(CheckpointError, match="was another one") as caught:
                zoo.train(RECIPE, unfinished, resume=True)
            assert difference in str(caught.value)
        assert "train" not in str(caught.value).split("data.validation")[1]

    def test_another_precision(self, unfinished):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            with pytest.raises(CheckpointError, match="dtype_policy was 'float32' and is 'mixed_bfloat16'"):
                zoo.train(RECIPE, unfinished, resume=True)
        finally:
            keras.config.set_dtype_policy(before)

    def test_notes_and_evaluation_may_change(self, unfinished):
        told: list[str] = []
        changes = {"notes": "better", "evaluation.num_samples": 3}
        ended = zoo.train(RECIPE, unfinished, resume=True, overrides=changes, tell=told.append)
        assert told[0] == "resuming after epoch 1, step 1"
        assert ended.metrics["num_samples"] == 3
        assert zoo.load_recipe(unfinished / "recipe.yaml").notes == "better"
        assert not unfinished.with_name("out.training").exists()


class TestUnfinishedRun:
    def test_is_refused_without_resume(self, unfinished):
        before = digests(unfinished.parent)
        with pytest.raises(CheckpointError, match=r"holds an unfinished run.*--resume .*--overwrite"):
            zoo.train(RECIPE, unfinished)
        assert digests(unfinished.parent) == before

    def test_starts_anew_with_overwrite(self, unfinished):
        told: list[str] = []
        ended = zoo.train(RECIPE, unfinished, overwrite=True, overrides={"epochs": 1}, tell=told.append)
        assert not [message for message in told if "resuming" in message]
        assert {len(values) for values in ended.history.values()} == {1}
        assert not unfinished.with_name("out.training").exists()
        assert (unfinished / "log.csv").read_text().startswith("epoch,")

    def test_nothing_to_resume(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"nothing to resume: .*out\.training"):
            zoo.train(RECIPE, tmp_path / "out", resume=True)
        assert list(tmp_path.iterdir()) == []

    def test_stopped_before_its_first_checkpoint(self, tmp_path):
        """That it starts from the first step is said, never silent."""
        (tmp_path / "out.training" / "seed-0").mkdir(parents=True)
        told: list[str] = []
        with pytest.raises(Killed):
            zoo.train(RECIPE, tmp_path / "out", resume=True, tell=told.append, callbacks=[At("on_train_begin", 1, die)])
        assert told == ["the run was stopped before its first checkpoint, and starts from its first step"]

    def test_t6_all_checkpoints_damaged_is_an_error_and_never_the_first_step(self, unfinished):
        for path in unfinished.parent.rglob("manifest.json"):
            path.write_text("{")
        seen: list[Any] = []
        note = At("on_train_batch_begin", 1, seen.append)
        with pytest.raises(CheckpointError, match=r"No checkpoint in .* can be read.*--overwrite"):
            zoo.train(RECIPE, unfinished, resume=True, callbacks=[note])
        assert seen == []

    def test_the_folder_of_a_finished_run_is_gone_and_its_log_is_in_the_artifact(self, unfinished, tmp_path):
        ended = zoo.train(RECIPE, unfinished, resume=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
        lines = (unfinished / "log.csv").read_text().splitlines()
        assert len(lines) == 1 + RECIPE["epochs"]
        names = lines[0].split(",")
        for epoch, line in enumerate(lines[1:]):
            values = dict(zip(names, line.split(","), strict=True))
            assert values.pop("epoch") == str(epoch + 1)
            assert {name: float(value) for name, value in values.items()} == {
                name: values_of[epoch] for name, values_of in ended.history.items()
            }

    def test_a_second_run_into_the_same_folder_is_refused(self, tmp_path):
        def second(callback: keras.callbacks.Callback) -> None:
            with pytest.raises(CheckpointError, match=f"Another process .process {os.getpid()}. trains in"):
                zoo.train(RECIPE, tmp_path / "out", resume=True)
            raise Killed

        with pytest.raises(Killed):
            zoo.train(RECIPE, tmp_path / "out", callbacks=[At("on_train_begin", 1, second)])

    def test_early_stopping_survives_a_resume(self, tmp_path):
        """It stops on the epoch on which it would have, with the weights of the epoch that was best."""

        def stopping() -> keras.callbacks.EarlyStopping:
            # Nothing is an improvement of 100: epoch 1 is the best, and patience is over with epoch 4.
            return keras.callbacks.EarlyStopping("val_nll", patience=3, min_delta=100.0, restore_best_weights=True)

        expected, history = go(tmp_path / "a", [stopping()], epochs=9)
        assert len(history["loss"]) == 4
        with pytest.raises(Killed):
            go(tmp_path / "b", [stopping(), At("on_train_batch_end", 8, die)], epochs=9)
        ended, resumed = go(tmp_path / "b", [stopping()], epochs=9, resume=True)
        assert repr(resumed) == repr(history)
        for name, value in training_state(expected).items():
            np.testing.assert_array_equal(training_state(ended)[name], value)
        # Once stopped it stays stopped.
        again, repeated = go(tmp_path / "b", [stopping()], epochs=9, resume=True)
        assert repr(repeated) == repr(history)
        np.testing.assert_array_equal(again.get_weights()[0], expected.get_weights()[0])


# === T3: signals, within the process ===


class TestT3Signals:
    @pytest.mark.parametrize(
        ("signum", "hook", "number", "after"),
        [
            (signal.SIGINT, "on_train_batch_begin", 2, (0, 2)),
            (signal.SIGTERM, "on_train_batch_begin", 2, (0, 2)),
            (signal.SIGTERM, "on_train_batch_end", 4, (1, 1)),
            (signal.SIGINT, "on_test_begin", 1, (1, 0)),
        ],
    )
    def test_the_step_ends_and_a_checkpoint_is_written(self, folder, signum, hook, number, after):
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        with pytest.raises(TrainingInterrupted, match="epoch {}, step {} of 3; a checkpoint".format(*after)) as caught:
            go(folder, [At(hook, number, lambda callback: os.kill(os.getpid(), signum))], checkpoint_seconds=1e9)
        assert caught.value.signum == signum
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        progress, _, _ = Checkpoints(folder, {}).load()
        assert (progress.epoch, progress.step) == after

    def test_a_signal_after_the_question_whether_there_was_one(self, folder, monkeypatch):
        """It ends the next step: what is said about the checkpoint is true at any moment."""
        import time

        clock, calls = time.monotonic, []

        def send_when_asked_for_the_time() -> float:
            calls.append(None)
            # The first is at the start, the second after the first checkpoint, the third after the first step.
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return clock()

        monkeypatch.setattr("zoo.training.loop.time.monotonic", send_when_asked_for_the_time)
        with pytest.raises(TrainingInterrupted, match="epoch 0, step 2 of 3"):
            go(folder, checkpoint_seconds=1e9)
        assert Checkpoints(folder, {}).load()[0].step == 2

    def test_without_checkpoints_signals_are_left_alone(self, request):
        # A shell has its background jobs ignore SIGINT.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
        with pytest.raises(KeyboardInterrupt) as caught:
            go(None, [At("on_train_batch_begin", 2, lambda callback: os.kill(os.getpid(), signal.SIGINT))])
        assert type(caught.value) is KeyboardInterrupt


# === T8: batches that are not full ===


class TestT8PartialBatches:
    @pytest.mark.parametrize("batch_size", [40, 95, 96, 1000])
    def test_the_elbo_counts_rows(self, monkeypatch, batch_size):
        recipe = zoo.load_recipe({**RECIPE, "epochs": 1, "batch_size": batch_size})
        data = zoo.load_dataset("iris")
        model = build(recipe, data)
        train_on_batch, batches, targets = model.train_on_batch, [], []

        def noted(x: Any, y: Any, **kwargs: Any) -> Any:
            logs = train_on_batch(x, y, **kwargs)
            batches.append((len(x), logs))
            targets.extend(y)
            return logs

        monkeypatch.setattr(model, "train_on_batch", noted)
        history = run(model, recipe, data).history
        rows = np.array([count for count, _ in batches])
        assert rows.sum() == 96 == model.num_examples
        assert len(rows) == math.ceil(96 / batch_size)
        np.testing.assert_array_equal(np.bincount(targets), np.bincount(data.train.y))
        for name in ("loss", "nll", "kl", "elbo", "accuracy"):
            values = np.array([logs[name] for _, logs in batches])
            assert history[name] == [pytest.approx((values * rows).sum() / 96, rel=1e-6)]
        for _, logs in batches:
            assert logs["elbo"] == pytest.approx(-(logs["nll"] + logs["kl"] / 96), rel=1e-6)
            assert logs["loss"] == pytest.approx(logs["nll"] + logs["kl"] / 96, rel=1e-6)

    def test_an_epoch_sees_every_example_once_and_no_two_epochs_the_same_order(self, monkeypatch):
        recipe, data = zoo.load_recipe(RECIPE), zoo.load_dataset("iris")
        data.train.x[:, 0] = np.arange(96)
        model = build(recipe, data)
        train_on_batch, seen = model.train_on_batch, []
        monkeypatch.setattr(
            model, "train_on_batch", lambda x, y, **kw: (seen.extend(x[:, 0]), train_on_batch(x, y, **kw))[1]
        )
        run(model, recipe, data)
        first, second = np.array(seen).reshape(2, 96)
        assert sorted(first) == sorted(second) == list(range(96))
        assert list(first) != list(second)

    def test_an_empty_split_is_refused_by_the_dataset(self):
        iris = zoo.load_dataset("iris")
        with pytest.raises(ValueError, match="'iris', split 'train': got 0 rows, expected at least one"):
            dataclasses.replace(iris, train=Split(iris.train.x[:0], iris.train.y[:0]))


# === T9: data that no model should be trained on ===


class TestT9BadData:
    def test_labels_out_of_range_of_the_network(self, folder):
        with pytest.raises(ValueError, match=r"0 to 2|labels") as caught:
            go(folder, model={"hidden": [4], "num_outputs": 2})
        assert "2" in str(caught.value)
        assert list(folder.iterdir()) == []

    @pytest.mark.parametrize(
        ("x", "y", "says"),
        [
            (None, np.eye(3, dtype=int)[np.arange(96) % 3], r"got y of shape \(96, 3\).*y\.argmax"),
            (None, np.arange(96) % 4, "got labels from 0 to 3, expected 0 to 2"),
            (None, np.arange(96) % 3 - 1, "got labels from -1 to 1"),
            (np.where(np.arange(4) == 2, np.nan, np.ones((96, 4))), None, r"got 96 NaN .*first at index \(0, 2\)"),
        ],
    )
    def test_what_a_dataset_refuses(self, x, y, says):
        iris = zoo.load_dataset("iris")
        with pytest.raises(ValueError, match=f"'iris', split 'train': {says}"):
            dataclasses.replace(iris, train=Split(iris.train.x if x is None else x, iris.train.y if y is None else y))

    def test_a_constant_column_works(self):
        data = zoo.load_dataset("iris")
        for split in (data.train, data.validation, data.test):
            split.x[:, 1] = 7.0
        model, history = go(None, data=data)
        assert model.architecture.config.input_variance[1] == 1.0
        assert np.isfinite([value for values in history.values() for value in values]).all()
        assert np.isfinite(model.posterior_predictive(data.test.x, num_samples=2).mean()).all()
