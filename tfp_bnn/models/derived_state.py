"""State that layers derive from their variables when these are adapted or loaded, but not when they are assigned."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfp_bnn.core.layer_tree import sublayers
from tfp_bnn.predictive.seeded_draws import forget_compiled


def derive_state(model: Any) -> None:
    """Makes a model compute with the variables that were assigned to it. Call it after any assignment to plain weights.

    An adapted `Normalization` computes with tensors that it made of its variables.

    Args:
        model: Built model.
    """
    with compiled_with_derived_state(model):
        for layer in _normalizations(model):
            layer.finalize_state()


@contextlib.contextmanager
def compiled_with_derived_state(model: Any) -> Iterator[None]:
    """Context after which a model compiles its functions anew if derived tensors, constants of them, have changed."""
    before = _derived(model)
    yield
    if not all(map(np.array_equal, before, _derived(model))):
        forget_compiled(model)
        model.train_function = model.test_function = model.predict_function = None


def _derived(model: Any) -> list[Any]:
    return [np.asarray(tensor) for layer in _normalizations(model) for tensor in (layer.mean, layer.variance)]


def _normalizations(model: Any) -> list[Any]:
    """The layers that are built to be adapted."""
    found = [layer for layer in sublayers(model) if isinstance(layer, keras.layers.Normalization)]
    return [layer for layer in found if layer.input_mean is None and layer.built]
