"""A run under signals and bad disks: what is written is whole, and what is said of it is true."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import keras
import pytest

import zoo
from zoo.hub.artifacts import LOG_NAME
from zoo.training.checkpoints import Checkpoints
from zoo.training.signals import TrainingInterrupted, signals_noted

# What happens around the steps is tested here; test_kill_and_resume.py and test_bad_numbers.py compile them.
pytestmark = pytest.mark.usefixtures("steps_run_eagerly")


class TestT5Disk:
    @pytest.mark.slow
    def test_full(self, tiny, folder, monkeypatch):
        def fill(callback: keras.callbacks.Callback) -> None:
            def full(descriptor: int) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr("zoo.training.checkpoints.os.fsync", full)

        with pytest.raises(OSError, match=r"after 5 steps could not be written .* No space left on device"):
            tiny.go(folder, [tiny.At("on_train_batch_end", 5, fill)])
        assert not list(folder.glob(".writing-*"))
        progress, _, messages = Checkpoints(folder, {}).load()
        assert (progress.epoch, progress.step, messages) == (1, 1, [])
        monkeypatch.undo()
        _, history = tiny.go(folder, resume=True)
        assert [len(values) for values in history.values()] == [2] * len(history)

    @pytest.mark.thorough
    def test_no_room_for_the_log(self, tiny, folder, monkeypatch):
        """Of which no part may be left either."""

        write_bytes = Path.write_bytes

        def full(path: Path, contents: bytes) -> None:
            if LOG_NAME not in path.name:
                write_bytes(path, contents)
                return
            write_bytes(path, contents[:3])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=r"The log could not be written to .*seed-0.*No space left on device"):
            tiny.go(folder)
        assert not list(folder.glob("*log.csv*"))
        # The epoch is saved after its log: the last checkpoint is that of the step before its last.
        assert Checkpoints(folder, {}).load()[0].step == 2

    @pytest.mark.slow
    @pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_end"])
    def test_folder_deleted_mid_run(self, tiny, folder, hook):
        with pytest.raises(OSError, match=r"could not be written to .*seed-0.*No such file"):
            tiny.go(folder, [tiny.At(hook, 1, lambda callback: shutil.rmtree(folder))])

    def test_a_file_where_the_folder_should_be(self, tiny, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError, match="file"):
            zoo.train(tiny.recipe, tmp_path / "file" / "out")


class TestT3Signals:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("signum", "hook", "number", "after"),
        [
            (signal.SIGINT, "on_train_batch_begin", 2, (0, 2)),
            (signal.SIGTERM, "on_train_batch_end", 4, (1, 1)),
            # The last step of an epoch, then its validation, before anything is saved.
            (signal.SIGINT, "on_train_batch_begin", 3, (1, 0)),
            (signal.SIGINT, "on_test_begin", 1, (1, 0)),
        ],
    )
    def test_the_step_ends_and_a_checkpoint_is_written(self, tiny, folder, signum, hook, number, after):
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        with pytest.raises(TrainingInterrupted, match="epoch {}, step {} of 3; a checkpoint".format(*after)) as caught:
            tiny.go(
                folder, [tiny.At(hook, number, lambda callback: os.kill(os.getpid(), signum))], checkpoint_seconds=1e9
            )
        assert caught.value.signum == signum
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        progress, _, _ = Checkpoints(folder, {}).load()
        assert (progress.epoch, progress.step) == after

    @pytest.mark.slow
    def test_a_signal_after_the_question_whether_there_was_one(self, tiny, folder, monkeypatch):
        """It ends the next step: what is said about the checkpoint is true at any moment."""
        import time

        clock, calls = time.monotonic, []

        def send_when_asked_for_the_time() -> float:
            calls.append(None)
            # The first is at the start, the second after the first checkpoint, the third after the first step.
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return clock()

        monkeypatch.setattr("zoo.training.engine.time.monotonic", send_when_asked_for_the_time)
        with pytest.raises(TrainingInterrupted, match="epoch 0, step 2 of 3"):
            tiny.go(folder, checkpoint_seconds=1e9)
        assert Checkpoints(folder, {}).load()[0].step == 2

    @pytest.mark.thorough
    def test_without_checkpoints_signals_are_left_alone(self, tiny, request):
        # A shell has its background jobs ignore SIGINT.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
        with pytest.raises(KeyboardInterrupt) as caught:
            tiny.go(None, [tiny.At("on_train_batch_begin", 2, lambda callback: os.kill(os.getpid(), signal.SIGINT))])
        assert type(caught.value) is KeyboardInterrupt


def test_a_handler_of_the_program_around_python_stays(monkeypatch):
    """Python knows none of its own for such a signal, and could not put it back."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else signal.SIG_DFL)
    replaced = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: replaced.append(number))
    with signals_noted(True):
        pass
    monkeypatch.undo()
    assert replaced == [signal.SIGINT, signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) is before
