"""Plants each fault in a copy of the repository and checks that its tests fail: `make planted-faults`.

The tests must pass on the copy as it is, and fail once the fault is in. Processes are forked from one that has imported
the libraries already, so a fault takes the seconds of its tests. The exit code is 1 if any fault is missed.

Example: `python tests/planted_faults/run.py --jobs 2 --only flipout`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from catalog import ROOT, Fault, load_faults

# Imported once, before the forks. None starts threads that a fork would lose.
LIBRARIES = (
    *("keras", "matplotlib.figure", "pytest", "scipy.stats", "sklearn.model_selection", "tensorflow"),
    *("tensorflow_datasets", "tensorflow_probability", "tf_keras", "typer", "yaml"),
)
NOT_COPIED = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "saved_models")
# Time limits for the tests of one fault, and for all tests on the unchanged code.
SECONDS, SECONDS_OF_ALL = 240, 1200
PASSED, FAILED, TIMED_OUT = 0, 1, 124


@dataclass(frozen=True)
class Result:
    """Outcome of one fault. `output` is the output of pytest."""

    title: str
    verdict: str
    seconds: float
    output: str


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the faults, prints a line for each, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of titles or files: run these faults alone")
    arguments = parser.parse_args(argv)
    wanted = [text.lower() for text in arguments.only]
    faults = [fault for fault in load_faults() if any(text in f"{fault.title} {fault.file}".lower() for text in wanted)]
    if not faults:
        parser.error(f"no fault has any of {arguments.only} in its title or file")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    start = time.monotonic()
    for name in LIBRARIES:
        importlib.import_module(name)
    good = True
    with tempfile.TemporaryDirectory(prefix="planted-faults-") as work:
        with multiprocessing.get_context("fork").Pool(arguments.jobs, _make_copy, (Path(work),)) as pool:
            for result in pool.imap_unordered(_run, [*_batches(faults, arguments.jobs), *faults]):
                print(f"{result.verdict:>9} {result.seconds:6.1f} s  {result.title}", flush=True)
                if result.verdict not in ("passed", "caught"):
                    good = False
                    print(result.output[-4000:], flush=True)
    verdict = "all are caught" if good else "NOT all caught"
    print(f"{len(faults)} faults, {time.monotonic() - start:.0f} s: {verdict}.")
    return 0 if good else 1


def _batches(faults: Sequence[Fault], number: int) -> list[list[str]]:
    tests = sorted({test for fault in faults for test in fault.tests})
    return [part for part in (tests[index::number] for index in range(number)) if part]


_copy = Path()


def _make_copy(work: Path) -> None:
    """Gives this process a copy of the repository; the pretrained models are linked."""
    global _copy
    _copy = Path(tempfile.mkdtemp(dir=work))
    shutil.copytree(ROOT, _copy, ignore=NOT_COPIED, dirs_exist_ok=True)
    (_copy / "saved_models").symlink_to(ROOT / "saved_models")


def _run(task: Fault | Sequence[str]) -> Result:
    """Plants a fault and runs its tests, or runs the given tests on the code as it is."""
    if isinstance(task, Fault):
        return _run_planted(task)
    code, seconds, output = _pytest(task, SECONDS_OF_ALL)
    return Result(f"{len(task)} tests of the code as it is", "passed" if code == PASSED else "FAILED", seconds, output)


def _run_planted(fault: Fault) -> Result:
    path = _copy / fault.file
    before = fault.apply(_copy)
    _forget_bytecode(path)
    try:
        code, seconds, output = _pytest(["-x", *fault.tests])
    finally:
        path.write_text(before, "utf-8")
        _forget_bytecode(path)
    verdicts = {PASSED: "MISSED", FAILED: "caught", TIMED_OUT: "TIMED OUT"}
    return Result(fault.title, verdicts.get(code, "NOT RUN"), seconds, output)


def _forget_bytecode(path: Path) -> None:
    """Two versions of one second and one size would share their bytecode."""
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def _pytest(tests: Sequence[str], seconds: float = SECONDS) -> tuple[int, float, str]:
    """The exit code, seconds and output of pytest in a process of its own, in the copy."""
    start, log = time.monotonic(), _copy.with_suffix(".log")
    child = os.fork()
    if child == 0:
        _in_child(log, lambda: _call_pytest(tests))
    code = _wait_for(child, seconds)
    return code, time.monotonic() - start, log.read_text("utf-8", "replace")


def _in_child(log: Path, act: Callable[[], int]) -> None:
    """Runs `act` with its output in `log`, and ends this process with what it returns."""
    code = 70
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor in (1, 2):
            os.dup2(file, descriptor)
        code = act()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _call_pytest(tests: Sequence[str]) -> int:
    import pytest

    os.chdir(_copy)
    sys.path.insert(0, str(_copy))
    os.environ["PYTHONPATH"] = str(_copy)
    found = importlib.util.find_spec("tfp_bnn")
    if found is None or found.origin is None or not Path(found.origin).is_relative_to(_copy):
        raise RuntimeError(f"tfp_bnn would be imported from {found and found.origin}, not from the copy.")
    return int(pytest.main(["-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", *tests]))


def _wait_for(child: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return TIMED_OUT


if __name__ == "__main__":
    sys.exit(main())
