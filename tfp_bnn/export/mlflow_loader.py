"""The loader of an MLflow model. MLflow copies this file into the model, so it needs TensorFlow and NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

_SEED = "seed"


class ServedPredictive:
    """A SavedModel of `PredictiveModel.export`, as MLflow's `pyfunc` models are called.

    Args:
        folder: Folder of the SavedModel.
    """

    def __init__(self, folder: str) -> None:
        # The function does not keep what it comes from.
        self._loaded = tf.saved_model.load(folder)
        self._function = self._loaded.signatures["predict"]
        specs = self._function.structured_input_signature[1]
        self._specs = {name: spec for name, spec in specs.items() if name != _SEED}

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
        """The predictive by name: `mean`, `entropy`, `aleatoric`, `epistemic`, `lower` and `upper`.

        Args:
            data: Inputs by name; one input can be an array or a pandas frame. The batch is the first axis.
            params: `{"seed": 3}` for the draws of another seed. MLflow fills in the default of the model.

        Raises:
            ValueError: If an input is missing or has another shape, or numbers are NaN or infinite.
        """
        by_name = data if isinstance(data, dict) else dict.fromkeys(self._specs, data)
        if by_name.keys() != self._specs.keys():
            raise ValueError(f"Expected the inputs {', '.join(self._specs)}, but got {', '.join(map(str, by_name))}.")
        seed = tf.constant((params or {}).get(_SEED, 0), tf.int64)
        inputs = {name: _checked(name, by_name[name], spec) for name, spec in self._specs.items()}
        return {name: values.numpy() for name, values in self._function(**inputs, seed=seed).items()}


def _load_pyfunc(folder: str) -> ServedPredictive:
    """What MLflow calls."""
    return ServedPredictive(folder)


def _checked(name: str, values: Any, spec: tf.TensorSpec) -> tf.Tensor:
    array = np.asarray(values)
    # Only strings stay what they are.
    array = array if spec.dtype == tf.string else array.astype(spec.dtype.as_numpy_dtype)
    if not spec.shape.is_compatible_with(array.shape):
        raise ValueError(f"The input {name!r} has the shape {array.shape}; expected {tuple(spec.shape)}.")
    if spec.dtype.is_floating and not np.isfinite(array).all():
        raise ValueError(f"The input {name!r} has values that are NaN or infinite.")
    return tf.constant(array)
