"""Cost of a training step by the natural gradient, against SGD with momentum and Adam, on this machine.

Run: `python benchmarks/natural_gradient_cost.py`. The zoo's LeNet-5 (61,706 weights) and ResNet-20 (272,282 weights,
filter response normalization) are trained on random images, with one draw of the weights in a step, by each optimizer,
and as a MAP estimate by SGD. Rounds of all of them alternate, and what is measured is the CPU time of the process:
other load on the machine does not count. The table has medians over the rounds, of the time of a step and of its ratio
to SGD on the same posterior in the same round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import numpy as np

import tfp_bnn
import zoo

TARGET = 1.1
BATCH = 100
NETWORKS = {"LeNet-5": ("lenet5_flipout", (28, 28, 1)), "ResNet-20": ("resnet20_flipout", (32, 32, 3))}
# Small rates: the numbers are noise, and nothing may diverge.
WAYS = {
    "SGD with momentum": lambda: keras.optimizers.SGD(1e-5, momentum=0.9),
    "Adam": lambda: keras.optimizers.Adam(1e-6),
    "natural gradient": lambda: tfp_bnn.NaturalGradient(1e-4, 1e-4),
    "SGD with momentum, MAP estimate": lambda: keras.optimizers.SGD(1e-5, momentum=0.9),
}


def build(network: str, way: str) -> tfp_bnn.VariationalModel:
    keras.utils.set_random_seed(0)
    architecture, shape = NETWORKS[network]
    point = {"kernel_posterior": "delta"} if way.endswith("MAP estimate") else {"estimator": "reparameterization"}
    model = zoo.create_model(architecture, input_shape=shape, num_outputs=10, seed=0, **point)
    model.compile(WAYS[way]())
    return model


def measure(network: str, steps: int, rounds: int) -> list[str]:
    """The rows of a network."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (steps * BATCH, *NETWORKS[network][1])).astype(np.float32)
    y = rng.integers(10, size=len(x))
    models = {way: build(network, way) for way in WAYS}
    for model in models.values():
        model.fit(x[:BATCH], y[:BATCH], batch_size=BATCH, verbose=0)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds):
        # In turn from the front and from the back, because caches and clocks favour a place in the row.
        for way in list(WAYS)[:: 1 if number % 2 else -1]:
            start = time.process_time()
            models[way].fit(x, y, batch_size=BATCH, verbose=0)
            seconds[way].append((time.process_time() - start) / steps)
    base = seconds[next(iter(WAYS))]
    return [
        f"| {network} | {way} | {1e3 * statistics.median(times):.1f} | "
        f"{statistics.median(mine / other for mine, other in zip(times, base, strict=True)):.2f} |"
        for way, times in seconds.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args(arguments)
    print(f"Target: at most {TARGET:g} of a step of SGD with momentum.\n")
    print("| network | optimizer | CPU ms a step | of SGD's |\n|---|---|---|---|")
    for network in options.networks:
        print(*measure(network, options.steps, options.rounds), sep="\n", flush=True)


if __name__ == "__main__":
    main()
