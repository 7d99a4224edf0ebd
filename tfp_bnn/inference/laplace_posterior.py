"""The posterior of Laplace's method, its draws and its closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.optimize
import tensorflow as tf

from tfp_bnn.core.arguments import is_number, is_positive, require_bool, require_integer
from tfp_bnn.core.batches import checked_inputs, dense, inputs_of, num_rows, rows_of
from tfp_bnn.core.compiled import compiled
from tfp_bnn.core.noise import NoiseSource
from tfp_bnn.inference.curvature import EIGEN, NUMBERS_AT_ONCE, Eigen, Floats
from tfp_bnn.inference.function_of_weights import FunctionOfWeights, chosen_by_name
from tfp_bnn.inference.log_posterior import MOST_BYTES
from tfp_bnn.inference.point_weights import point_variables, require_point_model
from tfp_bnn.inference.stored_posterior import Arrays, require_arrays
from tfp_bnn.inference.weight_posterior import WeightPosterior
from tfp_bnn.models.preparation import forget_calibration_of
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive

_LOG_PRECISIONS = (-20.0, 20.0)


class Laplace(WeightPosterior):
    """A normal posterior around the trained weights of a network; see `laplace`.

    Args:
        network: The network as a function of the weights that have a posterior.
        curvature: Curvature of -log p(data | weights), for weights in units of `scale`.
        log_likelihood: Log p(data | trained weights), in nats.
        center: Prior means, `(d,)`.
        scale: Prior scales at precision 1, `(d,)`.
        prior_precision: Factor of the prior precision; None for the one that maximizes the marginal likelihood.
        linearized: Whether draws use the network that is linear in its weights.
        name: Name of the model.
    """

    way = "laplace"

    def __init__(
        self,
        network: FunctionOfWeights,
        curvature: Eigen,
        log_likelihood: float,
        center: Floats,
        scale: Floats,
        prior_precision: float | None,
        linearized: bool,
        name: str,
    ) -> None:
        super().__init__(network, name)
        self.linearized = linearized
        self.log_likelihood = log_likelihood
        self._curvature = curvature
        self._center = center
        self._mean = network.values()
        self._scale = scale
        self._mean_outputs, self._gradients = network.compiled_at(self._mean)
        self._squared_distance = float(np.sum(np.square((self._mean - center) / scale)))
        self.prior_precision = self._best_precision() if prior_precision is None else prior_precision

    @property
    def mean_weights(self) -> np.ndarray:
        """The trained weights, `(d,)`, float32."""
        return self._mean

    @property
    def structure(self) -> str:
        """`"full"`, `"kronecker"` or `"diagonal"`."""
        return type(self._curvature).__name__.lower()

    def settings(self) -> dict[str, Any]:
        """The names of the weights, the structure of the curvature, and three numbers."""
        return {
            **super().settings(),
            "structure": self.structure,
            "linearized": self.linearized,
            "prior_precision": self.prior_precision,
            "log_likelihood": self.log_likelihood,
        }

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Prior means and scales, and the curvature in its eigenbasis, float64."""
        return {"prior_loc": self._center, "prior_scale": self._scale, **self._curvature.arrays()}

    @classmethod
    def from_arrays(
        cls, networks: Sequence[Any], way: str, settings: Mapping[str, Any], arrays: Arrays, name: str
    ) -> Laplace:
        """Rebuilds a posterior; see `StoredPosterior.from_arrays`."""
        (model,) = networks
        require_point_model(model, way)
        require_plain_outputs(model)
        network = FunctionOfWeights(model, chosen_by_name(point_variables(model), settings.get("weights")))
        structure, linearized = settings.get("structure"), settings.get("linearized")
        precision, log_likelihood = settings.get("prior_precision"), settings.get("log_likelihood")
        if not isinstance(structure, str) or structure not in EIGEN:
            raise ValueError(f"'structure' must be one of {', '.join(EIGEN)}, but is {structure!r}.")
        if not isinstance(linearized, bool) or not is_positive(precision) or not is_number(log_likelihood):
            raise ValueError(
                "Expected 'linearized', true or false; 'prior_precision', a number above 0; and 'log_likelihood', a "
                f"number; but they are {linearized!r}, {precision!r} and {log_likelihood!r}."
            )
        of_prior = dict.fromkeys(("prior_loc", "prior_scale"), (network.num_weights,))
        shapes = {**of_prior, **EIGEN[structure].shapes(network)}
        require_arrays(arrays, {key: (shape, np.float64) for key, shape in shapes.items()})
        if (arrays["prior_scale"] <= 0).any():
            raise ValueError("The array 'prior_scale' has values that are not above 0.")
        curvature = EIGEN[structure].from_arrays(arrays)
        if len(curvature.eigenvalues) != network.num_weights:
            raise ValueError(
                f"The curvature is one of {len(curvature.eigenvalues)} weights, but {', '.join(network.variables)} are "
                f"{network.num_weights}."
            )
        center, scale = arrays["prior_loc"], arrays["prior_scale"]
        return cls(network, curvature, float(log_likelihood), center, scale, float(precision), linearized, name)

    @property
    def prior_precision(self) -> float:
        """1 / variance of the normal prior; with the priors of the layers, the factor of their own precisions.

        It can be set to another number, without a new pass over the data. The posterior then loses its `calibration`
        and `conformal`, with a warning.
        """
        return self._precision

    @prior_precision.setter
    def prior_precision(self, value: float) -> None:
        if not is_positive(value):
            raise ValueError(f"`prior_precision` must be a finite number > 0, but got {value!r}.")
        if float(value) != vars(self).get("_precision"):
            forget_calibration_of(self, "a new `prior_precision`")
        self._precision = float(value)
        self._variances = 1.0 / (self._curvature.eigenvalues + self._precision)
        # The draws are compiled with these numbers.
        self._compiled = compiled(self._outputs_of_draw)

    @property
    def linearized(self) -> bool:
        """Whether draws use the network that is linear in its weights. It can be set, as `prior_precision`."""
        return self._linearized

    @linearized.setter
    def linearized(self, value: bool) -> None:
        value = require_bool("linearized", value)
        if value != vars(self).get("_linearized"):
            forget_calibration_of(self, "another `linearized`")
        self._linearized = value
        self._compiled = compiled(self._outputs_of_draw)

    @property
    def log_marginal_likelihood(self) -> float:
        """Laplace's estimate of log p(data), in nats, given the weights that have no posterior.

        log p(data | w) + log p(w) + d / 2 log(2 pi) - 1/2 log det(precision), at the trained weights w
        """
        shrinking = np.log1p(self._curvature.eigenvalues / self._precision).sum()
        return float(self.log_likelihood - 0.5 * (shrinking + self._precision * self._squared_distance))

    def diagnostics(self, x: Any) -> dict[str, float]:
        """`log_marginal_likelihood` (nats) and `prior_precision`, whatever the inputs."""
        return {
            "log_marginal_likelihood": self.log_marginal_likelihood,
            "prior_precision": self.prior_precision,
        }

    def perturbation(self, noise: NoiseSource) -> tf.Tensor:
        """A draw of the weights minus their mean, `(d,)`, float32."""
        scaled = tf.constant(np.sqrt(self._variances), tf.float32) * noise.normal("weights", [self.num_weights])
        return tf.constant(self._scale, tf.float32) * self._curvature.from_eigenbasis(scaled)

    def covariance(self) -> Floats:
        """The posterior covariance of the weights, `(d, d)`, float64; for small networks."""
        rows = self._curvature.to_eigenbasis(np.diag(self._scale))
        return (rows * self._variances) @ rows.T

    def closed_form_predictive(self, x: Any, batch_size: int = 512) -> PosteriorPredictive:
        """The predictive without Monte Carlo: the outputs of the network that is linear in its weights are normal.

        For numbers with normal noise, a normal distribution, exact for that network. For classes and labels, the probit
        approximation with the variance v of each logit: mean logits times (1 + pi v / 8)^-1/2. The result has one
        draw, so its uncertainty is not split: `epistemic` is 0. It is not calibrated.

        Args:
            x: Inputs, as in `posterior_predictive`.
            batch_size: Largest number of rows per forward pass. There is one for each output.

        Raises:
            ValueError: If the likelihood has no closed form, or the inputs do not fit.

        References:
            MacKay 1992, The Evidence Framework Applied to Classification Networks; Immer et al. 2021,
            https://arxiv.org/abs/2008.08216
        """
        require_integer("batch_size", batch_size, 1)
        x = checked_inputs(x, self._check_of_inputs(x))
        weights = self._likelihood_values()
        step = min(batch_size, max(1, NUMBERS_AT_ONCE // self.num_weights))
        parts = []
        for inputs in inputs_of(x):
            for start in range(0, num_rows(inputs), step):
                rows = dense(rows_of(inputs, slice(start, start + step)), MOST_BYTES)
                moments = self._output_moments(rows)
                likelihood, outputs = self.likelihood.with_normal_outputs(*moments, weights)
                parts.append(outputs.numpy())
        outputs = np.concatenate(parts)[np.newaxis]
        return self._with_names(PosteriorPredictive(likelihood, {}, outputs, {}, outputs.shape, exhaustive=True))

    def __repr__(self) -> str:
        return (
            f"Laplace of {self.network.name!r}: normal posterior of {self.num_weights:,} weights "
            f"({', '.join(self.weight_names)}), {self.structure} curvature, prior precision "
            f"{self.prior_precision:.4g}, log marginal likelihood {self.log_marginal_likelihood:.1f} nats"
        )

    def _outputs_of(self, x: Any, mean: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
        if self.linearized:
            return self._network.linearized(x, mean, change)
        return super()._outputs_of(x, mean, change)

    def _output_moments(self, x: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Means and variances of the outputs of the linearized network, `(batch, outputs)`."""
        mean = self._mean_outputs(x)
        variances = []
        for basis in tf.eye(mean.shape[-1]):
            gradients = self._gradients(x, tf.broadcast_to(basis, mean.shape)).numpy() * self._scale
            variances.append(np.square(self._curvature.to_eigenbasis(gradients)) @ self._variances)
        return mean, tf.constant(np.stack(variances, axis=-1), tf.float32)

    def _best_precision(self) -> float:
        """The prior precision of the largest marginal likelihood: MacKay's fixed point, of which there is one.

        precision * |w - center|^2 = sum_i eigenvalue_i / (eigenvalue_i + precision)
        """
        eigenvalues, distance = self._curvature.eigenvalues, self._squared_distance

        def excess(log_precision: float) -> float:
            precision = np.exp(log_precision)
            return float(precision * distance - np.sum(eigenvalues / (eigenvalues + precision)))

        low, high = _LOG_PRECISIONS
        if not excess(low) < 0 < excess(high):
            raise ValueError(
                "The marginal likelihood has no maximum at a prior precision from e^-20 to e^20: the weights are at "
                "the prior mean, or the data say nothing about them. Train the network, or give a number."
            )
        return float(np.exp(scipy.optimize.brentq(excess, low, high, xtol=1e-10)))


def require_plain_outputs(model: VariationalMixin) -> None:
    """Refuses a model whose outputs are not one array `(batch, outputs)`. The ValueError says what they are."""
    shape = model.output_shape  # type: ignore[attr-defined]
    if model.likelihood.heads or len(shape) != 2:
        raise ValueError(
            f"`laplace` takes networks with one output of shape (batch, outputs), but {model.name!r} has outputs of "
            f"shape {shape}. Use `swag`, or `full_rank` or `mean_field` for a small network."
        )
