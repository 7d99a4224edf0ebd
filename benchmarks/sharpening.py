"""What a temperature below 1 gains on the test split, and what it costs where the inputs are unlike the training data.

Run: `python benchmarks/sharpening.py`. For each pretrained classifier of images, the temperature is fitted to the
validation split twice, by `tfp_bnn.calibrate(..., sharpen=True)` and without `sharpen`; beside them, no calibration and
the plug-in mean. Measured on the first 1,000 test images and on the same images turned by 30, 60 and 90 degrees, with
50 Monte Carlo samples. The AUROC tells the test images from those of another dataset (or from uniform noise, where the
shape has no other). `benchmarks/results/sharpening.csv` has all rows; the table of their means is printed.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage

import tfp_bnn
import zoo
from tfp_bnn.metrics import out_of_distribution_auroc
from tfp_bnn.predictive import PosteriorPredictive, score
from zoo.evaluation.card_numbers import Block, out_of_distribution_block

MODELS = (
    "lenet5_flipout.mnist",
    "lenet5_flipout.fashion_mnist",
    "lenet5_flipout.digits",
    "mlp_flipout.mnist",
    "mlp_flipout.digits",
    "seedcnn_flipout.mnist",
)
ROWS, SAMPLES, ANGLES = 1000, 50, (30, 60, 90)
RESULTS = Path(__file__).parent / "results" / "sharpening.csv"
COLUMNS = {
    "nll": "NLL, test",
    "ece": "ECE, test",
    "accuracy": "accuracy, test",
    **{f"nll_{angle}": f"NLL, turned {angle}°" for angle in ANGLES},
    "auroc_entropy": "AUROC, entropy",
    "auroc_mutual_information": "AUROC, mutual information",
}


def turned(x: np.ndarray, angle: float) -> np.ndarray:
    """Images turned about their center, linear interpolation; what was outside of the image is its lowest value."""
    return scipy.ndimage.rotate(x, angle, axes=(1, 2), reshape=False, order=1, cval=float(x.min()))


def rows_of(name: str, rows: int, samples: int) -> Iterator[dict[str, Any]]:
    """The numbers of one model: without calibration, with each temperature, and of the plug-in mean."""
    model = zoo.load_model(name)
    data = zoo.load_dataset(model.card["config"]["data"]["dataset"])
    temperatures = {"not calibrated": 1.0}
    for title, sharpen in (("at least 1", False), ("sharpened", True)):
        found = tfp_bnn.calibrate(model, data.validation.x, data.validation.y, num_samples=samples, sharpen=sharpen)
        temperatures[title] = found.temperature
    labels = data.test.y[:rows]
    test = Block(data.test.x[:rows], None, samples, calibrated=False)
    other = model.card["metrics"]["out_of_distribution"]["data"]
    outside = out_of_distribution_block(data, other, samples)
    blocks = {
        "": test,
        **{f"_{angle}": replace(test, x=turned(test.x, angle)) for angle in ANGLES},
        "outside": replace(outside, x=outside.x[:rows], calibrated=False),
    }
    raw = {key: block.predict(model, 0) for key, block in blocks.items()}
    plug_in = {key: replace(block, plug_in=True).predict(model, 0) for key, block in blocks.items()}
    for title, temperature in temperatures.items():
        calibration = tfp_bnn.calibration.Temperature(temperature)
        predictives = {key: predictive.calibrated_by(calibration) for key, predictive in raw.items()}
        yield {"model": name, "version": title, "temperature": temperature, **numbers(predictives, labels)}
    yield {"model": name, "version": "plug-in mean", "temperature": 1.0, **numbers(plug_in, labels)}


def numbers(predictives: dict[str, PosteriorPredictive], labels: np.ndarray) -> dict[str, float]:
    """The scores of the columns; of one draw there is no mutual information."""
    inside, outside = predictives[""], predictives["outside"]
    scores = score(inside, labels)
    found = {key: scores[key] for key in ("nll", "ece", "accuracy")}
    found |= {f"nll_{angle}": score(predictives[f"_{angle}"], labels)["nll"] for angle in ANGLES}
    found["auroc_entropy"] = out_of_distribution_auroc(inside.entropy(), outside.entropy())
    if inside.num_samples > 1:
        found["auroc_mutual_information"] = out_of_distribution_auroc(inside.epistemic(), outside.epistemic())
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The mean over the models for each version, as Markdown."""
    lines = ["| mean over the models | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for version in dict.fromkeys(row["version"] for row in rows):
        of_version = [row for row in rows if row["version"] == version]
        cells = [
            f"{np.mean([float(row[key]) for row in of_version]):.4f}" if of_version[0].get(key, "") != "" else "-"
            for key in COLUMNS
        ]
        lines.append(f"| {version} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=MODELS, help="names of pretrained models")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"number of test images (default: {ROWS})")
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"Monte Carlo samples (default: {SAMPLES})")
    parser.add_argument("--out", type=Path, default=RESULTS, help="CSV file")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.models:
        for row in rows_of(name, arguments.rows, arguments.samples):
            rows.append(row)
            print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    with arguments.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["model", "version", "temperature", *COLUMNS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows))


if __name__ == "__main__":
    main()
