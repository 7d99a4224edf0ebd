"""The table of Bayesian weights that `model.summary()` prints."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.layer_tree import sublayers
from tfp_bnn.core.noise import Noise, noise_scope
from tfp_bnn.layers.variational_weight import VariationalWeight
from tfp_bnn.likelihoods import LIKELIHOODS
from tfp_bnn.models.weight_record import own_weights
from tfp_bnn.posteriors import POSTERIORS
from tfp_bnn.priors import PRIORS

_WIDTH = 100


def print_bayesian_summary(model: Any, print_fn: Callable[[str], Any] | None = None) -> None:
    """Prints a table of the Bayesian weights of a model with their KL; nothing if the model is not built.

    KLs are in nats. One without a closed form is marked `~`: it is an estimate from one draw, the same at every call.
    The noise of the model does not change.

    Args:
        model: Variational model.
        print_fn: Function that takes the text. Default: `print`.
    """
    layers = [layer for layer in model.variational_layers if layer.built]
    if not model.built:
        return
    table = Table(title="Bayesian weights", title_justify="left", title_style="bold")
    for column in ("Layer", "Weight", "Shape", "Posterior", "Prior"):
        table.add_column(column, overflow="fold")
    table.add_column("KL (nats)", justify="right")
    count = 0
    with noise_scope(model._noise_of_layers(Noise(tf.constant((0, 0), tf.int64)))):
        for layer in layers:
            for weight in layer.variational_weights.values():
                count += int(np.prod(weight.shape))
                posterior = f"{POSTERIORS.name_of(weight.posterior_spec)}{_pruned(weight)}"
                kl = f"{_sign(weight)}{float(weight.kl(layer._noise(training=False))):.1f}"
                table.add_row(layer.name, weight.name, str(weight.shape), posterior, _prior(weight), kl)
        for term, kl in model.kl_by_layer().items():
            if term.startswith("prior/"):
                table.add_row(term, "", "", "", "", f"~{float(kl):.1f}")
        total = float(model.kl())
    bayesian = {id(layer) for layer in layers}
    names = [layer.name for layer in sublayers(model) if own_weights(layer) and id(layer) not in bayesian]
    lines = [
        f"{len(layers)} Bayesian layers, {count:,} Bayesian weights, KL {total:.1f} nats.",
        f"Deterministic layers with weights: {', '.join(names) or 'none'}.",
        *_chosen_estimators(layers),
    ]
    stream = io.StringIO()
    # In a notebook, rich would show the text instead of writing it to the stream.
    console = Console(file=stream, width=_WIDTH, force_jupyter=False)
    if layers:
        console.print(table)
    console.print("\n".join(lines), highlight=False)
    (print if print_fn is None else print_fn)(stream.getvalue().rstrip())


def one_line(model: Any) -> str:
    """What a variational model is, in one line: name, shapes, Bayesian weights, likelihood and N."""
    try:
        shapes = f"inputs {_shape(model.input_shape)}, outputs {_shape(model.output_shape)}"
    except (AttributeError, ValueError):
        shapes = "" if model.built else "not built"
    weights = [w for layer in model.variational_layers if layer.built for w in layer.variational_weights.values()]
    count = sum(int(np.prod(weight.shape)) for weight in weights)
    likelihood = LIKELIHOODS.name_of(model.likelihood)
    parts = [shapes, f"{count:,} Bayesian weights" if weights else "", f"likelihood {likelihood!r}"]
    parts += [f"N = {model.num_examples:,}" if model.num_examples else ""]
    return f"<{type(model).__name__} {model.name!r}: {', '.join(filter(None, parts))}>"


def _shape(shape: Any) -> str:
    """A shape without its batch axis; of several, in their structure."""
    if isinstance(shape, dict):
        return "{" + ", ".join(f"{name}: {_shape(of)}" for name, of in shape.items()) + "}"
    if shape and not isinstance(shape[0], int | None):
        return f"[{', '.join(map(_shape, shape))}]"
    return str(tuple(shape[1:]))


def _chosen_estimators(layers: list[Any]) -> list[str]:
    """A line for each estimator that layers have by an argument, and not by their class."""
    chosen: dict[str, list[str]] = {}
    for layer in layers:
        if layer.estimator is not type(layer).estimator:
            chosen.setdefault(layer.estimator.description, []).append(layer.name)
    return [f"{description[:1].upper()}{description[1:]}: {', '.join(names)}." for description, names in chosen.items()]


def _sign(weight: VariationalWeight) -> str:
    if weight.prior_spec.hyperprior is not None:
        return "~"
    try:
        tfd.kl_divergence(weight.posterior, weight.prior)
    except NotImplementedError:
        return "" if not weight.posterior_spec.has_spread else "~"
    return ""


def _pruned(weight: VariationalWeight) -> str:
    return f", {100 * (1 - weight.kept.mean()):.1f} % pruned" if weight.posterior_spec.pruned else ""


def _prior(weight: VariationalWeight) -> str:
    spec = weight.prior_spec
    name = PRIORS.name_of(spec)
    if spec.shared is not None:
        return f"{name}, shared as {spec.shared!r}"
    learned = weight.learned_prior_scale
    if learned is None:
        return name
    how = "learned" if spec.hyperprior is None else "inferred"
    if learned.size > 1:
        return f"{name}, {learned.size:,} {how} scales, median {np.median(learned):.3g}"
    return f"{name}, {how} scale {learned.item():.3g}"
