"""Several processes train one model: the ELBO of one process, other noise in each, and who is missing is named."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from zoo.training import CheckpointError, WorkerMissingError, Workers, run_on_workers

SCRIPT = Path(__file__).with_name("worker_process.py")


def free_addresses(number: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


def started(out: Path, *arguments: str, number: int = 2) -> list[subprocess.Popen[str]]:
    """The processes of a training, which write `out-0` and so on."""
    addresses, processes = free_addresses(number), []
    for index in range(number):
        environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        if number > 1:
            task = {"type": "worker", "index": index}
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        command = [sys.executable, str(SCRIPT), f"{out}-{index}", *arguments]
        processes.append(
            subprocess.Popen(command, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        )
    return processes


def results(out: Path, *arguments: str, number: int = 2) -> list[dict[str, Any]]:
    for process in started(out, *arguments, number=number):
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
    return [pickle.loads(Path(f"{out}-{index}").read_bytes()) for index in range(number)]  # noqa: S301


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def with_noise(folder: Path) -> list[dict[str, Any]]:
    return results(folder / "noise", "noise")


# === Training ===


@pytest.mark.thorough
def test_without_noise_two_processes_train_like_one(folder):
    (alone,) = results(folder / "alone", "points", number=1)
    for worker in results(folder / "points", "points"):
        assert worker["rows_seen"] == alone["rows_seen"] == 19
        assert (worker["num_examples"], worker["num_steps"]) == (alone["num_examples"], alone["num_steps"]) == (19, 24)
        assert worker["history"].keys() == alone["history"].keys() >= {"loss", "nll", "kl", "elbo", "beta", "accuracy"}
        for name, values in alone["history"].items():
            np.testing.assert_allclose(worker["history"][name], values, rtol=1e-4, err_msg=name)
        for one, other in zip(worker["weights"], alone["weights"], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
        for one, other in zip(worker["natural gradient"], alone["natural gradient"], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.thorough
def test_all_processes_have_the_same_model_and_other_noise(with_noise):
    first, second = with_noise
    assert first["history"] == second["history"]
    for one, other in zip(first["weights"], second["weights"], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first["predicted"], second["predicted"])
    assert not np.array_equal(first["drawn"], second["drawn"])


@pytest.mark.thorough
def test_the_kl_of_all_processes_counts_once(with_noise):
    """It has a closed form here. In the last epoch it moves little."""
    assert with_noise[0]["history"]["kl"][-1] == pytest.approx(with_noise[0]["kl"], rel=0.25)


@pytest.mark.thorough
def test_a_batch_with_nan_for_one_process_is_refused_in_all(with_noise):
    for worker in with_noise:
        assert "The inputs of a batch have NaN or infinite values" in worker["refused"]["message"]
        assert worker["refused"]["same"]


@pytest.mark.thorough
def test_a_run_whose_worker_was_killed_is_resumed_with_the_same_bits(folder, with_noise):
    chief, killed = started(folder / "killed", "noise", str(folder / "run"))
    deadline = time.monotonic() + 300
    while not list((folder / "run").glob("generation-*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    # Which must end it, whatever TensorFlow does with this signal; SIGKILL always does.
    killed.send_signal(signal.SIGTERM)
    killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGTERM
    _, errors = chief.communicate(timeout=300)
    assert "WorkerMissingError: Another worker went away in epoch" in errors
    for worker, undisturbed in zip(
        results(folder / "resumed", "noise", str(folder / "run"), "resume"), with_noise, strict=True
    ):
        assert worker["history"] == undisturbed["history"]
        for one, other in zip(worker["weights"], undisturbed["weights"], strict=True):
            np.testing.assert_array_equal(one, other)


# === Who is there ===


def meet_in_threads(addresses: list[str], present: list[int], patience: float) -> dict[int, str]:
    """The messages of the workers that did not meet all others."""
    messages = {}

    def meet(index: int) -> None:
        try:
            Workers(tuple(addresses), index).meet(patience)
        except WorkerMissingError as error:
            messages[index] = str(error)

    threads = [threading.Thread(target=meet, args=(index,)) for index in present]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return messages


def test_workers_meet_whoever_comes_first():
    assert meet_in_threads(free_addresses(4), [2, 0, 3, 1], patience=60) == {}


def test_workers_that_do_not_come_are_named():
    addresses = free_addresses(3)
    messages = meet_in_threads(addresses, [0, 2], patience=0.5)
    assert sorted(messages) == [0, 2]
    for index, message in messages.items():
        assert f"Worker {index} waited for 0.5 seconds, but did not meet worker 1 at {addresses[1]}." in message


def test_a_worker_that_sends_nonsense_is_no_worker():
    addresses = free_addresses(2)

    def nonsense() -> None:
        for _ in range(20):
            with contextlib.suppress(OSError):
                port = int(addresses[0].rpartition(":")[2])
                with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                    connection.sendall(b"GET / HTTP/1.1\r\n")
            time.sleep(0.02)

    stranger = threading.Thread(target=nonsense)
    stranger.start()
    assert list(meet_in_threads(addresses, [0], patience=0.5)) == [0]
    stranger.join()


def test_a_missing_worker_has_its_name_of_tf_config(monkeypatch):
    chief, worker = free_addresses(2)
    config = {"cluster": {"chief": [chief], "worker": [worker]}, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(WorkerMissingError, match=rf"Chief 0 waited for 0 seconds, .* meet worker 0 at {worker}\."):
        Workers.of_environment().meet(patience=0)


def test_workers_that_met_and_cannot_be_connected_are_named(monkeypatch):
    def too_slow():
        raise tf.errors.InternalError(None, None, "heartbeat timeout")

    monkeypatch.setattr(Workers, "meet", lambda self, patience: None)
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", too_slow)
    with pytest.raises(WorkerMissingError, match=r"Worker 1 met all workers \(worker 0 at a:1, worker 1 at b:2\), but"):
        Workers(("a:1", "b:2"), 1).strategy()


def test_sigterm_is_for_the_handler_that_was_there_before_tensorflow(monkeypatch):
    received = []

    def ignores_sigterm():
        # As C++ sets a handler, of which Python does not know.
        ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(signal.SIG_IGN))

    monkeypatch.setattr(Workers, "meet", lambda self, patience: None)
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", ignores_sigterm)
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        Workers(("a:1", "b:2"), 1).strategy()
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("config", "addresses", "index"),
    [
        (None, (), 0),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}, (), 0),
        ({"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}, ("a:1", "b:2"), 1),
        (
            {"cluster": {"worker": ["a:1", "b:2"], "chief": ["c:3"]}, "task": {"type": "chief", "index": 0}},
            ("c:3", "a:1", "b:2"),
            0,
        ),
    ],
)
def test_workers_are_those_of_the_environment(config, addresses, index, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    workers = Workers.of_environment()
    assert workers == Workers(addresses, index)
    assert workers.is_chief == (index == 0)


def test_a_process_that_is_not_of_its_cluster_is_refused(monkeypatch):
    config = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 2}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(ValueError, match=r"'worker' number 2, but its cluster has worker 0, worker 1\. Set 'task'"):
        Workers.of_environment()


def test_a_run_without_checkpoints_cannot_be_resumed():
    with pytest.raises(CheckpointError, match="nothing to resume without checkpoints"):
        run_on_workers(lambda: None, None, resume=True)
