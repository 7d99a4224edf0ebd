"""A hierarchical dense layer with random parameters, and what it should compute."""

from __future__ import annotations

import keras
import numpy as np

import tfp_bnn
from tfp_bnn.layers import HierarchicalDenseReparameterization

UNITS, NUM_GROUPS = 3, 4
GROUPS = np.array([3, 0, 0, 2, 1, 3])


def inputs_of(width=2, groups=GROUPS):
    x = np.random.default_rng(1).normal(size=(len(groups), width)).astype(np.float32)
    return [x, groups]


def make(width=2, **kwargs):
    """A built layer whose parameters all differ."""
    layer = HierarchicalDenseReparameterization(UNITS, NUM_GROUPS, **kwargs)
    layer.build([(None, width), (None,)])
    rng = np.random.default_rng(0)
    for weight in layer.variational_weights.values():
        parameters = {"loc": rng.normal(size=weight.shape), "scale": rng.uniform(0.2, 0.8, weight.shape)}
        weight.assign_parameters({**weight.parameters(), **parameters})
    return layer


def model_of(layer, group_input=(), dtype="int32", **kwargs):
    x, group_id = keras.Input((2,)), keras.Input(group_input, dtype=dtype)
    return tfp_bnn.VariationalModel([x, group_id], layer([x, group_id]), seed=0, **kwargs)
