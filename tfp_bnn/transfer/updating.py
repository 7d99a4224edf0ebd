"""Bayesian updating: data that arrive in parts."""

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
    """A model that has seen one more part of the data: the posterior so far is the prior, and the part is fitted.

    p(w | D1, D2) is proportional to p(D2 | w) p(w | D1). With the variational posterior q1 in the place of p(w | D1),
    fitting D2 alone approximates fitting D1 and D2 together, and D1 need not be kept. What is lost is what q1 leaves
    out, such as correlations between weights. N is the number of examples of the part.

    Args:
        model: trained on the parts so far; stays as it is.
        x: the part, as in `fit`.
        y: its targets, as in `fit`.
        inflate: as in `informed_prior`; 1 is Bayes' rule, more forgets.
        mix: as in `informed_prior`.
        optimizer: as in `compile`, for this part: a name, or an object of Keras that has trained no other model.
        metrics: as in `compile`.
        **fit: further arguments of `fit`, such as `epochs`, `batch_size` and `num_examples`.

    Returns:
        A trained model of the class of `model`; it can be updated again.

    Raises:
        ValueError: as in `informed_prior` and `fit`.
        TypeError: as in `informed_prior`.

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
