"""The inputs of an exported model: their shapes, dtypes and names."""

from __future__ import annotations

import itertools
import keyword
import re
from collections.abc import Collection, Mapping
from typing import Any

import keras
import tensorflow as tf

# How Keras names inputs without a name; the number depends on what was made before in the process.
_AUTOMATIC_NAMES = ("keras_tensor", "input_layer")
# What TensorFlow takes as the name of an argument of a signature; it writes `_` for what is no letter or digit.
_OF_SIGNATURES = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_./-]*")
_RENAME = (
    "Name it in keras.Input(shape, name='features'), or by an `input_signature` whose leaves have other names, such as "
    "tf.TensorSpec((None, 4), 'float32', name='features')."
)


def input_specs(model: Any, input_signature: Any = None) -> Any:
    """The inputs of a model as `tf.TensorSpec`, in the structure that its calls take.

    They are named as the inputs of the model, in a subclass of `keras.Model` by the keys of a dict of inputs. Those
    without a name get the first of `x`, `x_1`, `x_2`, ... that no other one has.

    Args:
        model: A `PredictiveModel`.
        input_signature: As in `keras.Model.export`: a list that holds the structure of the inputs, whose leaves are
            `keras.InputSpec`, `tf.TensorSpec`, symbolic or other tensors; or None to take that of the model.

    Raises:
        ValueError: If the model is not built or does not know its inputs, a leaf has no shape and dtype, or two have
            the same name.
    """
    if not getattr(model, "built", True):
        raise ValueError(
            f"The model {model.name!r} is not built, so its weights are not known. Build it, or call it on data, first."
        )
    structure = _known_inputs(model) if input_signature is None else _only_argument(input_signature)
    leaves = keras.tree.flatten(structure)
    given = [_given_name(leaf) for leaf in leaves]
    taken = [name.lower() for name in given if name is not None]
    free = (name for name in itertools.chain(["x"], map("x_{}".format, itertools.count(1))) if name not in taken)
    names = [next(free) if name is None else name for name in given]
    _require_different(names, names, model.name)
    specs = [_spec(leaf, name, model.name) for leaf, name in zip(leaves, names, strict=True)]
    return keras.tree.pack_sequence_as(structure, specs)


def require_names_of_signatures(specs: Any, model: str, reserved: Collection[str] = ()) -> None:
    """Refuses names of inputs that TensorFlow's signatures cannot have, those of SavedModels and of LiteRT.

    Args:
        specs: The inputs, as from `input_specs`.
        model: Name of the model, for the messages.
        reserved: Names that the signatures have besides.

    Raises:
        ValueError: If a name is not possible, or equal to another one in all but case and special characters.
    """
    names = [spec.name for spec in keras.tree.flatten(specs)]
    for name in names:
        if not _OF_SIGNATURES.fullmatch(name) or keyword.iskeyword(name) or name == "self":
            raise ValueError(
                f"The model {model!r} has an input of the name {name!r}. Expected an ASCII letter, a digit or '.', "
                "after it also '_', '-' and '/', and no word of Python such as 'class' or 'self'; only format='onnx' "
                f"has any name. {_RENAME}"
            )
        if name.lower() in reserved:
            raise ValueError(
                f"The model {model!r} has an input of the name {name!r}, which the signatures of the file have "
                f"already, for something else. {_RENAME}"
            )
    _require_different(names, [written_name(name).lower() for name in names], model)


def written_name(name: str) -> str:
    """The name of an input in a SavedModel, as TensorFlow writes it.

    Example:
        >>> written_name("sepal.length"), written_name("1")
        ('sepal_length', 'arg_1')
    """
    written = re.sub(r"[^A-Za-z0-9]", "_", name)
    return written if written[0].isalpha() else f"arg_{written}"


def _spec(leaf: Any, name: str, model: str) -> tf.TensorSpec:
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or dtype is None:
        raise ValueError(
            f"`input_signature` of the model {model!r} has the leaf {leaf!r}. Expected a shape and a dtype "
            "for each input, such as keras.InputSpec(shape=(None, 4), dtype='float32')."
        )
    is_spec = isinstance(leaf, keras.InputSpec | tf.TensorSpec)
    return tf.TensorSpec(tuple(shape) if is_spec else (None, *shape[1:]), dtype, name=name)


def _given_name(leaf: Any) -> str | None:
    """The name that was given to an input; None if there is none, or Keras made it."""
    name = getattr(leaf, "name", None)
    return name if isinstance(name, str) and name and not name.startswith(_AUTOMATIC_NAMES) else None


def _require_different(names: list[str], written: list[str], model: str) -> None:
    for name, other in itertools.combinations(range(len(names)), 2):
        if written[name] == written[other]:
            raise ValueError(
                f"The model {model!r} has inputs of the names {names[name]!r} and {names[other]!r}, which would be "
                f"the same in the file. {_RENAME}"
            )


def _only_argument(input_signature: Any) -> Any:
    """Keras' signatures list the arguments of a call, and a model takes one, which can be a structure."""
    if isinstance(input_signature, list | tuple) and len(input_signature) == 1:
        return input_signature[0]
    return input_signature


def _known_inputs(model: Any) -> Any:
    inputs = getattr(model, "input", None)
    if inputs is not None:
        return inputs
    # Subclasses of keras.Model remember the shapes of their first call, in the structure of its inputs.
    shapes = (model.get_build_config() or {}).get("input_shape") if isinstance(model, keras.Model) else None
    specs = None if shapes is None else _specs_of_shapes(shapes, model.input_dtype)
    if specs is None or None in keras.tree.flatten(specs):
        raise ValueError(
            f"The model {model.name!r} does not know the shape of its inputs. Pass "
            "input_signature=[keras.InputSpec(shape=(None, 4), dtype='float32')], with your shape and dtype."
        )
    return specs


def _specs_of_shapes(shapes: Any, dtype: str, name: str | None = None) -> Any:
    """The inputs of some shapes, in their structure, named by the keys of dicts; None for what is no shape."""
    if isinstance(shapes, Mapping):
        return {key: _specs_of_shapes(shape, dtype, str(key)) for key, shape in shapes.items()}
    if not isinstance(shapes, list | tuple) or not shapes:
        return None
    if all(size is None or isinstance(size, int) for size in shapes):
        return keras.InputSpec(shape=(None, *shapes[1:]), dtype=dtype, name=name)
    return type(shapes)([_specs_of_shapes(shape, dtype) for shape in shapes])
