"""Maximum likelihood: the weights under which the data are most probable, without a prior."""

from __future__ import annotations

from typing import Any

from tfp_bnn.inference.point_weights import require_built_model, require_no_dropout, with_point_weights
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.priors import Flat


def maximum_likelihood(model: VariationalMixin) -> Any:
    """A copy of a model, ready to be compiled and fitted, whose optimum is the maximum of the likelihood.

        loss = -log p(y | w),   in nats per example

    It is the MAP estimate under the prior `flat`, which takes the place of all priors of the model, learned ones too.
    Every weight with a distribution becomes a point (the posterior `delta`) that starts at its posterior mean. It is
    the ordinary network, and the baseline of all other methods. Training and prediction cost one forward pass each.

    Args:
        model: A built model, trained or not. It is not changed.

    Returns:
        A model of the same class, built, not compiled. `way_of` calls it `"maximum_likelihood"`.

    Raises:
        TypeError: If the model has no `VariationalMixin`.
        ValueError: If the model is not built, has an `MCDropout` layer, or is a subclass that creates layers itself.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> model = tfp_bnn.VariationalSequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(3)], seed=0)
        >>> plain = tfp_bnn.inference.maximum_likelihood(model)
        >>> plain.compile("adam")
        >>> history = plain.fit(np.zeros((8, 2)), np.zeros(8), verbose=0)
        >>> history.history["kl"]
        [0.0]
    """
    require_built_model(model, "maximum_likelihood")
    require_no_dropout(model)
    return with_point_weights(model, prior=Flat())
