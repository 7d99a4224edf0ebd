"""The inputs of an exported model: their shapes, dtypes and names."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

# How Keras names inputs without a name; the number depends on what was made before in the process.
_AUTOMATIC_NAMES = ("keras_tensor", "input_layer")


def input_specs(model: Any, input_signature: Any = None) -> Any:
    """The inputs of a model as `tf.TensorSpec`, in the structure that its calls take.

    They are named as the inputs of the model: the first one without a name is `x`, the next `x_1`, and so on.

    Args:
        model: A `PredictiveModel`.
        input_signature: As in `keras.Model.export`: a list that holds the structure of the inputs, whose leaves are
            `keras.InputSpec`, `tf.TensorSpec`, symbolic or other tensors; or None to take that of the model.

    Raises:
        ValueError: If the model is not built or does not know its inputs, or a leaf has no shape and dtype.
    """
    if not getattr(model, "built", True):
        raise ValueError(
            f"The model {model.name!r} is not built, so its weights are not known. Build it, or call it on data, first."
        )
    structure = _known_inputs(model) if input_signature is None else _only_argument(input_signature)
    taken: list[str] = []

    def spec(leaf: Any) -> tf.TensorSpec:
        shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
        if shape is None or dtype is None:
            raise ValueError(
                f"`input_signature` of the model {model.name!r} has the leaf {leaf!r}. Expected a shape and a dtype "
                "for each input, such as keras.InputSpec(shape=(None, 4), dtype='float32')."
            )
        name = getattr(leaf, "name", None)
        if not isinstance(name, str) or not name or name.startswith(_AUTOMATIC_NAMES):
            name = f"x_{len(taken)}" if taken else "x"
        taken.append(name)
        is_spec = isinstance(leaf, keras.InputSpec | tf.TensorSpec)
        return tf.TensorSpec(tuple(shape) if is_spec else (None, *shape[1:]), dtype, name=name)

    return keras.tree.map_structure(spec, structure)


def _only_argument(input_signature: Any) -> Any:
    """Keras' signatures list the arguments of a call, and a model takes one, which can be a structure."""
    if isinstance(input_signature, list | tuple) and len(input_signature) == 1:
        return input_signature[0]
    return input_signature


def _known_inputs(model: Any) -> Any:
    inputs = getattr(model, "input", None)
    if inputs is not None:
        return inputs
    # Subclasses of keras.Model remember the shapes of their first call.
    shape = (model.get_build_config() or {}).get("input_shape") if isinstance(model, keras.Model) else None
    if shape is None:
        raise ValueError(
            f"The model {model.name!r} does not know the shape of its inputs. Pass "
            "input_signature=[keras.InputSpec(shape=(None, 4), dtype='float32')], with your shape and dtype."
        )
    return keras.InputSpec(shape=(None, *shape[1:]), dtype=model.input_dtype)
