"""One contestant in a process of its own: builds a network, then measures what it is told on its standard input.

A line of the input is a JSON list of a measurement and its arguments; the answer is a JSON object with the seconds by
the clock and of the processor, and the peak of the memory until then. The first line of the output is the answer for
the imports, or names the library that is not installed. Run by `run.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from clocks import clocks
from networks import NETWORKS, Network

MODULES = ("of_keras", "of_tfp", "of_torch")
OF_PEERS = ("torch", "torchbnn", "bayesian_torch", "blitz", "keras_proba", "tf_keras")


def timed(work: Callable[[], Any]) -> dict[str, Any]:
    """Seconds of the clock and of the processor, and the peak memory of the process in MiB.

    Args:
        work: Work, until it is over or until the clocks that it returns.
    """
    start = clocks()
    seconds, cpu = (end - begin for begin, end in zip(start, work() or clocks(), strict=True))
    return {"seconds": seconds, "cpu": cpu, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


class Contestant:
    """A contestant of a network."""

    def __init__(self, module: str, name: str, network: Network) -> None:
        self._make = importlib.import_module(module).CONTESTANTS[name]
        self._network = network

    def first_step(self) -> Any:
        """Builds the network and trains it for one step."""
        self._trained = self._make(self._network)
        return self._trained.fit(1)

    def answer(self, measure: str, *arguments: int) -> dict[str, Any]:
        """Measures. Without an answer to a measure that the contestant does not have."""
        if measure == "first step":
            return timed(self.first_step)
        work = getattr(self._trained, measure, None)
        return timed(lambda: work(*arguments)) if work else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", choices=MODULES, required=True)
    parser.add_argument("--contestant", required=True)
    parser.add_argument("--network", choices=NETWORKS, required=True)
    args = parser.parse_args()
    answers = sys.stdout

    def tell(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    # What libraries print does not get among the answers.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            contestants: list[Contestant] = []
            tell(timed(lambda: contestants.append(Contestant(args.module, args.contestant, NETWORKS[args.network]))))
            for line in sys.stdin:
                tell(contestants[0].answer(*json.loads(line)))
        except ModuleNotFoundError as error:
            if error.name not in OF_PEERS:
                raise
            tell({"missing": error.name})


if __name__ == "__main__":
    main()
