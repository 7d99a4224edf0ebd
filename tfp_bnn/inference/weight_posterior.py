"""A trained network with a posterior over its weights that its layers do not hold, as in SWAG and Laplace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_bnn.core.compiled import compiled
from tfp_bnn.core.draws import FiniteDraws, Function
from tfp_bnn.core.noise import Noise, NoiseSource, require_seed
from tfp_bnn.inference.function_of_weights import FunctionOfWeights
from tfp_bnn.inference.stored_posterior import StoredPosterior

# Distinct from the streams of training and evaluation, which fold in 0 and 1.
_PREDICTION = 2

LearnedOfDraw = Callable[[tf.Tensor, tf.Tensor], Mapping[str, tf.Tensor]]


class WeightPosterior(StoredPosterior):
    """A network and a distribution over a vector of its weights, with the predictions of every other model. Abstract.

    The network is not copied: do not train it further. Weights outside of the vector, and what the likelihood has
    learned, stay points.

    Args:
        network: The network as a function of these weights.
        name: Name of the model.
    """

    def __init__(self, network: FunctionOfWeights, name: str) -> None:
        self.name = name
        self._take_over(network.model)
        self._network = network
        self._compiled = compiled(self._outputs_of_draw)
        # What the likelihood has learned in a draw, where that is not the same in all.
        self._learned_of_draw: LearnedOfDraw | None = None

    def perturbation(self, noise: NoiseSource) -> tf.Tensor:
        """A draw of the weights minus their posterior mean, `(d,)`, float32."""
        raise NotImplementedError

    @property
    def mean_weights(self) -> np.ndarray:
        """The posterior mean of the weights, `(d,)`, float32."""
        raise NotImplementedError

    @property
    def network(self) -> Any:
        """The trained model."""
        return self._network.model

    @property
    def networks(self) -> tuple[Any, ...]:
        """The trained model, alone."""
        return (self.network,)

    def settings(self) -> dict[str, Any]:
        """The names of the weights that have a posterior: in a network made from its config, others are trainable too.

        Files of SWAG and of normal posteriors from before they had these are of all weights.
        """
        return {"weights": list(self.weight_names)}

    @property
    def weight_names(self) -> tuple[str, ...]:
        """The names of the weights that have a posterior, such as `"hidden/kernel"`, in their order in the vector."""
        return tuple(self._network.variables)

    @property
    def num_weights(self) -> int:
        """d, the number of weights that have a posterior."""
        return self._network.num_weights

    @property
    def num_examples(self) -> int | None:
        """N, the number of training examples of the network; None if it is not known."""
        return self.network.num_examples

    def draws(self, seed: int = 0) -> WeightDraws:
        """The draws of the weights: draw k is one function, determined by (seed, k). Their number is unlimited.

        Args:
            seed: Integer. Equal seeds give equal draws.

        Raises:
            ValueError: If the seed is not an integer.
        """
        return WeightDraws(self._compiled, require_seed(seed), self._likelihood_values, self._learned_of_draw)

    def plug_in_draws(self) -> FiniteDraws:
        """The one draw in which the weights are their posterior means."""
        mean = tf.constant(self.mean_weights)
        plug_in = compiled(lambda x: self._network(x, mean))
        return FiniteDraws([plug_in], [self._likelihood_values()])

    def kl_by_layer(self) -> dict[str, tf.Tensor]:
        """Empty: this posterior was not found by minimizing a KL to the prior."""
        return {}

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Prints the network, and what is known of the posterior of its weights.

        Args:
            print_fn: Function that takes the text. Default: `print`.
        """
        self.network.summary(print_fn=print_fn)
        print_fn(repr(self))

    def _outputs_of_draw(self, x: Any, root: tf.Tensor, index: tf.Tensor) -> Any:
        """The raw outputs of draw `index`."""
        change = self.perturbation(noise_of_draw(root, index))
        return self._outputs_of(x, tf.constant(self.mean_weights), change)

    def _outputs_of(self, x: Any, mean: tf.Tensor, change: tf.Tensor) -> Any:
        return self._network(x, mean + change)

    def _likelihood_values(self) -> dict[str, np.ndarray]:
        return {role: np.asarray(variable) for role, variable in self.network.likelihood_weights.items()}

    def _check_inputs(self, x: Any) -> None:
        self.network._check_inputs(x)

    def _check_examples(self, x: Any, y: Any) -> None:
        self.network._check_examples(x, y)

    def _check_weights(self) -> None:
        self.network._check_weights()


class WeightDraws:
    """Draws of the weights of one network: draw k is `seed` with k folded in.

    Args:
        outputs: Function of inputs, a seed `(2,)` and the number of a draw that returns raw outputs.
        seed: Integer, or an integer tensor in the graph of an exported model. Equal seeds give equal draws.
        likelihood_weights: Function that returns the learned parameters of the likelihood by role, as points.
        learned_of_draw: Function of a seed `(2,)` and the number of a draw that returns those that differ between
            draws, as tensors by role; None if there are none.
    """

    num_draws = None

    def __init__(
        self,
        outputs: Any,
        seed: int | tf.Tensor,
        likelihood_weights: Callable[[], Mapping[str, np.ndarray]],
        learned_of_draw: LearnedOfDraw | None = None,
    ) -> None:
        self._of_draw = outputs
        self._root = tf.stack([tf.convert_to_tensor(seed, tf.int64), tf.constant(0, tf.int64)])
        self._likelihood_weights, self._learned_of_draw = likelihood_weights, learned_of_draw
        self.weights_shared = learned_of_draw is None

    def __call__(self, index: int) -> Function:
        """Returns the network with the weights of draw `index`."""
        return lambda x: self._of_draw(x, self._root, tf.convert_to_tensor(index))

    def likelihood_weights(self, index: int) -> Mapping[str, Any]:
        """The learned parameters of the likelihood of draw `index`, by role: arrays; in a graph, tensors."""
        # The points are constants in a graph.
        with tf.init_scope():
            weights: dict[str, Any] = dict(self._likelihood_weights())
        if self._learned_of_draw is None:
            return weights
        learned = self._learned_of_draw(self._root, tf.convert_to_tensor(index))
        return weights | {role: value.numpy() if tf.executing_eagerly() else value for role, value in learned.items()}


def noise_of_draw(root: tf.Tensor, index: tf.Tensor) -> Noise:
    """The noise of draw `index` of the seed `root`, of shape `(2,)`."""
    return Noise(root).fold_in(_PREDICTION).fold_in(index)
