"""CIFAR-10 from 10 to 1,000 labelled images, from the ImageNet weights of EfficientNet-Lite0: five methods.

Run: `python benchmarks/imagenet_priors.py`. Appends a row for each size, seed and method to
`benchmarks/results/imagenet_priors.csv`, except for existing rows, so a stopped run can be continued. `--report` writes
the tables and the figure of `docs/imagenet_priors.md` from that file. Needs `pip install 'tfp_bnn[imagenet]'`, and
CIFAR-10 in TFDS_DATA_DIR.

The images are resized to 96 x 96 pixels. All stages but the last are frozen: what they give is computed once for each
seed and kept in `benchmarks/cache`. The images of seed s are drawn from the training split, equally many of each class,
and those of a smaller size are among those of a larger one. Scores are those of the first `--test` rows of the test
split. All choices are made by cross-validation on the labelled images (3 folds).

- informed prior, last stage: the last stage and the head are Bayesian. Prior N(w, (inflate delta |w|)^2) around the
  ImageNet weights w, with delta 0.1; the factor and the scale of the prior of the new head are chosen.
- informed prior, head: a Bayesian head on these features; the scale of its prior is chosen.
- linear probe: logistic regression on the features below the head, C chosen; with one image of a class, C = 1.
- last-layer Laplace: around the linear probe; the precision of its prior is chosen from 1 to 1,000 times that of the
  probe, 1 / C, or with one image of a class by the marginal likelihood; 50 draws.
- fine-tuning: the last stage and the head, deterministic, on all images, Adam along a cosine; the rate and then a
  temperature are chosen.

These three take 10 passes over the images, in batches of 16, and at least 300 steps.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from imagenet_priors_report import COLUMNS, METHODS, RESULTS, read_results, write_report
from result_rows import append_row
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

import tfp_bnn
import zoo
from tfp_bnn.inference import laplace
from tfp_bnn.transfer import Tuner, choose_inflate, to_bayesian
from zoo.hub.imagenet import imagenet_network

SIZES = (10, 100, 1000)
CACHE = Path(__file__).parent / "cache"
SIDE, CLASSES, FOLDS = 96, 10, 3
# The output of the last frozen stage.
CUT = "block15_add"
NUM_SAMPLES, LAPLACE_SAMPLES = 20, 50
STEPS, PASSES, BATCH, DELTA = 300, 10, 16, 0.1
HEAD_SCALES, STAGE_HEAD_SCALES, INFLATES = (0.1, 0.03, 0.3, 1.0), (0.1, 0.3), (1.0, 10.0, 100.0)
PRECISIONS, LAPLACE_FACTORS = np.logspace(-3, 3, 7), (1, 10, 100, 1000)
RATES = (1e-4, 3e-4, 1e-3)
Rows = tuple[np.ndarray, np.ndarray]


# === Networks and features ===


def networks() -> dict[str, keras.Model]:
    """The network, cut at the last frozen stage and at the head."""
    net = imagenet_network("efficientnet_lite0_flipout", input_shape=(SIDE, SIDE, 3), num_outputs=CLASSES)
    head = net.get_layer("logits")
    head.set_weights([np.zeros_like(value) for value in head.get_weights()])
    cut, mean = net.get_layer(CUT).output, net.get_layer("mean").output
    return {
        "below": keras.Model(net.input, cut),
        "stage": keras.Model(cut, net.output),
        "features": keras.Model(cut, mean),
        "head": keras.Model(mean, net.output),
    }


def labelled(y: np.ndarray, seed: int) -> np.ndarray:
    """The rows of the largest size: one of each class after the other, so that the first n are balanced."""
    rng = np.random.default_rng(seed)
    of_each = [rng.choice(np.flatnonzero(y == label), max(SIZES) // CLASSES, replace=False) for label in range(CLASSES)]
    return np.stack(of_each, axis=1).reshape(-1)


def below(name: str, x: np.ndarray, nets: dict[str, keras.Model]) -> np.ndarray:
    """What the frozen stages give for images, from the cache if it is there."""
    path = CACHE / f"{name}.npy"
    if not path.is_file():
        CACHE.mkdir(exist_ok=True)
        resized = (np.asarray(tf.image.resize(part, (SIDE, SIDE))) for part in np.array_split(x, -(-len(x) // 100)))
        found = np.concatenate([nets["below"].predict_on_batch(part) for part in resized])
        np.save(path.with_suffix(".part.npy"), found)
        path.with_suffix(".part.npy").rename(path)
    return np.load(path)


# === Methods: each gives the test probabilities, and what it chose ===


def informed(net: keras.Model, train: Rows, x: np.ndarray, seed: int, inflates: Any, head_scales: Any) -> Any:
    """A Bayesian network around the weights of `net`, with a new head, trained from there."""
    source, target = (
        to_bayesian(net, prior="informed", delta=DELTA, likelihood="categorical", seed=seed, verbose=False)
        for _ in range(2)
    )
    weight = target.get_layer("logits").variational_weights["kernel"]
    weight.assign_parameters({**weight.parameters(), "scale": np.full(weight.shape, 0.02, np.float32)})
    batch = min(BATCH, len(train[0]))
    steps = max(STEPS, PASSES * len(train[0]) // batch)
    tuner = Tuner(source, target, new_layers=["logits"], steps=steps, batch_size=batch, seed=seed)
    best = choose_inflate(tuner, *train, inflates=inflates, head_scales=head_scales, folds=FOLDS, seed=seed)[0]
    tuner.fit(*train, best.inflate, best.head_scale)
    predictive = target.posterior_predictive(x, NUM_SAMPLES, seed=0, batch_size=500)
    return predictive.mean(), f"inflate {best.inflate:g}, head {best.head_scale:g}"


def folds_of(y: np.ndarray, seed: int) -> list[np.ndarray]:
    """The held-out rows of each fold, as masks; of each class equally many, where there are enough."""
    if has_folds(y):
        return [np.isin(np.arange(len(y)), rows) for _, rows in _splitter(seed).split(y, y)]
    fold_of = np.random.default_rng(seed).permutation(len(y)) % FOLDS
    return [fold_of == fold for fold in range(FOLDS)]


def has_folds(y: np.ndarray) -> bool:
    """Whether each fold can leave rows of every class for training."""
    return bool(np.bincount(y).min() >= FOLDS)


def _splitter(seed: int) -> StratifiedKFold:
    return StratifiedKFold(FOLDS, shuffle=True, random_state=seed)


def linear_probe(train: Rows, seed: int) -> LogisticRegression:
    probe = LogisticRegression(max_iter=2000)
    if not has_folds(train[1]):
        return probe.fit(*train)
    search = GridSearchCV(probe, {"C": 1 / PRECISIONS}, scoring="neg_log_loss", cv=_splitter(seed))
    return search.fit(*train).best_estimator_


def last_layer_laplace(train: Rows, x: np.ndarray, seed: int) -> Any:
    probe = linear_probe(train, seed)

    def predicted(train: Rows, x: np.ndarray, precision: float | str) -> np.ndarray:
        fitted = LogisticRegression(C=probe.C, max_iter=2000).fit(*train)
        head = keras.layers.Dense(CLASSES, name="logits")
        model = tfp_bnn.VariationalSequential([keras.Input(x.shape[1:]), head], seed=seed)
        head.set_weights([fitted.coef_.T, fitted.intercept_])
        posterior = laplace(model, *train, structure="kronecker", prior_precision=precision)
        return posterior.posterior_predictive(x, LAPLACE_SAMPLES, seed=0).mean()

    def held_out(precision: float) -> float:
        total = 0.0
        for out in folds_of(train[1], seed):
            found = predicted((train[0][~out], train[1][~out]), train[0][out], precision)
            total += tfp_bnn.metrics.nll(train[1][out], found) * out.sum()
        return total

    chosen: float | str = "marginal_likelihood"
    if has_folds(train[1]):
        chosen = min((factor / probe.C for factor in LAPLACE_FACTORS), key=held_out)
    return predicted(train, x, chosen), f"C {probe.C:g}, precision {chosen}"


class Deterministic:
    """The network of a last stage, trained again and again from the same weights.

    Args:
        net: The network.
        seed: Seed of the order of the rows.
    """

    def __init__(self, net: keras.Model, seed: int) -> None:
        self._net, self._seed = keras.models.clone_model(net), seed
        self._start = net.get_weights()
        self._net.compile(keras.optimizers.Adam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        self._net.optimizer.build(self._net.trainable_variables)

    def fit(self, train: Rows, rate: float) -> None:
        """Trains the network from the start."""
        self._net.set_weights(self._start)
        optimizer = self._net.optimizer
        for variable in optimizer.variables:
            variable.assign(keras.ops.zeros_like(variable))
        batch = min(BATCH, len(train[0]))
        steps = max(STEPS, PASSES * len(train[0]) // batch)
        rng = np.random.default_rng(self._seed)
        rows = np.concatenate([rng.permutation(len(train[0])) for _ in range(-(-steps * batch // len(train[0])))])
        for step in range(steps):
            optimizer.learning_rate.assign(rate / 2 * (1 + np.cos(np.pi * step / steps)))
            chosen = rows[step * batch : (step + 1) * batch]
            self._net.train_on_batch(train[0][chosen], train[1][chosen])

    def logits(self, x: np.ndarray) -> np.ndarray:
        """What the trained network gives."""
        return self._net.predict(x, batch_size=500, verbose=0)


def fine_tuning(net: keras.Model, train: Rows, x: np.ndarray, seed: int) -> Any:
    model, held_out = Deterministic(net, seed), {}
    for rate in RATES:
        held_out[rate] = np.zeros((len(train[0]), CLASSES), np.float32)
        for out in folds_of(train[1], seed):
            model.fit((train[0][~out], train[1][~out]), rate)
            held_out[rate][out] = model.logits(train[0][out])

    def nll(logits: np.ndarray, log_temperature: float = 0.0) -> float:
        return float(tfp_bnn.metrics.nll(train[1], keras.activations.softmax(logits / np.exp(log_temperature)).numpy()))

    rate = min(RATES, key=lambda rate: nll(held_out[rate]))
    found = minimize_scalar(lambda value: nll(held_out[rate], value), bounds=(-3, 3), method="bounded").x
    model.fit(train, rate)
    logits = model.logits(x) / np.exp(found)
    return keras.activations.softmax(logits).numpy(), f"rate {rate:g}, temperature {np.exp(found):.2f}"


def probabilities(method: str, nets: dict[str, keras.Model], train: Rows, x: np.ndarray, seed: int) -> Any:
    """The test probabilities of a method, and what it chose."""
    if method == "informed prior, last stage":
        return informed(nets["stage"], train, x, seed, INFLATES, STAGE_HEAD_SCALES)
    if method == "fine-tuning":
        return fine_tuning(nets["stage"], train, x, seed)
    features = (nets["features"].predict(train[0], verbose=0), train[1])
    of_test = nets["features"].predict(x, batch_size=500, verbose=0)
    if method == "informed prior, head":
        return informed(nets["head"], features, of_test, seed, (1.0,), HEAD_SCALES)
    if method == "linear probe":
        probe = linear_probe(features, seed)
        return probe.predict_proba(of_test), f"C {probe.C:g}"
    return last_layer_laplace(features, of_test, seed)


# === The study ===


def tasks(arguments: argparse.Namespace) -> Iterator[tuple[int, int, str]]:
    """The work that is not done yet."""
    rows = read_results(arguments.results)
    if any(row["test"] != str(arguments.test) for row in rows):
        raise SystemExit(
            f"{arguments.results} has scores on other test rows than --test {arguments.test}. Name another."
        )
    done = {(row["size"], row["seed"], row["method"]) for row in rows}
    for seed, size, method in itertools.product(arguments.seeds, arguments.sizes, arguments.methods):
        if (str(size), str(seed), method) not in done:
            yield size, seed, method


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(5)], help="default: 0 1 2 3 4")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, choices=SIZES)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--test", type=int, default=10_000, help="rows of the test split")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="only make the tables and the figure of the guide")
    arguments = parser.parse_args(argv)
    if arguments.report:
        return write_report(read_results(arguments.results))
    data, nets = zoo.load_dataset("cifar10"), networks()
    y_test = data.test.y[: arguments.test]
    x_test = below(f"test_{arguments.test}", data.test.x[: arguments.test], nets)
    for size, seed, method in tasks(arguments):
        rows = labelled(data.train.y, seed)
        x = below(f"train_{seed}", data.train.x[rows], nets)[:size]
        train = (x, data.train.y[rows][:size].astype(np.int64))
        found, chosen = probabilities(method, nets, train, x_test, seed)
        row = {
            "size": size,
            "seed": seed,
            "method": method,
            "nll": round(float(tfp_bnn.metrics.nll(y_test, found)), 5),
            "accuracy": round(float(tfp_bnn.metrics.accuracy(y_test, found)), 5),
            "ece": round(float(tfp_bnn.metrics.expected_calibration_error(y_test, found)), 5),
            "test": arguments.test,
            "chosen": chosen,
        }
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        append_row(arguments.results, COLUMNS, row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
