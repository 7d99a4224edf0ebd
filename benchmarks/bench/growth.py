"""How the costs of our flipout grow: `python benchmarks/bench/run.py --growth`.

Multilayer perceptrons, each measure against the one size that changes. The exponent is the slope of the logarithm of
the time over the last two sizes: 1 is linear, and a fixed cost shows as less.
"""

from __future__ import annotations

import csv
import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from clocks import Clocks, clocks, fit_one_epoch
from networks import BATCH, NUM_CLASSES

import tfp_bnn

ROUNDS, STEPS = 3, 20
WIDTH, DEPTH, ROWS, DRAWS = 64, 2, 1000, 50
WIDTHS, DEPTHS = (128, 512, 2048), (5, 10, 20, 40)
SEEDS = itertools.count()
ROW_COUNTS, DRAW_COUNTS = (1000, 4000, 16_000), (25, 100, 400)


def build(width: int, depth: int, bayesian: bool = True) -> Any:
    keras.utils.set_random_seed(0)
    dense = tfp_bnn.layers.DenseFlipout if bayesian else keras.layers.Dense
    inputs = x = keras.Input((width,))
    for _ in range(depth):
        x = dense(width, activation="relu")(x)
    outputs = dense(NUM_CLASSES)(x)
    if bayesian:
        model = tfp_bnn.VariationalModel(inputs, outputs, seed=0)
        model.compile(keras.optimizers.Adam(1e-4))
    else:
        model = keras.Model(inputs, outputs)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-4), loss)
    return model


def data(width: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((rows, width), dtype=np.float32), rng.integers(NUM_CLASSES, size=rows)


def seconds(rounds: int, work: Callable[..., Clocks | None], *arguments: Any) -> float:
    """Median over rounds, of each until the work is over or until the clocks that it returns."""
    found = []
    for _ in range(rounds):
        start = clocks()
        end = work(*arguments) or clocks()
        found.append(end[0] - start[0])
    return statistics.median(found)


def fit(model: Any, x: np.ndarray, y: np.ndarray) -> Clocks:
    return fit_one_epoch(model, keras.callbacks.LambdaCallback, x, y, BATCH)


def predict(model: Any, x: np.ndarray, draws: int) -> None:
    """A prediction with new draws, whatever is kept of the last ones."""
    model.posterior_predictive(x, num_samples=draws, seed=next(SEEDS)).mean()


def measured(quick: bool) -> list[dict[str, Any]]:
    """Rows of the results."""
    rounds, steps = (1, 2) if quick else (ROUNDS, STEPS)
    sizes = slice(2 if quick else None)
    rows: list[dict[str, Any]] = []

    def note(measure: str, size: int, found: float) -> None:
        rows.append({"measure": measure, "size": size, "seconds": found})
        print(f"{measure}, {size:,}: {found:.4g} s", flush=True)

    for width in WIDTHS[sizes]:
        model = build(width, DEPTH)
        fit(model, *data(width, BATCH))
        kernels = [layer.variational_weights["kernel"] for layer in model.variational_layers]
        of_step = seconds(rounds, fit, model, *data(width, steps * BATCH)) / steps
        note("step, by weights", sum(math.prod(kernel.shape) for kernel in kernels), of_step)
    for depth in DEPTHS[sizes]:
        for title, bayesian in (("flipout", True), ("deterministic", False)):
            start = clocks()
            model = build(WIDTH, depth, bayesian)
            end = fit(model, *data(WIDTH, BATCH))
            note(f"first step, {title}, by layers", depth, end[0] - start[0])
            of_step = seconds(rounds, fit, model, *data(WIDTH, steps * BATCH)) / steps
            note(f"step, {title}, by layers", depth, of_step)
    model = build(WIDTH, DEPTH)
    for num_rows in ROW_COUNTS[sizes]:
        x, _ = data(WIDTH, num_rows)
        predict(model, x, DRAWS)
        note("prediction, by rows", num_rows, seconds(rounds, predict, model, x, DRAWS))
    x, _ = data(WIDTH, ROWS)
    for draws in DRAW_COUNTS[sizes]:
        predict(model, x, draws)
        note("prediction, by draws", draws, seconds(rounds, predict, model, x, draws))
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Seconds by size, and the exponent over the last two sizes."""
    lines = ["| measure | seconds by size | exponent |", "|---|---|---|"]
    for measure in dict.fromkeys(row["measure"] for row in rows):
        found = [(int(row["size"]), float(row["seconds"])) for row in rows if row["measure"] == measure]
        (size, before), (larger, after) = found[-2:]
        exponent = math.log(after / before) / math.log(larger / size)
        cells = ", ".join(f"{size:,}: {value:.3g}" for size, value in found)
        lines.append(f"| {measure} | {cells} | {exponent:.2f} |")
    return "\n".join(lines)


def main(results: Path, quick: bool) -> None:
    rows = measured(quick)
    results.parent.mkdir(exist_ok=True)
    with results.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "seconds": f"{row['seconds']:.5g}"} for row in rows)
    print(table(rows))
