"""One contestant in a process of its own: builds a network, then measures what it is told on its standard input.

A line of the input is a JSON list of a measurement and its arguments; the answer is a JSON object with the seconds by
the clock and of the processor. The first line of the output is the answer for the first training step, which includes
building the model. Run by `run.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from networks import NETWORKS, Network

MODULES = ("of_keras", "of_tfp", "of_torch")


def timed(work: Callable[[], Any]) -> dict[str, Any]:
    """Seconds of the clock and of the processor, and what the work returned."""
    start, of_processor = time.perf_counter(), time.process_time()
    result = work()
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - of_processor, "result": result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", choices=MODULES, required=True)
    parser.add_argument("--contestant", required=True)
    parser.add_argument("--network", choices=NETWORKS, required=True)
    args = parser.parse_args()
    network: Network = NETWORKS[args.network]
    answers = sys.stdout
    # What libraries print does not get among the answers.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            make = importlib.import_module(args.module).CONTESTANTS[args.contestant]

            def first_step() -> Any:
                contestant = make(network)
                contestant.fit(1)
                return contestant

            first = timed(first_step)
        except ImportError as error:
            print(json.dumps({"missing": str(error)}), file=answers, flush=True)
            return
        contestant = first.pop("result")
        first["measures"] = [name for name in ("fit", "zoo", "predict") if hasattr(contestant, name)]
        print(json.dumps(first), file=answers, flush=True)
        for line in sys.stdin:
            measure, *arguments = json.loads(line)
            if measure == "memory":
                answer: dict[str, Any] = {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
            else:
                answer = timed(lambda: getattr(contestant, measure)(*arguments))  # noqa: B023
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
