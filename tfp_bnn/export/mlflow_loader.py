"""The loader of an MLflow model. MLflow copies this file into the model, so it needs TensorFlow and NumPy alone.

Workers of Apache Beam load the SavedModel by it too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

_SEED = "seed"


class ServedPredictive:
    """A SavedModel of `PredictiveModel.export`, as MLflow's `pyfunc` models are called.

    Args:
        folder: Folder of the SavedModel.
        draws: Whether to answer with the predictions of each draw too. They are computed a second time for it.

    Attributes:
        inputs: The inputs by name, as `tf.TensorSpec`.
        outputs: The outputs by name, as `tf.TensorSpec`.
    """

    def __init__(self, folder: str, draws: bool = False) -> None:
        # The functions do not keep what they come from.
        self._loaded = tf.saved_model.load(folder)
        self._functions = [self._loaded.signatures[name] for name in ("predict", "draws")[: 1 + draws]]
        specs = self._functions[0].structured_input_signature[1]
        self.inputs = {name: spec for name, spec in specs.items() if name != _SEED}
        self.outputs = {
            name: spec for function in self._functions for name, spec in function.structured_outputs.items()
        }

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
        """The predictive by name: `mean`, `entropy`, `aleatoric`, `epistemic`, `lower` and `upper`; `samples` of draws.

        Args:
            data: Inputs by name; one input can be an array or a pandas frame. The batch is the first axis.
            params: `{"seed": 3}` for the draws of another seed. MLflow fills in the default of the model.

        Raises:
            ValueError: If an input is missing or has another shape, or numbers are NaN or infinite.
        """
        by_name = data if isinstance(data, dict) else dict.fromkeys(self.inputs, data)
        if by_name.keys() != self.inputs.keys():
            raise ValueError(f"Expected the inputs {', '.join(self.inputs)}, but got {', '.join(map(str, by_name))}.")
        seed = tf.constant((params or {}).get(_SEED, 0), tf.int64)
        inputs = {name: _checked(name, by_name[name], spec) for name, spec in self.inputs.items()}
        answers = [function(**inputs, seed=seed) for function in self._functions]
        return {name: values.numpy() for answer in answers for name, values in answer.items()}


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
