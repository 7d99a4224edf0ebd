"""Monte Carlo dropout: dropout masks as draws of a posterior."""

from __future__ import annotations

from typing import Any

from tfp_bnn.inference.point_weights import dropout_layers, require_built_model, with_point_weights
from tfp_bnn.models.variational_mixin import VariationalMixin


def mc_dropout(model: VariationalMixin) -> Any:
    """A copy of a model, ready to be compiled and fitted, in which only the dropout masks are random.

        loss = -log p(y | w, masks) - beta * log p(w) / N,   in nats per example

    Every weight with a distribution becomes a point (the posterior `delta`) that starts at its posterior mean. A normal
    prior acts as the weight decay of the paper. The number of draws is unlimited; a draw is one mask per `MCDropout`
    layer, shared by all inputs. Training costs one forward pass, and prediction one per draw.

    Args:
        model: A built model with at least one `MCDropout` layer, trained or not. It is not changed.

    Returns:
        A model of the same class, built, not compiled.

    Raises:
        TypeError: If the model has no `VariationalMixin`.
        ValueError: If the model is not built, has no `MCDropout` with a positive rate, has a prior with a learned
            scale, or is a subclass that creates layers itself.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> layers = [keras.Input((2,)), tfp_bnn.layers.MCDropout(0.5), tfp_bnn.layers.DenseFlipout(3)]
        >>> dropout = tfp_bnn.inference.mc_dropout(tfp_bnn.VariationalSequential(layers, seed=0))
        >>> dropout.posterior_predictive(np.ones((1, 2)), num_samples=20).samples.shape
        (20, 1, 3)

    References:
        Gal and Ghahramani 2016, Dropout as a Bayesian Approximation, https://arxiv.org/abs/1506.02142
    """
    require_built_model(model, "mc_dropout")
    if not dropout_layers(model):
        raise ValueError(
            "The model has no `MCDropout` layer with a positive rate, so no mask to draw. Put "
            "tfp_bnn.layers.MCDropout(rate) after its hidden layers; keras.layers.Dropout is off in prediction."
        )
    return with_point_weights(model)
