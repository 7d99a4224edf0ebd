"""Kills one of two processes that train together, at random steps, and compares with a training that nobody disturbed.

Run: `python benchmarks/kill_workers.py --kills 5 --seed 0`. Two processes train a network of flipout layers on digits
with `zoo.training.run_on_workers`, over the loopback, with a checkpoint after every epoch. The seed determines the
steps at which one of them is killed with SIGKILL, and whether it is the chief. The other must end too, and say why;
then both are started again with `resume=True`. At the end weights and history of both must be bit-for-bit identical to
those of the undisturbed training; otherwise the exit code is 1. Most of the time is spent importing TensorFlow, twice
per kill.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WORKERS = 2
# 17 full batches and a partial one.
STEPS_IN_EPOCH = 18
BATCH = 64
PATIENCE = 300.0
POLL = 0.002


# === One of the processes ===


def work(out: Path, folder: Path, epochs: int, resume: bool) -> None:
    """Trains as TF_CONFIG says, writes the number of each step to `out.step`, and the result to `out`."""
    import keras

    import tfp_bnn
    from zoo.datasets import Split, load_dataset
    from zoo.training import Workers, run_on_workers
    from zoo.training.batches import ShuffledBatches
    from zoo.training.checkpoints import Checkpoints

    digits = load_dataset("digits").train
    split = Split(digits.x.reshape(len(digits), -1) / np.float32(16), digits.y)

    class Noted(ShuffledBatches):
        def batch(self, epoch: int, step: int) -> Any:
            out.with_suffix(".step").write_text(str(self.steps_before(epoch) + step))
            return super().batch(epoch, step)

    def build() -> tfp_bnn.VariationalModel:
        keras.utils.set_random_seed(0)
        dense = tfp_bnn.layers.DenseFlipout
        layers = [keras.Input((64,)), dense(32, activation="relu"), dense(10)]
        model = tfp_bnn.VariationalSequential(layers, seed=0)
        model.compile(keras.optimizers.Adam(2e-3), metrics=["accuracy"])
        return model

    batches = Noted(split, BATCH, epochs, seed=0)
    checkpoints = Checkpoints(folder, {"epochs": epochs}) if Workers.of_environment().is_chief or resume else None
    resume = resume and bool(Checkpoints(folder, {"epochs": epochs}).generations())
    model, progress = run_on_workers(build, batches, patience=PATIENCE, checkpoints=checkpoints, resume=resume)
    out.write_bytes(pickle.dumps((model.get_weights(), progress.history)))


# === The processes from outside ===


@dataclass
class Worker:
    """A process that trains, and where it writes."""

    process: subprocess.Popen[str]
    out: Path

    def step(self) -> int:
        """Returns the step that it is in, or -1."""
        with contextlib.suppress(OSError, ValueError):
            return int(self.out.with_suffix(".step").read_text())
        return -1

    def result(self) -> tuple[list[np.ndarray], dict[str, list[float]]]:
        """Returns its weights and its history."""
        # Written by a process of this script.
        return pickle.loads(self.out.read_bytes())  # noqa: S301


def start(folder: Path, name: str, epochs: int, resume: bool) -> list[Worker]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(WORKERS)]
        addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    workers = []
    for index in range(WORKERS):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(task), "TF_NUM_INTRAOP_THREADS": "1"}
        out = folder / f"{name}-{index}"
        out.with_suffix(".step").unlink(missing_ok=True)
        command = [sys.executable, __file__, "--work", str(out), str(folder / f"{name}.run"), "--epochs", str(epochs)]
        process = subprocess.Popen(  # noqa: S603
            [*command, *(["--resume"] if resume else [])],
            env=environment,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        workers.append(Worker(process, out))
    return workers


def to_the_end(workers: list[Worker]) -> list[tuple[list[np.ndarray], dict[str, list[float]]]]:
    errors = [worker.process.communicate()[1] for worker in workers]
    for worker, text in zip(workers, errors, strict=True):
        if worker.process.returncode:
            sys.exit(f"{worker.out.name} failed:\n{text[-2000:]}")
    return [worker.result() for worker in workers]


def kill(workers: list[Worker], index: int, step: int) -> tuple[str, str]:
    """Kills a worker just after a step. Returns how it ended, and what the other said."""
    victim, other = workers[index], workers[1 - index]
    while victim.process.poll() is None and victim.step() < step:
        time.sleep(POLL)
    victim.process.kill()
    victim.process.communicate()
    _, errors = other.process.communicate()
    how = "killed" if victim.process.returncode == -signal.SIGKILL else f"ended: {victim.process.returncode}"
    named = re.search(r"WorkerMissingError: [^.]*\.", errors)
    if named:
        return how, named.group()
    return how, f"ended: {other.process.returncode}: {errors[-300:]}"


def same(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    equal = [a.tobytes() == b.tobytes() for a, b in zip(one[0], other[0], strict=True)]
    return all(equal) and one[1] == other[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--work", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work, arguments.epochs, arguments.resume)
        return 0
    rng, total, faults = np.random.default_rng(arguments.seed), arguments.epochs * STEPS_IN_EPOCH, 0
    # Spread over the whole run: one kill in each of as many equal parts.
    steps = ((np.arange(arguments.kills) + rng.uniform(size=arguments.kills)) * total / arguments.kills).astype(int)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        undisturbed = to_the_end(start(folder, "undisturbed", arguments.epochs, False))
        print(f"undisturbed: {WORKERS} processes, {total} steps in {time.monotonic() - began:.0f} s", flush=True)
        for number, step in enumerate(steps):
            index = int(rng.integers(WORKERS))
            how, said = kill(start(folder, "killed", arguments.epochs, number > 0), index, int(step))
            good = how == "killed" and said.startswith("WorkerMissingError")
            faults += not good
            print(f"kill {number + 1}: worker {index} at step {step} of {total}, {how}; the other: {said}", flush=True)
        found = to_the_end(start(folder, "killed", arguments.epochs, arguments.kills > 0))
        for index, (one, other) in enumerate(zip(found, undisturbed, strict=True)):
            equal = same(one, other)
            faults += not equal
            print(f"worker {index}: weights and history {'bitwise equal' if equal else 'DIFFERENT'}")
        print(f"workers hold {'the same' if same(*found) else 'DIFFERENT'} weights; {faults} faults")
        faults += not same(*found)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
