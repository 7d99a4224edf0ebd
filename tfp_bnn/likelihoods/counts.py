"""Likelihoods of counts: Poisson, and the negative binomial for counts that vary more."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_positive, require_array
from tfp_bnn.likelihoods.base import LIKELIHOODS, Likelihood, Weights

# A smaller dispersion cannot be told from a Poisson distribution.
_DISPERSION_FLOOR = 1e-4


class Counts(Likelihood):
    """Whole numbers >= 0, independent per target given the weights. Abstract.

    Targets have the shape `(batch,)` for one target, or `(batch, targets)`. The first outputs are the logarithms of the
    means, one for each target.
    """

    def mean(self, outputs: tf.Tensor, weights: Weights | None = None) -> tf.Tensor:
        """Means, exp(outputs), `(..., batch, targets)`, float32."""
        outputs = tf.cast(outputs, tf.float32)
        return tf.exp(outputs[..., : self.num_targets(outputs.shape[-1])])

    def in_target_units(self, outputs: Any, mean: Sequence[float], scale: Sequence[float]) -> NoReturn:
        """Raises a ValueError: shifted and scaled counts are no counts."""
        raise ValueError(
            f"The targets of the likelihood {self!r} are counts, which are whole numbers and cannot be standardized. "
            "Leave out `standardize_targets`: the outputs are logarithms of means, which need no scaling."
        )


@LIKELIHOODS.register("poisson")
class Poisson(Counts):
    """y ~ Poisson(exp(outputs)): P(y) = exp(y outputs - exp(outputs)) / y!, independent per target given the weights.

    One output for each target, the logarithm of its rate. Mean and variance are both exp(output); if the data vary
    more, use 'negative_binomial'.
    """

    why_no_calibrator = "the variance of a Poisson distribution is its mean, and no number can widen it"

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        """Batch shape `(..., batch)`, event shape `(targets,)`."""
        return tfd.Independent(_Poisson(log_rate=outputs), reinterpreted_batch_ndims=1)

    def num_targets(self, num_outputs: int) -> int:
        """One target per output."""
        return num_outputs


@LIKELIHOODS.register("negative_binomial")
class NegativeBinomial(Counts):
    """Counts with mean m = exp(output) and variance m + dispersion * m^2, independent per target given the weights.

        P(y) = Gamma(y + r) / (y! Gamma(r)) * (r / (r + m))^r * (m / (r + m))^y,   r = 1 / dispersion

    r is the `total_count` of `tfd.NegativeBinomial`. A dispersion near 0 gives the Poisson distribution. The network
    has one output for each target, or with dispersion='per_example' two, `[log means, untransformed dispersions]`,
    dispersion = 1e-4 + softplus(.).

    Args:
        dispersion: A number > 0, `"learned"` (one value for all examples, fitted with the weights) or `"per_example"`.
        initial_dispersion: Initial value of a learned dispersion.
        missing: See `Likelihood`.

    References:
        Hilbe 2011, Negative Binomial Regression, https://doi.org/10.1017/CBO9780511973420, as NB2
    """

    why_no_calibrator = "no number widens a distribution of counts that may not be negative"

    def __init__(
        self, dispersion: float | str = "learned", initial_dispersion: float = 1.0, missing: float | str | None = None
    ) -> None:
        super().__init__(missing)
        if dispersion not in ("learned", "per_example") and not is_positive(dispersion):
            raise ValueError(
                "`dispersion` of the likelihood 'negative_binomial' must be a number > 0, 'learned' or 'per_example', "
                f"but got {dispersion!r}."
            )
        if not is_positive(initial_dispersion):
            raise ValueError(
                "`initial_dispersion` of the likelihood 'negative_binomial' must be a finite number > 0, but got "
                f"{initial_dispersion!r}."
            )
        self.dispersion = dispersion if isinstance(dispersion, str) else float(dispersion)
        self.initial_dispersion = float(initial_dispersion)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"dispersion": self.dispersion, "initial_dispersion": self.initial_dispersion, **super().get_config()}

    def add_weights(self, add_weight: Callable[..., keras.Variable]) -> dict[str, keras.Variable]:
        """Creates `log_dispersion`, a float32 scalar, if the dispersion is learned."""
        if self.dispersion != "learned":
            return {}
        start = keras.initializers.Constant(math.log(self.initial_dispersion))
        return {"log_dispersion": add_weight(name="likelihood_log_dispersion", shape=(), initializer=start)}

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        """Batch shape `(..., batch)`, event shape `(targets,)`."""
        log_mean = outputs
        if self.dispersion == "per_example":
            log_mean, untransformed = tf.split(outputs, 2, axis=-1)
            log_dispersion = tf.math.log(_DISPERSION_FLOOR + tf.nn.softplus(untransformed))
        elif self.dispersion == "learned":
            # Adds an axis for the targets: values that differ between draws already have those of samples and rows.
            log_dispersion = tf.convert_to_tensor(weights["log_dispersion"])[..., tf.newaxis]
        else:
            log_dispersion = tf.math.log(tf.constant(self.dispersion, tf.float32))
        each = _NegativeBinomial(
            total_count=tf.exp(-log_dispersion), logits=log_mean + log_dispersion, require_integer_total_count=False
        )
        return tfd.Independent(each, reinterpreted_batch_ndims=1)

    def num_targets(self, num_outputs: int) -> int:
        """One target per output, or one per two outputs with dispersion='per_example'."""
        if self.dispersion != "per_example":
            return num_outputs
        if num_outputs % 2:
            raise ValueError(
                "The likelihood 'negative_binomial' with dispersion='per_example' needs two outputs for each target, "
                f"[log means, untransformed dispersions], but the model has {num_outputs}. Build it with an even "
                "number of outputs."
            )
        return num_outputs // 2

    def num_outputs_for(self, y: np.ndarray, num_classes: int | None = None) -> int:
        """One output per target, or two with dispersion='per_example'."""
        return y.reshape(len(y), -1).shape[1] * (2 if self.dispersion == "per_example" else 1)

    def parameters(self, weights: Weights) -> dict[str, np.ndarray]:
        """The learned `dispersion`; empty if none is learned."""
        return {"dispersion": np.exp(np.asarray(weights["log_dispersion"]))} if weights else {}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the learned dispersion. Raises a ValueError unless it is finite and > 0."""
        if weights:
            least = float(np.finfo(np.float32).tiny)
            weights["log_dispersion"].assign(np.log(require_array("likelihood", values, "dispersion", (), least=least)))


class _Poisson(tfd.Poisson):
    """Computed in float64.

    In float32, the log-probability of a count of a million is off by 1, because its large terms cancel, and the
    distribution function of TensorFlow is off by up to 0.001.
    """

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        y, log_rate = (tf.cast(number, tf.float64) for number in (x, self.log_rate))
        return tf.cast(tfd.Poisson(log_rate=log_rate).log_prob(y), x.dtype)

    def _cdf(self, x: tf.Tensor) -> tf.Tensor:
        above, log_rate = tf.cast(x, tf.float64) + 1.0, tf.cast(self.log_rate, tf.float64)
        found = tf.math.igammac(tf.maximum(above, 1.0), tf.exp(log_rate))
        return tf.cast(tf.where(above < 1.0, tf.zeros_like(found), found), x.dtype)


class _NegativeBinomial(tfd.NegativeBinomial):
    """Computed in float64: in float32, 1 - p loses its digits near a Poisson distribution, and terms cancel."""

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        y, count, logits = (tf.cast(number, tf.float64) for number in (x, self.total_count, self.logits))
        wide = tfd.NegativeBinomial(total_count=count, logits=logits, require_integer_total_count=False)
        return tf.cast(wide.log_prob(y), x.dtype)

    def _cdf(self, x: tf.Tensor) -> tf.Tensor:
        above, count, logits = (tf.cast(number, tf.float64) for number in (x + 1.0, self.total_count, self.logits))
        found = tfp.math.betainc(count, tf.maximum(above, 1.0), tf.sigmoid(-logits))
        return tf.cast(tf.where(above < 1.0, tf.zeros_like(found), found), x.dtype)
