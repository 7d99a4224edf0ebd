"""Fine-tuning LeNet-5 on few images: the informed prior, the default prior, and deterministic fine-tuning.

Run: `python benchmarks/informed_priors.py --seeds 5`. Appends a row for each pair of tasks, size, seed and method to
`benchmarks/results/informed_priors.csv`, except for existing rows, so a stopped run can be continued. `--report` writes
the tables and the figure of `docs/informed_priors.md` from that file. Several processes may share the work, each with
its own `--share i/n`. MNIST and Fashion-MNIST come from TFDS_DATA_DIR.

Pairs: MNIST 0-4 to 5-9, whose source this script trains; MNIST to Fashion-MNIST and digits to MNIST, from the bundled
posteriors. Images are drawn from the training split, equally many of each class. The test split is only used for the
scores. Seed s determines the images, the new heads, the order of the rows and the noise.

- informed prior: `zoo.fine_tune` with its defaults. The factor and the prior of the new head are chosen by
  cross-validation on the images of the seed.
- default prior: `zoo.fine_tune(prior="default")`: the same start and steps with the prior of the source's training.
- no KL: the start and the steps of the informed prior, on the NLL alone. What is left is the average over the draws.
- deterministic (with weight decay) and linear probe: see `informed_priors_baselines.py`.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import scipy.special
import tensorflow as tf
from informed_priors_baselines import fine_tuning, linear_probe, without_kl
from informed_priors_report import write_report
from result_rows import append_row

import tfp_bnn
import zoo
from zoo.datasets import Dataset, Split

SIZES = (10, 20, 50, 100, 200, 500, 1000)
RESULTS = Path(__file__).parent / "results" / "informed_priors.csv"
SOURCES = Path(__file__).parent / "sources"
COLUMNS = ("pair", "size", "seed", "method", "nll", "accuracy", "inflate", "head_scale")
NUM_SAMPLES = 20
SOURCE_EPOCHS, SOURCE_RATE = 15, 2e-3


@dataclass(frozen=True)
class Pair:
    """A pair of tasks: source and target.

    Attributes:
        source: Function that trains or loads the source.
        data: Function that loads the target data.
        adapt_inputs: Whether the model resizes and rescales images; see `zoo.fine_tune`.
    """

    source: Callable[[], tfp_bnn.VariationalModel]
    data: Callable[[], Dataset]
    adapt_inputs: bool = False


def of_classes(data: Dataset, classes: Sequence[int]) -> Dataset:
    """Returns the images of some classes, renumbered from 0."""

    def only(split: Split) -> Split:
        rows = np.isin(split.y, classes)
        return Split(split.x[rows], np.searchsorted(classes, split.y[rows]))

    names = tuple((data.class_names or ())[label] for label in classes)
    splits = {name: only(data.split(name)) for name in ("train", "validation", "test")}
    return Dataset(
        name=data.name,
        task="classification",
        **splits,
        feature_names=None,
        class_names=names,
        description=data.description,
        source=data.source,
    )


def source_of_five() -> tfp_bnn.VariationalModel:
    """Returns a LeNet-5 trained on the digits 0 to 4. It is trained once and stored."""
    folder = SOURCES / "lenet5_flipout.mnist_0_4"
    if not folder.is_dir():
        data = of_classes(zoo.load_dataset("mnist"), range(5))
        keras.utils.set_random_seed(0)
        steps = SOURCE_EPOCHS * -(-len(data.train) // 128)
        prior = {"name": "normal", "scale": 0.3, "empirical_bayes": True}
        warmup = {"name": "linear_warmup", "steps": steps // 5}
        model = zoo.create_model(
            "lenet5_flipout", num_outputs=5, kernel_prior=prior, initial_scale=0.02, beta_schedule=warmup, seed=0
        )
        rate = keras.optimizers.schedules.CosineDecay(SOURCE_RATE, steps)
        model.compile(keras.optimizers.Adam(rate), metrics=["accuracy"], steps_per_execution=50)
        model.fit(data.train.x, data.train.y, batch_size=128, epochs=SOURCE_EPOCHS, verbose=2)
        zoo.save_artifact(model, folder)
    return zoo.load_artifact(folder, trust=True)


PAIRS: dict[str, Pair] = {
    "MNIST 0-4 to 5-9": Pair(source_of_five, lambda: of_classes(zoo.load_dataset("mnist"), range(5, 10))),
    "MNIST to Fashion-MNIST": Pair(
        lambda: zoo.load_model("lenet5_flipout.mnist"), lambda: zoo.load_dataset("fashion_mnist")
    ),
    "digits to MNIST": Pair(
        lambda: zoo.load_model("lenet5_flipout.digits"), lambda: zoo.load_dataset("mnist"), adapt_inputs=True
    ),
}


def few(split: Split, size: int, seed: int) -> Split:
    """Draws the same number of rows from each class, in random order."""
    rng = np.random.default_rng(seed)
    classes = np.unique(split.y)
    of_each = [rng.choice(np.flatnonzero(split.y == label), size // len(classes), replace=False) for label in classes]
    rows = rng.permutation(np.concatenate(of_each))
    return Split(split.x[rows], split.y[rows])


def scores(probabilities: np.ndarray, y: np.ndarray) -> dict[str, float]:
    return {"nll": tfp_bnn.metrics.nll(y, probabilities), "accuracy": tfp_bnn.metrics.accuracy(y, probabilities)}


def bayesian(pair: Pair, source: Any, images: Split, test: Split, seed: int, prior: str) -> dict[str, Any]:
    done = zoo.fine_tune(source, (images.x, images.y), prior=prior, adapt_inputs=pair.adapt_inputs, seed=seed)
    predictive = done.model.posterior_predictive(test.x, NUM_SAMPLES, seed=0, batch_size=1000)
    chosen = {"inflate": done.inflate or "", "head_scale": done.head_scale or ""}
    return {**scores(predictive.mean(), test.y), **chosen}


def no_kl(source: Any, images: Split, test: Split, seed: int) -> dict[str, float]:
    predictive = without_kl(source, images, seed).posterior_predictive(test.x, NUM_SAMPLES, seed=0, batch_size=1000)
    return scores(predictive.mean(), test.y)


def deterministic(fit: Callable[..., Any], source: Any, images: Split, test: Split, seed: int) -> dict[str, float]:
    keras.utils.set_random_seed(seed)
    return scores(scipy.special.softmax(fit(source, images, seed)(test.x), axis=1), test.y)


METHODS: dict[str, Callable[..., dict[str, Any]]] = {
    "informed prior": lambda *task: bayesian(*task, prior="posterior"),
    "default prior": lambda *task: bayesian(*task, prior="default"),
    "no KL": lambda pair, *task: no_kl(*task),
    "deterministic": lambda pair, *task: deterministic(fine_tuning, *task),
    "linear probe": lambda pair, *task: deterministic(linear_probe, *task),
}


def read_results(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tasks(arguments: argparse.Namespace) -> Iterator[tuple[str, int, int, str]]:
    """Yields the work of this process, seed by seed."""
    done = {tuple(row[name] for name in COLUMNS[:4]) for row in read_results(arguments.results)}
    share, shares = map(int, arguments.share.split("/"))
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    every = itertools.product(seeds, arguments.sizes, arguments.pairs, METHODS)
    for number, (seed, size, pair, method) in enumerate(every):
        if number // len(METHODS) % shares == share - 1 and (pair, str(size), str(seed), method) not in done:
            yield pair, size, seed, method


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--share", default="1/1", help="i/n: the i-th of n processes that share the work")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="only make the tables and the figure of the guide")
    arguments = parser.parse_args(argv)
    if arguments.report:
        return write_report(read_results(arguments.results), list(PAIRS), list(METHODS))
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded: dict[str, tuple[Any, Dataset]] = {}
    for pair, size, seed, method in tasks(arguments):
        if pair not in loaded:
            loaded[pair] = (PAIRS[pair].source(), PAIRS[pair].data())
        source, data = loaded[pair]
        found = METHODS[method](PAIRS[pair], source, few(data.train, size, seed), data.test, seed)
        row = {"pair": pair, "size": size, "seed": seed, "method": method, **found}
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        append_row(arguments.results, COLUMNS, row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
