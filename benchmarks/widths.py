"""Size that follows the data: the units that a network keeps, against the number of images that it is trained on.

Run: `python benchmarks/widths.py`. A perceptron 784-400-400-10 is trained on 500, 5,000 and 50,000 images of MNIST,
once with a prior scale for each unit, learned by empirical Bayes (`groups="outputs"`), and once with one for each
layer, otherwise alike. Then all units whose weights have learned less than 1, 3 or 10 nats are pruned, and the smaller
dense network takes the place of the whole one; nothing is trained after it. Appends the rows of each network to
`benchmarks/results/widths.csv`, except for those that are there, so a stopped run can be continued. Prints the table of
`docs/compression.md` and draws its figure; `--report` does only that.

Training: 1,200 steps of 100 images (2,000 steps for 50,000 images), Adam from 0.003 with a cosine, beta rising to 0.1
over the first 30 %. `--beta 1 --images 500` ends with a network that has learned nothing. Scores are those
of the test split, with 20 draws of the weights and without a calibration.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import numpy as np
from result_rows import append_row

import tfp_bnn
import zoo
from tfp_bnn.compression import prune, shrink
from tfp_bnn.figures import to_png
from tfp_bnn.figures.style import COLOURS, LINES, new_figure, tidy
from tfp_bnn.layers import DenseLocalReparameterization
from tfp_bnn.predictive import score
from zoo.datasets import Dataset

RESULTS = Path(__file__).parent / "results" / "widths.csv"
FIGURE = Path(__file__).parents[1] / "docs" / "widths.png"
PRIORS: dict[str, dict[str, Any]] = {"unit": {"groups": "outputs"}, "layer": {}}
HIDDEN = ("dense1", "dense2")
UNITS, BATCH, RATE, BETA, WARMUP, DRAWS = 400, 100, 3e-3, 0.1, 0.3, 20
STEPS = {500: 1200, 5000: 1200, 50000: 2400}
NATS, SHOWN = (1, 3, 10), 1
KEY = ("images", "scale_of_each", "beta", "seed")
OF_WHOLE, OF_SMALL = ("accuracy", "nll"), ("small_accuracy", "small_nll")
COLUMNS = (*KEY, "nats", *HIDDEN, *OF_WHOLE, *OF_SMALL, "weights", "cpu_seconds")

Rows = Sequence[dict[str, str]]


def trained(data: Dataset, images: int, prior: dict[str, Any], beta: float, seed: int) -> tfp_bnn.VariationalSequential:
    """A perceptron that was trained on some images, drawn at random."""
    rows = np.random.default_rng(seed).permutation(len(data.train))[:images]
    keras.utils.set_random_seed(seed)

    def layer(units: int, name: str, activation: str | None = None) -> DenseLocalReparameterization:
        return DenseLocalReparameterization(
            units,
            activation=activation,
            kernel_prior={"name": "normal", "scale": 0.1, "empirical_bayes": True, **prior},
            kernel_posterior={"name": "mean_field_normal", "initial_scale": 0.02},
            name=name,
        )

    hidden = [layer(UNITS, name, "relu") for name in HIDDEN]
    model = tfp_bnn.VariationalSequential([keras.Input((784,)), *hidden, layer(10, "logits")], seed=seed)
    epochs = max(1, STEPS[images] * BATCH // images)
    steps = epochs * -(-images // BATCH)
    model.beta_schedule = tfp_bnn.schedules.LinearWarmup(round(WARMUP * steps), 0.0, beta)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps)))
    model.fit(_pixels(data.train.x[rows]), data.train.y[rows], batch_size=BATCH, epochs=epochs, verbose=0)
    return model


def measured(data: Dataset, images: int, scale_of_each: str, beta: float, seed: int) -> Iterator[dict[str, Any]]:
    """The numbers of a network, whole and without the units that have learned less than some nats."""
    start = time.process_time()
    model = trained(data, images, PRIORS[scale_of_each], beta, seed)
    seconds = round(time.process_time() - start)
    whole = scores(model, data, OF_WHOLE)
    for nats in NATS:
        try:
            small = shrink(prune(model, by="kl", below=nats, units=True))
        except ValueError:  # no unit of a layer has learned so much
            yield {"nats": nats, **dict.fromkeys(HIDDEN, 0), **whole, "weights": 0, "cpu_seconds": seconds}
            continue
        left = {name: small.get_layer(name).units for name in HIDDEN}
        kernels = [weight for layer in small.variational_layers for weight in layer.variational_weights.values()]
        size = sum(weight.size for weight in kernels)
        yield {"nats": nats, **left, **whole, **scores(small, data, OF_SMALL), "weights": size, "cpu_seconds": seconds}


def scores(model: Any, data: Dataset, names: Sequence[str]) -> dict[str, str]:
    """Accuracy and NLL under some names."""
    found = score(model.posterior_predictive(_pixels(data.test.x), num_samples=DRAWS, seed=0), data.test.y)
    return {name: f"{found[of]:.5g}" for name, of in zip(names, OF_WHOLE, strict=True)}


def _pixels(images: np.ndarray) -> np.ndarray:
    return np.asarray(images, np.float32).reshape(len(images), -1) / 255


def read_results(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(path: Path, sizes: Sequence[int], seeds: Sequence[int], beta: float) -> None:
    """Appends what is missing."""
    data = zoo.load_dataset("mnist")
    for seed in seeds:
        for images in sizes:
            for scale_of_each in PRIORS:
                key = dict(zip(KEY, (str(images), scale_of_each, str(beta), str(seed)), strict=True))
                if not any(all(row[name] == value for name, value in key.items()) for row in read_results(path)):
                    # All at once: a stopped run leaves no network with a part of its rows.
                    for row in list(measured(data, images, scale_of_each, beta, seed)):
                        append_row(path, COLUMNS, {**key, **row})
                        print(", ".join(map(str, {**key, **row}.values())), flush=True)


def groups_of(rows: Rows) -> dict[tuple[int, str, int], list[dict[str, str]]]:
    """The rows by number of images, prior and nats, in their order."""
    found: dict[tuple[int, str, int], list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault((int(row["images"]), row["scale_of_each"], int(row["nats"])), []).append(row)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], [*PRIORS].index(item[0][1]), item[0][2])))


def table(rows: Rows) -> str:
    """Widths, and scores before and after shrinking, as Markdown: means over the seeds, of widths with the range."""
    lines = [
        "| images | a scale for each | nats | seeds | units left of 400, 400 | weights left | accuracy (%) | smaller "
        "| NLL | smaller |",
        "|---" * 10 + "|",
    ]
    for (images, scale_of_each, nats), group in groups_of(rows).items():
        widths = ", ".join(_range([int(row[name]) for row in group]) for name in HIDDEN)
        accuracy = [100 * _mean(group, "accuracy"), 100 * _mean(group, "small_accuracy")]
        nll = [_mean(group, "nll"), _mean(group, "small_nll")]
        lines.append(
            f"| {images:,} | {scale_of_each} | {nats} | {len(group)} | {widths} | {_mean(group, 'weights'):,.0f} | "
            + " | ".join([*(f"{value:.2f}" for value in accuracy), *(f"{value:.3f}" for value in nll)])
            + " |"
        )
    return "\n".join(lines)


def _mean(rows: Rows, name: str) -> float:
    """The mean over the seeds; NaN if nothing was left of a network."""
    return statistics.fmean(float(row[name] or "nan") for row in rows)


def _range(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return str(least) if least == most else f"{least} to {most}"


def figure(rows: Rows) -> bytes:
    """Units worth at least a nat in each layer, and NLL before and after, against the number of images, as PNG."""
    drawn = new_figure(9, 3.6)
    panels = drawn.subplots(1, 2)
    for index, scale_of_each in enumerate(PRIORS):
        of_prior = {key[0]: group for key, group in groups_of(rows).items() if key[1:] == (scale_of_each, SHOWN)}
        groups = {images: group for images, group in of_prior.items() if all(row["small_nll"] for row in group)}
        for layer, style, marker in zip(HIDDEN, LINES, "os", strict=False):
            values = [_mean(group, layer) for group in groups.values()]
            label = f"{layer}, a scale for each {scale_of_each}"
            panels[0].plot([*groups], values, color=COLOURS[index], linestyle=style, marker=marker, label=label)
        for name, style, marker, what in (("nll", "-", "o", "whole"), ("small_nll", "--", "x", "small")):
            values = [_mean(group, name) for group in groups.values()]
            label = f"{what}, a scale for each {scale_of_each}"
            panels[1].plot([*groups], values, color=COLOURS[index], linestyle=style, marker=marker, label=label)
    panels[0].set(ylabel="units left of 400", ylim=(0, UNITS + 10))
    panels[1].set(ylabel="test NLL (nats)", ylim=(0, None))
    sizes = sorted({int(row["images"]) for row in rows})
    for panel in panels:
        panel.set(xlabel="training images", xscale="log")
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.minorticks_off()
        tidy(panel)
        panel.legend(frameon=False, fontsize=8)
    return to_png(drawn)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="*", type=int, choices=STEPS, default=[*STEPS], help="default: all")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0], help="default: 0")
    parser.add_argument("--beta", type=float, default=BETA, help="of the KL, in the end; the table has those of 0.1")
    parser.add_argument("--report", action="store_true", help="print the table and draw the figure, run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    if not given.report:
        run(given.results, given.images, given.seeds, given.beta)
    rows = [row for row in read_results(given.results) if float(row["beta"]) == BETA]
    print(table(rows))
    if given.results == RESULTS and rows:
        FIGURE.write_bytes(figure(rows))


if __name__ == "__main__":
    main()
