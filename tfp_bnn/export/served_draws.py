"""The draws of a model as a graph: their raw outputs, and what is computed from them, by head."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.arguments import is_number, require_integer
from tfp_bnn.core.draws import Draws
from tfp_bnn.export.served_outputs import NAMES, ServedHead
from tfp_bnn.predictive.calibrators import Calibration
from tfp_bnn.predictive.drawing import weights_of_draws


class ServedDraws:
    """S draws of a model, as TensorFlow operations. `posterior_predictive` computes the same outside a graph.

    Args:
        model: A `PredictiveModel`.
        draws: Function that returns the draws for a seed, which can be a tensor.
        input_specs: The inputs as `tf.TensorSpec`, in the structure that calls of the model take.
        num_samples: S, the largest number of draws.
        calibration: Calibration of the predictive, or None.
        level: Probability of the central interval.
        names: The outputs of the predictive that are asked for, with the mean among them.
        nan_for_nan: Whether rows with NaN or infinity are answered with NaN. Eight bits cannot do that.

    Attributes:
        num_samples: S, the number of draws.
        names: The outputs of the predictive that can be computed in a graph, by head.

    Raises:
        ValueError: If the call of the model does not run as a graph, or the mean cannot be computed in one.
    """

    def __init__(
        self,
        model: Any,
        draws: Callable[[Any], Draws],
        input_specs: Any,
        num_samples: int,
        calibration: Calibration | None,
        level: float,
        names: tuple[str, ...] = NAMES,
        nan_for_nan: bool = True,
    ) -> None:
        first = draws(0)
        self._draws, self._likelihood, self._asked = draws, model.likelihood, names
        self._nan_for_nan = nan_for_nan
        self.num_samples = num_samples if first.num_draws is None else min(num_samples, first.num_draws)
        self._specs = self._output_specs(model, first, input_specs)
        # Weights of an unlimited number of draws depend on the seed, which is an input.
        self._with_weights = (
            first.num_draws is None
            and not getattr(first, "weights_shared", False)
            and bool(first.likelihood_weights(0))
        )
        if self._with_weights:
            weights = {role: value.numpy() for role, value in self._weights(first).items()}
            by_draw = frozenset(weights)
        else:
            weights, by_draw = weights_of_draws(first, self.num_samples)
        of_heads = self._likelihood.weights_by_head(weights)
        differing = self._likelihood.weights_by_head(dict.fromkeys(by_draw))
        self._heads = {
            name: ServedHead(
                self._likelihood.heads.get(name, self._likelihood),
                dict(of_heads[name]),
                calibration,
                level,
                frozenset(differing[name]),
                self._with_weights,
            )
            for name in self._specs
        }
        self.names = {name: head.names_in_graph(self._specs[name].shape, names) for name, head in self._heads.items()}

    @property
    def raw_specs(self) -> dict[str, tf.TensorSpec]:
        """The raw outputs of all draws by head, `(S, batch, *positions, channels)`, float32."""
        return dict(self._specs)

    def predictive(self, x: Any, seed: Any) -> dict[str, tf.Tensor]:
        """What is known of each target by name, `(batch, ...)`; that of a head as `<head>/<name>`."""
        return self._by_name(x, seed, lambda head, *drawn: self._heads[head].predictive(self.names[head], *drawn))

    def of_raw_outputs(self, head: str, outputs: tf.Tensor, names: tuple[str, ...]) -> dict[str, tf.Tensor]:
        """Some outputs of the predictive of one head, from its raw outputs."""
        return self._heads[head].predictive(names, outputs, {})

    def mean(self, x: Any, seed: Any) -> dict[str, tf.Tensor]:
        """The predictive means by name."""
        return self._by_name(x, seed, lambda head, *drawn: self._heads[head].predictive(("mean",), *drawn))

    def samples(self, x: Any, seed: Any) -> dict[str, tf.Tensor]:
        """The predictions of each draw by name, `(batch, S, ...)`."""
        return self._by_name(x, seed, lambda head, *drawn: {"samples": self._heads[head].samples(*drawn)})

    @property
    def left_out(self) -> list[str]:
        """The outputs that have no form as a graph, by name."""
        return [
            _full_name(head, name) for head, names in self.names.items() for name in self._asked if name not in names
        ]

    def _by_name(
        self, x: Any, seed: Any, of_head: Callable[[str, tf.Tensor, Mapping[str, Any]], dict[str, tf.Tensor]]
    ) -> dict[str, tf.Tensor]:
        draws = self._draws(seed)
        weights = self._likelihood.weights_by_head(self._weights(draws) if self._with_weights else {})
        finite = _rows_that_are_finite(x) if self._nan_for_nan else None
        return {
            _full_name(head, name): _nan_elsewhere(finite, value)
            for head, outputs in self._outputs(draws, x).items()
            for name, value in of_head(head, outputs, weights[head]).items()
        }

    def _weights(self, draws: Draws) -> dict[str, tf.Tensor]:
        """The likelihood weights of all draws by role, `(S, 1, *own)`."""
        of_first = {role: tf.convert_to_tensor(value) for role, value in draws.likelihood_weights(0).items()}
        like = {role: tf.TensorSpec(value.shape, value.dtype) for role, value in of_first.items()}
        of_draws = tf.map_fn(draws.likelihood_weights, tf.range(self.num_samples), fn_output_signature=like)
        return {role: values[:, tf.newaxis] for role, values in of_draws.items()}

    def _outputs(self, draws: Draws, x: Any) -> dict[str, tf.Tensor]:
        """The raw outputs of all draws by head, `(S, batch, *positions, channels)`, float32."""

        def run(index: Any) -> dict[str, tf.Tensor]:
            outputs = self._likelihood.by_head(draws(index)(x), "The outputs of the model")
            return {name: tf.cast(output, tf.float32) for name, output in outputs.items()}

        if draws.num_draws is None:
            # The graph holds the network once, whatever the number of draws.
            of_one = {name: tf.TensorSpec(spec.shape[1:], tf.float32) for name, spec in self._specs.items()}
            outputs = tf.map_fn(run, tf.range(self.num_samples), fn_output_signature=of_one)
        else:
            of_draws = [run(index) for index in range(self.num_samples)]
            outputs = {name: tf.stack([of_draw[name] for of_draw in of_draws]) for name in self._specs}
        return {name: tf.ensure_shape(output, self._specs[name].shape) for name, output in outputs.items()}

    def _output_specs(self, model: Any, draws: Draws, input_specs: Any) -> dict[str, tf.TensorSpec]:
        try:
            traced = tf.function(draws(0), [input_specs], autograph=False).get_concrete_function()
        except Exception as error:
            raise ValueError(
                f"The model {model.name!r} cannot be exported: its call fails as a graph, for the inputs "
                f"{input_specs}. {error}"
            ) from error
        outputs = self._likelihood.by_head(traced.structured_outputs, "The outputs of the model")
        return {name: tf.TensorSpec([self.num_samples, *found.shape], tf.float32) for name, found in outputs.items()}


def require_predictive_arguments(num_samples: Any, seed: Any, level: Any) -> None:
    """Raises a ValueError for a number of draws, a seed or a level of the interval that is out of range."""
    require_integer("num_samples", num_samples, 1)
    require_integer("seed", seed)
    if not is_number(level) or not 0.0 < level < 1.0:
        raise ValueError(f"`level` must be a number between 0 and 1, but got {level!r}.")


def _rows_that_are_finite(x: Any) -> tf.Tensor | None:
    """Which rows have no NaN and no infinity in any input, `(batch,)`; None where all inputs are integers or strings.

    Networks do not always pass NaN on: `MaxPooling2D` and ReLU drop it, and answer as if it were not there.
    """
    # LiteRT has no `tf.math.is_finite`. NaN is not less than anything.
    finite = [
        tf.reduce_all(tf.abs(leaf) <= leaf.dtype.max, axis=list(range(1, leaf.shape.rank)))
        for leaf in keras.tree.flatten(x)
        if leaf.dtype.is_floating
    ]
    return functools.reduce(tf.logical_and, finite) if finite else None


def _nan_elsewhere(rows: tf.Tensor | None, value: tf.Tensor) -> tf.Tensor:
    """An array whose first axis is the batch, with NaN in the other rows; all of it if `rows` is None."""
    if rows is None:
        return value
    # Likelihoods of others may have outputs whose number of axes is only known when they are computed.
    of_rows = tf.reshape(rows, tf.concat([[-1], tf.ones([tf.rank(value) - 1], tf.int32)], axis=0))
    return tf.where(of_rows, value, tf.constant(float("nan"), value.dtype))


def _full_name(head: str, name: str) -> str:
    return f"{head}/{name}" if head else name
