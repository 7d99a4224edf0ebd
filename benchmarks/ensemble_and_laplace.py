"""An ensemble of 5, SWAG and Laplace beside MAP: LeNet-5 on Fashion-MNIST, in pairs that share their networks.

Run: `python benchmarks/ensemble_and_laplace.py --seeds 3`. Appends a row for each method and seed to
`benchmarks/results/ensemble_and_laplace.csv`, except for existing rows, so a stopped run can be continued, and prints
the table of `docs/inference.md`: means over the seeds, and the difference to MAP of the same seed with its standard
deviation.

50,000 training rows, Adam at 0.002 with a cosine, batches of 128, 10 epochs, no augmentation, prior N(0, 0.3^2) on all
weights and biases. The networks of seed s have the seeds 5 s to 5 s + 4; MAP is the first of them. SWAG goes on from
MAP for 10 epochs of SGD at a rate of 0.01 with momentum 0.9, with an iterate from each. Laplace adds a posterior of the
last layer, with the full curvature of all training rows and a prior precision by marginal likelihood. No method gets a
temperature. The whole test set with 50 draws, of which MAP has 1, an ensemble 5 and the closed form none. AUROC: 2,000
test images of MNIST against 2,000 of Fashion-MNIST, by the entropy of the predictive.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import tfp_bnn
import zoo
from tfp_bnn import inference

RESULTS = Path(__file__).parent / "results" / "ensemble_and_laplace.csv"
METHODS = ("MAP", "ensemble of 5", "SWAG", "Laplace, last layer", "Laplace, closed form")
MEMBERS, EPOCHS, BATCH, DRAWS, OUTSIDE_ROWS = 5, 10, 128, 50, 2000
SWAG_EPOCHS, SWAG_RATE = 10, 0.01
PRIOR = {"name": "normal", "scale": 0.3}
NUMBERS = ("accuracy", "nll", "ece", "auroc")
COLUMNS = ("method", "seed", *NUMBERS)


def lenet5(seed: int) -> tfp_bnn.VariationalModel:
    keras.utils.set_random_seed(seed)
    point: dict[str, Any] = {f"{weight}_posterior": "delta" for weight in ("kernel", "bias")}
    point |= {f"{weight}_prior": PRIOR for weight in ("kernel", "bias")}
    layers = tfp_bnn.layers
    return tfp_bnn.VariationalSequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Rescaling(1 / 255, -0.5),
            layers.Convolution2DReparameterization(6, 5, padding="same", activation="relu", **point),
            keras.layers.MaxPooling2D(),
            layers.Convolution2DReparameterization(16, 5, activation="relu", **point),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            layers.DenseReparameterization(120, activation="relu", **point),
            layers.DenseReparameterization(84, activation="relu", **point),
            layers.DenseReparameterization(10, name="logits", **point),
        ],
        seed=seed,
        name=f"lenet5_{seed}",
    )


def trained(seed: int, x: np.ndarray, y: np.ndarray) -> Any:
    model = lenet5(seed)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, EPOCHS * -(-len(x) // BATCH))
    model.compile(keras.optimizers.Adam(rate), steps_per_execution=10)
    model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    return model


def with_swag(model: Any, x: np.ndarray, y: np.ndarray) -> inference.Swag:
    """The moments of SGD that goes on from the weights of a model, in a copy."""
    copy = inference.map_estimate(model)
    iterates = inference.SwagIterates(rank=SWAG_EPOCHS)
    copy.compile(keras.optimizers.SGD(SWAG_RATE, momentum=0.9), steps_per_execution=10)
    copy.fit(x, y, batch_size=BATCH, epochs=SWAG_EPOCHS, callbacks=[iterates], verbose=0)
    return inference.swag(copy, iterates)


def with_laplace(model: Any, x: np.ndarray, y: np.ndarray) -> inference.Laplace:
    return inference.laplace(model, x, y, prior_precision="marginal_likelihood")


def predictives(seed: int, train: Any) -> Iterator[tuple[str, Any]]:
    """The predictive of each method, as a function of the inputs."""

    def draws_of(model: Any) -> Any:
        return lambda x: model.posterior_predictive(x, DRAWS, seed=0, batch_size=1000)

    first = trained(MEMBERS * seed, train.x, train.y)
    yield "MAP", draws_of(first)
    laplace = with_laplace(first, train.x, train.y)
    yield "Laplace, last layer", draws_of(laplace)
    yield "Laplace, closed form", laplace.closed_form_predictive
    yield "SWAG", draws_of(with_swag(first, train.x, train.y))
    others = [trained(MEMBERS * seed + k, train.x, train.y) for k in range(1, MEMBERS)]
    yield "ensemble of 5", draws_of(inference.ensemble([first, *others]))


def measured(predict: Any, test: Any, outside: np.ndarray) -> dict[str, float]:
    predictive = predict(test.x)
    probabilities, entropy = predictive.mean(), predictive.entropy()
    return {
        "accuracy": tfp_bnn.metrics.accuracy(test.y, probabilities),
        "nll": tfp_bnn.metrics.nll(test.y, probabilities),
        "ece": tfp_bnn.metrics.expected_calibration_error(test.y, probabilities),
        "auroc": tfp_bnn.metrics.out_of_distribution_auroc(entropy[: len(outside)], predict(outside).entropy()),
    }


def read_results(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(path: Path, seeds: Sequence[int]) -> None:
    """Appends the rows of the seeds that are missing, all methods of a seed at once."""
    data, outside = zoo.load_dataset("fashion_mnist"), zoo.load_dataset("mnist").test.x[:OUTSIDE_ROWS]
    done = {int(row["seed"]) for row in read_results(path)}
    for seed in seeds:
        if seed in done:
            continue
        rows = [
            {"method": name, "seed": seed, **measured(predict, data.test, outside)}
            for name, predict in predictives(seed, data.train)
        ]
        new = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if new:
                writer.writeheader()
            for row in rows:
                writer.writerow({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()})
        keras.backend.clear_session()


def table(results: Sequence[dict[str, str]]) -> str:
    """Formats means over the seeds, and the paired difference in NLL to MAP ± its standard deviation, as Markdown."""
    by_method = {name: [row for row in results if row["method"] == name] for name in METHODS}
    of_map = {row["seed"]: float(row["nll"]) for row in by_method["MAP"]}
    lines = [
        "| method | seeds | accuracy | NLL | NLL minus that of MAP | ECE | AUROC |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in by_method.items():
        mean = {number: np.mean([float(row[number]) for row in rows]) for number in NUMBERS}
        differences = [float(row["nll"]) - of_map[row["seed"]] for row in rows]
        difference = f"{np.mean(differences):+.4f} ± {np.std(differences, ddof=1):.4f}" if name != "MAP" else ""
        lines.append(
            f"| {name} | {len(rows)} | {mean['accuracy']:.4f} | {mean['nll']:.4f} | {difference} | {mean['ece']:.4f} | "
            f"{mean['auroc']:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="number of training seeds (default: 3)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV to continue (default: the committed one)")
    arguments = parser.parse_args()
    run(arguments.results, range(arguments.seeds))
    print(table(read_results(arguments.results)))


if __name__ == "__main__":
    main()
