"""A small recipe that the tests of several rooms change for their purpose."""

from __future__ import annotations

# 96 flowers in batches of 40: 3 steps an epoch, the last of 16.
RECIPE = {
    "name": "mlp_flipout.tiny",
    "architecture": "mlp_flipout",
    "dataset": "iris",
    "model": {"hidden": [8]},
    "standardize_inputs": True,
    "batch_size": 40,
    "epochs": 2,
}
