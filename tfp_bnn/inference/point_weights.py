"""The same network with a point for every weight, as trained by MAP and Monte Carlo dropout."""

from __future__ import annotations

from typing import Any

import keras

from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.models.respecify import respecify
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.models.weight_record import (
    assign_weight_distributions,
    bayesian_weights,
    freeze_like,
    layers_by_name,
    plain_variables,
    weight_distributions,
)
from tfp_bnn.posteriors import Delta
from tfp_bnn.priors import Prior


def require_built_model(model: Any, function: str) -> None:
    """Refuses anything but a built variational model.

    Args:
        model: Object to check.
        function: Name of the calling function for the message, such as `"map_estimate"`.

    Raises:
        TypeError: If the model has no `VariationalMixin`.
        ValueError: If the model is not built.
    """
    if not isinstance(model, VariationalMixin):
        raise TypeError(
            f"`{function}` takes a VariationalModel, VariationalSequential or another model with VariationalMixin, but "
            f"got {type(model).__name__}. Make one of a Keras model with tfp_bnn.transfer.to_bayesian."
        )
    if not model.built:  # type: ignore[attr-defined]
        raise ValueError(f"The model {model.name!r} is not built, so it has no weights. Build it, or call it, first.")


def require_point_model(model: Any, function: str) -> None:
    """Refuses anything but a built variational model in which nothing is random.

    Args:
        model: Object to check.
        function: Name of the calling function for the message, such as `"swag"`.

    Raises:
        TypeError: If the model has no `VariationalMixin`.
        ValueError: If the model is not built, or layers are random.
    """
    require_built_model(model, function)
    random = [layer.name for layer in model.stochastic_layers if layer.is_random]
    if random:
        raise ValueError(
            f"`{function}` starts from one set of weights, but the layers {', '.join(random)} of {model.name!r} are "
            "random. Train a point estimate first, with tfp_bnn.inference.map_estimate and without MCDropout."
        )


def point_variables(model: VariationalMixin) -> dict[str, keras.Variable]:
    """The trainable weights of the network itself, by `<layer>/<weight>`; of a Bayesian weight, the posterior mean.

    In each layer, those with a distribution come first. Learned parameters of priors and of the likelihood are not
    among them.

    Raises:
        ValueError: If two layers have the same name.
    """
    found: dict[str, keras.Variable] = {}
    for name, layer in layers_by_name(model).items():
        means = {key: weight.posterior_variables["loc"] for key, weight in bayesian_weights(layer).items()}
        values = means | plain_variables(layer)
        found |= {f"{name}/{key}": variable for key, variable in values.items() if variable.trainable}
    return found


def dropout_layers(model: VariationalMixin) -> list[str]:
    """The names of the layers without distributions over weights that stay random in prediction."""
    return [
        layer.name for layer in model.stochastic_layers if layer.is_random and not isinstance(layer, VariationalLayer)
    ]


def require_no_dropout(model: VariationalMixin) -> None:
    """Refuses a model with layers that stay random in prediction whatever its weights. The ValueError names them."""
    dropped = dropout_layers(model)
    if dropped:
        raise ValueError(
            f"The layers {', '.join(dropped)} stay random in prediction, so its weights would not determine a "
            "prediction. Use tfp_bnn.inference.mc_dropout, or remove them."
        )


def with_point_weights(model: VariationalMixin, prior: Prior | None = None) -> Any:
    """A copy of a model whose weights all have the posterior `delta`, at the posterior means.

    Pruned weights stay pruned. Everything else is copied: priors, deterministic weights and whether they are trainable,
    the likelihood, the schedule of beta, the seed, N. The calibration is None, and the objective is `"elbo"`, with one
    draw in each step unless there is an `MCDropout`.

    Args:
        model: A built model whose class keeps its layers in its config.
        prior: Prior of all weights with a distribution. Default: those of the model.

    Returns:
        A model of the same class, built, not compiled.

    Raises:
        ValueError: If a prior that is kept has a learned scale, or the model is a subclass that creates layers itself.
    """
    for layer in model.variational_layers:
        for weight in layer.variational_weights.values():
            if prior is None and weight.prior_spec.learns_scale:
                raise ValueError(
                    f"The prior of {layer.name}/{weight.name}, {weight.prior_spec!r}, learns its scale. A point "
                    "estimate of weights and scale together has no optimum: the density grows without bound as all "
                    "shrink to 0. Fix the scale: remove empirical_bayes or the hyperprior."
                )
    config = respecify(model.get_config(), "posterior", lambda posterior: Delta(pruned=posterior.pruned))
    if prior is not None:
        config = respecify(config, "prior", prior)
    copy = type(model).from_config({**config, "calibration": None, "conformal": None})  # type: ignore[attr-defined]
    # Other objectives are made of several draws, of which points have only one.
    copy.objective = "elbo"
    if not dropout_layers(model):
        copy.num_draws = 1
    if any(layer.is_random for layer in copy.variational_layers):
        raise ValueError(
            f"{type(model).__name__} creates layers itself, so their posteriors are not part of its config. Give "
            "them kernel_posterior='delta' in its code."
        )
    if not copy.built:
        copy.build(model.input_shape)  # type: ignore[attr-defined]
    known = weight_distributions(model)
    assign_weight_distributions(copy, {name: known[name] for name in weight_distributions(copy)})
    freeze_like(copy, model)
    if model.num_examples is not None:
        copy.num_examples = model.num_examples
    return copy
