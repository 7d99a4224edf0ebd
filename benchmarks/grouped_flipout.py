"""Grouped flipout beside flipout and reparameterization: variance of the gradient by layer, and the ELBO of training.

Run: `python benchmarks/grouped_flipout.py variance`, and `... elbo --rows 50000 --epochs 40`. Images are those of
Fashion-MNIST, from TFDS_DATA_DIR. Both write a CSV in `benchmarks/results`; with `--report` they print its table again.

`variance` trains the networks by flipout for a few epochs, gives their weights to networks of the other estimators, and
draws the gradient of the negative log-likelihood of one batch of 128 many times. The table has the variance with
respect to the posterior means, summed over a layer and divided by that of flipout; the batch is shuffled, or sorted by
class. With grouped flipout the dense layers are flipout.

`elbo` trains LeNet-5 by each estimator with the same seeds. The ELBO is that of the training rows, with beta = 1, the
log-likelihood a mean over draws of the weights for the whole set; the table has means over seeds with their spread.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import numpy as np
import tensorflow as tf

import tfp_bnn
import zoo
from tfp_bnn.layers import (
    Convolution2DFlipout,
    Convolution2DReparameterization,
    DenseFlipout,
    DenseReparameterization,
)

RESULTS = Path(__file__).parent / "results"
BATCH = 128
# Convolution, its arguments, and dense layer of each estimator.
ESTIMATORS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "flipout": (Convolution2DFlipout, {}, DenseFlipout),
    "grouped, K = 2": (Convolution2DFlipout, {"groups_of_noise": 2}, DenseFlipout),
    "grouped, K = 4": (Convolution2DFlipout, {"groups_of_noise": 4}, DenseFlipout),
    "grouped, K = 8": (Convolution2DFlipout, {"groups_of_noise": 8}, DenseFlipout),
    "reparameterization": (Convolution2DReparameterization, {}, DenseReparameterization),
}
COMPARED = ["flipout", "grouped, K = 4", "reparameterization"]
# Filters and padding of the convolutions, units of the dense layers, and the activation.
NETWORKS: dict[str, tuple[Sequence[tuple[int, str]], Sequence[int], str]] = {
    "LeNet-5": (((6, "same"), (16, "valid")), (120, 84), "relu"),
    "SeedCNN": (((32, "valid"), (32, "valid")), (64,), "tanh"),
}


def build(network: str, estimator: str, seed: int = 0) -> tfp_bnn.VariationalSequential:
    keras.utils.set_random_seed(seed)
    convolutions, dense_units, activation = NETWORKS[network]
    convolution, arguments, dense = ESTIMATORS[estimator]
    posterior = {"name": "mean_field_normal", "initial_scale": 0.05}
    weights = {"kernel_prior": {"name": "normal", "scale": 0.1}, "kernel_posterior": posterior}
    layers: list[Any] = [keras.Input((28, 28, 1))]
    for index, (filters, padding) in enumerate(convolutions, start=1):
        more = {"padding": padding, "activation": activation, "name": f"conv{index}", **arguments, **weights}
        layers += [convolution(filters, 5, **more), keras.layers.MaxPooling2D()]
    layers += [keras.layers.Flatten()]
    for index, units in enumerate(dense_units, start=1):
        layers += [dense(units, activation=activation, name=f"dense{index}", **weights)]
    return tfp_bnn.VariationalSequential([*layers, dense(10, name="logits", **weights)], seed=seed)


def train(model: Any, x: np.ndarray, y: np.ndarray, epochs: int) -> Any:
    steps = epochs * math.ceil(len(x) / BATCH)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)))
    return model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)


def images(split: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    found = zoo.load_dataset("fashion_mnist").split(split)
    return np.asarray(found.x[:rows], np.float32) / 255, np.asarray(found.y[:rows])


# === Variance ===


def gradient_draws(model: Any, x: np.ndarray, y: np.ndarray, draws: int) -> dict[str, np.ndarray]:
    """Gradients of the mean negative log-likelihood in the posterior means, of shape `(draws, weights)` by layer."""
    kernels = {layer.name: layer.variational_weights["kernel"] for layer in model.variational_layers}
    values = [kernel.posterior_variables["loc"].value for kernel in kernels.values()]

    @tf.function
    def draw() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        return tape.gradient(loss, values)

    found = [[gradient.numpy().ravel() for gradient in draw()] for _ in range(draws)]
    return {name: np.stack(of_layer) for name, of_layer in zip(kernels, zip(*found, strict=True), strict=True)}


def variance(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the results: the variance of a layer, or of all of them."""
    x, y = images("train", args.rows)
    shuffled = np.arange(BATCH)
    batches = {"shuffled": shuffled, "sorted by class": shuffled[np.argsort(y[:BATCH], kind="stable")]}
    found: list[dict[str, Any]] = []
    for network in NETWORKS:
        trained = build(network, "flipout")
        train(trained, x, y, args.epochs)
        for estimator in ESTIMATORS:
            model = build(network, estimator)
            model.set_weights(trained.get_weights())
            for order, rows in batches.items():
                draws = gradient_draws(model, x[rows], y[rows], args.draws)
                of_layers = {name: float(each.var(axis=0, dtype=np.float64).sum()) for name, each in draws.items()}
                of_layers["all"] = sum(of_layers.values())
                row = {"network": network, "rows": len(x), "epochs": args.epochs, "draws": args.draws}
                row |= {"estimator": estimator, "batch": order}
                found += [{**row, "layer": name, "variance": value} for name, value in of_layers.items()]
                print(f"{network}, {estimator}, {order}: {of_layers['all']:.4g}", flush=True)
    return found


def variance_table(results: Sequence[dict[str, str]]) -> str:
    """Variances by layer, divided by those of flipout in a batch of the same order."""
    lines: list[str] = []
    for network in dict.fromkeys(row["network"] for row in results):
        rows = [row for row in results if row["network"] == network]
        layers = list(dict.fromkeys(row["layer"] for row in rows))
        found = {(row["estimator"], row["batch"], row["layer"]): float(row["variance"]) for row in rows}
        settings = ", ".join(f"{rows[0][name]} {name}" for name in ("rows", "epochs", "draws"))
        lines += [f"{network}, {settings}:", "", f"| estimator | batch | {' | '.join(layers)} |"]
        lines += [f"{'|---' * (len(layers) + 2)}|"]
        for estimator, order in dict.fromkeys((row["estimator"], row["batch"]) for row in rows):
            ratios = [found[estimator, order, layer] / found["flipout", order, layer] for layer in layers]
            lines.append(f"| {estimator} | {order} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
        lines.append("")
    return "\n".join(lines)


# === ELBO ===


def elbo(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the results, one for each seed and estimator."""
    x, y = images("train", args.rows)
    x_test, y_test = images("test", args.test_rows)
    found: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        for estimator in args.estimators:
            model = build("LeNet-5", estimator, seed)
            train(model, x, y, args.epochs)
            log_likelihood = np.mean(
                [-model.evaluate(x, y, batch_size=1000, verbose=0, return_dict=True)["nll"] for _ in range(args.draws)]
            )
            kl = float(model.kl())
            predictive = model.posterior_predictive(x_test, num_samples=args.draws, seed=0)
            row = {
                "estimator": estimator,
                "seed": seed,
                "rows": len(x),
                "epochs": args.epochs,
                "elbo": float(log_likelihood - kl / len(x)),
                "log_likelihood": float(log_likelihood),
                "kl": kl,
                "test_nll": -float(np.mean(predictive.log_prob(y_test))),
            }
            print(row, flush=True)
            found.append(row)
            # What a long run has found so far.
            write_results(found, args.results)
    return found


def read_results(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_results(rows: Sequence[dict[str, Any]], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)


def elbo_table(results: Sequence[dict[str, str]]) -> str:
    """ELBO, log-likelihood, KL and test NLL of each estimator: means over seeds, plus or minus their spread."""
    lines = ["| estimator | seeds | ELBO, nats a row | KL, nats | test NLL |", "|---|---|---|---|---|"]
    for estimator in dict.fromkeys(row["estimator"] for row in results):
        rows = [row for row in results if row["estimator"] == estimator]

        def cell(name: str, digits: int, rows: Sequence[dict[str, str]] = rows) -> str:
            values = [float(row[name]) for row in rows]
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            return f"{statistics.mean(values):.{digits}f}{spread}"

        lines.append(f"| {estimator} | {len(rows)} | {cell('elbo', 4)} | {cell('kl', 0)} | {cell('test_nll', 4)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    of_variance = commands.add_parser("variance", help="variance of the gradient by layer")
    of_variance.add_argument("--rows", type=int, default=10_000)
    of_variance.add_argument("--epochs", type=int, default=5)
    of_variance.add_argument("--draws", type=int, default=1000)
    of_variance.set_defaults(run=variance, table=variance_table, results=RESULTS / "grouped_flipout_variance.csv")
    of_elbo = commands.add_parser("elbo", help="the ELBO of training by each estimator")
    of_elbo.add_argument("--rows", type=int, default=60_000)
    of_elbo.add_argument("--test-rows", type=int, default=10_000)
    of_elbo.add_argument("--epochs", type=int, default=40)
    of_elbo.add_argument("--seeds", type=int, default=3)
    of_elbo.add_argument("--draws", type=int, default=16)
    of_elbo.add_argument("--estimators", nargs="+", choices=ESTIMATORS, default=COMPARED)
    of_elbo.set_defaults(run=elbo, table=elbo_table, results=RESULTS / "grouped_flipout_elbo.csv")
    for command in (of_variance, of_elbo):
        command.add_argument("--results", type=Path)
        command.add_argument("--report", action="store_true", help="only print the table of the results that exist")
    args = parser.parse_args(arguments)
    if not args.report:
        write_results(args.run(args), args.results)
    print(args.table(read_results(args.results)))


if __name__ == "__main__":
    main()
