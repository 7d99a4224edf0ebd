"""Speed and memory beside every peer: `make bench`, or `python benchmarks/bench/run.py --quick`.

Each contestant builds the same network in a process of its own, then all of them take turns: in each round each one
trains for some steps with `fit`, predicts with many draws of the weights for 1,000 rows and then for one row, and ours
train a second model in the loop of the zoo, for ZOO_EPOCHS times as many steps, because a run of the zoo is one call of
`fit` for all epochs. While one works the others wait. A cell is the median over the rounds. A
ratio is the median of the ratios to the reference within the same round, where other load on the machine disturbs it
least. A contestant whose reading takes longer than LONG seconds is read in two rounds only. The reference is flipout of
`tfp.layers`, and on a residual network the deterministic twin.

`predict` follows training, so all draws are new. `predict again` and `one row` follow `predict` with the same seed: the
peers draw again, and ours may keep draws. `first step` includes building the model, not the imports. `memory` is the
peak of the process until the zoo's loop begins, `imports` what it had reached before the network was built.

All use the threads that they choose; on a shared machine set TF_NUM_INTRAOP_THREADS=1 and OMP_NUM_THREADS=1. Peers that
are not installed are named and left out: keras-proba, and those of PyTorch, which need an interpreter of their own,
`--torch-python PATH`, with torch, torchbnn, bayesian-torch and blitz-bayesian-pytorch. `--growth` measures how the
costs of our flipout grow instead.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import report
from networks import NETWORKS, Network

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "bench.csv"
REFERENCE, REFERENCE_OF_RESIDUAL = "tfp.layers, flipout", "Keras, deterministic"
MODULES = {
    "of_tfp": [REFERENCE],
    "of_keras": [
        *("ours, flipout", "ours, grouped flipout", "ours, reparameterization", "ours, local reparameterization"),
        *("keras-proba, flipout", REFERENCE_OF_RESIDUAL, "Keras, MC dropout"),
    ],
    "of_torch": ["torchbnn", "bayesian-torch, flipout", "bayesian-torch, reparameterization", "blitz"],
}
CONTESTANTS = {name: module for module, names in MODULES.items() for name in names}
QUICK_ROUNDS, QUICK_STEPS, QUICK_SAMPLES = 2, 3, 2
QUICK_NETWORKS = ["mlp", "lenet5"]
DRAWS_OF_ONE_ROW = 50
ZOO_EPOCHS = 4
LONG = 3.0
"""Seconds. A longer reading is taken in two rounds."""


def takes_part(contestant: str, network: Network) -> bool:
    """Whether a contestant has what a network needs."""
    if network.residual:
        return contestant.startswith(("ours", "Keras"))
    return bool(network.convolutions) or contestant != "ours, grouped flipout"


class Worker:
    """The process of a contestant. Where it fails, its error is printed, and from then on it has no answers."""

    def __init__(self, contestant: str, network: str, python: str) -> None:
        self.contestant, self.failed = contestant, False
        self._errors = tempfile.TemporaryFile("w+")
        command = [python, str(HERE / "worker.py"), "--module", CONTESTANTS[contestant]]
        self._process = subprocess.Popen(  # noqa: S603
            [*command, "--contestant", contestant, "--network", network],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, measure: str, *arguments: int) -> dict[str, Any]:
        """The worker's answer."""
        if self.failed:
            return {}
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps([measure, *arguments]), file=self._process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next answer, empty for a measure that the contestant does not have."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.failed = True
            self._errors.seek(0)
            print(f"{self.contestant} failed: {self._errors.read()[-3000:]}", file=sys.stderr, flush=True)
            return {}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """Ends the process, which reads to the end of its input."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=60)
        self._errors.close()


def started(name: str, contestants: Sequence[str], torch_python: str | None) -> dict[Worker, dict[str, dict[str, Any]]]:
    """The workers of all contestants that are installed, with their answers for the imports and for the first step."""
    workers = []
    for contestant in contestants:
        if not takes_part(contestant, NETWORKS[name]):
            continue
        python = torch_python if CONTESTANTS[contestant] == "of_torch" else sys.executable
        if python is None:
            print(f"{name}: {contestant} is left out: give --torch-python.", flush=True)
            continue
        workers.append(Worker(contestant, name, python))
    # They import at the same time, and build in turns.
    imported = {worker: worker.answer() for worker in workers}
    answers = {}
    for worker, imports in imported.items():
        first = imports if "missing" in imports else worker.ask("first step")
        if "missing" in first:
            print(f"{name}: {worker.contestant} is left out: {first['missing']} is not installed.", flush=True)
            worker.stop()
        else:
            answers[worker] = {"imports": imports, "first step": first} if first else {}
    return answers


def compare(name: str, contestants: Sequence[str], args: argparse.Namespace) -> tuple[list[dict[str, Any]], bool]:
    """Rows of the results of one network, and whether a contestant failed."""
    network = NETWORKS[name]
    steps, rounds = (QUICK_STEPS, QUICK_ROUNDS) if args.quick else (network.steps, network.rounds)
    samples = QUICK_SAMPLES if args.quick else network.samples
    measures = {
        "fit": ("fit", (steps,), steps),
        "predict": ("predict", (network.rows, samples), 1),
        "predict again": ("predict", (network.rows, samples), 1),
        "one row": ("predict", (1, DRAWS_OF_ONE_ROW), 1),
        "zoo": ("zoo", (steps, ZOO_EPOCHS), ZOO_EPOCHS * steps),
    }
    readings: report.Readings = {}
    workers = []
    for worker, starting in started(name, contestants, args.torch_python).items():
        workers.append(worker)
        readings |= {(worker.contestant, measure): {1: reading} for measure, reading in starting.items()}
    # The first round traces and warms up, and what a second model costs the first one comes to light in it.
    for number in range(rounds + 1):
        for measure in measures if number else (*measures, "fit"):
            function, arguments, per = measures[measure]
            # What comes last in one round comes first in the next.
            for worker in workers[:: -1 if number % 2 else 1]:
                is_ours = worker.contestant.startswith("ours")
                if measure == "predict again" and not is_ours:
                    continue
                of_worker = readings.setdefault((worker.contestant, measure), {})
                if number > 2 and of_worker.get(1, {}).get("seconds", 0) * per > LONG:
                    continue
                # Peers repeat a pass for each draw: one of them warms up.
                one_draw = not number and not is_ours and function == "predict"
                if answer := worker.ask(function, *([arguments[0], 1] if one_draw else arguments)):
                    by_step = {clock: answer[clock] / per for clock in ("seconds", "cpu")}
                    of_worker[number] = {**answer, **by_step}
        print(f"{name}: round {number} of {rounds}", flush=True)
    for worker in workers:
        worker.stop()
    found = report.rows(readings, REFERENCE_OF_RESIDUAL if network.residual else REFERENCE)
    return [{"network": name, **row} for row in found], any(worker.failed for worker in workers)


def write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, report.COLUMNS)
        writer.writeheader()
        writer.writerows({key: f"{v:.5g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, help="default: all")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument(
        "--torch-python", help="interpreter that has PyTorch and its libraries; without it, they are left out"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"whether it runs: few steps, rounds and draws; by default only {' and '.join(QUICK_NETWORKS)}",
    )
    parser.add_argument("--growth", action="store_true", help="growth in weights, depth, draws and rows instead")
    parser.add_argument(
        "--results",
        type=Path,
        help="CSV, by default bench.csv in benchmarks/results, with --quick in a temporary folder",
    )
    args = parser.parse_args(arguments)
    results = args.results or (Path(tempfile.mkdtemp()) / RESULTS.name if args.quick else RESULTS)
    if args.growth:
        import growth

        growth.main(results.with_stem(f"{results.stem}_growth"), args.quick)
        return
    networks = args.networks or (QUICK_NETWORKS if args.quick else NETWORKS)
    results.parent.mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []
    some_failed = False
    for name in networks:
        of_network, failed = compare(name, args.contestants, args)
        rows += of_network
        some_failed |= failed
        write(rows, results)
    found = report.read(results)
    print(report.table(found))
    report.figure(found, results.with_suffix(".png"))
    print(f"\n{results}")
    if some_failed:
        sys.exit("Some contestants failed: their errors are above.")


if __name__ == "__main__":
    main()
