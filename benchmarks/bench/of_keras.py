"""Contestants of Keras 3: this package, Keras-Proba, and the deterministic twin with and without dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from clocks import Clocks, fit_one_epoch
from networks import BATCH, NUM_CLASSES, NUM_EXAMPLES, Network

import tfp_bnn
from tfp_bnn import layers as ours

Stack = Callable[..., Any]
GROUPS = 4
DROPOUT = 0.2


def graph(network: Network, convolution: Stack, dense: Stack, after: Stack = lambda x: x) -> tuple[Any, Any]:
    """Inputs and logits of a network of the given layers; `after` follows each hidden layer."""
    inputs = x = keras.Input(network.shape)
    if network.residual:
        x = _resnet20(x, convolution, network.activation, after)
    for each in network.convolutions:
        x = convolution(each.filters, each.kernel_size, padding=each.padding, activation=network.activation)(x)
        x = keras.layers.MaxPooling2D()(after(x))
    if network.convolutions:
        x = keras.layers.Flatten()(x)
    for units in network.units:
        x = after(dense(units, activation=network.activation)(x))
    return inputs, keras.layers.Activation("linear", dtype="float32")(dense(NUM_CLASSES)(x))


def _resnet20(x: Any, convolution: Stack, activation: str, after: Stack) -> Any:
    """He et al. 2016, with filter response normalization: three stages of three blocks of two convolutions."""

    def normalized(x: Any) -> Any:
        return ours.FilterResponseNormalization(threshold=False)(x)

    def activated(x: Any) -> Any:
        return after(keras.layers.Activation(activation)(x))

    x = activated(normalized(convolution(16, 3, padding="same", use_bias=False)(x)))
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(3):
            strides = 2 if stage and not block else 1
            shortcut = x
            if strides == 2:
                shortcut = convolution(filters, 1, strides=2, use_bias=False)(x)
            x = activated(normalized(convolution(filters, 3, strides=strides, padding="same", use_bias=False)(x)))
            x = normalized(convolution(filters, 3, padding="same", use_bias=False)(x))
            x = activated(keras.layers.Add()([x, shortcut]))
    return keras.layers.GlobalAveragePooling2D()(x)


class OfKeras:
    """A Keras model and its data. Subclasses make the model, and say how it predicts."""

    model: Any

    def __init__(self, network: Network) -> None:
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy(network.precision)
        rng = np.random.default_rng(0)
        self.network = network
        self.x = rng.random((max(network.steps * BATCH, network.rows), *network.shape), dtype=np.float32)
        self.y = rng.integers(NUM_CLASSES, size=len(self.x))
        self.model = self.make(network)
        self.compile()

    def make(self, network: Network) -> Any:
        """The model."""
        raise NotImplementedError

    def compile(self) -> None:
        """Compiles the model for `fit`."""
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.model.compile(keras.optimizers.Adam(1e-4), loss)

    def fit(self, steps: int) -> Clocks:
        """Trains for a number of steps, and returns the clocks after the last one."""
        rows = steps * BATCH
        return fit_one_epoch(self.model, keras.callbacks.LambdaCallback, self.x[:rows], self.y[:rows], BATCH)

    def predict(self, rows: int, samples: int) -> None:
        """Class probabilities of the first rows, a mean over draws: here a forward pass of the batch for each."""
        for _ in range(samples):
            self.model.predict_on_batch(self.x[:rows])


class Ours(OfKeras):
    """This package, with one estimator in all layers; `groups_of_noise` is for the convolutions."""

    def __init__(self, network: Network, estimator: str, **of_convolution: Any) -> None:
        self._arguments = {"estimator": estimator, **of_convolution}
        self._of_zoo: Any = None
        self._layers = [getattr(ours, f"{kind}{estimator}") for kind in ("Convolution2D", "Dense")]
        self._of_convolution = of_convolution
        super().__init__(network)

    def make(self, network: Network) -> Any:
        """A `VariationalModel`."""
        convolution, dense = self._layers

        def configured(*args: Any, **kwargs: Any) -> Any:
            return convolution(*args, **kwargs, **self._of_convolution)

        return tfp_bnn.VariationalModel(*graph(network, configured, dense), seed=0)

    def compile(self) -> None:
        """Compiles the model for `fit`."""
        self.model.compile(keras.optimizers.Adam(1e-4))
        self.model.num_examples = NUM_EXAMPLES

    def predict(self, rows: int, samples: int) -> None:
        """Class probabilities of the first rows, a mean over draws."""
        self.model.posterior_predictive(self.x[:rows], num_samples=samples, seed=0).mean()

    def zoo(self, steps: int, epochs: int) -> None:
        """Trains a second model for epochs of steps in the loop of the zoo; images are shifted, as in its recipes."""
        # Its memory is not that of the layers.
        from zoo.datasets import Split
        from zoo.recipes import AugmentationRecipe
        from zoo.training.batches import ShuffledBatches
        from zoo.training.engine import run

        # A model of its own: where both loops train one, TensorFlow traces it again for the iterators of the other.
        if self._of_zoo is None:
            self._of_zoo = Ours(self.network, **self._arguments).model
        split = Split(self.x[: steps * BATCH], self.y[: steps * BATCH])
        shifts = AugmentationRecipe(shift=2) if len(self.network.shape) == 3 else None
        run(self._of_zoo, ShuffledBatches(split, BATCH, epochs, seed=0, augmentation=shifts))


class KerasProba(OfKeras):
    """Keras-Proba with flipout."""

    def make(self, network: Network) -> Any:
        """A Keras model whose layers add KL / N to the loss."""
        from keras_proba import layers as theirs

        def weighted(layer: Any) -> Stack:
            return lambda *args, **kwargs: layer(*args, kl_weight=1 / NUM_EXAMPLES, **kwargs)

        return keras.Model(*graph(network, weighted(theirs.Conv2DFlipout), weighted(theirs.DenseFlipout)))


class Deterministic(OfKeras):
    """The deterministic twin, with dropout after each hidden layer if there is a rate."""

    def __init__(self, network: Network, rate: float = 0.0) -> None:
        self._rate = rate
        super().__init__(network)

    def make(self, network: Network) -> Any:
        """A Keras model, whose dropout is that of this package: also active in prediction."""

        def dropped(x: Any) -> Any:
            return ours.MCDropout(self._rate)(x) if self._rate else x

        return keras.Model(*graph(network, keras.layers.Conv2D, keras.layers.Dense, dropped))


CONTESTANTS: dict[str, Callable[[Network], OfKeras]] = {
    "ours, flipout": lambda network: Ours(network, "Flipout"),
    "ours, grouped flipout": lambda network: Ours(network, "Flipout", groups_of_noise=GROUPS),
    "ours, reparameterization": lambda network: Ours(network, "Reparameterization"),
    "ours, local reparameterization": lambda network: Ours(network, "LocalReparameterization"),
    "keras-proba, flipout": KerasProba,
    "Keras, deterministic": Deterministic,
    "Keras, MC dropout": lambda network: Deterministic(network, DROPOUT),
}
