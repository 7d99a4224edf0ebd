"""The same network with a point for every weight, as trained by MAP and Monte Carlo dropout."""

from __future__ import annotations

from typing import Any

from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.models.respecify import respecify
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.models.weight_record import assign_weight_distributions, weight_distributions
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

    Everything else is copied: priors, deterministic weights, the likelihood, the schedule of beta, the seed, N. The
    calibration is None.

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
    config = respecify(model.get_config(), "posterior", Delta())
    if prior is not None:
        config = respecify(config, "prior", prior)
    copy = type(model).from_config({**config, "calibration": None})  # type: ignore[attr-defined]
    if any(layer.is_random for layer in copy.variational_layers):
        raise ValueError(
            f"{type(model).__name__} creates layers itself, so their posteriors are not part of its config. Give "
            "them kernel_posterior='delta' in its code."
        )
    if not copy.built:
        copy.build(model.input_shape)  # type: ignore[attr-defined]
    known = weight_distributions(model)
    assign_weight_distributions(copy, {name: known[name] for name in weight_distributions(copy)})
    if model.num_examples is not None:
        copy.num_examples = model.num_examples
    return copy
