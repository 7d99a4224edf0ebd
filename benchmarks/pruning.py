"""Pruning: accuracy, NLL, ECE, bytes and milliseconds against the share that is removed.

Run: `python benchmarks/pruning.py` for the networks of `docs/compression.md`, or with names of models or folders of
artifacts. Appends the numbers of each network to `benchmarks/results/pruning.csv`, except for those that are there, so
a stopped run can be continued. Prints the tables of `docs/compression.md` and draws its figure.

A posterior is pruned by its signal-to-noise ratio, by its KL and by magnitude, over the whole network at once; its
deterministic twin by magnitude: the bundled one, or else a maximum a posteriori estimate from the same recipe, which is
trained here and kept in `build/pruning`. `--units` prunes whole units and filters and measures the smaller dense
network. `--epochs` of training after pruning, and `--rounds` of it, are those of `tfp-bnn prune`. Scores are those of
the test split, without a calibration, with the same weight draws for all. Bytes are those of `weights.safetensors` in
an artifact. Milliseconds are CPU time of one draw for 1,000 inputs on one thread, the least of five: a masked network
costs as much as the whole one.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import numpy as np
import safetensors.numpy
import tensorflow as tf
from result_rows import append_row

import zoo
from tfp_bnn.figures import to_png
from tfp_bnn.figures.style import COLOURS, GREY, LINES, new_figure, tidy
from tfp_bnn.models.weight_record import WeightRecord
from tfp_bnn.predictive import score
from zoo.datasets import Dataset
from zoo.hub.loading import open_model
from zoo.hub.members import arrays_of
from zoo.recipes import Recipe, change_recipe
from zoo.recipes.baselines import baseline
from zoo.training.pruning import prune_in_rounds, recipe_of
from zoo.training.pruning_settings import LEARNING_RATE, Settings

RESULTS = Path(__file__).parent / "results" / "pruning.csv"
FIGURE = Path(__file__).parents[1] / "docs" / "pruning.png"
TWINS = Path(__file__).parents[1] / "build" / "pruning"
MODELS = ("mlp_flipout.mnist", "lenet5_flipout.mnist", "resnet20_flipout.cifar10")
POSTERIOR, TWIN = "posterior", "twin"
CRITERIA = {POSTERIOR: ("signal_to_noise", "kl", "magnitude"), TWIN: ("magnitude",)}
FRACTIONS, OF_UNITS = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98), (0.25, 0.5, 0.75)
ROWS_TIMED, REPETITIONS = 1000, 5
KEY = ("model", "network", "by", "units", "fraction", "rounds", "epochs_between", "epochs", "learning_rate", "draws")
COLUMNS = (*KEY, "accuracy", "nll", "ece", "bytes", "milliseconds")

Rows = Sequence[dict[str, str]]


def read_results(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def points(
    network: str, by: Sequence[str] | None, units: bool, fractions: Sequence[float]
) -> Iterator[tuple[str, float]]:
    """The criteria and the shares to measure; nothing removed is measured once."""
    criteria = [name for name in CRITERIA[network] if by is None or name in by]
    if 0.0 in fractions and not units:
        yield "magnitude", 0.0
    yield from itertools.product(criteria, [fraction for fraction in fractions if fraction])


def twin_of(name: str, recipe: Recipe, epochs: int | None, trust: bool) -> Any:
    """The maximum a posteriori estimate of a recipe, trained unless it is there."""
    bundled = f"{name}_map"
    if bundled in zoo.list_models(pretrained=True) and epochs is None:
        return zoo.load_model(bundled)
    changes = {"evaluation.spread_seeds": [], "calibration": None, **({"epochs": epochs} if epochs else {})}
    of_twin = change_recipe(baseline(recipe, "map"), changes)
    folder = TWINS / f"{Path(name).name}.map.{of_twin.epochs}"
    if not folder.is_dir():
        zoo.train(
            of_twin, folder, resume=folder.with_name(f"{folder.name}.training").is_dir(), measure=False, tell=print
        )
    return open_model(folder, trust=True)


def measured(model: Any, data: Dataset, draws: int) -> dict[str, str]:
    """The numbers of a network."""
    predictive = model.posterior_predictive(data.test.x, num_samples=draws, seed=0, calibrated=False)
    scores = score(predictive, data.test.y)
    arrays = {name: np.asarray(array) for name, array in arrays_of([WeightRecord.of(model)], None).items()}
    size = len(safetensors.numpy.save(arrays))
    numbers = {name: f"{scores[name]:.5g}" for name in ("accuracy", "nll", "ece")}
    return {**numbers, "bytes": str(size), "milliseconds": f"{cpu_milliseconds(model, data.test.x[:ROWS_TIMED]):.3g}"}


def cpu_milliseconds(model: Any, x: Any) -> float:
    """CPU time of one draw for some inputs, the least of some."""
    draw = tf.function(lambda inputs: model(inputs, training=False), autograph=False)
    inputs = tf.constant(x, tf.float32)
    draw(inputs)
    times = []
    for _ in range(REPETITIONS):
        start = time.process_time()
        draw(inputs).numpy()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def run(path: Path, name: str, arguments: argparse.Namespace) -> None:
    """Appends what is missing of one model."""
    data, models = None, {}
    # The posterior first: its curves do not wait for the twin.
    for network in arguments.networks:
        for by, fraction in points(network, arguments.by, arguments.units, arguments.fractions):
            epochs = arguments.epochs if fraction else 0
            rounds = arguments.rounds if epochs else 1
            between = arguments.epochs_between if rounds > 1 else 0
            rate = arguments.learning_rate if epochs else 0.0
            key = (name, network, by, int(arguments.units), fraction, rounds, between, epochs, rate, arguments.draws)
            of_key = dict(zip(KEY, map(str, key), strict=True))
            if any(all(row[column] == value for column, value in of_key.items()) for row in read_results(path)):
                continue
            if network not in models:
                source: Any = open_model(name, arguments.trust)
                recipe: Any = recipe_of(source)
                data = zoo.load_dataset(source.card["config"]["data"]["dataset"])
                twin = network == TWIN
                models[network] = twin_of(name, recipe, arguments.twin_epochs, arguments.trust) if twin else source
            model = models[network]
            if fraction:
                how = Settings(
                    fraction,
                    by,
                    units=arguments.units,
                    epochs=epochs,
                    rounds=rounds,
                    epochs_between=between or 1,
                    learning_rate=rate or LEARNING_RATE,
                )
                if epochs:
                    model, _ = prune_in_rounds(model, recipe, data, how, tell=print)
                else:
                    model = zoo.prune(model, **how.what)
                model = zoo.shrink(model) if arguments.units else model
            row = {**of_key, **measured(model, data, arguments.draws if network == POSTERIOR else 1)}
            append_row(path, COLUMNS, row)
            print(", ".join(row.values()), flush=True)


def curves(rows: Rows, model: str, units: bool = False) -> dict[tuple[str, str, str], list[dict[str, str]]]:
    """The rows of a model by network, criterion and training after pruning, each from nothing removed upwards."""
    of_model = [row for row in rows if row["model"] == model]
    whole = {row["network"]: row for row in of_model if not float(row["fraction"])}
    found: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in of_model:
        if float(row["fraction"]) and bool(int(row["units"])) == units:
            found.setdefault((row["network"], row["by"], _training(row)), []).append(row)
    return {
        key: sorted([*([whole[key[0]]] if key[0] in whole else []), *line], key=lambda row: float(row["fraction"]))
        for key, line in sorted(found.items())
    }


def _training(row: dict[str, str]) -> str:
    """The training after pruning in words; empty for none."""
    if not int(row["epochs"]):
        return ""
    rounds = "" if row["rounds"] == "1" else f"{row['rounds']} rounds, {row['epochs_between']} between; "
    return f"{rounds}{row['epochs']} epochs at {float(row['learning_rate']):g}"


def table(rows: Rows, model: str, units: bool = False) -> str:
    """Accuracy, its loss against the whole network, NLL, ECE and costs, as Markdown."""
    what = "units" if units else "weights"
    lines = [
        f"| network | by | training after | {what} removed | accuracy (%) | lost (points) | NLL | ECE | KiB | ms |",
        "|---" * 10 + "|",
    ]
    seen = set()
    for (network, by, training), line in curves(rows, model, units).items():
        first = next((row for row in line if not float(row["fraction"])), None)
        for row in line:
            whole = not float(row["fraction"])
            if whole and network in seen:
                continue
            seen |= {network} if whole else set()
            accuracy = 100 * float(row["accuracy"])
            lost = "" if whole or first is None else f"{100 * float(first['accuracy']) - accuracy:.2f}"
            name = ("", "") if whole else (f"`{by}`", training)
            share = f"{100 * float(row['fraction']):g} %"
            time_taken = float(row["milliseconds"])
            costs = f"{int(row['bytes']) / 1024:,.0f} | {time_taken:{'.3g' if time_taken < 1000 else ',.0f'}}"
            numbers = f"{accuracy:.2f} | {lost} | {float(row['nll']):.4f} | {float(row['ece']):.4f}"
            lines.append(f"| {network} | {name[0]} | {name[1]} | {share} | {numbers} | {costs} |")
    return "\n".join(lines)


def figure(rows: Rows, models: Sequence[str]) -> bytes:
    """Accuracy and NLL against the share of weights removed, as PNG."""
    drawn = new_figure(13, 3.6 * len(models))
    panels = drawn.subplots(len(models), 2, squeeze=False)
    for of_model, model in zip(panels, models, strict=True):
        markers = itertools.cycle("sD^v")
        for (network, by, training), line in curves(rows, model).items():
            index = CRITERIA[POSTERIOR].index(by)
            colour, style = (GREY, "-") if network == TWIN else (COLOURS[index], LINES[index])
            label = f"{network}, {by.replace('_', ' ')}" + (f", {training} after" if training else "")
            # Networks that were trained further are points: nothing between them was measured.
            marker = next(markers) if training else "."
            style, line = ("none", [row for row in line if float(row["fraction"])]) if training else (style, line)
            shares = [100 * float(row["fraction"]) for row in line]
            for panel, number in zip(of_model, ("accuracy", "nll"), strict=True):
                scale = 100 if number == "accuracy" else 1
                values = [scale * float(row[number]) for row in line]
                panel.plot(shares, values, color=colour, linestyle=style, marker=marker, label=label)
        best = max((100 * float(row["accuracy"]) for row in rows if row["model"] == model), default=100)
        of_model[0].set(ylabel="test accuracy (%)", title=model, ylim=(best - 3, best + 0.2))
        of_model[1].set(ylabel="test NLL (nats)", title=model, yscale="log")
        for panel in of_model:
            panel.set(xlabel="weights removed (%)")
            tidy(panel)
        of_model[1].legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9)
    return to_png(drawn)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"name or folder; default: {' '.join(MODELS)}")
    parser.add_argument("--networks", nargs="*", choices=CRITERIA, default=list(CRITERIA), help="default: both")
    parser.add_argument("--by", nargs="*", help="criteria; default: all")
    parser.add_argument("--fractions", nargs="*", type=float, help="shares to remove")
    parser.add_argument("--units", action="store_true", help="prune units, and measure the smaller dense network")
    parser.add_argument("--epochs", type=int, default=0, help="passes over the training split after the last pruning")
    parser.add_argument("--rounds", type=int, default=1, help="prunings, with training after each")
    parser.add_argument("--epochs-between", type=int, default=1, help="passes between two rounds")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="initial learning rate of all training")
    parser.add_argument("--twin-epochs", type=int, help="epochs of the twin; default: those of the recipe")
    parser.add_argument("--draws", type=int, default=50, help="weight draws of a posterior")
    parser.add_argument(
        "--trust", action="store_true", help="confirm that you know where folders of artifacts come from"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table-only", action="store_true", help="print the tables and draw the figure, run nothing")
    given = parser.parse_args(arguments)
    given.fractions = given.fractions or (OF_UNITS if given.units else FRACTIONS)
    models = given.models or MODELS
    if not given.table_only:
        for name in models:
            run(given.results, name, given)
    rows = read_results(given.results)
    for name in models:
        for units in (False, True):
            if curves(rows, name, units):
                print(f"\n{name}\n\n{table(rows, name, units)}")
    if given.results == RESULTS:
        FIGURE.write_bytes(figure(rows, MODELS))


if __name__ == "__main__":
    main()
