"""Small models to watch, and what TensorBoard's own reader finds in their logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Keeps every event; without it the reader keeps a sample.
_ALL = dict.fromkeys(("scalars", "histograms", "images", "text", "pr_curves", "hparams", "custom_scalars"), 0)


class Run:
    """What the reader of TensorBoard's server finds in a run folder: the values of each tag by their step."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
        from tensorboard.util import tensor_util

        reader = EventAccumulator(str(folder), size_guidance={"tensors": 0}, tensor_size_guidance=_ALL)
        reader.Reload()
        self.values: dict[str, dict[int, np.ndarray]] = {}
        self.repeated: list[str] = []
        self.plugins: dict[str, str] = {}
        for tag in reader.Tags()["tensors"]:
            events = reader.Tensors(tag)
            self.plugins[tag] = reader.SummaryMetadata(tag).plugin_data.plugin_name
            self.values[tag] = {event.step: tensor_util.make_ndarray(event.tensor_proto) for event in events}
            if len(self.values[tag]) < len(events):
                self.repeated.append(tag)

    def __getitem__(self, tag: str) -> dict[int, np.ndarray]:
        return self.values[tag]

    def __contains__(self, tag: str) -> bool:
        return tag in self.values

    def last(self, tag: str) -> float:
        """The scalar of the last step."""
        values = self.values[tag]
        return float(values[max(values)])


@pytest.fixture(scope="session")
def read_run() -> Callable[..., Run]:
    """A function that reads a run folder, `read_run(log_dir, "train")`, as TensorBoard does."""
    return lambda log_dir, run="": Run(Path(log_dir) / run)


@pytest.fixture(scope="session")
def classifier() -> Callable[..., Any]:
    """A function that makes a compiled classifier of points in the plane, always the same one."""
    import keras

    import tfp_bnn

    def make(classes: int = 2, compile_arguments: dict[str, Any] | None = None, **layer_arguments: Any) -> Any:
        keras.utils.set_random_seed(0)
        x = keras.Input((2,))
        h = tfp_bnn.layers.DenseFlipout(4, activation="relu", name="hidden", **layer_arguments)(x)
        outputs = tfp_bnn.layers.DenseFlipout(classes, name="logits", **layer_arguments)(h)
        model = tfp_bnn.VariationalModel(x, outputs, seed=0)
        model.compile("adam", metrics=["accuracy"], **(compile_arguments or {}))
        return model

    return make


@pytest.fixture(scope="session")
def points() -> tuple[np.ndarray, np.ndarray]:
    """48 points in the plane and their classes, 0 and 1."""
    x = np.random.default_rng(0).normal(size=(48, 2)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.int64)
