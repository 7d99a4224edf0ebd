"""Kills a training with SIGKILL at random points, resumes it each time, and compares it with an uninterrupted one.

Run: `python benchmarks/kill_and_resume.py --kills 20 --seed 0`. A LeNet-5 of flipout layers on digits, with
augmentation, warm-up of the KL and cosine decay, writes a checkpoint after every step, so many kills happen while one
is written. The seed determines the steps at which it is killed. The moment within the step is random too, and depends
on the operating system. Weights, log and metrics of the artifact must be bit-for-bit identical to those of the
uninterrupted run, and every checkpoint must be readable; otherwise the exit code is 1. Most of the time is spent
importing TensorFlow, once per kill.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RECIPE = {
    "name": "lenet5_flipout.killed",
    "architecture": "lenet5_flipout",
    "dataset": "digits",
    "model": {"pixel_max": 16.0, "resize": [28, 28], "initial_scale": 0.02},
    "augmentation": {"shift": 1, "rotation": 10.0, "crop": 0.9},
    "optimizer": {"name": "adam", "learning_rate": 2.0e-3, "decay": "cosine"},
    # 17 full batches and a partial one.
    "batch_size": 64,
    "warmup": 0.4,
    "beta": 0.05,
    "evaluation": {"num_samples": 10, "spread_seeds": []},
}
PROGRAM = """
import json, sys, zoo
recipe, out, how = sys.argv[1:]
tell = lambda message: print(message, flush=True)
zoo.train(json.loads(recipe), out, resume=how == "resume", checkpoint_seconds=0.0, tell=tell)
"""
STEPS_IN_EPOCH = 18
# Longer than a step with its checkpoint, so every moment of it can be hit.
LONGEST_WAIT = 0.1
POLL = 0.002


def start(recipe: str, out: Path, resume: bool, heard: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, recipe, str(out), "resume" if resume else "start"]
    with heard.open("wb") as stdout:
        return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE)  # noqa: S603


def newest_step(training: Path) -> int:
    return max((int(path.name.rsplit("-", 1)[1]) for path in training.glob("seed-*/generation-*")), default=-1)


def resumed_from(heard: Path) -> str:
    return next((line for line in heard.read_text().splitlines() if line.startswith("resuming")), "-")


def to_the_end(recipe: str, out: Path, resume: bool, heard: Path) -> None:
    process = start(recipe, out, resume, heard)
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"the run to {out.name} failed:\n{errors.decode(errors='replace')}")


def kill_at(step: int, recipe: str, out: Path, heard: Path, wait: float) -> tuple[str, bool]:
    """Starts or resumes the run and kills it just after a step. Returns how it ended, and whether during a write."""
    training = out.with_name(f"{out.name}.training")
    process = start(recipe, out, training.exists(), heard)
    while process.poll() is None and newest_step(training) < step:
        time.sleep(POLL)
    time.sleep(wait)
    process.kill()
    _, errors = process.communicate()
    if process.returncode == -signal.SIGKILL:
        return "killed", bool(list(training.glob("seed-*/.writing-*")))
    return ("finished" if process.returncode == 0 else f"FAILED: {errors.decode(errors='replace')[-300:]}"), False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    recipe = json.dumps({**RECIPE, "epochs": arguments.epochs})
    rng = np.random.default_rng(arguments.seed)
    total = arguments.epochs * STEPS_IN_EPOCH
    # Spread over the whole run: one kill in each of as many equal parts.
    steps = ((np.arange(arguments.kills) + rng.uniform(size=arguments.kills)) * total / arguments.kills).astype(int)
    faults, in_writing = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        whole, killed, heard = Path(folder) / "whole", Path(folder) / "killed", Path(folder) / "heard"
        began = time.monotonic()
        to_the_end(recipe, whole, False, heard)
        print(f"uninterrupted: {total} steps in {time.monotonic() - began:.0f} s, start of the process included")
        print(f"{'kill':>4} {'at step':>7} {'while writing':>13}  {'resumed':<32} {'damaged':>7} {'seconds':>7}")
        for number, step in enumerate(steps, start=1):
            began = time.monotonic()
            how, writing = kill_at(int(step), recipe, killed, heard, rng.uniform(0, LONGEST_WAIT))
            damaged = heard.read_text().count("damaged")
            reached = newest_step(killed.with_name("killed.training"))
            faults += damaged + (how != "killed")
            in_writing += writing
            note = "" if how == "killed" else how
            print(
                f"{number:>4} {reached:>7} {'yes' if writing else 'no':>13}  {resumed_from(heard):<32} {damaged:>7} "
                f"{time.monotonic() - began:>7.1f} {note}",
                flush=True,
            )
        to_the_end(recipe, killed, True, heard)
        damaged = heard.read_text().count("damaged")
        faults += damaged
        print(f" end {total:>7} {'-':>13}  {resumed_from(heard):<32} {damaged:>7}")
        names = sorted({path.name for out in (whole, killed) for path in out.iterdir()})
        for name in names:
            same = all((out / name).is_file() for out in (whole, killed))
            same = same and (whole / name).read_bytes() == (killed / name).read_bytes()
            faults += not same
            print(f"{name:<24} {'bitwise equal' if same else 'DIFFERENT'}")
    print(f"{arguments.kills} kills, {in_writing} of them while a checkpoint was written; {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
