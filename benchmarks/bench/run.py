"""Speed and memory beside every peer: `make bench`, or `python benchmarks/bench/run.py --quick`.

Each contestant builds the same network in a process of its own, then all of them take turns: in each round each one
trains for some steps with `fit` (ours also in the loop of the zoo), predicts with many draws of the weights for 1,000
rows and for one row. While one works the others wait. A cell is the median over the rounds; a ratio is the median of the
ratios to the reference within the same round, which other load on the machine disturbs least. The reference is flipout of
`tfp.layers`, and on a residual network the deterministic twin. `first step` includes building the model. `memory` is the
peak of the whole process.

Peers that are not installed are named and left out. Those of PyTorch need an interpreter of their own:
`--torch-python PATH`, with torch, torchbnn, bayesian-torch and blitz-bayesian-pytorch. `--growth` measures how the costs
of our flipout grow instead.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import statistics
import subprocess
import sys
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
ROUNDS, QUICK_ROUNDS, QUICK_STEPS = 6, 2, 3
DRAWS_OF_ONE_ROW = 50


def takes_part(contestant: str, network: Network) -> bool:
    """Whether a contestant has what a network needs."""
    if network.residual:
        return contestant.startswith(("ours", "Keras"))
    return bool(network.convolutions) or contestant != "ours, grouped flipout"


@dataclasses.dataclass
class Worker:
    """The process of a contestant."""

    contestant: str
    process: subprocess.Popen[str]
    first: dict[str, Any]

    @classmethod
    def start(cls, contestant: str, name: str, python: str) -> Worker:
        command = [python, str(HERE / "worker.py"), "--module", CONTESTANTS[contestant]]
        process = subprocess.Popen(
            [*command, "--contestant", contestant, "--network", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not os.environ.get("BENCH_SHOW_ERRORS") else None,
            text=True,
        )
        return cls(contestant, process, cls._answer(process, contestant))

    def ask(self, measure: str, *arguments: int) -> dict[str, Any]:
        """The worker's answer."""
        assert self.process.stdin is not None
        print(json.dumps([measure, *arguments]), file=self.process.stdin, flush=True)
        return self._answer(self.process, self.contestant)

    def stop(self) -> None:
        """Ends the process, which reads to the end of its input."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)

    @staticmethod
    def _answer(process: subprocess.Popen[str], contestant: str) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            errors = process.stderr.read()[-3000:] if process.stderr is not None else ""
            raise RuntimeError(f"The contestant {contestant!r} ended: {errors}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def compare(name: str, contestants: Sequence[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the results of one network."""
    network = NETWORKS[name]
    steps, rounds = (QUICK_STEPS, QUICK_ROUNDS) if args.quick else (network.steps, ROUNDS)
    samples = 2 if args.quick else network.samples
    measures = {
        "fit": ("fit", steps),
        "zoo": ("zoo", steps),
        "predict": ("predict", network.rows, samples),
        "one row": ("predict", 1, DRAWS_OF_ONE_ROW),
    }
    workers = []
    for contestant in contestants:
        if not takes_part(contestant, network):
            continue
        python = args.torch_python if CONTESTANTS[contestant] == "of_torch" else sys.executable
        if python is None:
            print(f"{name}: {contestant} is left out: give --torch-python.", flush=True)
            continue
        worker = Worker.start(contestant, name, python)
        if "missing" in worker.first:
            print(f"{name}: {contestant} is left out, not installed: {worker.first['missing']}.", flush=True)
            worker.stop()
            continue
        workers.append(worker)
    times: dict[tuple[str, str], list[dict[str, float]]] = {}
    # The first round traces and warms up.
    for number in range(rounds + 1):
        for measure, (function, *arguments) in measures.items():
            for worker in workers:
                if function in worker.first["measures"]:
                    answer = worker.ask(function, *arguments)
                    if number:
                        times.setdefault((worker.contestant, measure), []).append(answer)
        print(f"{name}: round {number} of {rounds}", flush=True)
    reference = REFERENCE_OF_RESIDUAL if network.residual else REFERENCE
    rows = []
    for worker in workers:
        of_worker = {
            measure: found for (contestant, measure), found in times.items() if contestant == worker.contestant
        }
        of_worker["first step"] = [worker.first]
        for measure, found in of_worker.items():
            per = steps if measure in ("fit", "zoo") else 1
            theirs = times.get((reference, "fit" if measure == "zoo" else measure), [])
            rows.append(
                {"network": name, "contestant": worker.contestant, "measure": measure, **summary(found, theirs, per)}
            )
        memory = worker.ask("memory")["bytes"] / 2**20
        rows.append({"network": name, "contestant": worker.contestant, "measure": "memory, MiB", "median": memory})
        worker.stop()
    return rows


def summary(times: Sequence[dict[str, float]], reference: Sequence[dict[str, float]], per: int) -> dict[str, Any]:
    """Median, least and most seconds; and ratios to the reference, by the clock and of the processor."""
    seconds = [each["seconds"] / per for each in times]
    found = {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}
    found["cpu"] = statistics.median(each["cpu"] / per for each in times)
    if reference:
        ratios = {
            clock: [each[clock] / other[clock] for each, other in zip(times, reference, strict=True)]
            for clock in ("seconds", "cpu")
        }
        found |= {"ratio": statistics.median(ratios["seconds"]), "ratio of cpu": statistics.median(ratios["cpu"])}
        found |= {"least ratio": min(ratios["seconds"]), "most ratio": max(ratios["seconds"])}
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument(
        "--torch-python", help="interpreter that has PyTorch and its libraries; without it, they are left out"
    )
    parser.add_argument("--quick", action="store_true", help="few steps and rounds, and two draws: whether it runs")
    parser.add_argument("--growth", action="store_true", help="growth in weights, depth, draws and rows instead")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    if args.growth:
        import growth

        growth.main(args.results.with_stem("bench_growth") if args.results == RESULTS else args.results, args.quick)
        return
    rows = [row for name in args.networks for row in compare(name, args.contestants, args)]
    args.results.parent.mkdir(exist_ok=True)
    with args.results.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, report.COLUMNS)
        writer.writeheader()
        writer.writerows({key: f"{v:.5g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)
    found = report.read(args.results)
    print(report.table(found))
    report.figure(found, args.results.with_suffix(".png"))


if __name__ == "__main__":
    main()
