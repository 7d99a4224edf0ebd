"""Time of commands that need no TensorFlow, compared with an interpreter that does nothing and one that imports it.

Run: `python benchmarks/start_up.py`. They are measured in turn within one run, and the medians are reported: wall-clock
seconds, and CPU seconds, which a busy machine changes less.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

_VERBS = (
    "--help",
    "list",
    "show mlp_flipout.iris",
    "show mlp_flipout.irs",
    "predict mlp_flipout.irs x.csv",
    "evaluate mlp_flipout.iris --dataset irs",
    "train mlp_flipout.irs",
)
COMMANDS = {
    "bare interpreter": ["-c", "pass"],
    **{f"tfp-bnn {words}": ["-m", "zoo", *words.split()] for words in _VERBS},
    "import tensorflow": ["-c", "import tensorflow"],
}
ROUNDS = 7


def _seconds(arguments: list[str]) -> tuple[float, float]:
    """Wall-clock and CPU seconds."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    # A mistyped name ends with 2.
    subprocess.run([sys.executable, *arguments], check=False, capture_output=True)  # noqa: S603
    taken, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    taken = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            taken[name].append(_seconds(arguments))
    for name, values in taken.items():
        wall, cpu = (statistics.median(of_kind) for of_kind in zip(*values, strict=True))
        print(f"{name:<48} {wall:7.3f} s, {cpu:7.3f} CPU s")
