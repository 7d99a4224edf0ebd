"""Curves of validation NLL against seconds of training, for the estimators under the natural gradient.

Run: `python benchmarks/natural_gradient_curves.py`, or a part of it, such as `--networks LeNet-5 --epochs 5`. Appends
a row for each epoch to `benchmarks/results/natural_gradient_curves.csv`, except for curves that are there, so a stopped
run can be continued, and draws `natural_gradient_curves.png` beside it. The data come from TFDS_DATA_DIR.

LeNet-5 on Fashion-MNIST and ResNet-20 on CIFAR-10 (shift and flip), as recipes of the zoo: batches of 100, all training
rows, a cosine over the epochs. Settings of the natural gradient are those of the zoo's recipes; Adam on the ELBO at
beta 0.2, and SGD for the points of the same network, are for comparison. The NLL is that of 8 draws on the first 2,000
validation rows. The test split is not read. CPU seconds are those of the training steps, on one thread per operation,
with compilation.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras

import tfp_bnn
import zoo
from tfp_bnn.figures.style import COLOURS, new_figure, tidy
from zoo.datasets import Dataset, Split

RESULTS = Path(__file__).parent / "results" / "natural_gradient_curves.csv"
COLUMNS = ("network", "method", "seed", "rows", "epochs", "epoch", "cpu_seconds", "nll", "accuracy", "kl")
DRAWS, VALIDATION_ROWS, BATCH = 8, 2000, 100
PRIOR_SCALE, BETA_OF_ADAM = 0.3, 0.2


@dataclasses.dataclass(frozen=True)
class Network:
    """A network, its data, and the settings of the natural gradient that suit it.

    Attributes:
        recipe: Keys of a recipe.
        learning_rate: Rate of the means.
        settings: Further settings of the natural gradient.
    """

    recipe: Mapping[str, Any]
    learning_rate: float
    settings: Mapping[str, float]


NETWORKS = {
    "LeNet-5": Network(
        {"architecture": "lenet5_flipout", "dataset": "fashion_mnist", "augmentation": {"shift": 1, "flip": True}},
        0.03,
        {"curvature_rate": 2e-4, "initial_precision": 0.1},
    ),
    "ResNet-20": Network(
        {"architecture": "resnet20_flipout", "dataset": "cifar10", "augmentation": {"shift": 4, "flip": True}},
        0.15,
        {"curvature_rate": 1e-4, "initial_precision": 0.1, "temperature": 0.2},
    ),
}
METHODS = {
    "natural gradient, reparameterization": {"estimator": "reparameterization"},
    "natural gradient, flipout": {"estimator": "flipout"},
    "natural gradient, grouped flipout": {"estimator": "grouped"},
    f"Adam on the ELBO, beta {BETA_OF_ADAM}, flipout": {"estimator": "flipout"},
    "SGD, points": {},
}


def recipe_of(network: str, method: str, epochs: int, seed: int) -> dict[str, Any]:
    """The recipe of a curve."""
    of_network, model = NETWORKS[network], {"kernel_prior": {"name": "normal", "scale": PRIOR_SCALE}, **METHODS[method]}
    own: dict[str, Any] = {"inference": "map", "optimizer": {"name": "sgd", "learning_rate": 0.1}}
    if method.startswith("natural gradient"):
        optimizer = {"learning_rate": of_network.learning_rate, "learning_rate_warmup": 0.05}
        own = {
            "inference": "natural_gradient",
            "optimizer": {**optimizer, "natural_gradient": dict(of_network.settings)},
        }
    elif method.startswith("Adam"):
        own = {"optimizer": {"name": "adam", "learning_rate": 2e-3}, "beta": BETA_OF_ADAM, "warmup": 0.0}
        model["initial_scale"] = 0.02
    own |= {"name": f"{of_network.recipe['architecture']}.curve", "model": model}
    return {**of_network.recipe, **own, "batch_size": BATCH, "epochs": epochs, "seed": seed}


class Curve(keras.callbacks.Callback):
    """Measures a model after each epoch, and stops the clock meanwhile."""

    def __init__(self, validation: Split) -> None:
        super().__init__()
        self._validation = Split(validation.x[:VALIDATION_ROWS], validation.y[:VALIDATION_ROWS])
        self._seconds = self._since = 0.0
        self.points: list[dict[str, Any]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock."""
        self._since = time.process_time()

    def on_test_begin(self, logs: Any = None) -> None:
        """Stops the clock: the steps of the epoch are over, and its validation begins."""
        self._seconds += time.process_time() - self._since

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds a point."""
        predictive = self.model.posterior_predictive(self._validation.x, DRAWS, seed=0, batch_size=500)
        scores = tfp_bnn.predictive.score(predictive, self._validation.y)
        point = {"epoch": epoch + 1, "cpu_seconds": self._seconds, "nll": scores["nll"]}
        self.points.append({**point, "accuracy": scores["accuracy"], "kl": (logs or {})["kl"]})


def read_results(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def first_rows(data: Dataset, rows: int | None) -> Dataset:
    train = data.train if rows is None else Split(data.train.x[:rows], data.train.y[:rows])
    return dataclasses.replace(data, train=train)


def run(path: Path, networks: Sequence[str], methods: Sequence[str], epochs: int, rows: int | None, seeds: int) -> None:
    """Appends the curves that are missing, all methods of a seed before the next seed."""
    for network in networks:
        data = first_rows(zoo.load_dataset(str(NETWORKS[network].recipe["dataset"])), rows)
        for seed in range(seeds):
            for method in methods:
                known = {"network": network, "method": method, "seed": seed, "rows": len(data.train), "epochs": epochs}
                texts = {key: str(value) for key, value in known.items()}
                if any(row.items() >= texts.items() for row in read_results(path)):
                    continue
                curve = Curve(data.validation)
                recipe = recipe_of(network, method, epochs, seed)
                zoo.train(recipe, data=data, measure=False, callbacks=[curve])
                new = not path.is_file()
                with path.open("a", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                    if new:
                        writer.writeheader()
                    for point in curve.points:
                        cells = {**known, **point}.items()
                        writer.writerow({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in cells})
                last = curve.points[-1]
                print(f"{network}, {method}: NLL {last['nll']:.4f} after {last['cpu_seconds']:.0f} s", flush=True)
                keras.backend.clear_session()


def draw(results: Sequence[Mapping[str, str]]) -> Any:
    """A panel for each network, a line for each seed of a method."""
    networks = [name for name in NETWORKS if any(row["network"] == name for row in results)]
    figure = new_figure(5.5 * len(networks), 4.0)
    for index, network in enumerate(networks, start=1):
        panel = figure.add_subplot(1, len(networks), index)
        for method, colour in zip(METHODS, COLOURS, strict=False):
            curves: dict[tuple[str, ...], list[tuple[float, float]]] = {}
            for row in results:
                if (row["network"], row["method"]) == (network, method):
                    key = row["seed"], row["rows"], row["epochs"]
                    curves.setdefault(key, []).append((float(row["cpu_seconds"]), float(row["nll"])))
            for number, points in enumerate(curves.values()):
                panel.plot(*zip(*points, strict=True), color=colour, marker=".", label="" if number else method)
        panel.set(title=network, xlabel="CPU seconds of training", ylabel="validation NLL (nats)", yscale="log")
        panel.legend(frameon=False, fontsize=8)
        tidy(panel)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rows", type=int, help="first training rows; default: all")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    run(options.results, options.networks, options.methods, options.epochs, options.rows, options.seeds)
    draw(read_results(options.results)).savefig(options.results.with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    main()
