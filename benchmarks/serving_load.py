"""A server of MLflow under load: requests per second, latency, memory, and how it answers malformed requests.

Run: `python benchmarks/serving_load.py`; needs `pip install 'tfp_bnn[mlflow]'`. It writes a model of the zoo with
`save_mlflow_model`, starts `mlflow models serve` on the loopback, sends valid requests from `--clients` threads for
`--minutes`, and then `--malformed` bodies that are broken in ten ways. The exit code is 1 if a valid answer is not that
of `posterior_predictive`, or a malformed body is answered with something else than 4xx.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

PATIENCE = 180.0
# Usage is reported to MLflow's authors otherwise.
ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}


@dataclass(frozen=True)
class Result:
    """What was measured; times in milliseconds, memory in megabytes, of all processes of the server."""

    requests: int
    requests_per_second: float
    p50: float
    p99: float
    memory_at_start: float
    memory_at_end: float
    memory_after_malformed: float
    largest_difference: float
    statuses_of_malformed: dict[str, int]

    @property
    def is_right(self) -> bool:
        """Whether valid answers are right, and all malformed requests are refused."""
        return self.largest_difference < 1e-5 and all(400 <= int(status) < 500 for status in self.statuses_of_malformed)


class Server:
    """`mlflow models serve` in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(folder), "--host", "127.0.0.1"]
        self._log = (folder.parent / "server.log").open("wb")
        self._process = subprocess.Popen(  # noqa: S603
            [*command, "--port", str(self.port), "--env-manager", "local"],
            env={**os.environ, **ENVIRONMENT, "PATH": path},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Waits until the server answers. RuntimeError if it does not."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if self.connection().get("/ping") == 200:
                    return
            time.sleep(0.2)
        raise RuntimeError(f"The server did not start: {Path(self._log.name).read_text()[-3000:]}")

    def connection(self) -> Connection:
        """A new connection."""
        return Connection(self.port)

    def memory(self) -> float:
        """Megabytes that all its processes have."""
        process = psutil.Process(self._process.pid)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / 1e6

    def stop(self) -> None:
        """Ends all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(timeout=30)
        self._log.close()


class Connection:
    """A connection that is kept for many requests."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, path: str) -> int:
        """Returns the status of an address."""
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        response.read()
        return response.status

    def post(self, body: bytes, content_type: str = "application/json") -> tuple[int, bytes]:
        """Returns the status and the answer to a request for predictions."""
        self._connection.request("POST", "/invocations", body, {"Content-Type": content_type})
        response = self._connection.getresponse()
        return response.status, response.read()


def malformed(x: np.ndarray, number: int) -> Iterator[tuple[bytes, str]]:
    """Bodies that no server should take, with their content types."""
    rng = np.random.default_rng(0)
    valid = json.dumps({"inputs": x.tolist()}).encode()
    kinds = (
        lambda: (valid[: rng.integers(1, len(valid))], "application/json"),
        lambda: (b"", "application/json"),
        lambda: (rng.bytes(50), "application/json"),
        lambda: (json.dumps({f"input{rng.integers(99)}": x.tolist()}).encode(), "application/json"),
        lambda: (json.dumps({"inputs": x.reshape(len(x), -1)[:, 1:].tolist()}).encode(), "application/json"),
        lambda: (json.dumps({"inputs": [["a"] * int(rng.integers(1, 5))]}).encode(), "application/json"),
        lambda: (json.dumps({"inputs": np.full_like(x, np.nan).tolist()}).encode(), "application/json"),
        lambda: (json.dumps({"inputs": [[1.0], [1.0, 2.0, None]]}).encode(), "application/json"),
        lambda: (json.dumps({"inputs": x.tolist(), "params": {"seed": "first"}}).encode(), "application/json"),
        lambda: (valid, f"text/kind-{rng.integers(99)}"),
    )
    for index in range(number):
        yield kinds[index % len(kinds)]()


def load(server: Server, body: bytes, clients: int, seconds: float) -> list[float]:
    """Milliseconds of each request of all clients, until the time is over."""
    end = time.monotonic() + seconds
    times: list[list[float]] = [[] for _ in range(clients)]

    def client(own: list[float]) -> None:
        connection = server.connection()
        while (start := time.monotonic()) < end:
            status, answer = connection.post(body)
            assert status == 200, answer
            own.append(1000 * (time.monotonic() - start))

    threads = [threading.Thread(target=client, args=(own,)) for own in times]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [each for own in times for each in own]


def measure(name: str, samples: int, rows: int, clients: int, seconds: float, number_malformed: int) -> Result:
    os.environ.update(ENVIRONMENT)
    import tfp_bnn
    import zoo
    from tfp_bnn.export import save_mlflow_model

    model: Any = zoo.load_model(name)
    size = (rows, *model.input_shape[1:])
    # Pixels or numbers of any kind: what is predicted does not matter.
    x = np.random.default_rng(0).integers(0, 256 if len(size) == 4 else 5, size).astype(np.float32)
    warnings.simplefilter("ignore", tfp_bnn.UnlikelyInputsWarning)
    expected = model.posterior_predictive(x, num_samples=samples)
    with tempfile.TemporaryDirectory() as folder:
        save_mlflow_model(model, Path(folder) / "model", num_samples=samples)
        server = Server(Path(folder) / "model")
        try:
            server.wait()
            body = json.dumps({"inputs": x.tolist()}).encode()

            def difference() -> float:
                status, answer = server.connection().post(body)
                assert status == 200, answer
                found = json.loads(answer)["predictions"]
                return max(
                    float(np.abs(np.asarray(found[part]) - getattr(expected, part)()).max())
                    for part in ("mean", "entropy", "aleatoric", "epistemic")
                )

            first = difference()
            load(server, body, clients, min(10.0, seconds / 2))
            at_start = server.memory()
            times = load(server, body, clients, seconds)
            at_end = server.memory()
            statuses = collections.Counter(
                str(server.connection().post(bad, kind)[0]) for bad, kind in malformed(x, number_malformed)
            )
            last = difference()
            after = server.memory()
        finally:
            server.stop()
    p50, p99 = np.percentile(times, [50, 99])
    per_second = len(times) / seconds
    return Result(
        len(times), per_second, float(p50), float(p99), at_start, at_end, after, max(first, last), dict(statuses)
    )


def table(result: Result) -> str:
    statuses = ", ".join(f"{number} x {status}" for status, number in sorted(result.statuses_of_malformed.items()))
    rows = [
        ("requests", f"{result.requests:,}"),
        ("requests per second", f"{result.requests_per_second:.1f}"),
        ("p50, p99", f"{result.p50:.1f} ms, {result.p99:.1f} ms"),
        ("memory at the start, at the end", f"{result.memory_at_start:.0f} MB, {result.memory_at_end:.0f} MB"),
        ("memory after the malformed requests", f"{result.memory_after_malformed:.0f} MB"),
        ("answers to malformed requests", statuses),
        ("largest difference to `posterior_predictive`", f"{result.largest_difference:.1e}"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lenet5_flipout.mnist", help="Name of a pretrained model.")
    parser.add_argument("--samples", type=int, default=50, help="S, the number of draws.")
    parser.add_argument("--rows", type=int, default=1, help="Rows of a request.")
    parser.add_argument("--clients", type=int, default=2, help="Threads that send requests, one after another.")
    parser.add_argument("--minutes", type=float, default=5.0, help="Duration of the load, at most 30.")
    parser.add_argument("--malformed", type=int, default=200, help="Number of malformed requests.")
    parser.add_argument("--json", type=Path, help="File for the numbers.")
    given = parser.parse_args()
    seconds = 60.0 * min(given.minutes, 30.0)
    result = measure(given.model, given.samples, given.rows, given.clients, seconds, given.malformed)
    print(table(result))
    if given.json:
        given.json.write_text(json.dumps(asdict(result)), "utf-8")
    return 0 if result.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
