"""Bayesian neural networks for Keras 3 and TensorFlow Probability."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version


def _refuse_backend(backend: str) -> None:
    if backend != "tensorflow":
        raise ImportError(
            f"tfp_bnn needs Keras' TensorFlow backend, but Keras is configured for {backend!r}. Set the environment "
            "variable KERAS_BACKEND=tensorflow before Keras is imported."
        )


# While `python -m tfp_bnn` looks for `__main__`, it imports this package. The command answers much without TensorFlow,
# so the package stays empty then, and `__main__` makes way for another import.
_IS_LOOKED_INTO = sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)] in ("tfp_bnn", "-mtfp_bnn")

if not _IS_LOOKED_INTO:
    # Asked twice: another backend that is not installed fails within Keras' own import, a configured one does not.
    _refuse_backend(os.environ.get("KERAS_BACKEND") or "tensorflow")

    import keras

    _refuse_backend(keras.backend.backend())

    from tfp_bnn import (
        acquisition,
        calibration,
        callbacks,
        compression,
        figures,
        inference,
        layers,
        likelihoods,
        metrics,
        posteriors,
        predictive,
        priors,
        transfer,
    )
    from tfp_bnn.calibration import calibrate, conformalize
    from tfp_bnn.core import plugins as _plugins  # noqa: F401
    from tfp_bnn.core.expected_inputs import ExpectedInputs, UnlikelyInputsWarning
    from tfp_bnn.models import VariationalMixin, VariationalModel, VariationalSequential
    from tfp_bnn.models.one_draw import OneDrawWarning
    from tfp_bnn.predictive import PosteriorPredictive
    from tfp_bnn.priors import hyperpriors
    from tfp_bnn.variational import NaturalGradient, objectives, schedules

    try:
        __version__ = version("tfp_bnn")
    except PackageNotFoundError:
        # A checkout on the path that was never installed.
        __version__ = "0+unknown"

    # These are public as `tfp_bnn.hyperpriors`, `tfp_bnn.objectives` and `tfp_bnn.schedules`, also to `import`.
    sys.modules[f"{__name__}.hyperpriors"] = hyperpriors
    sys.modules[f"{__name__}.objectives"] = objectives
    sys.modules[f"{__name__}.schedules"] = schedules

__all__ = [
    "ExpectedInputs",
    "NaturalGradient",
    "OneDrawWarning",
    "PosteriorPredictive",
    "UnlikelyInputsWarning",
    "VariationalMixin",
    "VariationalModel",
    "VariationalSequential",
    "__version__",
    "acquisition",
    "calibrate",
    "calibration",
    "callbacks",
    "compression",
    "conformalize",
    "figures",
    "hyperpriors",
    "inference",
    "layers",
    "likelihoods",
    "metrics",
    "objectives",
    "posteriors",
    "predictive",
    "priors",
    "schedules",
    "transfer",
]
