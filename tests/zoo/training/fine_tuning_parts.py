"""What the tests of fine-tuning share."""

from __future__ import annotations

import re

import pytest

import zoo

MLP, LENET, DIABETES = "mlp_flipout.digits", "lenet5_flipout.digits", "mlp_flipout.diabetes"
QUICK = {"inflate": 10.0, "head_scale": 0.5, "steps": 5}
KEEP = {"inflate": 2.0, "head": "keep", "steps": 5}


def prior_specs(model):
    """All priors of the weights of a model."""
    return {weight.prior_spec for layer in model.variational_layers for weight in layer.variational_weights.values()}


def refused(says, *arguments, error=ValueError, **options):
    """Checks that `zoo.fine_tune` refuses these arguments with this message."""
    with pytest.raises(error, match=re.escape(says)):
        zoo.fine_tune(*arguments, **options)
