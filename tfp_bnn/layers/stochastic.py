"""Base class of all layers that draw random numbers."""

from __future__ import annotations

from typing import Any

import keras

from tfp_bnn.core.noise import NoiseSource, NoiseStreams, layer_key, scoped_noise


class StochasticLayer(keras.layers.Layer):
    """Layer that takes its noise from its model, or from two saved counters of its own. Abstract.

    Mixed in before another Keras layer, or used as the base of a new one.

    Args:
        seed: Integer seed of the layer's noise outside a `VariationalModel`, which provides its own. Default: None,
            drawn from Keras' global seed.
    """

    def __init__(self, *args: Any, seed: int | None = None, **kwargs: Any) -> None:
        noise_streams = NoiseStreams(seed)
        super().__init__(*args, **kwargs)
        self.seed = None if seed is None else int(seed)
        self._noise_streams = noise_streams

    @property
    def is_random(self) -> bool:
        """Whether two draws can differ. True unless a layer knows better."""
        return True

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "seed": self.seed}

    # The twins write only the weights they know. Ours may have more, and the state of their noise.
    def save_own_variables(self, store: Any) -> None:
        """Saves all variables of the layer and the state of its noise."""
        keras.layers.Layer.save_own_variables(self, store)
        self._noise_streams.save(store)

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` wrote."""
        self._noise_streams.load(store)
        keras.layers.Layer.load_own_variables(
            self, {key: store[key] for key in store.keys() if key not in NoiseStreams.keys}
        )

    def _noise(self, training: bool) -> NoiseSource:
        noise = scoped_noise(self)
        return self._noise_streams.next(training).block(layer_key(self)) if noise is None else noise
