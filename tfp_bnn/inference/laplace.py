"""Laplace's method: a normal posterior around trained weights, from the curvature of the likelihood and the prior."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_positive, require_bool, require_integer
from tfp_bnn.core.batches import batches_of, dense, rows_of
from tfp_bnn.inference.curvature import STRUCTURES, Floats, Rows, factors_in_outputs
from tfp_bnn.inference.function_of_weights import FunctionOfWeights
from tfp_bnn.inference.laplace_posterior import Laplace, require_plain_outputs
from tfp_bnn.inference.log_posterior import MOST_BYTES
from tfp_bnn.inference.point_weights import point_variables, require_point_model
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.models.weight_record import bayesian_weights, layers_by_name

MARGINAL_LIKELIHOOD = "marginal_likelihood"
_CURVATURES = ("ggn", "empirical_fisher")
_NO_SCALE = float(np.finfo(np.float32).tiny)


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
    each output and row. What the likelihood has learned, and weights outside of `layers`, stay points; pruned weights
    stay 0. Exact for a linear model with normal noise at its MAP estimate.

    Args:
        model: A trained point model, as of `map_estimate`. It is not copied: do not train it further.
        x: Inputs of the training data, in every form that `fit` takes.
        y: Targets of arrays. Weights of the rows of a stream are factors of their log-likelihood.
        layers: `"last"` for the last layer that has weights, `"all"`, or names of layers.
        structure: `"full"`, for at most 4,096 weights; `"kronecker"` for a last dense layer of any size, the product of
            a matrix over its inputs and one over its outputs, which is exact if all rows have the same H_n, and for a
            layer that is not pruned; or `"diagonal"`.
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
        ValueError: If the model has random layers, several outputs or outputs with positions, an argument is out of
            range, the data do not fit, there are too many weights for `structure`, a prior is not normal or goes with a
            regularizer of its weights, or the likelihood is not log-concave in the outputs.

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
    require_bool("linearized", linearized)
    for argument, value, known in (("structure", structure, STRUCTURES), ("curvature", curvature, _CURVATURES)):
        if value not in known:
            raise ValueError(f"`{argument}` must be one of {', '.join(known)}, but got {value!r}.")
    if not (prior_precision in (None, MARGINAL_LIKELIHOOD) or is_positive(prior_precision)):
        raise ValueError(
            f"`prior_precision` must be None, {MARGINAL_LIKELIHOOD!r} or a finite number > 0, but got "
            f"{prior_precision!r}."
        )
    require_plain_outputs(model)
    network = FunctionOfWeights(model, chosen_variables(model, layers, only_bayesian=prior_precision is None))
    center, scale = _prior_of(network) if prior_precision is None else _standard_prior(network.num_weights)
    kept = _kept(network)
    if structure == "kronecker" and not kept.all():
        raise ValueError(
            f"{int((~kept).sum())} of the weights {', '.join(network.variables)} are pruned, so their curvature is no "
            "Kronecker product. Use structure='full' or 'diagonal'."
        )
    # A pruned weight is 0, and no weight of the network: it is at its prior mean, and does not leave it.
    center, scale = np.where(kept, center, 0.0), np.where(kept, scale, _NO_SCALE)
    log_likelihoods: list[float] = []

    def rows() -> Iterator[Rows]:
        for inputs, targets, weight in batches_of(x, y, batch_size):
            if targets is None:
                raise ValueError("`laplace` needs targets: pass `y`, or a dataset of (x, y).")
            model._check_examples(inputs, targets)
            inputs = rows_of(dense(inputs, MOST_BYTES), slice(None))
            outputs = mean_outputs(inputs)
            found, factors = factors_of(targets, outputs, weight)
            log_likelihoods.append(found)
            _, observed = model.likelihood.observed_rows(np.asarray(targets), (), outputs.shape[-1])
            yield Rows(inputs, factors, weight, observed)
        if not log_likelihoods:
            raise ValueError(
                "`laplace` got data without rows. Pass at least one. A generator that was read before has none left: "
                "make a new one."
            )

    mean_outputs, _ = network.compiled_at(network.values())
    factors_of = factors_in_outputs(curvature, model.likelihood, model.likelihood_weights)
    model._check_weights()
    found = STRUCTURES[structure](network, rows(), scale)
    precision = None if isinstance(prior_precision, str) else prior_precision or 1.0
    return Laplace(network, found, sum(log_likelihoods), center, scale, precision, linearized, name)


def chosen_variables(
    model: VariationalMixin, layers: str | Sequence[str], only_bayesian: bool
) -> Mapping[str, keras.Variable]:
    """The variables of the weights that get a posterior, by name.

    Args:
        model: A point model.
        layers: As in `laplace`.
        only_bayesian: Whether to leave out weights without a distribution.

    Raises:
        ValueError: If a layer is unknown, or no weight is left.
    """
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
    penalized = [name for name, variable in network.variables.items() if variable.regularizer is not None]
    if penalized:
        raise ValueError(
            f"The weights {', '.join(penalized)} have regularizers, which were part of the loss and are not part of "
            f"their priors. Remove them and train again, or give `prior_precision`, a number or "
            f"{MARGINAL_LIKELIHOOD!r}, whose prior takes the place of both."
        )
    moments = []
    for name, layer in layers_by_name(network.model).items():
        for key, weight in bayesian_weights(layer).items():
            if f"{name}/{key}" not in network.variables:
                continue
            # Of a pruned weight, the one without the mask.
            normal = getattr(getattr(weight.prior, "whole", weight.prior), "distribution", None)
            if not isinstance(normal, tfd.Normal):
                raise ValueError(
                    f"The prior of {name}/{key}, {weight.prior_spec!r}, is not normal, so it has no precision. Give "
                    f"`prior_precision`, a number or {MARGINAL_LIKELIHOOD!r}."
                )
            moments.append([np.broadcast_to(value, weight.shape).reshape(-1) for value in (normal.loc, normal.scale)])
    center, scale = (np.concatenate(values).astype(np.float64) for values in zip(*moments, strict=True))
    return center, scale


def _kept(network: FunctionOfWeights) -> npt.NDArray[np.bool_]:
    """Whether each weight is kept and not pruned, `(d,)`."""
    kept = {
        f"{name}/{key}": weight.kept
        for name, layer in layers_by_name(network.model).items()
        for key, weight in bayesian_weights(layer).items()
    }
    return np.concatenate(
        [kept.get(name, np.ones(variable.shape, bool)).reshape(-1) for name, variable in network.variables.items()]
    )


def _standard_prior(number: int) -> tuple[Floats, Floats]:
    return np.zeros(number), np.ones(number)
