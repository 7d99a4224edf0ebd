"""One weight tensor of a Bayesian layer: a posterior, a prior and the divergence between them."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import require_array
from tfp_bnn.core.library_state import allocates
from tfp_bnn.core.noise import NoiseSource
from tfp_bnn.posteriors import Posterior
from tfp_bnn.posteriors.base import FLOAT32_EPS
from tfp_bnn.posteriors.kl_of_normals import kl_of_normals
from tfp_bnn.posteriors.pruned_distribution import PrunedDistribution
from tfp_bnn.priors import Prior
from tfp_bnn.priors.shared_scales import SharedPrior

_MASK = "mask"
_drawn: contextvars.ContextVar[Mapping[VariationalWeight, tf.Tensor]] = contextvars.ContextVar(
    "tfp_bnn_drawn", default=MappingProxyType({})
)


@contextlib.contextmanager
def drawn_scope(draws: Mapping[VariationalWeight, tf.Tensor]) -> Iterator[None]:
    """Context in which weights were drawn already: `sample` returns these draws, whatever the noise.

    Args:
        draws: Draws, float32, of the shapes of the weights.
    """
    token = _drawn.set(draws)
    try:
        yield
    finally:
        _drawn.reset(token)


@functools.lru_cache(maxsize=256)
def _event_shape(prior: Prior, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the tensors that a prior is over, found once for equal priors: a distribution takes long to make."""
    return tuple(prior.distribution(shape, {}).event_shape)


class VariationalWeight:
    """A weight that has a distribution instead of a value.

    Holds the two specs and the variables, which its layer owns. Everything else is computed from their current values
    at each access.

    Args:
        name: Name of the weight within its layer, such as `"kernel"`.
        loc: Variable of the posterior mean.
        posterior: Posterior family, q(w).
        prior: Prior, p(w).
        add_weight: Function that adds further float32 variables to the layer.

    Raises:
        ValueError: If the shape of the prior differs from that of the weight.
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
        self.posterior_spec = posterior
        self.prior_spec = prior
        # The distribution holds arrays of this shape.
        if allocates() and (event_shape := _event_shape(prior, self.shape)) != self.shape:
            raise ValueError(
                f"The prior {prior!r} of {name!r} is over tensors of shape {event_shape}, but the weight has shape "
                f"{self.shape}."
            )
        self._posterior_weights = dict(posterior.add_weights(add_weight, name, loc))
        if posterior.pruned:
            self._posterior_weights[_MASK] = add_weight(
                name=f"{name}_mask", shape=self.shape, initializer="ones", trainable=False
            )
        for variable in self._posterior_weights.values():
            # An optimizer only receives variables; `NaturalGradient` updates those of one posterior together.
            variable.posterior_of = self
        self._shared: SharedPrior | None = None
        self._prior_weights: Mapping[str, keras.Variable] = (
            prior.add_weights(add_weight, name, self.shape) if prior.shared is None else {}
        )

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables of the posterior, and of a learned prior that is not shared."""
        return [*self._posterior_weights.values(), *({} if self._shared else self._prior_weights).values()]

    @property
    def posterior_variables(self) -> Mapping[str, keras.Variable]:
        """The variables of the posterior by role, such as `"loc"`."""
        return MappingProxyType(self._posterior_weights)

    @property
    def posterior(self) -> tfd.Distribution:
        """The posterior q(w), float32, with the whole tensor as its event; pruned weights are exactly 0."""
        return self._pruned(self.posterior_spec.distribution(self._posterior_weights))

    @property
    def prior(self) -> tfd.Distribution:
        """The prior p(w), float32, with the whole tensor as its event; an inferred scale is at its median.

        Pruned weights are exactly 0, as under the posterior.
        """
        return self._prior(0.0)

    @property
    def mean(self) -> tf.Tensor:
        """The posterior mean, float32, of the shape of the weight."""
        return self._masked(tf.convert_to_tensor(self._posterior_weights["loc"]))

    @property
    def variance(self) -> tf.Tensor:
        """The marginal posterior variance of every weight, float32, of the shape of the weight."""
        return self.posterior.variance()

    @property
    def shared_prior(self) -> SharedPrior | None:
        """The prior that the weight shares with others, once a model has bound it, else None."""
        return self._shared

    def bind(self, shared: SharedPrior | None) -> None:
        """Makes the prior take its scale from `shared`, or from nothing until it is bound again."""
        self._shared = shared
        self._prior_weights = {} if shared is None else shared.weights

    def perturbation(self, noise: NoiseSource) -> tf.Tensor:
        """A posterior draw minus the posterior mean, float32, of the shape of the weight."""
        return self._masked(self.posterior_spec.perturbation(self._posterior_weights, noise, self.name))

    def sample(self, noise: NoiseSource) -> tf.Tensor:
        """A posterior draw, float32, of the shape of the weight: that of the open `drawn_scope`, if there is one."""
        drawn = _drawn.get().get(self)
        return self.mean + self.perturbation(noise) if drawn is None else drawn

    def kl(self, noise: NoiseSource) -> tf.Tensor:
        """KL(q || p) in nats, summed over the tensor, float32 scalar.

        In closed form if TFP registers one, otherwise estimated with the draw that the layer itself makes from `noise`:
        log q(w) - log p(w), with minus the entropy instead of log q(w) if q is not independent per weight. An inferred
        prior scale is drawn from `noise`.
        """
        scale_noise: tf.Tensor | float = 0.0
        if self.prior_spec.hyperprior is not None:
            scale_noise = self._noise_of_scale(noise)
        posterior, prior = self.posterior, self._prior(scale_noise)
        of_normals = kl_of_normals(posterior, prior)
        if of_normals is not None:
            return of_normals
        try:
            return tfd.kl_divergence(posterior, prior)
        except NotImplementedError:
            draw = self.sample(noise)
            if self.posterior_spec.symmetric_and_independent:
                return posterior.log_prob(draw) - prior.log_prob(draw)
            # The joint log q(w) of many weights, recomputed from w, loses its precision in float32.
            return -posterior.entropy() - prior.log_prob(draw)

    def log_ratio(self, noise: NoiseSource) -> tf.Tensor:
        """The log-ratio log q(w) - log p(w) in nats at the draw that the layer makes from `noise`, float32 scalar.

        Its mean over draws is the KL. Only for posteriors that are independent per weight, and for points, which have
        no density: theirs is -log p(w).
        """
        if not self.posterior_spec.has_spread:
            return self.kl(noise)
        draw = self.sample(noise)
        return self.posterior.log_prob(draw) - self.prior.log_prob(draw)

    def hyper_kl(self, noise: NoiseSource) -> tf.Tensor | None:
        """KL(q(s) || p(s)) in nats of a prior scale s inferred for this weight alone, float32 scalar, or None."""
        if self.prior_spec.hyperprior is None or self.prior_spec.shared is not None:
            return None
        return self.prior_spec.hyper_kl(self._prior_weights, self._noise_of_scale(noise))

    @property
    def size(self) -> int:
        """The number of weights in the tensor, however many parameters its distribution has."""
        return math.prod(self.shape)

    @property
    def kept(self) -> np.ndarray:
        """Whether each weight is kept and not pruned: a boolean array of the shape of the weight."""
        mask = self._posterior_weights.get(_MASK)
        return np.ones(self.shape, bool) if mask is None else np.asarray(mask) > 0

    def posterior_parameters(self) -> dict[str, np.ndarray]:
        """Returns the parameters of the posterior by name, such as `loc` and `scale`; float32 arrays.

        With pruning also `mask`: 1 for a weight that is kept; 0 for one that is pruned, whose `loc` is 0 and whose
        `scale` is the least there is, without effect.
        """
        found = self.posterior_spec.parameters(self._posterior_weights)
        if not self.posterior_spec.pruned:
            return found
        of_pruned = {"loc": np.float32(0), "scale": np.float32(FLOAT32_EPS)}
        found = {name: np.where(self.kept, value, of_pruned[name]) for name, value in found.items()}
        return {**found, _MASK: self.kept.astype(np.float32)}

    def fixed_prior(self) -> Prior:
        """Returns the prior with what it has learned as constants; see `Prior.fixed`."""
        return self.prior_spec.fixed(self._prior_weights)

    def prior_parameters(self) -> dict[str, np.ndarray]:
        """Returns the learned parameters of a prior that is not shared, by name; float32 arrays."""
        return {} if self._shared else self.prior_spec.parameters(self._prior_weights)

    @property
    def learned_prior_scale(self) -> np.ndarray | None:
        """The learned or inferred scale of a prior that is not shared, float32; None if the prior learns no scale."""
        return self.prior_parameters().get("scale") if self.prior_spec.learns_scale else None

    def parameters(self) -> dict[str, np.ndarray]:
        """Returns the parameters of posterior and learned prior: `loc`, `scale`, `prior_scale`, ...; float32 arrays."""
        prior = {f"prior_{key}": value for key, value in self.prior_parameters().items()}
        return {**self.posterior_parameters(), **prior}

    def assign_parameters(self, values: Mapping[str, np.ndarray]) -> None:
        """Sets the parameters; the inverse of `parameters`.

        Raises:
            ValueError: If a scale is not positive and finite, or a value is missing. Nothing is changed then.
        """
        prior = {key.removeprefix("prior_"): value for key, value in values.items() if key.startswith("prior_")}
        self.assign({key: value for key, value in values.items() if not key.startswith("prior_")}, prior)

    def assign(self, posterior: Mapping[str, np.ndarray], prior: Mapping[str, np.ndarray]) -> None:
        """Sets the parameters of the posterior, and those of a prior that is not shared.

        Args:
            posterior: Values as returned by `posterior_parameters`.
            prior: Values as returned by `prior_parameters`. Ignored for a shared prior.

        Raises:
            ValueError: If a value is missing, has a different shape or is out of range. Nothing is changed then.
        """
        mask = self._checked_mask(posterior) if self.posterior_spec.pruned else None
        before = {role: np.asarray(variable).copy() for role, variable in self._posterior_weights.items()}
        self.posterior_spec.assign_parameters(self._posterior_weights, posterior)
        if mask is not None:
            self._posterior_weights[_MASK].assign(mask)
        try:
            if not self._shared:
                self.prior_spec.assign_parameters(self._prior_weights, prior)
        except ValueError:
            for role, value in before.items():
                self._posterior_weights[role].assign(value)
            raise

    def natural(self) -> dict[str, np.ndarray]:
        """Deprecated: the former name of `parameters`."""
        warnings.warn("`natural` is now `parameters`.", DeprecationWarning, stacklevel=2)
        return self.parameters()

    def assign_natural(self, values: Mapping[str, np.ndarray]) -> None:
        """Deprecated: the former name of `assign_parameters`."""
        warnings.warn("`assign_natural` is now `assign_parameters`.", DeprecationWarning, stacklevel=2)
        self.assign_parameters(values)

    def _prior(self, scale_noise: tf.Tensor | float) -> tfd.Distribution:
        if self.prior_spec.shared is not None and self._shared is None:
            raise ValueError(
                f"The prior {self.prior_spec!r} of {self.name!r} is shared: its scale belongs to a model, but "
                "its layer is not in one. Put the layer into a VariationalModel, or remove `shared`."
            )
        prior = self.prior_spec.distribution(self.shape, self._prior_weights, scale_noise)
        # The log-density of an improper prior is 0 for every weight, pruned or not.
        return prior if self.prior_spec.improper else self._pruned(prior)

    def _pruned(self, distribution: tfd.Distribution) -> tfd.Distribution:
        mask = self._posterior_weights.get(_MASK)
        return distribution if mask is None else PrunedDistribution(distribution, tf.convert_to_tensor(mask))

    def _masked(self, values: tf.Tensor) -> tf.Tensor:
        mask = self._posterior_weights.get(_MASK)
        # Not a product: 0 times an infinite value would be NaN.
        return values if mask is None else tf.where(tf.convert_to_tensor(mask) > 0, values, tf.zeros_like(values))

    def _checked_mask(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        mask = require_array("posterior", values, _MASK, self.shape)
        if not np.isin(mask, (0, 1)).all():
            raise ValueError(
                f"The mask of {self.name!r} must be 1 where a weight is kept and 0 where it is pruned, but has other "
                f"values, such as {mask[~np.isin(mask, (0, 1))][0]}."
            )
        return mask

    def _noise_of_scale(self, noise: NoiseSource) -> tf.Tensor:
        if self._shared is not None:
            return self._shared.noise_of_scale(noise)
        return noise.normal(f"{self.name}_prior_scale", self.prior_spec.scale_shape(self.shape))
