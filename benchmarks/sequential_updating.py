"""Data in five parts, one after the other: the posterior as the next prior, plain refitting, and one joint fit.

Run: `python benchmarks/sequential_updating.py --seeds 5`. Prints tables in Markdown; the exit code is 1 unless, on
permuted MNIST, the posterior as the prior has a higher mean accuracy and a lower mean NLL than both ways of refitting.
`--docs` writes the guide's table, its figure and `benchmarks/results/sequential_updating.csv`. `--quick` is a trial run
of less than a minute, whose numbers mean nothing.

The 50,000 training images of MNIST make five parts of about 10,000 each, in three ways:

- class-split MNIST: digits 0-1, 2-3, 4-5, 6-7, 8-9, with one head of 10 classes that does not know the task;
- permuted MNIST: at random; in each part but the first the pixels have a different order, the same for all its images;
- five random parts: at random, of the same task.

Each task has a test set: the test images of its digits; all test images with the pixels in its order; all test images.
Accuracy and predictive NLL are means over the test sets of all five tasks after the last part.

Seed s determines parts, permutations, initial weights, noise and the order of the images. All methods use one network,
784-100-100-10, of `DenseFlipout` layers with Bayesian biases: a deterministic bias has no prior and would simply follow
the last part. The prior is N(0, PRIOR_SCALE^2), and standard deviations start at half of that. Every method takes the
same number of Adam steps per part, and the joint fit five times as many in total.

- posterior as prior: `tfp_bnn.transfer.update` for each part after the first. The chain is trained by one compiled
  network, to save the seconds of compiling one for each part; `tests/test_sequential_updating.py` shows that `update`
  gives the same posterior;
- plain refitting: `fit` on each part in turn, from where the posterior was, with the original prior;
- deterministic refitting: the same with the Keras twins of the layers, which have no prior at all, at the learning rate
  of 3e-4, 1e-3 and 3e-3 that suits it best in each experiment;
- joint: one `fit` on all parts.

The settings were chosen with `--split validation --first-seed 100`, which does not use the test images.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sequential_updating_report import (
    DETERMINISTIC,
    JOINT,
    NAIVE,
    NUM_TASKS,
    OF_ONE_TASK,
    POSTERIOR,
    Results,
    Score,
    read_csv,
    tables,
    write_csv,
    write_guide,
)

import tfp_bnn
import zoo
from tfp_bnn.layers import DenseFlipout
from tfp_bnn.models.training_state import restore_training_state, training_state
from tfp_bnn.transfer import transfer_posterior
from zoo.datasets import Split

HIDDEN = (100, 100)
PRIOR_SCALE = 0.1
START = 0.5
LEARNING_RATE = 1e-2
BATCH_SIZE = 128
STEPS = 350
STEPS_AT_ONCE = 50
NUM_SAMPLES = 20


@dataclass(frozen=True)
class Task:
    """A part of the training images, and the test images of its task."""

    train: Split
    test: Split


# === Experiments ===


def dealt_out(rows: Split, rng: np.random.Generator) -> list[Split]:
    return [Split(rows.x[part], rows.y[part]) for part in np.array_split(rng.permutation(len(rows)), NUM_TASKS)]


def class_split(train: Split, test: Split, rng: np.random.Generator) -> list[Task]:
    def of_task(rows: Split, task: int) -> Split:
        chosen = rows.y // 2 == task
        return Split(rows.x[chosen], rows.y[chosen])

    return [Task(of_task(train, task), of_task(test, task)) for task in range(NUM_TASKS)]


def permuted(train: Split, test: Split, rng: np.random.Generator) -> list[Task]:
    pixels = train.x.shape[1]
    orders = [np.arange(pixels), *(rng.permutation(pixels) for _ in range(NUM_TASKS - 1))]
    parts = dealt_out(train, rng)
    return [
        Task(Split(part.x[:, order], part.y), Split(test.x[:, order], test.y))
        for part, order in zip(parts, orders, strict=True)
    ]


def random_parts(train: Split, test: Split, rng: np.random.Generator) -> list[Task]:
    return [Task(part, test) for part in dealt_out(train, rng)]


EXPERIMENTS: dict[str, Callable[[Split, Split, np.random.Generator], list[Task]]] = {
    "class-split MNIST": class_split,
    "permuted MNIST": permuted,
    OF_ONE_TASK: random_parts,
}

DETERMINISTIC_RATES = {"class-split MNIST": 3e-4, "permuted MNIST": 3e-4, OF_ONE_TASK: 3e-3}


# === Training ===


def network(seed: int, prior_scale: float | None) -> Any:
    """Builds the network, not compiled; the deterministic one for None."""
    # The prior `informed` is N(0, initial_scale^2) until a posterior is assigned to it.
    prior = {"name": "informed", "initial_scale": prior_scale}
    posterior = {"name": "mean_field_normal", "initial_scale": (prior_scale or 1.0) * START}
    roles = {"kernel_prior": prior, "kernel_posterior": posterior, "bias_prior": prior, "bias_posterior": posterior}
    dense: Callable[..., keras.layers.Layer] = functools.partial(DenseFlipout, **roles)
    if prior_scale is None:
        dense = keras.layers.Dense
    keras.utils.set_random_seed(seed)
    layers = [
        keras.Input((784,)),
        keras.layers.Rescaling(1 / 255, name="rescale"),
        *(dense(width, activation="relu", name=f"dense{i}") for i, width in enumerate(HIDDEN, 1)),
        dense(10, name="logits"),
    ]
    return tfp_bnn.VariationalSequential(layers, seed=seed)


def optimizer(steps: int, learning_rate: float) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps))


def batches(rows: Split, seed: int) -> tf.data.Dataset:
    endless = tf.data.Dataset.from_tensor_slices((rows.x, rows.y)).shuffle(len(rows), seed=seed).repeat()
    return endless.batch(min(BATCH_SIZE, len(rows)), drop_remainder=True)


@dataclass
class Learner:
    """One compiled network for consecutive fits."""

    seed: int
    prior_scale: float | None
    learning_rate: float
    steps: int
    model: Any = field(init=False)

    def __post_init__(self) -> None:
        self.model = network(self.seed, self.prior_scale)
        self.model.compile(
            optimizer(self.steps, self.learning_rate), steps_per_execution=min(STEPS_AT_ONCE, self.steps)
        )
        self.start = training_state(self.model)

    def start_over(self) -> None:
        """Resets weights, prior, optimizer and noise to their initial state."""
        restore_training_state(self.model, self.start)

    def fit(self, rows: Split) -> None:
        """Fits from the current posterior, with the current prior and a new optimizer."""
        weights = {name: value for name, value in training_state(self.model).items() if name.startswith("model/")}
        restore_training_state(self.model, {**self.start, **weights})
        data = batches(rows, self.seed)
        self.model.fit(data, steps_per_epoch=self.steps, num_examples=len(rows), verbose=0)


def after_all(learners: dict[str, Learner], tasks: Sequence[Task], inflates: Sequence[float]) -> Iterator[Any]:
    """Yields the methods by name, each with its network after the last part."""
    learner = learners[POSTERIOR]
    learner.start_over()
    learner.fit(tasks[0].train)
    after_first = training_state(learner.model)
    chains = {POSTERIOR if inflate == 1 else f"{POSTERIOR}, inflate={inflate:g}": inflate for inflate in inflates}
    for method, inflate in {**chains, NAIVE: None}.items():
        restore_training_state(learner.model, after_first)
        for task in tasks[1:]:
            if inflate is not None:
                transfer_posterior(learner.model, learner.model, inflate)
            learner.fit(task.train)
        yield method, learner.model
    learner = learners[DETERMINISTIC]
    learner.start_over()
    for task in tasks:
        learner.fit(task.train)
    yield DETERMINISTIC, learner.model
    learner = learners[JOINT]
    learner.start_over()
    learner.fit(Split(*(np.concatenate([getattr(task.train, name) for task in tasks]) for name in ("x", "y"))))
    yield JOINT, learner.model


def score(model: Any, tasks: Sequence[Task], num_samples: int, seed: int) -> Score:
    last = np.unique(tasks[-1].test.y)
    measured: dict[int, list[float]] = {}
    for test in (task.test for task in tasks):
        if id(test) not in measured:
            draws = num_samples if model.variational_layers else 1
            predictive = model.posterior_predictive(test.x, draws, seed, batch_size=len(test))
            probabilities, classes = predictive.mean(), np.unique(test.y)
            predicted = probabilities.argmax(axis=-1)
            told = classes[probabilities[:, classes].argmax(axis=-1)]
            nll = -predictive.log_prob(test.y).mean(dtype=np.float64)
            shares = [(predicted == test.y).mean(), np.isin(predicted, last).mean(), (told == test.y).mean()]
            measured[id(test)] = [float(nll), *map(float, shares)]
    nll, by_task, to_last, told = (list(values) for values in zip(*(measured[id(t.test)] for t in tasks), strict=True))
    found = Score(float(np.mean(by_task)), float(np.mean(nll)), by_task)
    if set(last) != set(tasks[0].test.y):
        found.to_last, found.told = float(np.mean(to_last[:-1])), float(np.mean(told))
    return found


# === Command ===


def run(arguments: argparse.Namespace, seeds: Sequence[int]) -> Results:
    data = zoo.load_dataset("mnist")
    train, test = (Split(rows.x.reshape(len(rows), -1), rows.y) for rows in (data.train, data.split(arguments.split)))
    if arguments.quick:
        train, test = (Split(rows.x[:1000], rows.y[:1000]) for rows in (train, test))
    results: Results = {name: {} for name in arguments.experiments}
    for seed in seeds:
        bayesian = (seed, arguments.prior_scale, arguments.learning_rate)
        learner, joint = (Learner(*bayesian, steps) for steps in (arguments.steps, NUM_TASKS * arguments.steps))
        for index, experiment in enumerate(EXPERIMENTS):
            if experiment not in results:
                continue
            tasks = EXPERIMENTS[experiment](train, test, np.random.default_rng([seed, index]))
            deterministic = Learner(seed, None, DETERMINISTIC_RATES[experiment], arguments.steps)
            learners = {POSTERIOR: learner, DETERMINISTIC: deterministic, JOINT: joint}
            for method, model in after_all(learners, tasks, arguments.inflate):
                found = score(model, tasks, arguments.num_samples, seed)
                results[experiment].setdefault(method, []).append(found)
                print(f"seed {seed}, {experiment}, {method}: {found.row()}", file=sys.stderr, flush=True)
    return results


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--experiments", nargs="+", choices=tuple(EXPERIMENTS), default=list(EXPERIMENTS))
    parser.add_argument("--inflate", type=float, nargs="+", default=[1.0])
    parser.add_argument("--prior-scale", type=float, default=PRIOR_SCALE)
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--steps", type=int, default=STEPS, help="for each part")
    parser.add_argument("--num-samples", type=int, default=NUM_SAMPLES)
    parser.add_argument("--quick", action="store_true", help="a few steps on a few images of one seed")
    parser.add_argument("--docs", action="store_true", help="write the table and the figure of the guide, and the CSV")
    parser.add_argument("--from-csv", action="store_true", help="train nothing: show the results in the CSV again")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.seeds, arguments.steps, arguments.num_samples = 1, 10, 2
    if arguments.docs and (arguments.quick or arguments.split != "test" or len(arguments.experiments) < 3):
        parser.error("--docs is for the whole run on the test images")
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    results = read_csv() if arguments.from_csv else run(arguments, seeds)
    if arguments.docs:
        if not arguments.from_csv:
            write_csv(results, seeds)
        # The guide shows the numbers of the file.
        results = read_csv()
        write_guide(results)
    print(tables(results))
    compared = results.get("permuted MNIST")
    if arguments.quick or compared is None:
        return 0
    accuracy, nll = (
        {method: np.mean([getattr(each, name) for each in scores]) for method, scores in compared.items()}
        for name in ("accuracy", "nll")
    )
    won = all(accuracy[POSTERIOR] > accuracy[other] and nll[POSTERIOR] < nll[other] for other in (NAIVE, DETERMINISTIC))
    return 0 if won else 1


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    sys.exit(main())
