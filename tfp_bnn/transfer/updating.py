"""Bayesian updating with data that arrive in parts."""

from __future__ import annotations

from typing import Any

from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.transfer.informed_priors import informed_prior


def update(
    model: VariationalMixin,
    x: Any,
    y: Any = None,
    *,
    inflate: float = 1.0,
    mix: float | None = None,
    optimizer: Any = "adam",
    metrics: Any = None,
    **fit: Any,
) -> Any:
    """Updates a model with one more part of the data: fits the part with the posterior so far as the prior.

    p(w | D1, D2) is proportional to p(D2 | w) p(w | D1). With the variational posterior q1 instead of p(w | D1),
    fitting D2 alone approximates fitting D1 and D2 together, and D1 need not be kept. Whatever q1 does not represent is
    lost, such as correlations between weights. N is the number of examples of the part. The schedule of beta goes on
    where it was, at its final value once the warm-up is over.

    Args:
        model: Model trained on the parts so far. It is not changed.
        x: Inputs of the part, as in `fit`.
        y: Targets of the part, as in `fit`.
        inflate: As in `informed_prior`. 1, the default, is Bayes' rule; a larger factor forgets.
        mix: As in `informed_prior`.
        optimizer: As in `compile`, for this part: a name, or a Keras optimizer that has trained no other model.
        metrics: As in `compile`.
        **fit: Further arguments of `fit`, such as `epochs`, `batch_size` and `num_examples`.

    Returns:
        A trained model of the class of `model`, which can be updated again.

    Raises:
        ValueError: As in `informed_prior` and `fit`.
        TypeError: As in `informed_prior`.

    References:
        Nguyen et al. 2018, Variational continual learning, https://arxiv.org/abs/1710.10628

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> x, y = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
        >>> model = tfp_bnn.VariationalSequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(2)], seed=0)
        >>> model.compile("adam")
        >>> history = model.fit(x[:20], y[:20], verbose=0)
        >>> model = tfp_bnn.transfer.update(model, x[20:], y[20:], epochs=2, verbose=0)
        >>> model.num_examples
        20
    """
    updated = informed_prior(model, inflate, mix)
    updated.compile(optimizer, metrics=metrics)
    updated.fit(x, y, **fit)
    return updated
