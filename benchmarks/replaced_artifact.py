"""Reads an artifact all the time while other processes replace it, and are killed with SIGKILL in the middle of it.

Run: `python benchmarks/replaced_artifact.py --kills 20 --seed 0`. A process saves two models in turn to one folder:
that of the bundled `mlp_flipout.iris`, and one of which half of the weights are pruned. It is killed after a random
time, and another one goes on. Meanwhile this process reads and loads the artifact: every time it must be the one or the
other, with the weights of its own config. Otherwise the exit code is 1.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import tfp_bnn
import zoo
from zoo.hub.reading import read_artifact

MODEL = "mlp_flipout.iris"
PROGRAM = f"""
import itertools, sys, zoo
model = zoo.load_model({MODEL!r})
models = itertools.cycle([model, zoo.prune(model, 0.5)])
for number, model in enumerate(models):
    zoo.save_artifact(model, sys.argv[1], overwrite=True)
    print(number, flush=True)
"""
LONGEST_WAIT = 4.0
POLL = 0.2
# Loading takes a hundred times as long as reading.
READS_TO_A_LOAD = 20


def kind(folder: Path, load: bool) -> str:
    """Which of the two artifacts is in the folder; or what is wrong with it."""
    try:
        config = read_artifact(folder)["config"]
        if load:
            model = zoo.load_artifact(folder, trust=True)
            config = model.card["config"]
            pruned = any(share > 0 for share in tfp_bnn.compression.sparsity(model).values())
            if pruned != said_pruned(config):
                return "MIXED"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:100]}"
    return "pruned" if said_pruned(config) else "whole"


def said_pruned(config: dict[str, object]) -> bool:
    return "pruned" in str(config["config"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    found: collections.Counter[str] = collections.Counter()
    loads, saves = 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "artifact"
        zoo.save_artifact(zoo.load_model(MODEL), folder)
        for _ in range(arguments.kills):
            with (Path(name) / "heard").open("wb") as heard:
                writer = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)], stdout=heard)  # noqa: S603
            end = None
            while writer.poll() is None:
                for number in range(READS_TO_A_LOAD):
                    found[kind(folder, load=number == 0)] += 1
                loads += 1
                if end is None:
                    # It starts: nothing is replaced yet.
                    time.sleep(POLL)
                    if (Path(name) / "heard").read_bytes():
                        end = time.monotonic() + rng.uniform(0, LONGEST_WAIT)
                elif time.monotonic() > end:
                    writer.kill()
                    writer.wait()
            saves += len((Path(name) / "heard").read_bytes().split())
            found[kind(folder, load=True)] += 1
            for left in folder.parent.glob(".artifact.*.old"):
                found[f"left aside: {left.name}"] += 1
            with contextlib.suppress(FileNotFoundError):
                (Path(name) / "heard").unlink()
    print(f"{arguments.kills} kills, {saves} replacements, {sum(found.values())} reads, {loads} of them loads")
    for what, number in found.most_common():
        print(f"{number:>8} {what}")
    return 1 if set(found) - {"whole", "pruned"} else 0


if __name__ == "__main__":
    sys.exit(main())
