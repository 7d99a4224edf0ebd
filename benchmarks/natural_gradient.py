"""Natural-gradient variational inference beside Adam on the ELBO: LeNet-5 on 10,000 rows of Fashion-MNIST.

Run: `python benchmarks/natural_gradient.py --seeds 3`. Appends a row for each method and seed to
`benchmarks/results/natural_gradient.csv`, except for existing rows, so a stopped run can be continued, and prints the
table of `docs/natural_gradient.md`: means over the seeds, with the standard deviation between them. Fashion-MNIST and
MNIST come from TFDS_DATA_DIR.

The first 10,000 training rows, batches of 100, no augmentation; the whole test set with 32 draws. LeNet-5 has 61,706
weights and biases, all with a normal prior of scale 0.316 (delta = 0.001 at lambda = N). The rate decays by a cosine;
for the natural gradient it rises over the first twentieth. ELBO (of the training rows, in nats per row) and KL are
those at beta = 1. AUROC: 2,000 test images of MNIST against 2,000 of Fashion-MNIST, by mutual information. CPU seconds
are those of `fit`, on one thread per operation, with compilation.
"""

from __future__ import annotations

import argparse
import csv
import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import numpy as np

import tfp_bnn
import zoo

RESULTS = Path(__file__).parent / "results" / "natural_gradient.csv"
ROWS, BATCH, TEST_DRAWS, OUTSIDE_ROWS = 10_000, 100, 32, 2000
PRIOR_SCALE = 0.316
NUMBERS = ("accuracy", "nll", "ece", "auroc", "elbo", "kl", "median_scale", "cpu_seconds")
COLUMNS = ("method", "seed", *NUMBERS)


@dataclass(frozen=True)
class Method:
    """A way to train the network.

    Attributes:
        epochs: Passes over the rows.
        optimizer: Function of the number of steps.
        initial_scale: Initial scale of all posteriors.
        layers: Suffix of the layers, which names their estimator.
        beta: Weight of the KL.
        empirical_bayes: Whether each layer learns the scale of its prior.
    """

    epochs: int
    optimizer: Callable[[int], keras.optimizers.Optimizer]
    initial_scale: float
    layers: str = "Reparameterization"
    beta: float = 1.0
    empirical_bayes: bool = False


def natural_gradient(
    epochs: int,
    lr: float,
    h0: float,
    curvature_rate: float,
    temperature: float = 1.0,
    beta: float = 1.0,
    empirical_bayes: bool = False,
) -> Method:
    """A method in the terms of Shen et al.: their rate lr and initial curvature h0."""
    kl_weight = beta * temperature / ROWS
    # Cooling by the temperature cools the prior too.
    curvature = h0 + kl_weight / temperature / PRIOR_SCALE**2

    def optimizer(steps: int) -> keras.optimizers.Optimizer:
        warm = max(1, steps // 20)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, steps - warm, warmup_target=lr * curvature, warmup_steps=warm
        )
        return tfp_bnn.NaturalGradient(rate, curvature_rate, temperature=temperature)

    initial_scale = (kl_weight / curvature) ** 0.5
    return Method(epochs, optimizer, initial_scale, beta=beta, empirical_bayes=empirical_bayes)


def adam(epochs: int) -> Method:
    return Method(
        epochs,
        lambda steps: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        initial_scale=0.02,
        layers="Flipout",
    )


METHODS: dict[str, Method] = {
    "Adam on the ELBO, flipout, 10 epochs": adam(10),
    "natural gradient, slow curvature (h0 0.5, 1 - b2 0.001), 10 epochs": natural_gradient(10, 0.5, 0.5, 1e-3),
    "natural gradient, temperature 0.2, 30 epochs": natural_gradient(30, 0.2, 0.1, 2e-3, temperature=0.2),
    "Adam on the ELBO, flipout, 30 epochs": adam(30),
    "natural gradient, beta 0.2, 30 epochs": natural_gradient(30, 0.2, 0.1, 2e-3, beta=0.2),
    "natural gradient, 30 epochs": natural_gradient(30, 0.2, 0.1, 2e-3),
    "natural gradient, empirical Bayes, 30 epochs": natural_gradient(30, 0.2, 0.1, 2e-3, empirical_bayes=True),
}


def lenet5(method: Method, seed: int) -> tfp_bnn.VariationalModel:
    keras.utils.set_random_seed(seed)
    convolution = getattr(tfp_bnn.layers, f"Convolution2D{method.layers}")
    dense = getattr(tfp_bnn.layers, f"Dense{method.layers}")
    posterior = {"name": "mean_field_normal", "initial_scale": method.initial_scale}
    prior = {"name": "normal", "scale": PRIOR_SCALE, "empirical_bayes": method.empirical_bayes}
    both: dict[str, Any] = {f"{weight}_posterior": posterior for weight in ("kernel", "bias")}
    both |= {f"{weight}_prior": prior for weight in ("kernel", "bias")}
    layers = [
        keras.Input((28, 28, 1)),
        keras.layers.Rescaling(1 / 255, -0.5),
        convolution(6, 5, padding="same", activation="relu", **both),
        keras.layers.MaxPooling2D(),
        convolution(16, 5, activation="relu", **both),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        dense(120, activation="relu", **both),
        dense(84, activation="relu", **both),
        dense(10, **both),
    ]
    schedule = {"name": "constant", "beta": method.beta}
    return tfp_bnn.VariationalSequential(layers, seed=seed, beta_schedule=schedule)


def trained(method: Method, seed: int) -> tuple[Any, float]:
    """The trained network and the CPU seconds of its training."""
    x, y = rows()
    model = lenet5(method, seed)
    model.compile(method.optimizer(method.epochs * -(-len(x) // BATCH)), steps_per_execution=20)
    start = time.process_time()
    model.fit(x, y, batch_size=BATCH, epochs=method.epochs, verbose=0)
    return model, time.process_time() - start


def measured(model: Any) -> dict[str, float]:
    test, outside = zoo.load_dataset("fashion_mnist").test, zoo.load_dataset("mnist").test
    predictive = model.posterior_predictive(test.x, TEST_DRAWS, seed=0, batch_size=1000)
    probabilities = predictive.mean()
    unknown = model.posterior_predictive(outside.x[:OUTSIDE_ROWS], TEST_DRAWS, seed=0, batch_size=1000)
    known, unknown = predictive.epistemic()[:OUTSIDE_ROWS], unknown.epistemic()
    weights = [w for layer in model.variational_layers for w in layer.variational_weights.values()]
    scales = np.concatenate([weight.posterior_parameters()["scale"].ravel() for weight in weights])
    # One draw of the weights for each batch.
    on_training = model.evaluate(*rows(), batch_size=BATCH, verbose=0, return_dict=True)
    return {
        "accuracy": tfp_bnn.metrics.accuracy(test.y, probabilities),
        "nll": tfp_bnn.metrics.nll(test.y, probabilities),
        "ece": tfp_bnn.metrics.expected_calibration_error(test.y, probabilities),
        "auroc": tfp_bnn.metrics.out_of_distribution_auroc(known, unknown),
        "elbo": on_training["elbo"],
        "kl": on_training["kl"],
        "median_scale": float(np.median(scales)),
    }


@functools.cache
def rows() -> tuple[np.ndarray, np.ndarray]:
    train = zoo.load_dataset("fashion_mnist").train
    return train.x[:ROWS], train.y[:ROWS]


def read_results(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(path: Path, seeds: Sequence[int], methods: Sequence[str]) -> None:
    """Appends what is missing, all methods of a seed before the next seed."""
    done = {(row["method"], int(row["seed"])) for row in read_results(path)}
    for seed in seeds:
        for name in methods:
            if (name, seed) in done:
                continue
            model, seconds = trained(METHODS[name], seed)
            row = {"method": name, "seed": seed, **measured(model), "cpu_seconds": seconds}
            new = not path.is_file()
            with path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()})
            keras.backend.clear_session()


def table(results: Sequence[dict[str, str]]) -> str:
    """Formats means over the seeds, ± the standard deviation between them, as Markdown."""
    lines = [
        "| method | seeds | accuracy | NLL | ECE | AUROC | ELBO per row | KL (nats) | median scale | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    formats = dict(zip(NUMBERS, (".4f", ".4f", ".4f", ".3f", ".3f", ",.0f", ".4f", ".0f"), strict=True))
    for name in METHODS:
        found = [row for row in results if row["method"] == name]
        if not found:
            continue
        cells = []
        for number, how in formats.items():
            values = np.array([float(row[number]) for row in found])
            spread = f" ± {values.std(ddof=1):{how}}" if len(values) > 1 else ""
            cells.append(f"{values.mean():{how}}{spread}")
        lines.append(f"| {name} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    run(options.results, range(options.seeds), options.methods)
    print(table(read_results(options.results)))


if __name__ == "__main__":
    main()
