"""Where Keras decides by shape, the likelihood decides: metrics, class weights, and what the outputs are."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from tfp_bnn.core.layer_tree import graph_of, maker_of, replace_metrics
from tfp_bnn.likelihoods import Likelihood

_PROBABILITIES = ("softmax", "sigmoid")


def choose_metrics(model: Any, outputs: Any) -> None:
    """Lets the likelihood choose the metrics behind the names given to `compile`, before their first use.

    Raises:
        ValueError: If a metric would count missing targets, or metrics are for other outputs.
    """
    likelihood = model.likelihood
    of_heads = likelihood.by_head(outputs, "The outputs of the model")

    def choose(given: Any, weighted: bool) -> Any:
        chosen = {
            name: keras.tree.map_structure(
                lambda metric, name=name: _chosen(
                    metric, weighted, likelihood.heads.get(name, likelihood), of_heads[name].shape[-1]
                ),
                of_head,
            )
            for name, of_head in likelihood.by_head(given, "The metrics", partly=True).items()
        }
        return chosen if likelihood.heads else chosen[""]

    replace_metrics(model, choose)


def _chosen(given: Any, weighted: bool, likelihood: Likelihood, num_outputs: int) -> Any:
    if likelihood.missing is not None and not weighted and not _applies_masks(given):
        raise ValueError(
            f"The metric {given!r} cannot skip missing targets, because it does not apply masks. Pass it to "
            "`compile` as one of `weighted_metrics`: missing targets have the weight 0 there."
        )
    return likelihood.keras_metric(given, num_outputs)


def _applies_masks(given: Any) -> bool:
    metric = keras.metrics.get(given)
    ours = type(metric).__module__.startswith("tfp_bnn.")
    # Keras wraps a function in a `MeanMetricWrapper`.
    return ours or not isinstance(metric, keras.metrics.Metric) or isinstance(metric, keras.metrics.MeanMetricWrapper)


def check_class_weight(model: Any, y: Any, class_weight: Any) -> None:
    """Refuses class weights where there are no classes, or where Keras would take the wrong ones.

    Raises:
        ValueError: If the targets are numbers or several labels, or have positions. The message says what to pass.
    """
    if class_weight is None:
        return
    if model.likelihood.heads:
        raise ValueError(
            f"`class_weight` is for a single output, but the likelihood has the heads {list(model.likelihood.heads)}. "
            "Pass weights for each as `sample_weight`, such as np.array([1.0, 10.0])[y['class']] for the head 'class'."
        )
    outputs = getattr(model, "outputs", None)
    columns = y.shape[-1] if len(getattr(y, "shape", ())) > 1 else 1
    channels = outputs[0].shape[-1] if outputs else columns
    kind = model.likelihood.target_kind(channels)
    if kind == "number":
        raise ValueError(
            f"`class_weight` is for classes, but the targets of the likelihood {model.likelihood!r} are numbers. Pass "
            "a weight for each example as `sample_weight`."
        )
    if kind == "labels":
        raise ValueError(
            f"`class_weight` is for one class of several, but each example has {channels} labels, and Keras would only "
            "weight the first one that is on. Pass a weight for each label as `sample_weight` of the shape of `y`, as "
            "in np.where(y == 1, 10.0, 1.0)."
        )
    if outputs and len(outputs[0].shape) > 2:
        raise ValueError(
            f"`class_weight` is for one class for each example, but the outputs have the shape "
            f"{tuple(outputs[0].shape)}, with a class at each position. Pass a weight for each position as "
            "`sample_weight`, such as np.array([1.0, 10.0])[y]."
        )


def warn_of_probabilities(network: keras.Model, likelihood: Likelihood) -> None:
    """Warns if a network ends in a softmax or sigmoid, and the likelihood takes logits and would apply another."""
    if not network.built or not network.outputs:
        return
    outputs = graph_of(network).output if likelihood.heads else network.outputs[0]
    for name, output in likelihood.by_head(outputs, "The outputs of the model").items():
        _warn_of_probabilities(output, likelihood.heads.get(name, likelihood))


def _warn_of_probabilities(output: keras.KerasTensor, likelihood: Likelihood) -> None:
    if likelihood.output_activation is None:
        return
    operation, _ = maker_of(output)
    while isinstance(operation, keras.Model) and graph_of(operation).outputs:
        operation, _ = maker_of(graph_of(operation).outputs[0])
    activation = getattr(getattr(operation, "activation", None), "__name__", type(operation).__name__.lower())
    if activation in _PROBABILITIES and not isinstance(operation, keras.layers.RNN):
        warnings.warn(
            f"The network ends in the {activation} of {operation.name!r}, but the likelihood {likelihood!r} takes "
            f"logits and applies the {likelihood.output_activation} itself: no probability can come near 1. Remove the "
            "activation from the last layer.",
            stacklevel=5,
        )
