"""Bayesian neural networks for Keras 3 and TensorFlow Probability."""

from __future__ import annotations

import os


def _refuse_backend(backend: str) -> None:
    if backend != "tensorflow":
        raise ImportError(
            f"tfp_bnn needs Keras' TensorFlow backend, but Keras is configured for {backend!r}. Set the environment "
            "variable KERAS_BACKEND=tensorflow before Keras is imported."
        )


# Asked twice: another backend that is not installed fails within Keras' own import, a configured one does not.
_refuse_backend(os.environ.get("KERAS_BACKEND") or "tensorflow")

import keras  # noqa: E402

_refuse_backend(keras.backend.backend())

from tfp_bnn import (  # noqa: E402
    calibration,
    callbacks,
    hyperpriors,
    layers,
    likelihoods,
    metrics,
    posteriors,
    priors,
    schedules,
    transfer,
)
from tfp_bnn.calibration import calibrate  # noqa: E402
from tfp_bnn.models import VariationalModel, VariationalSequential  # noqa: E402
from tfp_bnn.predictive import PosteriorPredictive  # noqa: E402
from tfp_bnn.variational_mixin import VariationalMixin  # noqa: E402

__all__ = [
    "PosteriorPredictive",
    "VariationalMixin",
    "VariationalModel",
    "VariationalSequential",
    "calibrate",
    "calibration",
    "callbacks",
    "hyperpriors",
    "layers",
    "likelihoods",
    "metrics",
    "posteriors",
    "priors",
    "schedules",
    "transfer",
]
