"""Kills a training with SIGKILL at random points, resumes it each time, and compares it with an uninterrupted one.

Run: `python benchmarks/kill_and_resume.py --kills 20 --seed 0`. A LeNet-5 of flipout layers on digits, with
augmentation, warm-up of the KL and cosine decay, writes a checkpoint after every step, so many kills happen while one
is written. The seed determines the steps at which it is killed. The moment within the step is random too, and depends
on the operating system. As many kills follow while the artifact is written: in turn a new one, and one that replaces
another. After each, the artifact must be whole, or not be there where there was none. At the end weights, log and
metrics of the artifact must be bit-for-bit identical to those of the uninterrupted run, and every checkpoint must be
readable; otherwise the exit code is 1. Most of the time is spent importing TensorFlow, once per kill.

`--recipe resnet20_flipout.cifar10 --epochs 1 --kills 3 --kills-in-saving 0` does the same with a recipe of the zoo. Its
card is measured with 2 samples.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import zoo

RECIPE = {
    "name": "lenet5_flipout.killed",
    "architecture": "lenet5_flipout",
    "dataset": "digits",
    "model": {"pixel_max": 16.0, "resize": [28, 28], "initial_scale": 0.02},
    "augmentation": {"shift": 1, "rotation": 10.0, "crop": 0.9},
    "optimizer": {"name": "adam", "learning_rate": 2.0e-3, "decay": "cosine"},
    # The last batch is a partial one.
    "batch_size": 64,
    "warmup": 0.4,
    "beta": 0.05,
    "evaluation": {"num_samples": 10, "spread_seeds": []},
}
PROGRAM = """
import json, sys, zoo
recipe, out, how = sys.argv[1:]
tell = lambda message: print(message, flush=True)
resume = how == "resume"
zoo.train(json.loads(recipe), out, resume=resume, overwrite=resume, checkpoint_seconds=0.0, tell=tell)
"""
# Longer than a step with its checkpoint, so every moment of it can be hit.
LONGEST_WAIT = 0.1
POLL = 0.002


def recipe_of(name: str | None, epochs: int) -> tuple[str, int]:
    """A recipe as JSON, and its number of steps."""
    values = RECIPE if name is None else zoo.load_recipe(name).model_dump(mode="json")
    evaluation = {**values["evaluation"], "spread_seeds": []}
    if name is not None:
        evaluation["num_samples"] = 2
    steps_in_epoch = -(-len(zoo.load_dataset(values["dataset"]).train) // values["batch_size"])
    return json.dumps({**values, "epochs": epochs, "evaluation": evaluation}), epochs * steps_in_epoch


def start(recipe: str, out: Path, resume: bool, heard: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, recipe, str(out), "resume" if resume else "start"]
    with heard.open("wb") as stdout:
        return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE)  # noqa: S603


def newest_step(training: Path) -> int:
    return max((int(path.name.rsplit("-", 1)[1]) for path in training.glob("seed-*/generation-*")), default=-1)


def resumed_from(heard: Path) -> str:
    return next((line for line in heard.read_text().splitlines() if line.startswith("resuming")), "-")


def to_the_end(recipe: str, out: Path, resume: bool, heard: Path) -> float:
    """Runs to the end. Returns how long the artifact took, in seconds."""
    process = start(recipe, out, resume, heard)
    began = wait_for_saving(process, out)
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"the run to {out.name} failed:\n{errors.decode(errors='replace')}")
    return out.stat().st_ctime - began


def wait_for_saving(process: subprocess.Popen[bytes], out: Path) -> float:
    """Waits until the process writes the artifact. Returns when it began."""
    while process.poll() is None and not unfinished_of(out):
        time.sleep(POLL)
    return time.time()


def kill_at(step: int, recipe: str, out: Path, heard: Path, wait: float) -> tuple[str, bool]:
    """Starts or resumes the run and kills it just after a step. Returns how it ended, and whether during a write."""
    training = training_of(out)
    process = start(recipe, out, training.exists(), heard)
    while process.poll() is None and newest_step(training) < step:
        time.sleep(POLL)
    return killed_after(wait, process), bool(list(training.glob("seed-*/.writing-*")))


def kill_while_saving(recipe: str, out: Path, heard: Path, wait: float) -> str:
    """Resumes the run and kills it while it writes the artifact, or just after. Returns how it ended."""
    process = start(recipe, out, True, heard)
    wait_for_saving(process, out)
    return killed_after(wait, process)


def killed_after(wait: float, process: subprocess.Popen[bytes]) -> str:
    """Kills a process. Returns how it ended."""
    time.sleep(wait)
    process.kill()
    _, errors = process.communicate()
    if process.returncode == -signal.SIGKILL:
        return "killed"
    return "finished" if process.returncode == 0 else f"FAILED: {errors.decode(errors='replace')[-300:]}"


def training_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.training")


def unfinished_of(out: Path) -> list[Path]:
    return list(out.parent.glob(f".{out.name}.*"))


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()} if out.exists() else {}


def kills_in_training(recipe: str, killed: Path, heard: Path, number: int, total: int, rng: np.random.Generator) -> int:
    """Kills the run at random steps. Returns the number of faults."""
    # Spread over the whole run: one kill in each of as many equal parts.
    steps = ((np.arange(number) + rng.uniform(size=number)) * total / number).astype(int)
    faults, in_writing = 0, 0
    print(f"{'kill':>4} {'at step':>7} {'while writing':>13}  {'resumed':<32} {'damaged':>7} {'seconds':>7}")
    for index, step in enumerate(steps, start=1):
        began = time.monotonic()
        how, writing = kill_at(int(step), recipe, killed, heard, rng.uniform(0, LONGEST_WAIT))
        damaged = heard.read_text().count("damaged")
        faults += damaged + (how != "killed")
        in_writing += writing
        note = "" if how == "killed" else how
        print(
            f"{index:>4} {newest_step(training_of(killed)):>7} {'yes' if writing else 'no':>13}  "
            f"{resumed_from(heard):<32} {damaged:>7} {time.monotonic() - began:>7.1f} {note}",
            flush=True,
        )
    print(f"{number} kills in training, {in_writing} of them while a checkpoint was written; {faults} faults")
    return faults


def kills_in_saving(
    recipe: str, whole: Path, killed: Path, heard: Path, number: int, seconds: float, rng: np.random.Generator
) -> int:
    """Kills the run while it writes the artifact. Returns the number of faults."""
    faults, before = 0, killed.with_name("checkpoints")
    shutil.copytree(training_of(killed), before)
    print(f"{'kill':>4} {'after ms':>8} {'there was':>9} {'there is':>9} {'unfinished':>10}")
    for index in range(1, number + 1):
        for unfinished in unfinished_of(killed):
            shutil.rmtree(unfinished)
        if index % 2:
            shutil.rmtree(killed, ignore_errors=True)
        had, wait = killed.exists(), rng.uniform(0, seconds + LONGEST_WAIT)
        how = kill_while_saving(recipe, killed, heard, wait)
        found = contents(killed)
        good = found == contents(whole) if found or had else how == "killed"
        faults += (not good) + heard.read_text().count("damaged") + how.startswith("FAILED")
        there_is = ("whole" if good else "BROKEN") if found else "none"
        print(
            f"{index:>4} {1000 * wait:>8.0f} {'whole' if had else 'none':>9} {there_is:>9} "
            f"{len(unfinished_of(killed)):>10} {'' if how == 'killed' else how}",
            flush=True,
        )
        if training_of(killed).exists():
            shutil.rmtree(before)
            shutil.copytree(training_of(killed), before)
        else:
            # Of a run that came to its end.
            shutil.copytree(before, training_of(killed))
    print(f"{number} kills while the artifact was written; {faults} faults")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--recipe", help="name of a recipe of the zoo, instead of LeNet-5 on digits")
    parser.add_argument("--kills-in-saving", type=int, help="default: as many as --kills")
    arguments = parser.parse_args()
    in_saving = arguments.kills if arguments.kills_in_saving is None else arguments.kills_in_saving
    recipe, total = recipe_of(arguments.recipe, arguments.epochs)
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed, heard = Path(folder) / "whole", Path(folder) / "killed", Path(folder) / "heard"
        began = time.monotonic()
        saving = to_the_end(recipe, whole, False, heard)
        print(f"uninterrupted: {total} steps in {time.monotonic() - began:.0f} s, start of the process included")
        print(f"the artifact is written in {saving:.2f} s")
        faults = kills_in_training(recipe, killed, heard, arguments.kills, total, rng)
        if in_saving:
            faults += kills_in_saving(recipe, whole, killed, heard, in_saving, saving, rng)
        to_the_end(recipe, killed, True, heard)
        faults += heard.read_text().count("damaged")
        found, expected = contents(killed), contents(whole)
        for name in sorted({*found, *expected}):
            same = found.get(name) == expected.get(name)
            faults += not same
            print(f"{name:<24} {'bitwise equal' if same else 'DIFFERENT'}")
        left = sorted(path.name for path in killed.parent.iterdir() if "killed" in path.name)
        faults += left != ["killed"]
        print(f"left at the end: {', '.join(left)}; {faults} faults in all")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
