"""The same model with only weights left to infer: all that has no posterior is fixed at what was learned."""

from __future__ import annotations

from typing import Any

from tfp_bnn.inference.point_weights import require_built_model
from tfp_bnn.models.respecify import respecify
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.models.weight_record import (
    assign_weight_distributions,
    bayesian_weights,
    layers_by_name,
    plain_variables,
    weight_distributions,
)


def with_fixed_parameters(model: VariationalMixin) -> Any:
    """A copy of a model in which everything without a posterior is fixed at its learned value.

    That is theta: weights without a distribution, such as biases by default, learned parameters of priors, and of the
    likelihood. What is left are the weights w with a distribution. Their exact posterior given theta is the one that
    variational inference at beta 1 approximates, because

        ELBO(q, theta) = log p(data | theta) - KL(q(w) || p(w | data, theta))

    so chains of the copy show the error of q and nothing else: no prior of theta has to be chosen, as `plain_prior` of
    `hmc` would be.

    Args:
        model: A trained model whose class keeps its layers in its config. It is not changed.

    Returns:
        A model of the same class, built, not compiled, with the posteriors of the model and no calibration.

    Raises:
        TypeError: If the model has no `VariationalMixin`.
        ValueError: If it is not built; a prior infers its scale by a hyperprior, because a distribution has no one
            value; or a prior with `groups`, or one argument for several weights such as `group_prior`, has learned
            several scales, for which a fixed prior has no place.

    Example:
        >>> import keras, tfp_bnn
        >>> prior = {"name": "normal", "scale": 0.5, "empirical_bayes": True}
        >>> layer = tfp_bnn.layers.DenseFlipout(1, kernel_prior=prior)
        >>> model = tfp_bnn.VariationalSequential([keras.Input((2,)), layer], likelihood="normal")
        >>> fixed = tfp_bnn.inference.with_fixed_parameters(model)
        >>> fixed.layers[0].variational_weights["kernel"].prior_spec.is_learned, fixed.layers[0].bias.trainable
        (False, False)
    """
    require_built_model(model, "with_fixed_parameters")
    priors = {
        f"{owner}/{name}": weight.fixed_prior()
        for owner, layer in layers_by_name(model).items()
        for name, weight in bayesian_weights(layer).items()
    }
    config = respecify(model.get_config(), "prior", priors)
    copy = type(model).from_config({**config, "calibration": None, "conformal": None})  # type: ignore[attr-defined]
    if not copy.built:
        copy.build(model.input_shape)  # type: ignore[attr-defined]
    known = weight_distributions(model)
    assign_weight_distributions(copy, {name: known[name] for name in weight_distributions(copy)})
    for layer in layers_by_name(copy).values():
        for variable in plain_variables(layer).values():
            variable.trainable = False
    for variable in copy.likelihood_weights.values():
        variable.trainable = False
    if model.num_examples is not None:
        copy.num_examples = model.num_examples
    return copy
