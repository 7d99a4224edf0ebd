"""How the costs of our flipout grow: `python benchmarks/bench/run.py --growth`.

Multilayer perceptrons, each measure against the one size that changes. The exponent is the slope of the logarithm of
the time over the last two sizes: 1 is linear, and a fixed cost shows as less.
"""

from __future__ import annotations

import csv
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from networks import BATCH, NUM_CLASSES

import tfp_bnn

ROUNDS, STEPS = 5, 20
WIDTH, DEPTH, ROWS, DRAWS = 64, 2, 1000, 50
WIDTHS, DEPTHS = (128, 512, 2048), (5, 10, 20, 40)
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


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """Median over rounds."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def data(width: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((rows, width), dtype=np.float32), rng.integers(NUM_CLASSES, size=rows)


def measured(quick: bool) -> list[dict[str, Any]]:
    """Rows of the results."""
    rounds, steps = (1, 2) if quick else (ROUNDS, STEPS)
    rows: list[dict[str, Any]] = []

    def note(measure: str, size: int, found: float) -> None:
        rows.append({"measure": measure, "size": size, "seconds": found})
        print(f"{measure}, {size:,}: {found:.4g} s", flush=True)

    def fit(model: Any, width: int, num_steps: int) -> None:
        model.fit(*data(width, num_steps * BATCH), batch_size=BATCH, verbose=0)

    for width in WIDTHS[: 2 if quick else None]:
        model = build(width, DEPTH)
        fit(model, width, 1)
        weights = sum(
            weight.size for layer in model.variational_layers for weight in layer.variational_weights.values()
        )
        note("step, by weights", weights, seconds(lambda: fit(model, width, steps), rounds) / steps)  # noqa: B023
    for depth in DEPTHS[: 2 if quick else None]:
        for title, bayesian in (("flipout", True), ("deterministic", False)):
            start = time.perf_counter()
            model = build(WIDTH, depth, bayesian)
            fit(model, WIDTH, 1)
            note(f"first step of a {title} network, by layers", depth, time.perf_counter() - start)
            note(
                f"step of a {title} network, by layers",
                depth,
                seconds(lambda: fit(model, WIDTH, steps), rounds) / steps,
            )  # noqa: B023
    model = build(WIDTH, DEPTH)

    def predict(num_rows: int, draws: int) -> Callable[[], Any]:
        x, _ = data(WIDTH, num_rows)
        return lambda: model.posterior_predictive(x, num_samples=draws, seed=0).mean()

    sizes = {
        "prediction, by rows": [(rows_, rows_, DRAWS) for rows_ in ROW_COUNTS],
        "prediction, by draws": [(draws, ROWS, draws) for draws in DRAW_COUNTS],
    }
    for measure, cases in sizes.items():
        for size, num_rows, draws in cases[: 2 if quick else None]:
            work = predict(num_rows, draws)
            work()
            note(measure, size, seconds(work, rounds))
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
