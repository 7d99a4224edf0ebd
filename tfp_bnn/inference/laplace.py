"""Laplace's method: a normal posterior around trained weights, from the curvature of the likelihood and the prior."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import scipy.optimize
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_positive, require_integer
from tfp_bnn.core.batches import batches_of, checked_inputs, inputs_of, num_rows, rows_of
from tfp_bnn.core.noise import NoiseSource
from tfp_bnn.inference.curvature import NUMBERS_AT_ONCE, STRUCTURES, Eigen, Floats, Rows, factors_of
from tfp_bnn.inference.function_of_weights import FunctionOfWeights
from tfp_bnn.inference.point_weights import point_variables, require_point_model
from tfp_bnn.inference.weight_posterior import WeightPosterior
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.models.weight_record import bayesian_weights, layers_by_name
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive

MARGINAL_LIKELIHOOD = "marginal_likelihood"
_CURVATURES = ("ggn", "empirical_fisher")
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
    def prior_precision(self) -> float:
        """1 / variance of the normal prior; with the priors of the layers, the factor of their own precisions.

        It can be set to another number, without a new pass over the data.
        """
        return self._precision

    @prior_precision.setter
    def prior_precision(self, value: float) -> None:
        if not is_positive(value):
            raise ValueError(f"`prior_precision` must be a finite number > 0, but got {value!r}.")
        self._precision = float(value)
        self._variances = 1.0 / (self._curvature.eigenvalues + self._precision)
        # The draws are compiled with these numbers.
        self._compiled = tf.function(self._outputs_of_draw, reduce_retracing=True, autograph=False)

    @property
    def log_marginal_likelihood(self) -> float:
        """Laplace's estimate of log p(data), in nats, given the weights that have no posterior.

        log p(data | w) + log p(w) + d / 2 log(2 pi) - 1/2 log det(precision), at the trained weights w
        """
        shrinking = np.log1p(self._curvature.eigenvalues / self._precision).sum()
        return float(self.log_likelihood - 0.5 * (shrinking + self._precision * self._squared_distance))

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
                moments = self._output_moments(rows_of(inputs, slice(start, start + step)))
                likelihood, outputs = self.likelihood.with_normal_outputs(*moments, weights)
                parts.append(outputs.numpy())
        outputs = np.concatenate(parts)[np.newaxis]
        return PosteriorPredictive(likelihood, {}, outputs, {}, outputs.shape, exhaustive=True)

    def __repr__(self) -> str:
        structure = type(self._curvature).__name__.lower()
        return (
            f"Laplace of {self.network.name!r}: normal posterior of {self.num_weights:,} weights "
            f"({', '.join(self.weight_names)}), {structure} curvature, prior precision {self.prior_precision:.4g}, "
            f"log marginal likelihood {self.log_marginal_likelihood:.1f} nats"
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


def laplace(
    model: VariationalMixin,
    x: Any,
    y: Any = None,
    *,
    layers: str | Sequence[str] = "last",
    structure: str = "full",
    curvature: str = "ggn",
    prior_precision: float | str | None = None,
    linearized: bool = True,
    batch_size: int = 256,
    name: str = "laplace",
) -> Laplace:
    """A normal posterior around trained weights w*, whose precision is the curvature of the log-posterior there.

        w ~ N(w*, P^-1),   P = sum_n J_n' H_n J_n + prior precision

    with J_n the Jacobian of the outputs of example n in the weights, and H_n the Hessian of -log p(y_n | outputs) in
    the outputs (the generalized Gauss-Newton matrix). Nothing is trained. It takes a pass of forward and backward for
    each output and row. What the likelihood has learned, and weights outside of `layers`, stay points. Exact for a
    linear model with normal noise at its MAP estimate.

    Args:
        model: A trained point model, as of `map_estimate`. It is not copied: do not train it further.
        x: Inputs of the training data, in every form that `fit` takes.
        y: Targets of arrays. Weights of the rows of a stream are factors of their log-likelihood.
        layers: `"last"` for the last layer that has weights, `"all"`, or names of layers.
        structure: `"full"`, for at most 4,096 weights; `"kronecker"` for a last dense layer of any size, the product of
            a matrix over its inputs and one over its outputs, which is exact if all rows have the same H_n; or
            `"diagonal"`.
        curvature: `"ggn"`, or `"empirical_fisher"`, with the outer product of the gradient of log p in place of H_n.
        prior_precision: None for the normal priors of the layers; weights without a distribution, such as most biases,
            then stay points. A number for the prior N(0, 1 / number) of all trainable weights of `layers`, biases
            included. `"marginal_likelihood"` for the number that maximizes Laplace's estimate of log p(data).
        linearized: Whether a draw is the network that is linear in its weights around w*, for which this curvature is
            that of the posterior, at about twice the cost; else the network itself. The same for a last dense layer.
        batch_size: Number of rows per pass.
        name: Name of the result.

    Returns:
        A `Laplace`: a model that predicts by unlimited draws (`posterior_predictive`) or in closed form
        (`closed_form_predictive`), with its `log_marginal_likelihood` and `prior_precision`.

    Raises:
        TypeError: If the model has no `VariationalMixin`.
        ValueError: If the model has random layers or outputs with positions, an argument is out of range, the data do
            not fit, there are too many weights for `structure`, a prior is not normal, or the likelihood is not
            log-concave in the outputs.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.DenseFlipout(3, kernel_posterior="delta")
        >>> model = tfp_bnn.VariationalSequential([keras.Input((2,)), layer], seed=0)
        >>> posterior = tfp_bnn.inference.laplace(model, np.ones((8, 2)), np.zeros(8))
        >>> posterior.num_weights, posterior.covariance().shape
        (6, (6, 6))
        >>> posterior.posterior_predictive(np.ones((1, 2)), num_samples=20).samples.shape
        (20, 1, 3)

    References:
        MacKay 1992, A Practical Bayesian Framework for Backpropagation Networks; Ritter et al. 2018, A Scalable Laplace
        Approximation for Neural Networks; Daxberger et al. 2021, Laplace Redux, https://arxiv.org/abs/2106.14806
    """
    require_point_model(model, "laplace")
    require_integer("batch_size", batch_size, 1)
    for argument, value, known in (("structure", structure, STRUCTURES), ("curvature", curvature, _CURVATURES)):
        if value not in known:
            raise ValueError(f"`{argument}` must be one of {', '.join(known)}, but got {value!r}.")
    if not (prior_precision in (None, MARGINAL_LIKELIHOOD) or is_positive(prior_precision)):
        raise ValueError(
            f"`prior_precision` must be None, {MARGINAL_LIKELIHOOD!r} or a finite number > 0, but got "
            f"{prior_precision!r}."
        )
    if len(model.output_shape) != 2:  # type: ignore[attr-defined]
        raise ValueError(
            f"`laplace` takes networks with outputs of shape (batch, outputs), but {model.name!r} has outputs of shape "
            f"{model.output_shape}."  # type: ignore[attr-defined]
        )
    network = FunctionOfWeights(model, _chosen_variables(model, layers, only_bayesian=prior_precision is None))
    center, scale = _prior_of(network) if prior_precision is None else _standard_prior(network.num_weights)
    log_likelihoods: list[float] = []

    def rows() -> Iterator[Rows]:
        for inputs, targets, weight in batches_of(x, y, batch_size):
            if targets is None:
                raise ValueError("`laplace` needs targets: pass `y`, or a dataset of (x, y).")
            model._check_examples(inputs, targets)
            inputs = rows_of(inputs, slice(None))
            outputs = mean_outputs(inputs)
            found, factors = factors_of(curvature, model.likelihood, targets, outputs, model.likelihood_weights, weight)
            log_likelihoods.append(found)
            yield Rows(inputs, factors)

    mean_outputs, _ = network.compiled_at(network.values())
    model._check_weights()
    found = STRUCTURES[structure](network, rows(), scale)
    precision = None if isinstance(prior_precision, str) else prior_precision or 1.0
    return Laplace(network, found, sum(log_likelihoods), center, scale, precision, linearized, name)


def _chosen_variables(
    model: VariationalMixin, layers: str | Sequence[str], only_bayesian: bool
) -> Mapping[str, keras.Variable]:
    """The variables of the weights that get a posterior, by name."""
    variables = point_variables(model)
    if layers != "all":
        trained = {name.split("/")[0]: None for name in variables}
        chosen = [list(trained)[-1]] if layers == "last" else [layers] if isinstance(layers, str) else list(layers)
        unknown = sorted(set(chosen) - set(trained))
        if unknown or not chosen:
            raise ValueError(
                f"`layers` must be 'last', 'all' or names of layers with trainable weights, {', '.join(trained)}, but "
                f"got {layers!r}."
            )
        variables = {name: variable for name, variable in variables.items() if name.split("/")[0] in chosen}
    if not only_bayesian:
        return variables
    bayesian = {f"{name}/{key}" for name, layer in layers_by_name(model).items() for key in bayesian_weights(layer)}
    with_prior = {name: variable for name, variable in variables.items() if name in bayesian}
    if not with_prior:
        raise ValueError(
            f"The weights {', '.join(variables)} have no prior. Give one with `prior_precision`, a number or "
            f"{MARGINAL_LIKELIHOOD!r}, or use Bayesian layers."
        )
    return with_prior


def _prior_of(network: FunctionOfWeights) -> tuple[Floats, Floats]:
    """The means and scales of the normal priors of the weights, `(d,)`."""
    moments = []
    for name, layer in layers_by_name(network.model).items():
        for key, weight in bayesian_weights(layer).items():
            if f"{name}/{key}" not in network.variables:
                continue
            normal = getattr(weight.prior, "distribution", None)
            if not isinstance(normal, tfd.Normal):
                raise ValueError(
                    f"The prior of {name}/{key}, {weight.prior_spec!r}, is not normal, so it has no precision. Give "
                    f"`prior_precision`, a number or {MARGINAL_LIKELIHOOD!r}."
                )
            moments.append([np.broadcast_to(value, weight.shape).reshape(-1) for value in (normal.loc, normal.scale)])
    center, scale = (np.concatenate(values).astype(np.float64) for values in zip(*moments, strict=True))
    return center, scale


def _standard_prior(number: int) -> tuple[Floats, Floats]:
    return np.zeros(number), np.ones(number)
