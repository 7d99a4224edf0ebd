"""What a prior is, and the scale that most of them have: fixed, learned or inferred."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import require_positive
from tfp_bnn.core.registry import Spec, SpecRegistry
from tfp_bnn.priors.hyperpriors import HYPERPRIORS, Hyperprior

_SCALE_FLOOR = 1e-3
_INITIAL_SPREAD = 0.1
_FLOAT32_EPS = float(np.finfo(np.float32).eps)
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_SHARED_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")


class Prior(Spec):
    """A distribution p(w) over one weight tensor, independent per weight. Abstract."""

    improper = False
    """Whether p does not integrate to one. Such a prior goes with a `delta` posterior only."""

    shared: str | None = None
    """The name under which several layers share one learned scale, or None."""

    hyperprior: Hyperprior | None = None
    """The hyperprior of an inferred scale, or None."""

    @property
    def is_learned(self) -> bool:
        """Whether training moves the prior, by a scale that is learned or inferred."""
        return False

    def add_weights(
        self, add_weight: Callable[..., keras.Variable], name: str, shape: Sequence[int]
    ) -> dict[str, keras.Variable]:
        """Makes the variables of a prior that has any, by their role. None by default.

        Args:
            add_weight: `layer.add_weight` with dtype float32 and no autocast.
            name: first part of the variables' names, such as `"kernel"`.
            shape: of the weight.
        """
        return {}

    def distribution(
        self, shape: Sequence[int], weights: Mapping[str, tf.Tensor], noise: tf.Tensor | float = 0.0
    ) -> tfd.Distribution:
        """The distribution p, with the whole weight tensor of the given shape as its event.

        Args:
            shape: of the weight.
            weights: what `add_weights` made.
            noise: standard normal scalar that draws an inferred scale; 0 gives its median.
        """
        raise NotImplementedError

    def hyper_kl(self, weights: Mapping[str, tf.Tensor], noise: tf.Tensor) -> tf.Tensor:
        """KL(q(s) || p(s)) of an inferred scale s in nats: a one-draw estimate, float32 scalar.

        Args:
            weights: what `add_weights` made.
            noise: standard normal scalar, that of the draw of s.
        """
        return tf.constant(0.0)

    def parameters(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        """The learned parameters in natural units, float32; empty when nothing is learned."""
        return {}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the learned parameters from natural units.

        Raises:
            ValueError: for values that are missing or out of range; nothing is changed then.
        """


PRIORS: SpecRegistry[Prior] = SpecRegistry("prior")


class ScaledPrior(Prior):
    """A prior that is symmetric about 0 and has one scale s for the whole weight tensor. Abstract.

    The scale is one of three:

    - fixed, at `scale`;
    - learned, with `empirical_bayes=True`: the value that maximizes the ELBO (type-II maximum likelihood);
    - inferred, with a `hyperprior` p(s): a posterior q(s) is fitted with that of the weights, and the ELBO has the
      further term KL(q(s) || p(s)), in nats, counted once. q(s) is s = 0.001 + exp(u) with u normal; one draw of s
      serves a forward pass.

    A learned or inferred scale cannot fall below 0.001: a prior that shrinks to a point takes the posterior with it.
    Under a `delta` posterior it tends there as a rule, with all weights at 0, because the density of a point grows
    without bound: fix the scale then.

    Args:
        scale: > 0; the initial scale where it is learned, the initial median where it is inferred.
        empirical_bayes: whether the scale is learned.
        hyperprior: a name, config or object of `tfp_bnn.hyperpriors`, or None.
        shared: a name. All layers of a `VariationalModel` whose prior has the same `shared` have one scale, owned by
            the model. None: each weight tensor has its own.

    Raises:
        ValueError: for values out of range, or arguments that contradict one another.
    """

    def __init__(
        self,
        scale: float = 1.0,
        empirical_bayes: bool = False,
        hyperprior: str | Mapping[str, Any] | Hyperprior | None = None,
        shared: str | None = None,
    ) -> None:
        owner = f"the prior {PRIORS.name_of(self)!r}"
        self.scale = require_positive(owner, "scale", scale)
        if not isinstance(empirical_bayes, bool):
            raise ValueError(f"`empirical_bayes` of {owner} must be True or False, but got {empirical_bayes!r}.")
        self.empirical_bayes = empirical_bayes
        self.hyperprior = None if hyperprior is None else HYPERPRIORS.get(hyperprior)
        if empirical_bayes and hyperprior is not None:
            raise ValueError(
                f"Got empirical_bayes=True and hyperprior={hyperprior!r} for {owner}. The first learns one value of "
                "the scale, the second infers a distribution over it: remove one."
            )
        if self.is_learned and self.scale <= _SCALE_FLOOR:
            raise ValueError(f"A learned `scale` must start above {_SCALE_FLOOR}, but got {scale!r}.")
        if shared is not None and not (isinstance(shared, str) and _SHARED_NAME.fullmatch(shared)):
            raise ValueError(
                f"`shared` of {owner} must be a name of letters, digits and '_.-', or None, but got {shared!r}."
            )
        if shared is not None and not self.is_learned:
            raise ValueError(
                f"Got shared={shared!r} for {owner}, whose scale is fixed, so that there is nothing to share. Add "
                "empirical_bayes=True or a hyperprior, or remove `shared`."
            )
        self.shared = shared

    def get_config(self) -> dict[str, Any]:
        hyperprior = self.hyperprior
        return {
            "scale": self.scale,
            "empirical_bayes": self.empirical_bayes,
            "hyperprior": hyperprior and {"name": HYPERPRIORS.name_of(hyperprior), **hyperprior.get_config()},
            "shared": self.shared,
        }

    @property
    def is_learned(self) -> bool:
        """Whether the scale is learned or inferred."""
        return self.empirical_bayes or self.hyperprior is not None

    def with_scale(self, shape: Sequence[int], scale: tf.Tensor) -> tfd.Distribution:
        """The prior of a weight tensor, given its scale.

        Args:
            shape: of the weight.
            scale: float32 scalar.
        """
        raise NotImplementedError

    def distribution(
        self, shape: Sequence[int], weights: Mapping[str, tf.Tensor], noise: tf.Tensor | float = 0.0
    ) -> tfd.Distribution:
        return self.with_scale(shape, self._scale(weights, noise) if weights else tf.constant(self.scale, tf.float32))

    def add_weights(
        self, add_weight: Callable[..., keras.Variable], name: str, shape: Sequence[int]
    ) -> dict[str, keras.Variable]:
        if not self.is_learned:
            return {}

        def scalar(role: str, value: float) -> keras.Variable:
            start = keras.initializers.Constant(value)
            return add_weight(name=f"{name}_prior_{role}", shape=(), initializer=start)

        weights = {"untransformed_scale": scalar("untransformed_scale", _untransformed(self.scale))}
        if self.hyperprior is not None:
            weights["untransformed_spread"] = scalar("untransformed_spread", _untransformed_spread(_INITIAL_SPREAD))
        return weights

    def hyper_kl(self, weights: Mapping[str, tf.Tensor], noise: tf.Tensor) -> tf.Tensor:
        if self.hyperprior is None:
            return super().hyper_kl(weights, noise)
        u = tfd.Normal(tf.convert_to_tensor(weights["untransformed_scale"]), self._spread(weights))
        # The entropy of s = 0.001 + exp(u) is that of u plus E[log ds/du] = E[u].
        return -(u.entropy() + u.loc) - self.hyperprior.distribution().log_prob(self._scale(weights, noise))

    def parameters(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        if not weights:
            return {}
        values = {"scale": self._scale(weights).numpy()}
        return values if self.hyperprior is None else {**values, "scale_spread": self._spread(weights).numpy()}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        if not weights:
            return
        scale = _required(values, "scale")
        if not _SCALE_FLOOR < scale <= _FLOAT32_MAX:
            raise ValueError(f"A learned prior scale must be finite and above {_SCALE_FLOOR}, but got {scale}.")
        if self.hyperprior is not None:
            spread = _required(values, "scale_spread")
            # A spread of eps itself is what an underflowing softplus leaves, and so what `parameters` may give.
            if not _FLOAT32_EPS <= spread <= _FLOAT32_MAX:
                raise ValueError(
                    f"The spread of an inferred prior scale must be finite and at least {_FLOAT32_EPS:.2g}, but got "
                    f"{spread}."
                )
            weights["untransformed_spread"].assign(_untransformed_spread(spread))
        weights["untransformed_scale"].assign(_untransformed(scale))

    def _scale(self, weights: Mapping[str, tf.Tensor], noise: tf.Tensor | float = 0.0) -> tf.Tensor:
        u = tf.convert_to_tensor(weights["untransformed_scale"])
        if self.hyperprior is not None:
            u += self._spread(weights) * noise
        return tfb.Chain([tfb.Shift(_SCALE_FLOOR), tfb.Exp()]).forward(u)

    def _spread(self, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return _spread_transform().forward(tf.convert_to_tensor(weights["untransformed_spread"]))


def _spread_transform() -> tfb.Bijector:
    return tfb.Softplus(low=_FLOAT32_EPS)


def _required(values: Mapping[str, np.ndarray], name: str) -> float:
    if name not in values:
        raise ValueError(f"A prior whose scale is learned needs the value {name!r}, but got only {sorted(values)}.")
    return float(values[name])


def _untransformed(scale: float) -> float:
    return float(np.log(np.float64(scale) - _SCALE_FLOOR))


def _untransformed_spread(spread: float) -> float:
    # In NumPy, because a model may be built while it is traced; finite also at eps.
    above = max(spread - _FLOAT32_EPS, _FLOAT32_EPS)
    return float(above + np.log(-np.expm1(-above)))
