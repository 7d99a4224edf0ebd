"""Time of `tfp-bnn list`, compared with an interpreter that does nothing and one that imports TensorFlow.

Run: `python benchmarks/start_up.py`. The three are measured in turn within one run, and the median is reported.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "bare interpreter": ["-c", "pass"],
    "tfp-bnn list": ["-c", "from zoo.cli import main; main()", "list"],
    "import tensorflow": ["-c", "import tensorflow"],
}
ROUNDS = 7


def _seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)  # noqa: S603
    return time.perf_counter() - start


if __name__ == "__main__":
    taken = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            taken[name].append(_seconds(arguments))
    bare = statistics.median(taken["bare interpreter"])
    for name, values in taken.items():
        median = statistics.median(values)
        print(f"{name:<20} {median:7.3f} s  {median / bare:6.1f} x bare interpreter")
