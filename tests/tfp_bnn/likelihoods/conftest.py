"""A likelihood with a learned scale."""

from __future__ import annotations

import pytest

from tfp_bnn.likelihoods import Normal


@pytest.fixture
def learned(add_weight):
    """A normal likelihood whose learned scale is 0.7, and its variables."""
    likelihood = Normal("learned", initial_scale=0.7)
    return likelihood, likelihood.add_weights(add_weight)
