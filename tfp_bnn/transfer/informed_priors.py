"""The posterior of one data set as the prior for the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfp_bnn.core.arguments import is_number, require_positive
from tfp_bnn.core.layer_tree import sublayers
from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.layers.variational_weight import VariationalWeight
from tfp_bnn.models.derived_state import derive_state
from tfp_bnn.models.respecify import respecify
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.models.weight_record import bayesian_weights, freeze_like, layers_by_name, plain_variables
from tfp_bnn.posteriors import POSTERIORS
from tfp_bnn.priors import Informed


def informed_prior(
    model: VariationalMixin, inflate: float = 1.0, mix: float | None = None, broad_scale: float = 1.0
) -> Any:
    """Copies a trained model with its posterior as the prior, ready to be compiled and trained further.

    Every Bayesian weight with posterior mean mu and standard deviation sigma gets the prior N(mu, (inflate * sigma)^2)
    and starts at the posterior. Pruned weights stay pruned. Everything else is copied: deterministic weights such as
    biases and whether they are trainable, the likelihood, the schedule of beta, the seed. The schedule goes on where it
    was: a warm-up that is over does not start again, unless `num_steps = 0` is set on the copy. The prior is part of
    the copy and saved with it. The copy has no calibration, because that belongs to the old posterior, and no
    `num_examples` from the constructor, because that belongs to the old data.

    `inflate=1` is Bayes' rule, for data of the same task that arrive in parts. If the task changes, this prior is too
    tight: a mean-field posterior is narrower than the true one, and does not know how far away another task is.
    `zoo.fine_tune` and `choose_inflate` choose the factor from the data.

    Args:
        model: Trained `VariationalModel` or `VariationalSequential`, or a subclass whose config holds its layers.
        inflate: Factor of the standard deviations, > 0. Default: 1.
        mix: Probability of a broad component N(0, broad_scale^2) of the prior, in (0, 1), which lets weights leave a
            wrong prior mean; see `tfp_bnn.priors.Informed`. Default: None, no broad component.
        broad_scale: Standard deviation of that component, > 0. Default: 1.

    Returns:
        A built, uncompiled model of the class of `model`, which is not changed.

    Raises:
        ValueError: If a number is out of range, the model is not built or has no Bayesian layers, a posterior has no
            spread (`delta`), or a subclass creates its layers itself.
        TypeError: If the model is not Bayesian.

    References:
        Nguyen et al. 2018, Variational continual learning, https://arxiv.org/abs/1710.10628

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> model = tfp_bnn.VariationalSequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(3)], seed=0)
        >>> tuned = tfp_bnn.transfer.informed_prior(model, inflate=2.0)
        >>> weight = tuned.layers[0].variational_weights["kernel"]
        >>> bool(np.allclose(weight.prior.stddev(), 2 * weight.posterior.stddev()))
        True
    """
    require_positive("informed_prior", "inflate", inflate)
    if mix is not None and not (is_number(mix) and 0 < mix < 1):
        raise ValueError(f"`mix` must lie between 0 and 1, or be None for no broad component, but got {mix!r}.")
    require_bayesian_layers(model)
    prior = Informed(mix=mix or 0.0, broad_scale=broad_scale)
    config = respecify(model.get_config(), "prior", prior)
    config = {**config, "calibration": None, "conformal": None, "num_examples": None}
    copy = type(model).from_config(config)  # type: ignore[attr-defined]
    if any(spec != prior for layer in copy.variational_layers for _, spec in layer.distribution_specs.values()):
        raise ValueError(
            f"{type(model).__name__} creates its layers itself: their priors are not part of its config. Give "
            "them kernel_prior='informed' in its code, make a new model, and use tfp_bnn.transfer.transfer_posterior."
        )
    if not copy.built:
        copy.build(model.input_shape)  # type: ignore[attr-defined]
    transfer_posterior(model, copy, inflate)
    freeze_like(copy, model)
    copy.num_steps = model.num_steps
    return copy


def transfer_posterior(
    source: VariationalMixin, target: VariationalMixin, inflate: float | None = 1.0, new_layers: Sequence[str] = ()
) -> None:
    """Uses the posterior of one model as the prior and the initial posterior of another.

    Layers are matched by name. All weights are transferred, those without a distribution by value. The layers in
    `new_layers`, such as a head for other classes, keep their weights and their prior.

    Args:
        source: Trained model, which is not changed.
        target: Built model whose Bayesian layers, except the new ones, have the prior `informed`.
        inflate: Factor of the standard deviations of `source`, > 0: the prior is N(mu, (inflate * sigma)^2). With None
            the target keeps its own priors, whatever they are, and only starts from the posterior. Default: 1.
        new_layers: Names of layers of `target` that the source does not have.

    Raises:
        ValueError: If `inflate <= 0`, a name in `new_layers` is unknown, or the models do not match. The message lists
            all names, shapes, dtypes and priors that differ. Nothing is changed then.
    """
    if inflate is not None:
        inflate = require_positive("transfer_posterior", "inflate", inflate)
    for model in (source, target):
        require_bayesian_layers(model, spread=inflate is not None)
    known, wanted = layers_by_name(source), layers_by_name(target)
    for name in new_layers:
        if name not in wanted:
            raise ValueError(unknown_name_message("new layer", name, sorted(wanted)))
    known, wanted = ({n: layer for n, layer in of.items() if n not in new_layers} for of in (known, wanted))
    different = [f"{name!r} is in the source only" for name in known if name not in wanted]
    different += [f"{name!r} is in the target only" for name in wanted if name not in known]
    for name in wanted:
        if name in known:
            different += _differences(name, known[name], wanted[name], informed=inflate is not None)
    if different:
        raise ValueError(f"The models do not match: {'; '.join(different)}. Name new layers of the target as such.")
    for name, layer in wanted.items():
        _take_over(known[name], layer, inflate)
    derive_state(target)
    if source.likelihood == target.likelihood:
        target.likelihood.assign_parameters(
            target.likelihood_weights, source.likelihood.parameters(source.likelihood_weights)
        )


def require_bayesian_layers(model: Any, spread: bool = True) -> None:
    """Refuses models without a posterior that could be transferred.

    Args:
        model: Model.
        spread: Whether its posterior must have a spread, as that of a prior must.

    Raises:
        TypeError: If the model is not Bayesian.
        ValueError: If it is not built, has no Bayesian layer, or has a posterior without a spread that must have one.
    """
    if not isinstance(model, VariationalMixin):
        raise TypeError(
            f"Expected a Bayesian model, but got a {type(model).__name__}, whose weights have no posterior. Make one "
            "of a Keras model with tfp_bnn.transfer.to_bayesian."
        )
    if not model.built:  # type: ignore[attr-defined]
        raise ValueError("The model is not built and has no weights. Call it on data, or build it, first.")
    layers = model.variational_layers
    if not layers:
        names = ", ".join(f"{layer.name} ({type(layer).__name__})" for layer in sublayers(model))
        raise ValueError(f"The model has no Bayesian layer whose posterior could be a prior. Its layers: {names}.")
    for layer in layers:
        for weight in layer.variational_weights.values():
            if spread and not weight.posterior_spec.has_spread:
                raise ValueError(
                    f"The posterior of {layer.name}/{weight.name} is {weight.posterior_spec!r}, a point without a "
                    "spread, which cannot be a prior. Train with a posterior that has one, such as 'mean_field_normal'."
                )


def _differences(name: str, source: keras.layers.Layer, target: keras.layers.Layer, informed: bool) -> Iterator[str]:
    known, wanted = bayesian_weights(source), bayesian_weights(target)
    if known.keys() != wanted.keys():
        yield f"{name!r} has the Bayesian weights {sorted(known)} in the source, {sorted(wanted)} in the target"
        return
    for key, weight in wanted.items():
        if weight.shape != known[key].shape:
            yield f"{name}/{key} has the shape {known[key].shape} in the source, {weight.shape} in the target"
        posteriors = [_kind_of_posterior(of) for of in (known[key], weight)]
        if posteriors[0] != posteriors[1]:
            yield f"{name}/{key} has the posterior {posteriors[0]} in the source, {posteriors[1]} in the target"
        if informed and not isinstance(weight.prior_spec, Informed):
            yield f"{name}/{key} has the prior {weight.prior_spec!r} in the target, not 'informed'"
    values, variables = plain_variables(source), plain_variables(target)
    for key in sorted(values.keys() | variables.keys()):
        found = [of[key] if key in of else None for of in (values, variables)]
        described = ["nothing" if v is None else f"{v.dtype} {tuple(v.shape)}" for v in found]
        if described[0] != described[1]:
            yield f"{name}/{key} is {described[0]} in the source, {described[1]} in the target"


def _kind_of_posterior(weight: VariationalWeight) -> str:
    """Returns the posterior family, and the shapes of parameters that do not have the shape of the weight."""
    own = {name: value.shape for name, value in weight.posterior_parameters().items() if value.shape != weight.shape}
    pruned = ", pruned" if weight.posterior_spec.pruned else ""
    return f"{POSTERIORS.name_of(weight.posterior_spec)}{pruned}" + (f" {own}" if own else "")


def _take_over(source: keras.layers.Layer, target: keras.layers.Layer, inflate: float | None) -> None:
    values = plain_variables(source)
    for key, variable in plain_variables(target).items():
        variable.assign(values[key])
    for key, weight in bayesian_weights(target).items():
        known = bayesian_weights(source)[key]
        prior = weight.prior_parameters()
        if inflate is not None:
            scale = inflate * np.sqrt(np.asarray(known.variance))
            # The prior of a pruned weight has no effect, but a scale must be positive.
            prior = {"loc": np.asarray(known.mean), "scale": np.where(known.kept, scale, np.float32(1))}
        weight.assign(known.posterior_parameters(), prior)
