"""The Monte Carlo standard errors of `tfp_bnn.predictive.standard_errors` beside the true spread of each score.

Run: `python benchmarks/monte_carlo_errors.py`. For each pretrained model of digits and tables, one pool of 20,000 draws
for the test inputs is cut into 400 disjoint blocks of 50: the predictives of 400 seeds. The standard deviation of a
score over the blocks is the truth. The median over 40 of the blocks of the estimated error, divided by it, should be 1.
Where the true spread of an accuracy or a coverage is below one test example, that is said instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import zoo
from tfp_bnn.predictive import PosteriorPredictive, score, standard_errors

MODELS = (
    "mlp_flipout.iris",
    "mlp_flipout.moons",
    "mlp_flipout.diabetes",
    "mlp_flipout.digits",
    "lenet5_flipout.digits",
)
BLOCKS, DRAWS, ESTIMATES = 400, 50, 40
COUNTED = ("accuracy", "coverage_90")


def blocks_of(model: Any, x: np.ndarray, blocks: int) -> Iterator[Any]:
    """Predictives of disjoint blocks of draws, without the calibration of the model, which does not depend on draws."""
    draws = model.draws(seed=0)
    for block in range(blocks):
        outputs = np.stack([np.asarray(draws(block * DRAWS + k)(x)) for k in range(DRAWS)])
        weights = {role: np.asarray(value) for role, value in model.likelihood_weights.items()}
        yield PosteriorPredictive(model.likelihood, weights, outputs, {}, outputs.shape)


def ratios(name: str, blocks: int, estimates: int) -> list[tuple[str, float, float, int]]:
    """Each score with its true spread, the median of its estimated error, and the number of test examples."""
    model, test = zoo.load_model(name), zoo.load_dataset(zoo.load_model(name).card["config"]["data"]["dataset"]).test
    scores, errors = [], []
    for index, predictive in enumerate(blocks_of(model, test.x, blocks)):
        scores.append(score(predictive, test.y))
        if index < estimates:
            errors.append(standard_errors(predictive, test.y))
    return [
        (
            key,
            float(np.std([of_block[key] for of_block in scores], ddof=1)),
            float(np.median([of_block[key] for of_block in errors])),
            len(test.y),
        )
        for key in scores[0]
    ]


def table(found: dict[str, Sequence[tuple[str, float, float, int]]]) -> str:
    """Formats the ratios as Markdown, with the median over the models for each score."""
    lines = ["| model | score | true spread | estimated error | estimated / true |", "|---|---|---|---|---|"]
    by_score: dict[str, list[float]] = {}
    for name, rows in found.items():
        for key, spread, error, examples in rows:
            small = spread == 0 or (key in COUNTED and spread < 1 / examples)
            reason = "no spread" if spread == 0 else "the spread is below one example"
            ratio = reason if small else f"{error / spread:.2f}"
            lines.append(f"| `{name}` | {key} | {spread:.3g} | {error:.3g} | {ratio} |")
            if not small:
                by_score.setdefault(key, []).append(error / spread)
    lines += ["", "| score | models | median of estimated / true | smallest | largest |", "|---|---|---|---|---|"]
    lines += [
        f"| {key} | {len(values)} | {np.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |"
        for key, values in by_score.items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=BLOCKS, help=f"number of blocks (default: {BLOCKS})")
    parser.add_argument("--models", nargs="*", default=MODELS, help="names of pretrained models")
    arguments = parser.parse_args()
    print(table({name: ratios(name, arguments.blocks, ESTIMATES) for name in arguments.models}))


if __name__ == "__main__":
    main()
