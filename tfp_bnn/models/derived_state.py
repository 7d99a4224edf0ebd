"""State that layers derive from their variables when these are adapted or loaded, but not when they are assigned."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfp_bnn.core.layer_tree import sublayers
from tfp_bnn.predictive.seeded_draws import forget_compiled


def derive_state(model: Any) -> None:
    """Makes a model compute with the variables that were assigned to it. Call it after any assignment to plain weights.

    An adapted `Normalization` computes with tensors that it made of its variables. They are also constants of every
    function that was compiled, so these are compiled anew where a tensor changes.

    Args:
        model: Built model.
    """
    changed = False
    for layer in sublayers(model):
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None and layer.built:
            before = np.asarray(layer.mean), np.asarray(layer.variance)
            layer.finalize_state()
            changed |= not all(map(np.array_equal, before, (layer.mean, layer.variance)))
    if changed:
        forget_compiled(model)
        model.train_function = model.test_function = model.predict_function = None
