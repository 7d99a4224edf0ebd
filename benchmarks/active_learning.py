"""Active learning on digits: accuracy against the number of labels, for each acquisition and for random choice.

Run: `python benchmarks/active_learning.py --seeds 5`. Appends the rounds of each acquisition and seed to
`benchmarks/results/active_learning.csv`, except for runs that are there, so a stopped one can be continued. Prints the
table of `docs/acquisition.md` and draws its figure: means over the seeds, with the standard deviation between them.

The pool is the training and validation split of digits (1,437 images of 8 x 8 pixels), of which 20 are labelled at the
start, at random, and 10 more in each round; scores are those of the test split (360 images), 50 draws. The network is a
64-64 perceptron with Monte Carlo dropout of 0.5 after each hidden layer, as in Gal et al. 2017 and Kirsch et al. 2019,
trained from scratch in each round: 300 steps of Adam at 0.005 on batches of 64. Runs of one seed have the same initial
labels, initial weights and noise, whatever the acquisition, so their differences are paired.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import numpy as np
import tensorflow as tf

import tfp_bnn
import zoo
from tfp_bnn.acquisition import Round, active_learning
from tfp_bnn.figures import to_png
from tfp_bnn.figures.style import COLOURS, GREY, LINES, legend_below, new_figure, tidy
from tfp_bnn.models.training_state import restore_training_state, training_state

RESULTS = Path(__file__).parent / "results" / "active_learning.csv"
FIGURE = Path(__file__).parents[1] / "docs" / "active_learning.png"
INITIAL, NUMBER, MOST_LABELS = 20, 10, 100
STEPS, BATCH, DRAWS = 300, 64, 50
COLUMNS = ("by", "seed", "labels", "accuracy", "nll")
RANDOM = "random"
ACQUISITIONS = (RANDOM, "bald", "batch_bald", "entropy")
SHOWN = (40, 70, 100)

Rows = Sequence[dict[str, str]]


def train(
    model: tfp_bnn.VariationalModel, start: Mapping[str, np.ndarray], x: Any, y: Any, seed: int
) -> tfp_bnn.VariationalModel:
    """Trains the network on all labels so far, from the state at the start."""
    restore_training_state(model, start)
    data = tf.data.Dataset.from_tensor_slices((x.astype(np.float32), y)).shuffle(len(x), seed=seed).repeat()
    model.fit(data.batch(BATCH), steps_per_epoch=STEPS, num_examples=len(x), shuffle=False, verbose=0)
    return model


def network(seed: int) -> tfp_bnn.VariationalModel:
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 16), keras.layers.Flatten()]
    for _ in range(2):
        layers += [keras.layers.Dense(64, activation="relu"), tfp_bnn.layers.MCDropout(0.5)]
    return tfp_bnn.VariationalSequential([*layers, keras.layers.Dense(10)], seed=0)


def read_results(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(path: Path, seeds: Sequence[int], acquisitions: Sequence[str]) -> None:
    """Appends what is missing, all acquisitions of a seed before the next seed."""
    data = zoo.load_dataset("digits")
    x, y = (np.concatenate([getattr(part, name) for part in (data.train, data.validation)]) for name in ("x", "y"))
    done = {(row["by"], int(row["seed"])) for row in read_results(path)}
    num_rounds = (MOST_LABELS - INITIAL) // NUMBER + 1
    model = network(0)
    model.compile(keras.optimizers.Adam(5e-3), steps_per_execution=STEPS)
    untrained = training_state(model)
    for seed, by in itertools.product(seeds, acquisitions):
        if (by, seed) in done:
            continue
        restore_training_state(model, untrained)
        model.set_weights(network(seed).get_weights())
        rounds = active_learning(
            functools.partial(train, model, training_state(model)),
            x,
            y,
            by=by,
            initial=INITIAL,
            number=NUMBER,
            test_data=(data.test.x, data.test.y),
            num_samples=DRAWS,
            seed=seed,
        )
        _append(path, by, seed, list(itertools.islice(rounds, num_rounds)))


def _append(path: Path, by: str, seed: int, steps: Sequence[Round]) -> None:
    new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        for step in steps:
            scores = {name: f"{step.scores[name]:.6g}" for name in ("accuracy", "nll")}
            writer.writerow({"by": by, "seed": seed, "labels": step.num_labels, **scores})


def curves(rows: Rows, number: str = "accuracy") -> dict[str, np.ndarray]:
    """A number by acquisition: arrays of shape `(seeds, rounds)`."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        found.setdefault(row["by"], {}).setdefault(int(row["seed"]), []).append(float(row[number]))
    return {by: np.array([of_seeds[seed] for seed in sorted(of_seeds)]) for by, of_seeds in found.items()}


def labels_of(rows: Rows) -> list[int]:
    """The numbers of labels of the rounds."""
    return sorted({int(row["labels"]) for row in rows})


def table(rows: Rows) -> str:
    """Means over the seeds, ± the standard deviation between them, as Markdown.

    The mean over all rounds is the area under the curve; `over random` is its paired difference.
    """
    labels, of_all = labels_of(rows), curves(rows)
    shown = [number for number in SHOWN if number in labels]
    heads = [f"{number} labels" for number in shown]
    lines = [f"| acquisition | seeds | {' | '.join(heads)} | mean over rounds | over random |"]
    lines += ["|---" * (len(heads) + 4) + "|"]
    for by, accuracy in of_all.items():
        cells = [_spread(100 * accuracy[:, labels.index(number)], "") for number in shown]
        mean = 100 * accuracy.mean(axis=1)
        difference = mean - 100 * of_all[RANDOM].mean(axis=1)
        cells += [_spread(mean, ""), "" if by == RANDOM else _spread(difference, "+")]
        lines.append(f"| `{by}` | {len(accuracy)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: np.ndarray, sign: str) -> str:
    deviation = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.1f}{deviation}"


def figure(rows: Rows) -> bytes:
    """The curves as PNG: lines are means, areas one standard deviation between seeds."""
    drawn = new_figure(6.5, 4.5)
    panel = drawn.subplots()
    labels = labels_of(rows)
    looks = itertools.cycle(zip(COLOURS, LINES, strict=False))
    for by, accuracy in curves(rows).items():
        colour, line = (GREY, "-") if by == RANDOM else next(looks)
        mean = 100 * accuracy.mean(axis=0)
        panel.plot(labels, mean, color=colour, linestyle=line, linewidth=1.8, label=by.replace("_", " "))
        if len(accuracy) > 1:
            spread = 100 * accuracy.std(axis=0, ddof=1)
            panel.fill_between(labels, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
    panel.set(xlabel="labels", ylabel="test accuracy (%)", title="Active learning on digits")
    tidy(panel)
    legend_below(drawn, panel, columns=5)
    return to_png(drawn)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0")
    parser.add_argument("--acquisitions", nargs="*", default=list(ACQUISITIONS), choices=list(ACQUISITIONS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args(arguments)
    run(options.results, range(options.seeds), options.acquisitions)
    rows = read_results(options.results)
    options.figure.write_bytes(figure(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
