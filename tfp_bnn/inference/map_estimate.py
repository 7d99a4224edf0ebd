"""The maximum a posteriori (MAP): the one most probable set of weights."""

from __future__ import annotations

from typing import Any

from tfp_bnn.inference.point_weights import require_built_model, require_no_dropout, with_point_weights
from tfp_bnn.models.variational_mixin import VariationalMixin


def map_estimate(model: VariationalMixin) -> Any:
    """A copy of a model, ready to be compiled and fitted, whose optimum is the maximum a posteriori.

        loss = -log p(y | w) - beta * log p(w) / N,   in nats per example

    Every weight with a distribution becomes a point (the posterior `delta`) that starts at its posterior mean. Its
    "KL" is -log p(w), up to a constant. There is only one draw, so the predictive has no epistemic uncertainty.
    Training and prediction cost one forward pass each.

    Args:
        model: A built model with Bayesian layers, trained or not. It is not changed.

    Returns:
        A model of the same class, built, not compiled.

    Raises:
        TypeError: If the model has no `VariationalMixin`.
        ValueError: If the model is not built, has no Bayesian layer, has an `MCDropout` layer or a prior with a learned
            scale, or is a subclass that creates layers itself.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> model = tfp_bnn.VariationalSequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(3)], seed=0)
        >>> point = tfp_bnn.inference.map_estimate(model)
        >>> point.compile("adam")
        >>> history = point.fit(np.zeros((8, 2)), np.zeros(8), verbose=0)
        >>> point.posterior_predictive(np.zeros((1, 2)), num_samples=100).num_samples
        1
    """
    require_built_model(model, "map_estimate")
    if not model.variational_layers:
        raise ValueError(
            "The model has no Bayesian layer, so its weights have no prior. Use layers such as DenseReparameterization."
        )
    require_no_dropout(model)
    return with_point_weights(model)
