"""What a weights file of a variational model holds in addition to what Keras saves."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfp_bnn.core.layer_tree import seed_generators, sublayers

SEED_GENERATORS = "seed_generators"
"""The key of the states of the seed generators of all layers, such as dropout, which Keras does not save."""


def save_seed_generators(model: keras.Model, store: Any) -> None:
    """Writes the states of all seed generators of a model and its layers into a Keras weights store."""
    states = [np.asarray(generator.state) for generator in _all_generators(model)]
    if states:
        store[SEED_GENERATORS] = np.stack(states)


def load_seed_generators(model: keras.Model, store: Any) -> None:
    """Reads what `save_seed_generators` wrote.

    Older files have no states, and those of a different network have another number of them. The generators then do not
    change.
    """
    generators = _all_generators(model)
    states = np.asarray(store[SEED_GENERATORS]) if SEED_GENERATORS in store.keys() else ()
    if len(states) == len(generators):
        for generator, state in zip(generators, states, strict=True):
            generator.state.assign(state)


def _all_generators(model: keras.Model) -> list[keras.random.SeedGenerator]:
    return [generator for layer in (model, *sublayers(model)) for generator in seed_generators(layer)]
