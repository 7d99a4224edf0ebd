"""A network as a function of its inputs and of the values of its weights, with derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.compiled import compiled
from tfp_bnn.core.noise import NoNoise
from tfp_bnn.models.variational_mixin import VariationalMixin


class FunctionOfWeights:
    """The raw outputs f(x, w) of a network for any values w of some of its weights. Its variables are not changed.

    A vector `(d,)` holds the weights in the order of `variables`, each flattened row by row. The derivatives are those
    of networks with a single output.

    Args:
        model: A built model. Everything that is not in `variables` is read from it.
        variables: Variables of the model, by name.
    """

    def __init__(self, model: VariationalMixin, variables: Mapping[str, keras.Variable]) -> None:
        self.model = model
        self.variables = dict(variables)
        self._shapes = [tuple(variable.shape) for variable in variables.values()]
        self.sizes = [int(np.prod(shape)) for shape in self._shapes]

    @property
    def num_weights(self) -> int:
        """d, the number of weights."""
        return sum(self.sizes)

    def values(self) -> np.ndarray:
        """The current values of the variables, a vector `(d,)`, float32."""
        # A layer with dtype="float64" has float64 variables.
        return np.concatenate([np.asarray(v, np.float32).reshape(-1) for v in self.variables.values()])

    def __call__(self, x: Any, weights: tf.Tensor) -> Any:
        """The raw outputs `(batch, channels)` for weights `(d,)`; of several outputs, their dict or list."""
        return self._outputs(x, self._split(weights))

    def linearized(self, x: Any, weights: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
        """f(x, w) + J(x) change: the raw outputs of the network that is linear in its weights around w."""
        values = self._split(weights)
        with tf.autodiff.ForwardAccumulator(values, self._split(change)) as accumulator:
            outputs = self._outputs(x, values)
        return outputs + accumulator.jvp(outputs, tf.UnconnectedGradients.ZERO)

    def transposed_jacobian(self, x: Any, weights: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        """J(x_n)' v_n for every row n, of shape `(batch, d)`.

        Args:
            x: Inputs, `(batch, ...)`, or a structure of them.
            weights: Weights, `(d,)`.
            vectors: One vector for each row, of the shape of the outputs.
        """
        values = self._split(weights)

        def of_row(row: Any) -> tf.Tensor:
            inputs, vector = row
            with tf.GradientTape() as tape:
                tape.watch(values)
                outputs = self._outputs(keras.tree.map_structure(lambda array: array[tf.newaxis], inputs), values)
                product = tf.reduce_sum(outputs * vector)
            gradients = tape.gradient(product, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], axis=0)

        return tf.vectorized_map(of_row, (x, vectors))

    def compiled_at(self, weights: np.ndarray) -> tuple[Callable[..., tf.Tensor], Callable[..., tf.Tensor]]:
        """The functions `x -> f(x, w)` and `x, vectors -> J(x)' vectors` at fixed weights, compiled."""
        at = tf.constant(weights)
        return compiled(lambda x: self(x, at)), compiled(lambda x, vectors: self.transposed_jacobian(x, at, vectors))

    def _outputs(self, x: Any, values: Sequence[tf.Tensor]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(self.variables.values(), values, strict=True))):
            outputs = self.model.call_with_noise(x, NoNoise())
        return keras.tree.map_structure(lambda of_head: tf.cast(of_head, tf.float32), outputs)

    def split(self, weights: tf.Tensor) -> dict[str, tf.Tensor]:
        """The weights in a vector `(d,)` by name."""
        return dict(zip(self.variables, self._split(weights), strict=True))

    def _split(self, weights: tf.Tensor) -> list[tf.Tensor]:
        return [
            tf.reshape(part, shape) for part, shape in zip(tf.split(weights, self.sizes), self._shapes, strict=True)
        ]


def chosen_by_name(variables: Mapping[str, keras.Variable], names: Any) -> dict[str, keras.Variable]:
    """The variables with the names that a stored posterior is over, in that order: others were frozen or left out.

    Args:
        variables: The variables of a network, by name.
        names: Names that may come from a stranger.

    Raises:
        ValueError: Unless they are names of variables, each once.
    """
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(name, str) and name in variables for name in names)
        or len(set(names)) < len(names)
    ):
        got = repr(names)[:200]
        raise ValueError(f"'weights' must be names of the weights {', '.join(variables)}, each once, but is {got}.")
    return {name: variables[name] for name in names}
