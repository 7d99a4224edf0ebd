"""Data in five parts, one after the other: the posterior as the next prior, plain refitting, and one joint fit.

Run: `python benchmarks/sequential_updating.py --seeds 5`. Prints tables in Markdown; the exit code is 1 unless, on
permuted MNIST, the posterior as the prior has a higher mean accuracy and a lower mean NLL than both ways of refitting.
`--docs` writes the guide's table, its figure and `benchmarks/results/sequential_updating.csv`. `--quick` is a trial run
of less than a minute, whose numbers mean nothing.

The 50,000 training images of MNIST make five parts of about 10,000 each, in three ways:

- class-split MNIST: digits 0-1, 2-3, 4-5, 6-7, 8-9, with one head of 10 classes that is not told the task;
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
import csv
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfp_bnn
import zoo
from tfp_bnn.figures import style
from tfp_bnn.layers import DenseFlipout
from tfp_bnn.models.training_state import restore_training_state, training_state
from tfp_bnn.transfer import transfer_posterior
from zoo.datasets import Split

ROOT = Path(__file__).parent.parent
CSV = ROOT / "benchmarks" / "results" / "sequential_updating.csv"
GUIDE = ROOT / "docs" / "sequential_updating.md"
FIGURE = ROOT / "docs" / "sequential_updating.png"
MARKERS = ("<!-- results: begin -->\n", "<!-- results: end -->")

NUM_TASKS = 5
HIDDEN = (100, 100)
PRIOR_SCALE = 0.1
START = 0.5
LEARNING_RATE = 1e-2
BATCH_SIZE = 128
STEPS = 350
STEPS_AT_ONCE = 50
NUM_SAMPLES = 20

POSTERIOR, NAIVE, DETERMINISTIC, JOINT = "posterior as prior", "plain refitting", "deterministic refitting", "joint"
METHODS = (POSTERIOR, NAIVE, DETERMINISTIC, JOINT)


@dataclass(frozen=True)
class Task:
    """A part of the training images, and the images to test on what it teaches."""

    train: Split
    test: Split


@dataclass
class Score:
    """Scores of one method after the last part: means over the tasks, and accuracies on each.

    `nll` is in nats. Where each task has classes of its own, `to_last` is the share of test images of earlier tasks
    that are taken for classes of the last one, and `told` the accuracy where the task is given, so that only its
    classes are possible; else they are None.
    """

    accuracy: float
    nll: float
    by_task: list[float]
    to_last: float | None = None
    told: float | None = None

    def row(self) -> dict[str, float | None]:
        """Returns the columns of the CSV."""
        by_task = {f"accuracy_task_{number}": value for number, value in enumerate(self.by_task, 1)}
        of_classes = {"predicted_last_task": self.to_last, "accuracy_task_known": self.told}
        return {"accuracy": self.accuracy, "nll": self.nll, **by_task, **of_classes}


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
    "five random parts": random_parts,
}


DETERMINISTIC_RATES = {"class-split MNIST": 3e-4, "permuted MNIST": 3e-4, "five random parts": 3e-3}


# === Training ===


def network(seed: int, prior_scale: float | None) -> Any:
    """Builds the network, not compiled; the deterministic one for None."""
    # The prior `informed` is N(0, initial_scale^2) until it is given a posterior.
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


# === Results ===


def mean_and_deviation(values: Sequence[Any]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=min(1, len(values) - 1)):.3f}"


Results = dict[str, dict[str, list[Score]]]


def markdown(results: Results) -> str:
    lines = [
        "| | | accuracy | NLL (nats) | NLL above joint (nats) | accuracy, first task | accuracy, last task |",
        "|---|---|---|---|---|---|---|",
    ]
    for experiment, by_method in results.items():
        joint = np.array([each.nll for each in by_method[JOINT]])
        for method, scores in by_method.items():
            columns: list[Sequence[float]] = [[each.accuracy for each in scores], [each.nll for each in scores]]
            gap = "" if method == JOINT else mean_and_deviation(list(np.array(columns[1]) - joint))
            cells = [experiment, method, *map(mean_and_deviation, columns), gap]
            cells += [mean_and_deviation([each.by_task[task] for each in scores]) for task in (0, -1)]
            lines.append(f"| {' | '.join(cells)} |")
            experiment = ""
    return "\n".join(lines)


def sentence(results: Results) -> str:
    """How forgetting looks where every task has classes of its own."""
    if "class-split MNIST" not in results:
        return ""
    by_method = results["class-split MNIST"]
    shares = [f"{100 * np.mean([each.to_last for each in of]):.1f} % ({method})" for method, of in by_method.items()]
    told = [f"{mean_and_deviation([each.told for each in of])} ({method})" for method, of in by_method.items()]
    return (
        f"Class-split MNIST, test images of 0 to 7 that are taken for an 8 or a 9: {', '.join(shares)}. "
        f"Accuracy on all, if told which two digits are possible: {', '.join(told)}."
    )


def tables(results: Results) -> str:
    return "\n\n".join([markdown(results), sentence(results)]).rstrip()


def draw(results: Results) -> bytes:
    figure = style.new_figure(10.0, 3.6)
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for panel, (experiment, by_method) in zip(panels, results.items(), strict=True):
        style.tidy(panel)
        panel.set_title(experiment, fontsize=10)
        of_one_task = EXPERIMENTS[experiment] is random_parts
        for index, (method, scores) in enumerate(by_method.items()):
            look = {"color": style.COLOURS[index], "marker": "os^Dv"[index]}
            nll = [each.nll for each in scores]
            accuracy = np.array([each.by_task for each in scores])
            if of_one_task:
                panel.plot(
                    index + np.linspace(-0.15, 0.15, len(nll)), nll, linestyle="", markerfacecolor="none", **look
                )
                panel.plot([index - 0.3, index + 0.3], [np.mean(nll)] * 2, color=look["color"])
            else:
                panel.errorbar(
                    np.arange(1, NUM_TASKS + 1) + 0.05 * (index - 1.5),
                    accuracy.mean(axis=0),
                    accuracy.std(axis=0, ddof=min(1, len(scores) - 1)),
                    label=method,
                    linestyle=style.LINES[index % len(style.LINES)],
                    capsize=2,
                    **look,
                )
        if of_one_task:
            panel.set_xticks(range(len(by_method)), [method.replace(" ", "\n") for method in by_method], fontsize=8)
            panel.set_ylim(bottom=0)
            panel.set_ylabel("predictive NLL (nats per image)")
        else:
            panel.set_xticks(range(1, NUM_TASKS + 1))
            panel.set_ylim(-0.03, 1.03)
            panel.set_xlabel("task, in the order of training")
            panel.set_ylabel("accuracy after the last task")
    style.legend_below(figure, panels[0], columns=4)
    return style.to_png(figure, dpi=120)


def write_csv(results: Results, seeds: Sequence[int]) -> None:
    CSV.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"experiment": experiment, "method": method, "seed": seed, **each.row()}
        for experiment, by_method in results.items()
        for method, scores in by_method.items()
        for seed, each in zip(seeds, scores, strict=True)
    ]
    with CSV.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{v:.6f}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)


def read_csv() -> Results:
    results: Results = {}
    with CSV.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            by_task = [float(row[f"accuracy_task_{number}"]) for number in range(1, NUM_TASKS + 1)]
            names = ("predicted_last_task", "accuracy_task_known")
            of_classes = [float(row[name]) if row[name] else None for name in names]
            found = Score(float(row["accuracy"]), float(row["nll"]), by_task, *of_classes)
            results.setdefault(row["experiment"], {}).setdefault(row["method"], []).append(found)
    return results


def write_guide(results: Results) -> None:
    FIGURE.write_bytes(draw(results))
    before, rest = GUIDE.read_text("utf-8").split(MARKERS[0])
    after = rest.split(MARKERS[1])[1]
    GUIDE.write_text(f"{before}{MARKERS[0]}{tables(results)}\n{MARKERS[1]}{after}", "utf-8")


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
        # The guide shows what the file says.
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
