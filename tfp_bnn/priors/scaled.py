"""Priors with a scale: fixed, learned or inferred, for a whole weight tensor or for each group of its weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import require_positive
from tfp_bnn.priors.base import PRIORS, Prior
from tfp_bnn.priors.hyperpriors import HYPERPRIORS, Hyperprior

_SCALE_FLOOR = 1e-3
_INITIAL_SPREAD = 0.1
_FLOAT32_EPS = float(np.finfo(np.float32).eps)
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_GROUPS = {"inputs": -2, "outputs": -1}
_SHARED_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")


class ScaledPrior(Prior):
    """A prior that is symmetric around 0, with a scale s for the whole weight tensor, or for each group. Abstract.

    The scale is either

    - fixed at `scale`,
    - learned, with `empirical_bayes=True`: the value that maximizes the ELBO (type-II maximum likelihood), or
    - inferred, with a `hyperprior` p(s): a posterior q(s) is fitted together with that of the weights, and the ELBO has
      the additional term KL(q(s) || p(s)), in nats, counted once. Under q(s), s = 0.001 + exp(u) with u normal. Each
      forward pass uses one draw of s.

    A learned or inferred scale cannot fall below 0.001, because a prior that shrinks to a point collapses the posterior
    too. Under a `delta` posterior the scale usually tends to that bound, with all weights at 0, because the density of
    a point grows without limit. Use a fixed scale then.

    With `groups`, every input or every output of a layer has its own scale s_g. The weights of a group that the data do
    not need tend to their prior, with a KL of 0, so `tfp_bnn.compression.prune` finds the units and filters to remove.
    Learned scales are automatic relevance determination; scales inferred with the hyperprior `half_cauchy` are a group
    horseshoe whose global scale is fixed: the scale of the hyperprior.

    Args:
        scale: Scale, > 0. The initial value if it is learned, the initial median if it is inferred.
        empirical_bayes: Whether to learn the scale. Default: False.
        hyperprior: Hyperprior of an inferred scale: a name, config or object of `tfp_bnn.hyperpriors`. Default: None.
        shared: Name of a shared scale. All layers of a `VariationalModel` whose prior has the same `shared` use one
            scale, owned by the model. Default: None, one scale per weight tensor.
        groups: `"outputs"`: a learned or inferred scale for each index of the last axis, that is, for each unit of a
            dense layer and each filter of a convolution, over the weights that lead into it. `"inputs"`: one for each
            index of the axis before it, over the weights that lead out of an input. A transposed convolution has its
            filters on that axis, so there it is the other way round. The last axis of a depthwise kernel is that of the
            depth multiplier, that of an LSTM or GRU has one column for each gate of a unit, and that of an attention
            projection is shared by the heads. Default: None, one scale for all.

    Raises:
        ValueError: If a value is out of range or arguments contradict one another.

    References:
        MacKay 1996, Bayesian Non-linear Modeling for the Prediction Competition (automatic relevance determination),
        https://doi.org/10.1007/978-94-015-8729-7_18; Louizos, Ullrich and Welling 2017, Bayesian Compression for Deep
        Learning, https://arxiv.org/abs/1705.08665; Ghosh, Yao and Doshi-Velez 2018, Structured Variational Learning of
        Bayesian Neural Networks with Horseshoe Priors, https://arxiv.org/abs/1806.05975
    """

    def __init__(
        self,
        scale: float = 1.0,
        empirical_bayes: bool = False,
        hyperprior: str | Mapping[str, Any] | Hyperprior | None = None,
        shared: str | None = None,
        groups: str | None = None,
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
        if self.learns_scale and self.scale <= _SCALE_FLOOR:
            raise ValueError(f"A learned `scale` must start above {_SCALE_FLOOR}, but got {scale!r}.")
        if shared is not None and not (isinstance(shared, str) and _SHARED_NAME.fullmatch(shared)):
            raise ValueError(
                f"`shared` of {owner} must be a name of letters, digits and '_.-', or None, but got {shared!r}."
            )
        if shared is not None and not self.learns_scale:
            raise ValueError(
                f"Got shared={shared!r} for {owner}, whose scale is fixed: there is nothing to share. Add "
                "empirical_bayes=True or a hyperprior, or remove `shared`."
            )
        self.shared = shared
        if groups not in (None, *_GROUPS):
            raise ValueError(f"`groups` of {owner} must be 'inputs', 'outputs' or None, but got {groups!r}.")
        if groups is not None and (shared is not None or not self.learns_scale):
            raise ValueError(
                f"Got groups={groups!r} for {owner}, whose scale is {'shared' if shared else 'fixed'}. Groups have "
                "scales of their own, which are learned or inferred: add empirical_bayes=True or a hyperprior, without "
                "`shared`, or remove `groups`."
            )
        self.groups = groups

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable; a hyperprior as its config."""
        hyperprior = self.hyperprior
        return {
            "scale": self.scale,
            "empirical_bayes": self.empirical_bayes,
            "hyperprior": hyperprior and {"name": HYPERPRIORS.name_of(hyperprior), **hyperprior.get_config()},
            "shared": self.shared,
            # Only if given: earlier versions read the configs of all others.
            **({} if self.groups is None else {"groups": self.groups}),
        }

    @property
    def learns_scale(self) -> bool:
        """Whether the scale is learned or inferred."""
        return self.empirical_bayes or self.hyperprior is not None

    @property
    def is_learned(self) -> bool:
        """Whether training moves the prior; here, whether the scale is learned or inferred."""
        return self.learns_scale

    def with_scale(self, shape: Sequence[int], scale: tf.Tensor) -> tfd.Distribution:
        """Builds the prior of a weight tensor for a given scale.

        Args:
            shape: Shape of the weight tensor.
            scale: Float32 scalar; with `groups` of a shape that broadcasts to that of the weight.

        Returns:
            A float32 distribution with event shape `shape`. Its `log_prob` is in nats.
        """
        raise NotImplementedError

    def distribution(
        self, shape: Sequence[int], weights: Mapping[str, tf.Tensor], noise: tf.Tensor | float = 0.0
    ) -> tfd.Distribution:
        """Builds the prior; see `Prior.distribution`.

        Args:
            shape: Shape of the weight tensor.
            weights: Variables from `add_weights`; if empty, the scale is fixed.
            noise: Standard normal noise of shape `scale_shape(shape)` that draws an inferred scale. 0 gives its median.

        Returns:
            A float32 distribution with event shape `shape`. Its `log_prob` is in nats.
        """
        return self.with_scale(shape, self.scale_given(weights, noise))

    def scale_given(self, weights: Mapping[str, tf.Tensor], noise: tf.Tensor | float = 0.0) -> tf.Tensor:
        """Returns the scale, float32, a scalar without `groups`: the fixed, the learned, or a draw of the inferred one.

        Args:
            weights: Variables from `add_weights`.
            noise: Standard normal noise of shape `scale_shape(shape)` that draws an inferred scale. 0 gives its median.
        """
        return self._scale(weights, noise) if self.learns_scale and weights else tf.constant(self.scale, tf.float32)

    def add_weights(
        self, add_weight: Callable[..., keras.Variable], name: str, shape: Sequence[int]
    ) -> dict[str, keras.Variable]:
        """Creates the float32 variables of a learned or inferred scale; none for a fixed one. See `Prior.add_weights`.

        Their shape is `scale_shape(shape)`.
        """
        if not self.learns_scale:
            return {}

        def variable(role: str, value: Any) -> keras.Variable:
            start = keras.initializers.Constant(float(value))
            return add_weight(name=f"{name}_prior_{role}", shape=self.scale_shape(shape), initializer=start)

        weights = {"untransformed_scale": variable("untransformed_scale", _untransformed(self.scale))}
        if self.hyperprior is not None:
            weights["untransformed_spread"] = variable("untransformed_spread", _untransformed_spread(_INITIAL_SPREAD))
        return weights

    def scale_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the scale: `()`, or with `groups` that of the weight with 1 for all axes but one.

        A bias, which has only one axis, has no inputs: with `groups="inputs"` it is one group.

        Args:
            shape: Shape of the weight tensor.
        """
        if self.groups is None:
            return ()
        kept = len(shape) + _GROUPS[self.groups]
        return tuple(size if axis == kept else 1 for axis, size in enumerate(shape))

    def fixed(self, weights: Mapping[str, tf.Tensor]) -> Prior:
        """Returns a prior of the same family whose learned parameters are constants; itself if it learns nothing.

        Args:
            weights: Variables from `add_weights`.

        Raises:
            ValueError: If the prior has a hyperprior: an inferred scale is a distribution, not a value. If it has
                `groups`: a fixed prior has one scale.
        """
        if self.hyperprior is not None:
            raise ValueError(
                f"The scale of the prior {self!r} is inferred, so it has a distribution and no value to fix it at. "
                "Use empirical_bayes=True, or a fixed scale."
            )
        if self.groups is not None:
            raise ValueError(
                f"The prior {self!r} has a scale for each of its groups, and a fixed prior has only one. Leave out "
                "`groups`, or take the prior 'informed', which holds a scale for each weight."
            )
        if not self.is_learned:
            return self
        config: dict[str, Any] = {**self.get_config(), "shared": None}
        config |= {name: False for name in ("empirical_bayes", "learn_loc") if name in config}
        config |= {name: float(value) for name, value in self.parameters(weights).items()}
        return type(self)(**config)

    def hyper_kl(self, weights: Mapping[str, tf.Tensor], noise: tf.Tensor) -> tf.Tensor:
        """Estimates KL(q(s) || p(s)) of an inferred scale s with one draw; the entropy of q(s) is exact.

        Args:
            weights: Variables from `add_weights`.
            noise: Standard normal noise that draws s, of the shape of s.

        Returns:
            Float32 scalar, in nats, summed over the groups; 0 without a hyperprior.
        """
        if self.hyperprior is None:
            return super().hyper_kl(weights, noise)
        u = tfd.Normal(tf.convert_to_tensor(weights["untransformed_scale"]), self._spread(weights))
        # The entropy of s = 0.001 + exp(u) is that of u plus E[log ds/du] = E[u].
        of_each = -(u.entropy() + u.loc) - self.hyperprior.distribution().log_prob(self._scale(weights, noise))
        return of_each if self.groups is None else tf.reduce_sum(of_each)

    def parameters(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        """Returns the learned parameters, in the units of the weight.

        Args:
            weights: Variables from `add_weights`.

        Returns:
            Float32 arrays of shape `scale_shape(shape)`: `"scale"`, the median of an inferred one, and with a
            hyperprior `"scale_spread"`, the standard deviation of u = log(s - 0.001). Empty for a fixed scale.
        """
        if not (self.learns_scale and weights):
            return {}
        values = {"scale": self._scale(weights).numpy()}
        return values if self.hyperprior is None else {**values, "scale_spread": self._spread(weights).numpy()}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the learned parameters; the inverse of `parameters`.

        Args:
            weights: Variables from `add_weights`.
            values: `"scale"`, and `"scale_spread"` with a hyperprior; scalars, or arrays of the shape of the groups.
                Ignored for a fixed scale.

        Raises:
            ValueError: If a value is missing or out of range. Nothing is changed then.
        """
        if not (self.learns_scale and weights):
            return
        shape = tuple(weights["untransformed_scale"].shape)
        scale = _required(values, "scale", shape)
        bad = ~((scale > _SCALE_FLOOR) & (scale <= _FLOAT32_MAX))
        if bad.any():
            raise ValueError(
                f"A learned prior scale must be finite and above {_SCALE_FLOOR}, but got {scale[bad].flat[0]}."
            )
        if self.hyperprior is not None:
            spread = _required(values, "scale_spread", shape)
            # An underflowing softplus leaves a spread of exactly eps, so `parameters` may return it.
            bad = ~((spread >= _FLOAT32_EPS) & (spread <= _FLOAT32_MAX))
            if bad.any():
                raise ValueError(
                    f"The spread of an inferred prior scale must be finite and at least {_FLOAT32_EPS:.2g}, but got "
                    f"{spread[bad].flat[0]}."
                )
            weights["untransformed_spread"].assign(_untransformed_spread(spread))
        weights["untransformed_scale"].assign(_untransformed(scale))

    def _scale(self, weights: Mapping[str, tf.Tensor], noise: tf.Tensor | float = 0.0) -> tf.Tensor:
        u = tf.convert_to_tensor(weights["untransformed_scale"])
        if self.hyperprior is not None:
            u += self._spread(weights) * noise
        return tf.exp(u) + _SCALE_FLOOR

    def _spread(self, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return _spread_transform().forward(tf.convert_to_tensor(weights["untransformed_spread"]))


def _spread_transform() -> tfb.Bijector:
    return tfb.Softplus(low=_FLOAT32_EPS)


def _required(values: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A value in float64, for all groups if it is one number."""
    if name not in values:
        raise ValueError(f"A prior with a learned scale needs the value {name!r}, but got only {sorted(values)}.")
    value = np.asarray(values[name], np.float64)
    if value.shape not in ((), shape):
        raise ValueError(f"The {name!r} of a prior must have the shape {shape}, but got an array of {value.shape}.")
    return np.broadcast_to(value, shape)


def _untransformed(scale: npt.ArrayLike) -> np.ndarray:
    return np.asarray(np.log(np.asarray(scale, np.float64) - _SCALE_FLOOR))


def _untransformed_spread(spread: npt.ArrayLike) -> np.ndarray:
    # In NumPy, because a model may be built while it is traced. Finite at eps too.
    above = np.maximum(np.asarray(spread, np.float64) - _FLOAT32_EPS, _FLOAT32_EPS)
    return np.asarray(above + np.log(-np.expm1(-above)))
