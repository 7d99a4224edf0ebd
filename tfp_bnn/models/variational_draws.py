"""The draws of a variational model: of all its weights and masks at once, from counter-based noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.layer_tree import SplitGraph
from tfp_bnn.core.noise import Noise, NoNoise, noise_scope, number_of, require_seed
from tfp_bnn.layers.variational_weight import VariationalWeight, drawn_scope
from tfp_bnn.models.data_checks import check_outputs
from tfp_bnn.predictive.seeded_draws import PlugInDraws, SeededDraws


class VariationalDraws:
    """The part of `VariationalMixin` that draws weights and masks, and runs the network under a draw. Abstract."""

    likelihood: Any
    _shared_priors: dict[str, Any]

    @property
    def stochastic_layers(self) -> list[Any]:
        """The layers with randomness."""
        raise NotImplementedError

    @property
    def variational_layers(self) -> list[Any]:
        """The Bayesian layers."""
        raise NotImplementedError

    def draws(self, seed: int = 0) -> SeededDraws:
        """The draws of all weights and masks: draw k is one function, determined by (seed, k, layer) only.

        Args:
            seed: Integer. Equal seeds give equal draws.

        Returns:
            An unlimited number of draws; a single one for a model without randomness.

        Raises:
            ValueError: If the seed is not an integer.
        """
        random = any(layer.is_random for layer in self.stochastic_layers)
        return SeededDraws(self, require_seed(seed), num_draws=None if random else 1)

    def plug_in_draws(self) -> PlugInDraws:
        """The one draw in which every weight is its posterior mean and every mask its expectation."""
        return PlugInDraws(self)

    @property
    def drawn_weights(self) -> list[VariationalWeight]:
        """The weights of the Bayesian layers, in the order of `draw_weights`."""
        return [weight for layer in self.variational_layers for weight in layer.variational_weights.values()]

    @property
    def drawn_from(self) -> list[keras.Variable]:
        """The variables that determine the draws of the weights, given their noise."""
        return [variable for weight in self.drawn_weights for variable in weight.posterior_variables.values()]

    def draw_weights(self, noise: Noise) -> list[tf.Tensor]:
        """The draw of all weights that `noise` determines: a float32 tensor for each of `drawn_weights`."""
        noise_of = self._noise_of_layers(noise)
        return [
            weight.sample(noise_of[id(layer)])
            for layer in self.variational_layers
            for weight in layer.variational_weights.values()
        ]

    def largest_row_bytes(self) -> int | None:
        """Size in bytes of the largest array between two layers for one input; None if it is not known."""
        return None

    def split_before_noise(self) -> SplitGraph | None:
        """The layers that no draw changes, and the others; None if there is no graph of layers, or no such layer."""
        return None

    def call_with_noise(
        self,
        x: Any,
        noise: Noise | NoNoise,
        weights: Sequence[tf.Tensor] = (),
        call: Callable[[Any], Any] | None = None,
    ) -> Any:
        """The raw outputs, `training=False`, under the draw of all weights that `noise` determines.

        Args:
            x: Inputs, in the structure that the model takes.
            noise: Source of all noise.
            weights: What `draw_weights` returned for this noise, so that nothing is drawn twice.
            call: What to call with `x` instead of the model: the second part of `split_before_noise`.
        """
        drawn = dict(zip(self.drawn_weights, weights, strict=True)) if weights else {}
        with noise_scope(self._noise_of_layers(noise)), drawn_scope(drawn):
            outputs = self(x, training=False) if call is None else call(x)  # type: ignore[operator]
        check_outputs(outputs, self.likelihood)
        return outputs

    def _noise_of_layers(self, noise: Noise | NoNoise) -> dict[int, Any]:
        noise_of: dict[int, Any] = {
            id(layer): noise.fold_in(index) for index, layer in enumerate(self.stochastic_layers)
        }
        for name, shared in self._shared_priors.items():
            noise_of[id(shared)] = noise.fold_in(number_of(f"prior/{name}"))
        return noise_of
