"""SWAG: a normal posterior from the iterates of stochastic gradient descent."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfp_bnn.core.arguments import require_integer
from tfp_bnn.core.layer_tree import sublayers
from tfp_bnn.core.noise import NoiseSource
from tfp_bnn.inference.function_of_weights import FunctionOfWeights, chosen_by_name
from tfp_bnn.inference.point_weights import point_variables, require_point_model
from tfp_bnn.inference.stored_posterior import Arrays, integer_of, require_arrays
from tfp_bnn.inference.weight_posterior import WeightPosterior
from tfp_bnn.models.variational_mixin import VariationalMixin

_MOST_ITERATES = 10**6


class SwagIterates(keras.callbacks.Callback):
    """Callback that collects the weights at the end of epochs, for `tfp_bnn.inference.swag`.

    It keeps the running mean and variance of every weight, in float64, and the last deviations from the running mean.
    Continue a trained model with SGD at a constant rate that is high enough for the weights to move around the optimum.
    A further `fit` with the same callback adds to it.

    Args:
        rank: K, the number of last deviations kept, >= 2: the rank of the low-rank part of the covariance. Takes
            4 K d bytes for d weights.
        every: Number of epochs from one collection to the next, counted over all calls of `fit`.

    Attributes:
        epochs: Number of epochs seen.
        number: Number of iterates collected.

    Raises:
        ValueError: If an argument is out of range; at the start of a training, if the model has random layers, or
            batch normalization that is trained.
    """

    def __init__(self, rank: int = 20, every: int = 1) -> None:
        super().__init__()
        self.rank = require_integer("rank", rank, 2)
        self.every = require_integer("every", every, 1)
        self.epochs = 0
        self.number = 0
        self.mean = np.zeros(0)
        self.variance = np.zeros(0)
        self.deviations: deque[np.ndarray] = deque(maxlen=self.rank)
        self._names: tuple[str, ...] = ()

    def on_train_begin(self, logs: Any = None) -> None:
        """Refuses a model that has no iterates to be averaged."""
        self._network()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Collects the weights."""
        self.epochs += 1
        if self.epochs % self.every == 0:
            self.collect()

    def collect(self) -> None:
        """Adds the current weights of the model. Call it in a training loop of your own, after `set_model`.

        Raises:
            ValueError: If the weights are not those collected before, or the model is refused.
        """
        network = self._network()
        weights = network.values().astype(np.float64)
        if not self.number:
            self._names, self.mean, self.variance = tuple(network.variables), np.zeros_like(weights), 0.0 * weights
        self.check_fits(network)
        # Welford's update: a difference of mean squares would lose what it is about.
        self.number += 1
        before = weights - self.mean
        self.mean = self.mean + before / self.number
        self.variance = self.variance + (before * (weights - self.mean) - self.variance) / self.number
        self.deviations.append((weights - self.mean).astype(np.float32))

    def state_arrays(self) -> dict[str, np.ndarray]:
        """What was collected, as arrays, to continue in another process."""
        if not self.number:
            return {}
        return {"mean": self.mean, "variance": self.variance, "deviations": np.stack(self.deviations)}

    def restore_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes up the result of `state_arrays`, with `epochs` and `number`, for the model that is set."""
        if not arrays:
            return
        self._names = tuple(self._network().variables)
        self.mean, self.variance = arrays["mean"], arrays["variance"]
        self.deviations = deque(arrays["deviations"], maxlen=self.rank)

    def check_fits(self, network: FunctionOfWeights) -> None:
        """Raises a ValueError unless the collected weights are those of this network."""
        if tuple(network.variables) != self._names or network.num_weights != self.mean.size:
            raise ValueError(
                f"The iterates are those of {self.mean.size} weights ({', '.join(self._names)}), but "
                f"{network.model.name!r} has {network.num_weights} ({', '.join(network.variables)}). Use one "
                "SwagIterates for each model."
            )

    def _network(self) -> FunctionOfWeights:
        require_point_model(self.model, "swag")
        moving = [
            layer.name
            for layer in sublayers(self.model)
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        ]
        if moving:
            raise ValueError(
                f"The layers {', '.join(moving)} keep statistics of activations, which belong to one set of weights: "
                "every draw would need a pass over the training data. Use GroupNormalization, LayerNormalization or "
                "filter response normalization, or freeze them with layer.trainable = False."
            )
        return FunctionOfWeights(self.model, point_variables(self.model))


class Swag(WeightPosterior):
    """A normal posterior over all weights of a network, with the moments of the iterates of SGD; see `swag`.

    Args:
        network: The network as a function of its weights.
        mean: Posterior means of the weights, `(d,)`.
        scale: Standard deviations of the independent part, `(d,)`.
        factor: Columns of the low-rank part, `(d, K)`.
        num_iterates: Number of iterates that these come from.
        name: Name of the model.
    """

    way = "swag"

    def __init__(
        self,
        network: FunctionOfWeights,
        mean: npt.NDArray[np.floating],
        scale: npt.NDArray[np.floating],
        factor: npt.NDArray[np.floating],
        num_iterates: int,
        name: str,
    ) -> None:
        super().__init__(network, name)
        self.num_iterates = num_iterates
        self._mean = mean.astype(np.float32)
        self._scale = tf.constant(scale, tf.float32)
        self._factor = tf.constant(factor, tf.float32)

    def settings(self) -> dict[str, Any]:
        """The names of the weights, the rank and the number of iterates."""
        return {**super().settings(), "rank": self.rank, "num_iterates": self.num_iterates}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Means, scales and low-rank factor, float32."""
        return {"mean": self._mean, "scale": self._scale.numpy(), "factor": self._factor.numpy()}

    @classmethod
    def from_arrays(
        cls, networks: Sequence[Any], way: str, settings: Mapping[str, Any], arrays: Arrays, name: str
    ) -> Swag:
        """Rebuilds a posterior; see `StoredPosterior.from_arrays`."""
        (model,) = networks
        require_point_model(model, way)
        variables = point_variables(model)
        network = FunctionOfWeights(model, chosen_by_name(variables, settings.get("weights", [*variables])))
        rank, num_iterates = (integer_of(settings, key, 2, _MOST_ITERATES) for key in ("rank", "num_iterates"))
        of_weights = (network.num_weights,)
        shapes = {"mean": of_weights, "scale": of_weights, "factor": (*of_weights, rank)}
        require_arrays(arrays, {key: (shape, np.float32) for key, shape in shapes.items()})
        if (arrays["scale"] < 0).any():
            raise ValueError("The array 'scale' has negative values; standard deviations were expected.")
        return cls(network, arrays["mean"], arrays["scale"], arrays["factor"], num_iterates, name)

    @property
    def mean_weights(self) -> np.ndarray:
        """The mean of the iterates, `(d,)`, float32."""
        return self._mean

    @property
    def rank(self) -> int:
        """K, the number of deviations in the low-rank part."""
        return int(self._factor.shape[1])

    def perturbation(self, noise: NoiseSource) -> tf.Tensor:
        """A draw of the weights minus their mean, `(d,)`, float32."""
        independent = self._scale * noise.normal("diagonal", [self.num_weights])
        return independent + tf.linalg.matvec(self._factor, noise.normal("low_rank", [self.rank]))

    def covariance(self) -> np.ndarray:
        """The posterior covariance of the weights, `(d, d)`, float32; for small networks."""
        factor = self._factor.numpy()
        return np.diag(self._scale.numpy() ** 2) + factor @ factor.T

    def __repr__(self) -> str:
        return (
            f"Swag of {self.network.name!r}: normal posterior of {self.num_weights:,} weights from {self.num_iterates} "
            f"iterates, rank {self.rank}"
        )


def swag(model: VariationalMixin, iterates: SwagIterates, name: str = "swag") -> Swag:
    """A normal posterior with the mean and the covariance of the iterates of SGD (SWA-Gaussian).

        w ~ N(mean, diag(variance) / 2 + D D' / (2 (K - 1)))

    with the mean and variance of all collected iterates, and in D the last K deviations of iterates from the running
    mean. The number of draws is unlimited. The posterior is over all trainable weights of the network; what the
    likelihood has learned stays as it is in the model. A prior acts through the training only. Prediction costs one
    forward pass per draw.

    Args:
        model: The trained point model, as of `map_estimate`. It is not copied: do not train it further.
        iterates: The callback that was given to its `fit`.
        name: Name of the result.

    Returns:
        A `Swag`.

    Raises:
        TypeError: If the model has no `VariationalMixin`, or `iterates` is no `SwagIterates`.
        ValueError: If fewer than 2 iterates were collected, or they are those of another network; if the model has
            random layers, or batch normalization that is trained, whose statistics would differ with every draw.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> from tfp_bnn import inference
        >>> layer = tfp_bnn.layers.DenseFlipout(3, kernel_posterior="delta")
        >>> model = tfp_bnn.VariationalSequential([keras.Input((2,)), layer], seed=0)
        >>> model.compile(keras.optimizers.SGD(0.1))
        >>> iterates = inference.SwagIterates(rank=5)
        >>> history = model.fit(np.ones((8, 2)), np.zeros(8), epochs=6, callbacks=[iterates], verbose=0)
        >>> posterior = inference.swag(model, iterates)
        >>> posterior.posterior_predictive(np.ones((1, 2)), num_samples=20).samples.shape
        (20, 1, 3)

    References:
        Maddox et al. 2019, A Simple Baseline for Bayesian Uncertainty in Deep Learning, algorithm 1,
        https://arxiv.org/abs/1902.02476
    """
    if not isinstance(iterates, SwagIterates):
        raise TypeError(f"`iterates` must be a SwagIterates, but got {type(iterates).__name__}.")
    require_point_model(model, "swag")
    network = FunctionOfWeights(model, point_variables(model))
    if len(iterates.deviations) < 2:
        raise ValueError(
            f"`swag` needs at least 2 iterates, but {iterates.number} were collected. Pass the callback to `fit`, and "
            f"train for at least {2 * iterates.every} epochs with every={iterates.every}."
        )
    iterates.check_fits(network)
    columns = np.stack(iterates.deviations, axis=1)
    # Each part has half of the covariance.
    scale, factor = np.sqrt(iterates.variance / 2.0), columns / np.sqrt(2.0 * (columns.shape[1] - 1))
    return Swag(network, iterates.mean, scale, factor, iterates.number, name)
