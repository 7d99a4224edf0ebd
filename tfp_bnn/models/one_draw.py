"""What `predict` of a Bayesian model is, said once."""

from __future__ import annotations

import warnings
from typing import Any

_told = False


class OneDrawWarning(UserWarning):
    """`predict` returned the raw outputs under one draw of the weights, not the mean of the predictive."""


def warn_of_one_draw(model: Any) -> None:
    """Warns, once in a process, that `predict` is one draw of the raw outputs; never for a model without randomness."""
    global _told
    if _told or not any(layer.is_random for layer in model.stochastic_layers):
        return
    _told = True
    warnings.warn(
        "`predict` of a Bayesian model returns its raw outputs, such as logits, under one draw of the weights for each "
        "batch: no probabilities, no average, and other numbers in each call. For predictions use "
        "`model.predict_mean(x)`, or `model.posterior_predictive(x)`, which also knows how uncertain they are. This "
        "warning is shown once.",
        OneDrawWarning,
        stacklevel=3,
    )
