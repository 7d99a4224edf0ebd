"""What is read from the files of an artifact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy


def stored_tensors(folder: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load((folder / "weights.safetensors").read_bytes())
