"""The loader of an MLflow model. MLflow copies this file into the model, so it needs TensorFlow and NumPy alone.

Workers of Apache Beam load the SavedModel by it too.
"""

from __future__ import annotations

import contextlib
import inspect
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
        seed: Seed of the draws of calls that name none, that of the export.
    """

    def __init__(self, folder: str, draws: bool = False) -> None:
        # The functions do not keep what they come from.
        self._loaded = tf.saved_model.load(folder)
        self.seed = _default_seed(self._loaded)
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
            params: `{"seed": 3}` for the draws of another seed than that of the export.

        Raises:
            ValueError: If an input is missing, has another shape, or has values that are no finite numbers of its type.
        """
        if not isinstance(data, dict) and len(self.inputs) > 1:
            raise ValueError(
                f"The model has the inputs {', '.join(self.inputs)}. Expected a dict with an array for each, but got "
                f"one {type(data).__name__}."
            )
        by_name = data if isinstance(data, dict) else dict.fromkeys(self.inputs, data)
        if by_name.keys() != self.inputs.keys():
            raise ValueError(f"Expected the inputs {', '.join(self.inputs)}, but got {', '.join(map(str, by_name))}.")
        given = (params or {}).get(_SEED)
        seed = tf.constant(self.seed if given is None else given, tf.int64)
        inputs = {name: _checked(name, by_name[name], spec) for name, spec in self.inputs.items()}
        answers = [function(**inputs, seed=seed) for function in self._functions]
        return {name: values.numpy() for answer in answers for name, values in answer.items()}


def _load_pyfunc(folder: str) -> ServedPredictive:
    """What MLflow calls."""
    return ServedPredictive(folder)


def _default_seed(loaded: Any) -> int:
    """The seed that `predict` of a loaded SavedModel fills in; 0 if it fills in none."""
    parameter = inspect.signature(getattr(loaded, "predict", lambda: None)).parameters.get(_SEED)
    return 0 if parameter is None or parameter.default is inspect.Parameter.empty else int(parameter.default)


def _checked(name: str, values: Any, spec: tf.TensorSpec) -> tf.Tensor:
    array = np.asarray(values)
    # Only strings stay what they are.
    array = array if spec.dtype == tf.string else _numbers(name, array, spec.dtype)
    if not spec.shape.is_compatible_with(array.shape):
        raise ValueError(f"The input {name!r} has the shape {array.shape}; expected {tuple(spec.shape)}.")
    return tf.constant(array)


def _numbers(name: str, array: np.ndarray, dtype: tf.DType) -> np.ndarray:
    """The values in a type of numbers, in which fractions may be rounded. A ValueError says which do not fit."""
    least, most = (0, 1) if dtype.is_bool or dtype.is_floating else (int(dtype.min), int(dtype.max))
    wrong = "NaN or infinite, or no numbers" if dtype.is_floating else f"no integers from {least} to {most}"
    # Overflow is found by its infinity; float16 has no number as large as the bounds.
    with np.errstate(over="ignore", invalid="ignore"), contextlib.suppress(TypeError, ValueError, OverflowError):
        # Complex numbers and dates have a cast, too.
        if array.dtype.kind in "cmM":
            raise TypeError
        if array.dtype.kind in "US" and dtype.is_integer:
            # NumPy reads them exactly, and refuses fractions.
            array = array.astype(dtype.as_numpy_dtype)
        if dtype.is_floating:
            fits = np.isfinite(array.astype(dtype.as_numpy_dtype))
        else:
            # Below the next integer, a power of two: float64 does not have the largest one of 64 bits.
            fits = (array >= least) & (array < most + 1) & (array % 1 == 0)
        if fits.all():
            return array.astype(dtype.as_numpy_dtype)
    raise ValueError(f"The input {name!r} has values that are {wrong}. Expected {dtype.name}, but got {array.dtype}.")
