"""What `fit` and `evaluate` of a variational model do before the first step."""

from __future__ import annotations

import warnings
import weakref
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.layer_tree import build_state_of_training, sublayers
from tfp_bnn.models.data_checks import is_arrays, shape_of_targets
from tfp_bnn.variational.natural_gradient import NaturalGradient

NEGATIVE_ELBO = "negative_elbo"
"""The loss of a variational model, by name. It is not compiled: the model computes it itself."""
_POSTERIORS = "_posteriors_of_it"


def renew_step(model: Any, mode: str, x: Any, y: Any) -> None:
    """Retraces the step for targets of another form: Keras would trace it for targets of any form."""
    shape = shape_of_targets(x, y)
    if getattr(model, f"_{mode}_targets", shape) != shape:
        setattr(model, f"{mode}_function", None)
    setattr(model, f"_{mode}_targets", shape)


def build_before_tracing(model: Any, x: Any, y: Any, sample_weight: Any) -> None:
    """Creates the variables of optimizer and metrics, where the data tell their shapes, so that Keras traces once."""
    if not (model.built and model.compiled) or model.run_eagerly or model.optimizer.built:
        return
    batch = getattr(x, "element_spec", None)
    if isinstance(x, keras.utils.PyDataset):
        # Keras looks at its first batches as well.
        batch = x[0]
    elif is_arrays(x):
        batch = (x, y) if sample_weight is None else (x, y, sample_weight)
    if not isinstance(batch, tuple) or not 2 <= len(batch) <= 3:
        return
    leaves = keras.tree.flatten(batch)
    if all(isinstance(leaf, tf.TensorSpec) or is_arrays(leaf) for leaf in leaves):
        specs = [tf.TensorSpec((None, *leaf.shape[1:]), leaf.dtype) for leaf in leaves]
        build_state_of_training(model, keras.tree.pack_sequence_as(batch, specs))


def tell_of_training(network: Any, posterior: Any) -> None:
    """Lets a posterior that is made of a network lose its calibration when the network is trained further."""
    # Beside the attributes that Keras tracks and saves; a posterior that nobody holds is forgotten.
    network.__dict__.setdefault(_POSTERIORS, weakref.WeakSet()).add(posterior)


def forget_calibration(model: Any) -> None:
    """Drops calibration and conformal prediction of a model that is about to be trained, with a warning.

    So do the posteriors that are made of it, such as ensembles.
    """
    # A model that is not compiled is not trained: Keras refuses it.
    if not model.compiled:
        return
    _forget(model, "The model", "model")
    for posterior in model.__dict__.get(_POSTERIORS, ()):
        _forget(posterior, f"The posterior {posterior.name!r}, which is made of the model {model.name!r},", "posterior")


def forget_calibration_of(posterior: Any, change: str) -> None:
    """Drops calibration and conformal prediction of a posterior that is about to be changed otherwise, with a warning.

    Args:
        posterior: The posterior.
        change: What changes it, for the message, such as "a new `prior_precision`".
    """
    _forget(posterior, f"The posterior {posterior.name!r}", "posterior", change)


def _forget(model: Any, title: str, name: str, change: str = "training") -> None:
    if model.conformal is not None:
        warnings.warn(
            f"{title} had a conformal prediction, {model.conformal!r}, but {change} changes the posterior that this "
            f"was fitted to: {name}.conformal is None now. Fit it again after that, with tfp_bnn.conformalize.",
            stacklevel=4,
        )
        model.conformal = None
    if model.calibration is not None:
        warnings.warn(
            f"{title} was calibrated, {model.calibration!r}, but {change} changes the posterior that this was fitted "
            f"to: {name}.calibration is None now. Calibrate again after that, with tfp_bnn.calibrate.",
            stacklevel=4,
        )
        model.calibration = None


def check_setup(model: Any) -> None:
    """Refuses a model that was compiled with a loss, or has a layer with `kl_weight` or not for its way of training."""
    refuse_kl_weights(model)
    _refuse_draws_with_state(model)
    model.objective.check(model.variational_layers)
    loss = model.loss
    if loss != NEGATIVE_ELBO:
        raise ValueError(
            f"The model was compiled with loss={loss!r}, but its loss is the negative ELBO of its likelihood, "
            f"{model.likelihood!r}. Compile without `loss`, as in model.compile('adam', metrics=['accuracy'])."
        )


def natural_gradient_of(model: Any) -> NaturalGradient | None:
    """The natural gradient that a model was compiled with, if it was."""
    optimizer = getattr(model, "optimizer", None)
    # Under mixed_float16 Keras wraps the optimizer in one that scales the loss.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return optimizer if isinstance(optimizer, NaturalGradient) else None


def attach_optimizer(model: Any) -> None:
    """Gives the optimizer the weight of the KL, and checks the posteriors, if it is a natural gradient."""
    optimizer = natural_gradient_of(model)
    if optimizer is not None:
        optimizer.attach(model, lambda: tf.convert_to_tensor(model._beta) / tf.convert_to_tensor(model._num_examples))


def beta_of_step(model: Any, step: tf.Tensor) -> tf.Tensor:
    """Beta at a step of training, counted from 0, which the optimizer must be able to use; float32 scalar."""
    beta = model.beta_schedule(step)
    optimizer = natural_gradient_of(model)
    if optimizer is None:
        return beta
    with tf.control_dependencies(optimizer.require_beta(beta, step, model.beta_schedule)):
        return tf.identity(beta)


def _refuse_draws_with_state(model: Any) -> None:
    """Refuses several draws of a batch through layers that start where the last forward pass ended."""
    with_state = [layer.name for layer in sublayers(model) if getattr(layer, "stateful", False)]
    if model.num_draws > 1 and with_state:
        raise ValueError(
            f"The layers {', '.join(with_state)} have stateful=True, so each of the num_draws={model.num_draws} "
            "forward passes of a training step would start from the final state of the one before, instead of that of "
            "the batch before. Set model.num_draws = 1, or build the layers with stateful=False."
        )


def refuse_kl_weights(model: Any) -> None:
    """Refuses layers that scale their KL themselves: the model would count it twice."""
    for layer in model.variational_layers:
        if layer.kl_weight is not None:
            raise ValueError(
                f"The layer {layer.name!r} has kl_weight={layer.kl_weight}, which is for plain Keras models: "
                f"{type(model).__name__} scales the KL itself and would count it twice. Remove `kl_weight`; use "
                "`beta_schedule` to weight the KL."
            )


def set_num_examples(model: Any, counted: int | None, given: int | None) -> None:
    """Sets N as given, as counted or as declared in the constructor, in this order. ValueError if none is known."""
    if counted == 0:
        raise ValueError("The training set is empty. Expected at least one example.")
    if counted is not None and given is not None and counted != given:
        warnings.warn(
            f"num_examples={given} was given, but the data have {counted} examples; {given} is used.", stacklevel=3
        )
    known = (number for number in (given, counted, model._declared_num_examples) if number is not None)
    number = next(known, None)
    if number is None:
        raise ValueError(
            "N, the number of training examples, cannot be counted in these data, and the ELBO divides the KL by "
            "it. Pass it, as in model.fit(data, num_examples=60000). (Arrays are counted, and `tf.data` pipelines "
            "without filters; a generator hides the number, and a PyDataset can declare it as `num_examples`.)"
        )
    model.num_examples = number
