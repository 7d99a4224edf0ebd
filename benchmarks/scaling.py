"""How much faster two processes train together than one: a core each, the same batch, over the loopback.

Run: `python benchmarks/scaling.py` on an idle machine with two cores. One process on the first core, and then two on a
core each, take the same steps with `tfp_bnn.models.elbo_step`: a LeNet-5 of flipout layers on digits, whose batch the
two share. Both have one thread per operation. In turns, several times; the medians are printed. The speed-up is the
ratio of the seconds per step, and the efficiency half of that. What two processes do more than one is in the CPU
seconds, which other load on the machine changes less: their ratio is the efficiency with nobody else there and no wait.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import time
from statistics import median

RECIPE = {
    "name": "lenet5_flipout.scaling",
    "architecture": "lenet5_flipout",
    "dataset": "digits",
    "model": {"pixel_max": 16.0, "resize": [28, 28], "initial_scale": 0.02},
    "epochs": 1,
}
WARM_UP = 5
PATIENCE = 300.0


def work(batch_size: int, steps: int) -> None:
    """Takes the steps as TF_CONFIG says, and prints the seconds per step, those of the CPU, and the parameters."""
    import zoo
    from tfp_bnn.models import elbo_step
    from zoo.training import Workers, build

    strategy = Workers.of_environment().strategy(PATIENCE)
    data = zoo.load_dataset("digits")
    with strategy.scope():
        model = build(zoo.load_recipe({**RECIPE, "batch_size": batch_size}), data)
    step = elbo_step(model, len(data.train))
    batch = data.train.x[:batch_size], data.train.y[:batch_size]
    for _ in range(WARM_UP):
        step(*batch)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step(*batch)
    seconds = [(time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps]
    print(json.dumps([*seconds, sum(math.prod(weight.shape) for weight in model.trainable_weights)]))


def measured(number: int, batch_size: int, steps: int) -> tuple[float, float, int]:
    """Returns the seconds per step, those of the CPU in all processes together, and the number of parameters."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    processes = []
    for index in range(number):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        # Alone, a process has no cluster.
        environment |= {"TF_CONFIG": json.dumps(task) if number > 1 else ""}
        options = ["--work", str(index), "--batch-size", str(batch_size), "--steps", str(steps)]
        processes.append(
            subprocess.Popen(  # noqa: S603
                [sys.executable, __file__, *options],
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    found = []
    for process in processes:
        output, errors = process.communicate()
        if process.returncode:
            sys.exit(errors[-2000:])
        found.append(json.loads(output))
    return max(wall for wall, _, _ in found), sum(cpu for _, cpu, _ in found), found[0][2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[arguments.work]})
        work(arguments.batch_size, arguments.steps)
        return
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}, on {os.cpu_count()} cores")
    rows: dict[int, list[tuple[float, float, int]]] = {1: [], 2: []}
    for _ in range(arguments.repeats):
        for number, found in rows.items():
            found.append(measured(number, arguments.batch_size, arguments.steps))
    print(f"{rows[1][0][2]} parameters, batches of {arguments.batch_size} rows, {arguments.steps} steps")
    print(f"{'workers':>7} {'ms per step':>11} {'CPU ms of all':>13}   each repeat, in ms")
    wall, cpu = ({number: 1000 * median(run[k] for run in found) for number, found in rows.items()} for k in (0, 1))
    for number, found in rows.items():
        each = ", ".join(f"{1000 * run[0]:.0f}" for run in found)
        print(f"{number:>7} {wall[number]:>11.1f} {cpu[number]:>13.1f}   {each}")
    print(f"speed-up {wall[1] / wall[2]:.2f}, efficiency {wall[1] / wall[2] / 2:.2f}")
    print(f"efficiency by CPU seconds {cpu[1] / cpu[2]:.2f}")
    print(f"load of the machine after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
