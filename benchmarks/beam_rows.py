"""Batch prediction of a million rows by Apache Beam: rows per second, memory, and a run that is killed and repeated.

Run: `python benchmarks/beam_rows.py`; needs `pip install 'tfp_bnn[beam]'`. It exports a model of the zoo, writes rows
to one Parquet file, and runs `python -m tfp_bnn.export.beam` on Beam's local runner, with one worker in its process and
with two processes, each with one thread for TensorFlow. Before each of the latter, a run is killed by SIGKILL while it
writes; the next one has the same output. All rows must be there once, and have the same predictions to the last bit
however many workers there were; otherwise the exit code is 1. Seconds are those of the whole command, with the start of
Python and TensorFlow. They depend on what else runs: the load of the machine is printed with them.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
KILL_AFTER = 1.0


@dataclass(frozen=True)
class Result:
    """What one run took; memory is the largest sum of the resident sets of all its processes."""

    model: str
    draws: int
    rows: int
    workers: int
    killed_before: int
    seconds: float
    rows_per_second: float
    cpu_seconds: float
    rows_per_cpu_second: float
    peak_megabytes: float
    load_at_start: float
    load_at_end: float


def command_of(folder: Path, output: Path, workers: int) -> list[str]:
    flags = [f"--direct_num_workers={workers}"]
    if workers > 1:
        flags.append("--direct_running_mode=multi_processing")
    command = [sys.executable, "-m", "tfp_bnn.export.beam", "--model", str(folder / "model"), "--keep", "key"]
    return [*command, "--input", str(folder / "rows.parquet"), "--output", str(output), "--", *flags]


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(  # noqa: S603
            command, env={**os.environ, **ONE_THREAD}, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )


def kill_one(command: list[str], output: Path, log: Path) -> None:
    """Starts a run and kills it while it writes."""
    run = start(command, log)
    while run.poll() is None and not list(output.glob("predictions/beam-temp*/*")):
        time.sleep(0.05)
    time.sleep(KILL_AFTER)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert not (output / "_SUCCESS").exists(), "The run ended before it was killed: give it more rows."
    print("killed while it wrote", sorted(path.name for path in output.glob("predictions/*")), flush=True)


def resident(process: psutil.Process) -> float:
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_info().rss / 1e6
        except psutil.Error:
            continue
    return total


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(given: argparse.Namespace, folder: Path, workers: int, kills: int) -> tuple[Result, np.ndarray]:
    output, log = folder / f"output_{workers}", folder / "log"
    command = command_of(folder, output, workers)
    for _ in range(kills):
        kill_one(command, output, log)
    before, began, load = cpu_of_children(), time.monotonic(), os.getloadavg()[0]
    run, peak = start(command, log), 0.0
    process = psutil.Process(run.pid)
    while run.poll() is None:
        try:
            peak = max(peak, resident(process))
        except psutil.Error:
            break
        time.sleep(1.0)
    assert run.wait() == 0, log.read_text()[-3000:]
    seconds, cpu = time.monotonic() - began, cpu_of_children() - before
    result = Result(
        given.model,
        given.draws,
        given.rows,
        workers,
        kills,
        seconds,
        given.rows / seconds,
        cpu,
        given.rows / cpu,
        peak,
        load,
        os.getloadavg()[0],
    )
    found = pq.read_table(output / "predictions", columns=["row", "key", "mean"]).sort_by("row")
    expected = np.arange(given.rows)
    assert np.array_equal(found["row"].to_numpy(), expected), "A row is missing, or there twice."
    assert np.array_equal(found["key"].to_numpy(), expected + 7), "A row has the key of another."
    return result, found["mean"].combine_chunks().flatten().to_numpy()


def prepare(given: argparse.Namespace, folder: Path) -> None:
    import zoo

    model = zoo.load_model(given.model)
    model.export(folder / "model", num_samples=given.draws, verbose=False)
    width = model.input_shape[-1]
    x = np.random.default_rng(0).normal(size=(given.rows, width)).astype(np.float32)
    columns = {"key": np.arange(given.rows) + 7, **{f"x{index}": x[:, index] for index in range(width)}}
    pq.write_table(pa.table(columns), folder / "rows.parquet")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mlp_flipout.moons", help="Name of a pretrained model of columns.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--draws", type=int, default=50, help="S, the number of draws.")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kills", type=int, default=1, help="Runs that are killed before one of several workers.")
    parser.add_argument("--csv", type=Path, help="File for the numbers, written after each run.")
    given = parser.parse_args()
    results, first, same = [], None, True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(given, folder)
        for workers in given.workers:
            result, means = measure(given, folder, workers, given.kills if workers > 1 else 0)
            first = means if first is None else first
            same = same and np.array_equal(means, first)
            results.append(asdict(result))
            print(result, "equal to the last bit" if same else "NOT the predictions of the first run", flush=True)
            if given.csv:
                with given.csv.open("w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, list(results[0]), lineterminator="\n")
                    writer.writeheader()
                    for row in results:
                        writer.writerow({key: f"{v:.1f}" if isinstance(v, float) else v for key, v in row.items()})
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
