"""One weight tensor of a Bayesian layer: a posterior, a prior and the divergence between them."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.layers.noise import NoiseSource
from tfp_bnn.posteriors import Posterior
from tfp_bnn.priors import Prior


class VariationalWeight:
    """A weight with a distribution instead of a value.

    Holds the two specs and the variables that its layer owns; everything else is computed afresh from their current
    values.

    Args:
        name: of the weight within its layer, such as `"kernel"`.
        loc: variable that holds the posterior mean.
        posterior: the family of q(w).
        prior: p(w).
        add_weight: makes further float32 variables in the layer.
    """

    def __init__(
        self,
        name: str,
        loc: keras.Variable,
        posterior: Posterior,
        prior: Prior,
        add_weight: Callable[..., keras.Variable],
    ) -> None:
        self.name = name
        self.shape = tuple(loc.shape)
        self._posterior_spec = posterior
        self._prior_spec = prior
        self._posterior_weights = posterior.add_weights(add_weight, name, loc)
        self._prior_weights = prior.add_weights(add_weight, name)

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables of the posterior and of a learned prior."""
        return [*self._posterior_weights.values(), *self._prior_weights.values()]

    @property
    def posterior(self) -> tfd.Distribution:
        """q(w), float32, with the whole tensor as its event."""
        return self._posterior_spec.distribution(self._posterior_weights)

    @property
    def prior(self) -> tfd.Distribution:
        """p(w), float32, with the whole tensor as its event."""
        return self._prior_spec.distribution(self.shape, self._prior_weights)

    @property
    def mean(self) -> tf.Tensor:
        """The posterior mean, float32."""
        return tf.convert_to_tensor(self._posterior_weights["loc"])

    def perturbation(self, noise: NoiseSource) -> tf.Tensor:
        """A posterior draw minus its mean, float32."""
        return self._posterior_spec.perturbation(self._posterior_weights, noise.normal(self.name, self.shape))

    def sample(self, noise: NoiseSource) -> tf.Tensor:
        """A posterior draw, float32."""
        return self.mean + self.perturbation(noise)

    def kl(self, noise: NoiseSource) -> tf.Tensor:
        """KL(q || p) in nats, summed over the tensor, float32 scalar.

        In closed form where TFP registers one; else the one-draw estimate log q(w) - log p(w) with the draw that the
        layer itself makes of `noise`.
        """
        posterior, prior = self.posterior, self.prior
        try:
            return tfd.kl_divergence(posterior, prior)
        except NotImplementedError:
            draw = self.sample(noise)
            return posterior.log_prob(draw) - prior.log_prob(draw)

    def natural(self) -> dict[str, np.ndarray]:
        """Posterior and learned prior in natural units: `loc`, `scale`, `prior_scale`; float32."""
        prior = self._prior_spec.natural(self._prior_weights)
        return {
            **self._posterior_spec.natural(self._posterior_weights),
            **{f"prior_{key}": value for key, value in prior.items()},
        }

    def assign_natural(self, values: dict[str, np.ndarray]) -> None:
        """The inverse of `natural`.

        Raises:
            ValueError: when a scale is not positive and finite.
        """
        self._posterior_spec.assign_natural(self._posterior_weights, values)
        prior = {key.removeprefix("prior_"): value for key, value in values.items() if key.startswith("prior_")}
        self._prior_spec.assign_natural(self._prior_weights, prior)
