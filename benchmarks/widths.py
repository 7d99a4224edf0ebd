"""Size that follows the data: the units that a network keeps, against the number of images that it is trained on.

Run: `python benchmarks/widths.py`. A perceptron 784-400-400-10, or with `--network lenet5` a LeNet-5 of 20 and 50
filters and 500 units (the Caffe one, of Louizos et al. 2017), is trained on 500, 5,000 and 50,000 images of MNIST,
once with a prior scale for each unit or filter, learned by empirical Bayes (`groups="outputs"`), and once with one for
each layer, otherwise alike. Then all units and filters whose weights have learned less than 1, 3 or 10 nats are pruned,
and the smaller dense network takes the place of the whole one; nothing is trained after it. Appends the rows of each
network to `benchmarks/results/widths.csv`, except for those that are there, so a stopped run can be continued. Prints
the tables of `docs/compression.md` and draws its figure; `--report` does only that.

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
from tfp_bnn.layers import Convolution2DFlipout, DenseLocalReparameterization
from tfp_bnn.predictive import score
from zoo.datasets import Dataset

RESULTS = Path(__file__).parent / "results" / "widths.csv"
FIGURE = Path(__file__).parents[1] / "docs" / "widths.png"
PRIORS: dict[str, dict[str, Any]] = {"unit": {"groups": "outputs"}, "layer": {}}
NETWORKS = {"mlp": {"dense1": 400, "dense2": 400}, "lenet5": {"conv1": 20, "conv2": 50, "dense1": 500}}
"""The hidden layers of each network, with their numbers of units or filters."""
BATCH, RATE, BETA, WARMUP, DRAWS = 100, 3e-3, 0.1, 0.3, 20
STEPS = {500: 1200, 5000: 1200, 50000: 2400}
NATS, SHOWN = (1, 3, 10), 1
KEY = ("network", "images", "scale_of_each", "beta", "seed")
OF_WHOLE, OF_SMALL = ("accuracy", "nll"), ("small_accuracy", "small_nll")
COLUMNS = (*KEY, "nats", "units", *OF_WHOLE, *OF_SMALL, "weights", "cpu_seconds")

Rows = Sequence[dict[str, str]]


def untrained(network: str, prior: dict[str, Any], seed: int) -> tfp_bnn.VariationalSequential:
    """A network whose priors have learned scales."""
    keras.utils.set_random_seed(seed)
    sizes = NETWORKS[network]

    def weights(name: str, activation: str | None = "relu") -> dict[str, Any]:
        return {
            "activation": activation,
            "kernel_prior": {"name": "normal", "scale": 0.1, "empirical_bayes": True, **prior},
            "kernel_posterior": {"name": "mean_field_normal", "initial_scale": 0.02},
            "name": name,
        }

    layers: list[Any] = [keras.Input((28, 28, 1))]
    for name, size in sizes.items():
        if name.startswith("conv"):
            layers += [Convolution2DFlipout(size, 5, **weights(name)), keras.layers.MaxPooling2D()]
            continue
        if name == "dense1":
            layers.append(keras.layers.Flatten())
        layers.append(DenseLocalReparameterization(size, **weights(name)))
    head = DenseLocalReparameterization(10, **weights("logits", None))
    return tfp_bnn.VariationalSequential([*layers, head], seed=seed)


def trained(
    network: str, data: Dataset, images: int, prior: dict[str, Any], beta: float, seed: int
) -> tfp_bnn.VariationalSequential:
    """A network that was trained on some images, drawn at random."""
    rows = np.random.default_rng(seed).permutation(len(data.train))[:images]
    model = untrained(network, prior, seed)
    epochs = max(1, STEPS[images] * BATCH // images)
    steps = epochs * -(-images // BATCH)
    model.beta_schedule = tfp_bnn.schedules.LinearWarmup(round(WARMUP * steps), 0.0, beta)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps)))
    model.fit(_pixels(data.train.x[rows]), data.train.y[rows], batch_size=BATCH, epochs=epochs, verbose=0)
    return model


def measured(
    network: str, data: Dataset, images: int, scale_of_each: str, beta: float, seed: int
) -> Iterator[dict[str, Any]]:
    """The numbers of a network, whole and without the units that have learned less than some nats."""
    start = time.process_time()
    model = trained(network, data, images, PRIORS[scale_of_each], beta, seed)
    seconds = round(time.process_time() - start)
    whole = scores(model, data, OF_WHOLE)
    for nats in NATS:
        try:
            small = shrink(prune(model, by="kl", below=nats, units=True))
        except ValueError:  # no unit of a layer has learned so much
            none = " ".join("0" for _ in NETWORKS[network])
            yield {"nats": nats, "units": none, **whole, "weights": 0, "cpu_seconds": seconds}
            continue
        units = " ".join(str(small.get_layer(name).output.shape[-1]) for name in NETWORKS[network])
        kernels = [weight for layer in small.variational_layers for weight in layer.variational_weights.values()]
        size = sum(weight.size for weight in kernels)
        of_small = {**scores(small, data, OF_SMALL), "weights": size}
        yield {"nats": nats, "units": units, **whole, **of_small, "cpu_seconds": seconds}


def scores(model: Any, data: Dataset, names: Sequence[str]) -> dict[str, str]:
    """Accuracy and NLL under some names."""
    found = score(model.posterior_predictive(_pixels(data.test.x), num_samples=DRAWS, seed=0), data.test.y)
    return {name: f"{found[of]:.5g}" for name, of in zip(names, OF_WHOLE, strict=True)}


def _pixels(images: np.ndarray) -> np.ndarray:
    return np.asarray(images, np.float32).reshape(-1, 28, 28, 1) / 255


def read_results(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(path: Path, network: str, sizes: Sequence[int], seeds: Sequence[int], beta: float) -> None:
    """Appends what is missing."""
    data = zoo.load_dataset("mnist")
    for seed in seeds:
        for images in sizes:
            for scale_of_each in PRIORS:
                key = dict(zip(KEY, (network, str(images), scale_of_each, str(beta), str(seed)), strict=True))
                if not any(all(row[name] == value for name, value in key.items()) for row in read_results(path)):
                    # All at once: a stopped run leaves no network with a part of its rows.
                    for row in list(measured(network, data, images, scale_of_each, beta, seed)):
                        append_row(path, COLUMNS, {**key, **row})
                        print(", ".join(map(str, {**key, **row}.values())), flush=True)


def groups_of(rows: Rows) -> dict[tuple[int, str, int], list[dict[str, str]]]:
    """The rows by number of images, prior and nats, in their order."""
    found: dict[tuple[int, str, int], list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault((int(row["images"]), row["scale_of_each"], int(row["nats"])), []).append(row)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], [*PRIORS].index(item[0][1]), item[0][2])))


def left(row: dict[str, str]) -> list[int]:
    """The units or filters that are left of each hidden layer."""
    return [int(number) for number in row["units"].split()]


def table(rows: Rows, network: str) -> str:
    """Widths, and scores before and after shrinking, as Markdown: means over the seeds, of widths with the range."""
    sizes = ", ".join(map(str, NETWORKS[network].values()))
    lines = [
        f"| images | a scale for each | nats | seeds | units left of {sizes} | weights left | accuracy (%) | smaller "
        "| NLL | smaller |",
        "|---" * 10 + "|",
    ]
    for (images, scale_of_each, nats), group in groups_of([row for row in rows if row["network"] == network]).items():
        widths = ", ".join(_range(numbers) for numbers in zip(*map(left, group), strict=True))
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
    networks = [name for name in NETWORKS if any(row["network"] == name for row in rows)]
    drawn = new_figure(9, 3.6 * len(networks))
    for panels, network in zip(drawn.subplots(len(networks), 2, squeeze=False), networks, strict=True):
        _draw(panels, network, groups_of([row for row in rows if row["network"] == network]))
    return to_png(drawn)


def _draw(panels: Sequence[Any], network: str, of_network: dict[tuple[int, str, int], list[dict[str, str]]]) -> None:
    for index, scale_of_each in enumerate(PRIORS):
        of_prior = {key[0]: group for key, group in of_network.items() if key[1:] == (scale_of_each, SHOWN)}
        groups = {images: group for images, group in of_prior.items() if all(row["small_nll"] for row in group)}
        for place, (layer, size) in enumerate(NETWORKS[network].items()):
            values = [100 * statistics.fmean(left(row)[place] for row in group) / size for group in groups.values()]
            label = f"{layer}, a scale for each {scale_of_each}"
            look = {"color": COLOURS[index], "linestyle": LINES[place], "marker": "os^"[place]}
            panels[0].plot([*groups], values, label=label, **look)
        for name, style, marker, what in (("nll", "-", "o", "whole"), ("small_nll", "--", "x", "small")):
            values = [_mean(group, name) for group in groups.values()]
            label = f"{what}, a scale for each {scale_of_each}"
            panels[1].plot([*groups], values, color=COLOURS[index], linestyle=style, marker=marker, label=label)
    panels[0].set(ylabel="units left (%)", ylim=(0, 103), title=network)
    panels[1].set(ylabel="test NLL (nats)", ylim=(0, None), title=network)
    sizes = sorted({images for images, _, _ in of_network})
    for panel in panels:
        panel.set(xlabel="training images", xscale="log")
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.minorticks_off()
        tidy(panel)
        panel.legend(frameon=False, fontsize=8)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="mlp", help="default: mlp")
    parser.add_argument("--images", nargs="*", type=int, choices=STEPS, default=[*STEPS], help="default: all")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0], help="default: 0")
    parser.add_argument("--beta", type=float, default=BETA, help="of the KL, in the end; the tables have those of 0.1")
    parser.add_argument("--report", action="store_true", help="print the tables and draw the figure, run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    if not given.report:
        run(given.results, given.network, given.images, given.seeds, given.beta)
    rows = [row for row in read_results(given.results) if float(row["beta"]) == BETA]
    for network in NETWORKS:
        print(f"\n{network}\n\n{table(rows, network)}")
    if given.results == RESULTS and rows:
        FIGURE.write_bytes(figure(rows))


if __name__ == "__main__":
    main()
