"""The draws of a model whose layers take counter-based noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.compiled import compiled
from tfp_bnn.core.draws import Function
from tfp_bnn.core.noise import Noise, NoNoise, shared_by_draws
from tfp_bnn.core.values import values_of

# Distinct from the streams of training and evaluation, which fold in 0 and 1.
_PREDICTION = 2
_MOST_KEPT_BYTES = 2**28
"""A model keeps the weights of its last draws up to this size, 256 MiB."""
_BYTES_BETWEEN_LAYERS = 2**26
FEWEST_ROWS, _MOST_ROWS = 512, 8192
# A loop in the graph saves a millisecond a draw, and takes a tenth of a second to trace.
_LOOP_FROM = 8
# So many draws are in memory at a time.
_AT_ONCE = 4


class SeededDraws:
    """The draws of a model whose layers take counter-based noise: draw k is `seed` with k folded in.

    A draw depends on (seed, k, layer) only. Variational weights and dropout masks are drawn this way.

    Args:
        model: A `VariationalMixin`.
        seed: Integer, or an integer tensor in the graph of an exported model. Equal seeds give equal draws.
        num_draws: 1 for a model without randomness; None for an unlimited number of draws.
    """

    weights_shared = True

    def __init__(self, model: Any, seed: int | tf.Tensor, num_draws: int | None = None) -> None:
        self.num_draws = num_draws
        self._model, self._seed = model, seed
        self._functions = _functions_of(model)
        self._root = tf.stack([tf.convert_to_tensor(seed, tf.int64), tf.constant(0, tf.int64)])

    def __call__(self, index: int) -> Function:
        """Returns the model under the noise of draw `index`."""
        number = tf.convert_to_tensor(index)

        def function(x: Any) -> Any:
            return self._functions.forward(x, self._root, number, self._functions.draw(self._root, number))

        return function

    @property
    def rows_at_once(self) -> int:
        """Number of rows that a call should take, by the memory that the largest array between two layers takes."""
        return _rows_at_once(self._model)

    def bytes_of_row(self, number: int, x: Any) -> int | None:
        """Returns how much memory the outputs of so many draws take for one input, if `first` is to be used for them.

        Args:
            number: Number of draws.
            x: Inputs, as in `first`.

        Returns:
            Number of bytes; None for few draws, and for outputs of an unknown size.
        """
        if number < _LOOP_FROM or tf.config.functions_run_eagerly():
            return None
        key = tuple((np.shape(leaf)[1:], leaf.dtype) for leaf in keras.tree.flatten(x))
        if key not in self._functions.sizes:
            arguments = (x, self._root, tf.constant(number), self._kept(number))
            outputs = self._functions.loop.get_concrete_function(*arguments).structured_outputs
            shapes = [output.shape[2:] for output in keras.tree.flatten(outputs)]
            known = all(shape.is_fully_defined() for shape in shapes)
            self._functions.sizes[key] = sum(shape.num_elements() for shape in shapes) if known else None
        size = self._functions.sizes[key]
        return None if size is None else 4 * number * size

    def first(self, number: int, x: Any) -> Any:
        """Returns the raw outputs of the first draws for some inputs, `(number, rows, channels)`, in one call.

        The weights of the draws are kept, up to 256 MiB for each model, until the posterior changes or another seed is
        asked for.

        Args:
            number: Number of draws.
            x: Inputs of shape `(rows, ...)`, in the structure that the model takes.
        """
        return self._functions.loop(x, self._root, tf.constant(number), self._kept(number))

    def likelihood_weights(self, index: int) -> Mapping[str, np.ndarray]:
        """The learned parameters of the likelihood by role, the same in all draws."""
        return _learned(self._model)

    def _kept(self, number: int) -> list[tf.Tensor]:
        """The weights of at least so many draws, a list of tensors for each; none if they take too much memory."""
        size = sum(4 * weight.size for weight in self._model.drawn_weights)
        if not size or size * number > _MOST_KEPT_BYTES:
            return []
        posterior = [values_of(variable) for variable in self._model.drawn_from]
        kept: _Kept | None = self._model.__dict__.get("_kept_draws")
        if kept is None or not kept.holds(self._seed, number, posterior):
            weights = self._functions.keep(self._root, tf.constant(number))
            kept = _Kept(self._seed, number, [array.copy() for array in posterior], weights)
            self._model.__dict__["_kept_draws"] = kept
        return kept.weights


class PlugInDraws:
    """The one draw in which every weight is its posterior mean and every mask its expectation.

    Args:
        model: Model with `likelihood_weights` and `call_with_noise`.
    """

    num_draws = 1

    def __init__(self, model: Any) -> None:
        self._model = model
        self._plug_in = _functions_of(model).plug_in

    @property
    def rows_at_once(self) -> int:
        """As of `SeededDraws`."""
        return _rows_at_once(self._model)

    def __call__(self, index: int) -> Function:
        """Returns the model without noise."""
        return lambda x: self._plug_in(x)

    def likelihood_weights(self, index: int) -> Mapping[str, np.ndarray]:
        """The learned parameters of the likelihood, by role."""
        return _learned(self._model)


def forget_compiled(model: Any) -> None:
    """Makes the next prediction recompile its forward pass. Call it when the layers of a model have changed."""
    model.__dict__.pop("_predictive_functions", None)
    model.__dict__.pop("_kept_draws", None)


@dataclass(frozen=True)
class _Kept:
    """The weights of the first draws of a seed.

    Attributes:
        seed: The seed.
        number: Number of draws.
        posterior: The parameters that they were drawn from.
        weights: For each weight a list of its draws, as TensorFlow keeps a list in a tensor: elements are not copied.
    """

    seed: Any
    number: int
    posterior: Sequence[np.ndarray]
    weights: list[tf.Tensor]

    def holds(self, seed: Any, number: int, posterior: Sequence[np.ndarray]) -> bool:
        """Whether these are the draws of a seed and a posterior, and enough of them."""
        return (
            (seed, True) == (self.seed, number <= self.number)
            and len(posterior) == len(self.posterior)
            and all(np.array_equal(now, then) for now, then in zip(posterior, self.posterior, strict=True))
        )


class _Functions(NamedTuple):
    """The compiled functions of a model.

    Attributes:
        draw: Root of the noise and number of a draw; the weights of the draw.
        forward: Inputs, root, number of a draw and its weights; raw outputs.
        plug_in: Inputs; raw outputs at the posterior mean.
        keep: Root and number of draws; a list of the draws of each weight.
        loop: Inputs, root, number of draws, and what `keep` returned, or nothing; raw outputs of all draws.
        sizes: Number of outputs of a row of `loop`, None if unknown, by shapes and dtypes of the inputs.
    """

    draw: Any
    forward: Any
    plug_in: Any
    keep: Any
    loop: Any
    sizes: dict[Any, int | None]


def _functions_of(model: Any) -> _Functions:
    """The compiled functions of a model, made once."""
    if "_predictive_functions" not in model.__dict__:
        model.__dict__["_predictive_functions"] = _compile(model)
    functions: _Functions = model.__dict__["_predictive_functions"]
    return functions


def _compile(model: Any) -> _Functions:
    def noise_of(root: tf.Tensor, index: tf.Tensor) -> Noise:
        return Noise(root).fold_in(_PREDICTION).fold_in(index)

    def weights_of(root: tf.Tensor, index: tf.Tensor) -> list[tf.Tensor]:
        return model.draw_weights(noise_of(root, index))

    def outputs_of(x: Any, root: tf.Tensor, index: tf.Tensor, weights: Sequence[tf.Tensor]) -> Any:
        return model.call_with_noise(x, noise_of(root, index), weights)

    def outputs_after(between: Any, root: tf.Tensor, index: tf.Tensor, weights: Sequence[tf.Tensor]) -> Any:
        return model.call_with_noise(between, noise_of(root, index), weights, split.after)

    draw, forward = compiled(weights_of), compiled(outputs_of)
    # What no draw changes is computed once for all.
    split = model.split_before_noise()
    in_loop = forward if split is None else compiled(outputs_after)

    def weights_in_loop_of(root: tf.Tensor) -> Callable[[tf.Tensor], list[tf.Tensor]]:
        made: dict[int, Any] = {}

        def weights_in_loop(index: tf.Tensor) -> list[tf.Tensor]:
            with shared_by_draws(made):
                return weights_of(root, index)

        # Makes what all draws share, such as the scales, before the loop; nothing else of this draw is executed.
        weights_in_loop(tf.constant(0))
        return weights_in_loop

    def keep(root: tf.Tensor, number: tf.Tensor) -> list[tf.Tensor]:
        weights_in_loop = weights_in_loop_of(root)
        empty = [
            tf.raw_ops.TensorListReserve(element_shape=w.shape, num_elements=number, element_dtype=tf.float32)
            for w in model.drawn_weights
        ]

        def step(index: tf.Tensor, *lists: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return index + 1, *(
                tf.raw_ops.TensorListSetItem(input_handle=of_weight, index=index, item=value)
                for of_weight, value in zip(lists, weights_in_loop(index), strict=True)
            )

        _, *filled = tf.while_loop(lambda index, *_: index < number, step, (tf.constant(0), *empty))
        return filled

    def loop(x: Any, root: tf.Tensor, number: tf.Tensor, kept: Sequence[tf.Tensor]) -> Any:
        weights_in_loop = None if kept else weights_in_loop_of(root)

        def weights_of_draw(index: tf.Tensor) -> list[tf.Tensor]:
            if weights_in_loop is not None:
                return weights_in_loop(index)
            return [
                tf.raw_ops.TensorListGetItem(
                    input_handle=of_weight, index=index, element_shape=w.shape, element_dtype=tf.float32
                )
                for of_weight, w in zip(kept, model.drawn_weights, strict=True)
            ]

        if split is not None:
            x = split.before(x)

        def step(index: tf.Tensor, *arrays: tf.TensorArray) -> tuple[Any, ...]:
            values = keras.tree.flatten(in_loop(x, root, index, weights_of_draw(index)))
            return index + 1, *(array.write(index, value) for array, value in zip(arrays, values, strict=True))

        specs = [tf.TensorSpec(weight.shape) for weight in model.drawn_weights]
        like = in_loop.get_concrete_function(x, root, tf.TensorSpec((), tf.int32), specs).structured_outputs
        arrays = [tf.TensorArray(output.dtype, number) for output in keras.tree.flatten(like)]
        _, *filled = tf.while_loop(
            lambda index, *_: index < number, step, (tf.constant(0), *arrays), parallel_iterations=_AT_ONCE
        )
        stacked = [array.stack() for array in filled]
        for value, output in zip(stacked, keras.tree.flatten(like), strict=True):
            value.set_shape([None, *output.shape])
        return keras.tree.pack_sequence_as(like, stacked)

    def plug_in(x: Any) -> Any:
        return model.call_with_noise(x, NoNoise())

    return _Functions(draw, forward, compiled(plug_in), compiled(keep), compiled(loop), {})


def _rows_at_once(model: Any) -> int:
    size = model.largest_row_bytes()
    return FEWEST_ROWS if size is None else int(np.clip(_BYTES_BETWEEN_LAYERS // size, FEWEST_ROWS, _MOST_ROWS))


def _learned(model: Any) -> dict[str, np.ndarray]:
    # They are constants in the graph of an exported model.
    with tf.init_scope():
        return {role: np.asarray(variable) for role, variable in model.likelihood_weights.items()}
