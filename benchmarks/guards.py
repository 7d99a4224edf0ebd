"""Cost of the guards of a training step, and of XLA, on this machine.

Run: `python benchmarks/guards.py`. Each network is trained in four ways on random numbers, with batches of 128 and
Adam: as Keras does with assertions in the graph (the baseline), with the guards that `fit` has, and both once more
under XLA. Rounds of the four alternate within one run, and what is measured is the CPU time of the process, over all
its threads: other load on the machine does not count. The table shows the median over rounds of the time of a step, and
of its ratio to another way in the same round.
"""

from __future__ import annotations

import argparse
import statistics
import time

import keras
import numpy as np

import tfp_bnn
import zoo

TARGET = 0.02
BATCH = 128
NETWORKS = {"lenet5_flipout": {}, "mlp_flipout": {"input_shape": [28, 28, 1], "hidden": [256, 256]}}


class Unguarded(tfp_bnn.VariationalSequential):
    """Trains with the step of Keras: checks are assertions, gradients are not checked, nothing is read back."""

    make_train_function = keras.Model.make_train_function

    def train_step(self, data):
        """One step without a guard."""
        with self._draw(training=True):
            return keras.Model.train_step(self, data)


def build(architecture: str, guarded: bool, jit: bool) -> tfp_bnn.VariationalSequential:
    keras.utils.set_random_seed(0)
    layers = zoo.create_model(architecture, num_outputs=10, **NETWORKS[architecture]).network.layers
    model = (tfp_bnn.VariationalSequential if guarded else Unguarded)(
        [keras.Input((28, 28, 1)), *layers[1:]], likelihood="categorical", seed=0
    )
    model.compile("adam", jit_compile=jit)
    return model


def measure(architecture: str, steps: int, rounds: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(steps * BATCH, 28, 28, 1)).astype(np.float32)
    y = rng.integers(10, size=len(x))
    ways = {(guarded, jit): build(architecture, guarded, jit) for jit in (False, True) for guarded in (False, True)}
    for model in ways.values():
        model.fit(x[:BATCH], y[:BATCH], batch_size=BATCH, verbose=0)
    seconds = {way: [] for way in ways}
    for number in range(rounds):
        # In turn from the front and from the back, because caches and clocks favour a place in the row.
        for way in list(ways)[:: 1 if number % 2 else -1]:
            start = time.process_time()
            ways[way].fit(x, y, batch_size=BATCH, verbose=0)
            seconds[way].append((time.process_time() - start) / steps)
    print(f"{architecture}, {steps} steps x {rounds} rounds")
    print("XLA  guards  CPU ms a step  against the same without guards   against no XLA, no guards")
    for (guarded, jit), times in seconds.items():
        ratios = [
            statistics.median(mine / other for mine, other in zip(times, seconds[base], strict=True)) - 1
            for base in ((False, jit), (False, False))
        ]
        print(
            f"{'yes' if jit else 'no':3}  {'yes' if guarded else 'no':6} {1e3 * statistics.median(times):14.3f}"
            f"   {ratios[0]:+31.2%}   {ratios[1]:+25.2%}"
        )
    print(f"target of the guards: at most {TARGET:+.0%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    for network in arguments.networks:
        measure(network, arguments.steps, arguments.rounds)
