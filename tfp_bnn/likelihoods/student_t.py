"""Student's t as a likelihood: numbers with outliers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_number, require_array
from tfp_bnn.likelihoods.base import LIKELIHOODS, Weights
from tfp_bnn.likelihoods.noise_scale import LocationScale

# The variance is infinite up to here, and the law of total variance says nothing.
_LEAST_DF = 2.0


@LIKELIHOODS.register("student_t")
class StudentT(LocationScale):
    """(y - location) / scale ~ Student's t with `df` degrees of freedom, independent per target given the weights.

        p(y) = Gamma((df + 1) / 2) / (Gamma(df / 2) sqrt(pi df) scale) * (1 + z^2 / df)^(-(df + 1) / 2)

    with z = (y - location) / scale. The tails fall like a power, so single outliers pull the location much less than
    with 'normal'. The variance is scale^2 df / (df - 2), larger than scale^2. A large `df` gives the normal.

    Args:
        df: Degrees of freedom: a number > 2, or `"learned"`, one value for all examples, which is 2 + exp(.) so that
            the variance stays finite.
        scale: As for the likelihood 'normal': a number > 0 in units of the target, `"learned"` or `"per_example"`. With
            `"per_example"` the outputs are `[locations, untransformed scales]`, scale = 1e-6 + softplus(.).
        initial_scale: Initial value of a learned scale, in units of the target.
        initial_df: Initial value of learned degrees of freedom, a number > 2.
        missing: See `Likelihood`.

    References:
        Lange, Little & Taylor 1989, Robust Statistical Modeling Using the t Distribution,
        https://doi.org/10.1080/01621459.1989.10478852
    """

    def __init__(
        self,
        df: float | str = 5.0,
        scale: float | str = "learned",
        initial_scale: float = 1.0,
        initial_df: float = 5.0,
        missing: float | str | None = None,
    ) -> None:
        super().__init__(scale, initial_scale, missing)
        for name, value in (("df", df), ("initial_df", initial_df)):
            if not (is_number(value) and _LEAST_DF < value < math.inf) and (name, value) != ("df", "learned"):
                choice = " or 'learned'" if name == "df" else ""
                raise ValueError(
                    f"`{name}` of {self._described()} must be a finite number > 2{choice}, but got {value!r}. With 2 "
                    "or less the variance of the targets would be infinite."
                )
        self.df = df if isinstance(df, str) else float(df)
        self.initial_df = float(initial_df)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"df": self.df, **super().get_config(), "initial_df": self.initial_df}

    def add_weights(self, add_weight: Callable[..., keras.Variable]) -> dict[str, keras.Variable]:
        """Creates `log_scale` and `log_excess_df`, the log of df - 2, float32 scalars, as far as they are learned."""
        weights = super().add_weights(add_weight)
        if self.df == "learned":
            start = keras.initializers.Constant(math.log(self.initial_df - _LEAST_DF))
            weights["log_excess_df"] = add_weight(name="likelihood_log_excess_df", shape=(), initializer=start)
        return weights

    def parameters(self, weights: Weights) -> dict[str, np.ndarray]:
        """The learned `scale`, in units of the target, and the learned `df`; only those that are learned."""
        found = super().parameters(weights)
        if self.df == "learned":
            found["df"] = np.float32(_LEAST_DF) + np.exp(np.asarray(weights["log_excess_df"]))
        return found

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets what is learned. Raises a ValueError unless the scale is finite and > 0, and df finite and > 2."""
        super().assign_parameters(weights, values)
        if self.df == "learned":
            least = float(np.nextafter(np.float32(_LEAST_DF), np.float32(3.0)))
            df = require_array("likelihood", values, "df", (), least=least)
            weights["log_excess_df"].assign(np.log(df - np.float32(_LEAST_DF)))

    def _noise(self, loc: tf.Tensor, scale: tf.Tensor, weights: Weights) -> tfd.Distribution:
        df = tf.constant(0.0 if isinstance(self.df, str) else self.df, tf.float32)
        if self.df == "learned":
            df = _LEAST_DF + tf.exp(tf.convert_to_tensor(weights["log_excess_df"]))[..., tf.newaxis]
        return tfd.StudentT(df, loc, scale)
