"""A variational Bayesian last layer: points below it, and a bound that needs no samples."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.layer_tree import graph_of, maker_of, sublayers
from tfp_bnn.inference.point_weights import dropout_layers, require_built_model, with_point_weights
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.likelihoods.normal_outputs import set_variance
from tfp_bnn.models.functional import VariationalModel
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.models.weight_record import assign_weight_distributions, freeze_like, weight_distributions
from tfp_bnn.variational.objectives import OBJECTIVES, Elbo


@keras.saving.register_keras_serializable(package="tfp_bnn")
class LastLayerModel(VariationalModel):
    """A `VariationalModel` that is trained on a bound without samples, because its last layer alone is random.

    See `tfp_bnn.inference.vbll`, which makes one of any network.

    Args:
        inputs: As in `VariationalModel`.
        outputs: Outputs of a Bayesian dense layer without activation and with independent normal posteriors.
        name: Name of the model.
        **kwargs: Arguments of `VariationalMixin`.

    Raises:
        ValueError: If the outputs are those of another layer, or of an operation after it; if the layer is used more
            than once or has an activity regularizer; if other layers are random, or `objective` is not `"elbo"`.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(inputs, outputs, name=name, **kwargs)
        layer, _ = _last_layer(self.network)
        random = [other.name for other in self.stochastic_layers if other.is_random and other is not layer]
        if random:
            raise ValueError(
                f"Only the last layer can be random, but {', '.join(random)} are too. Use posterior 'delta'."
            )

    @VariationalMixin.objective.setter  # type: ignore[attr-defined]
    def objective(self, value: Any) -> None:
        """What training minimizes, `"elbo"`: others are made of draws, and there are none."""
        if not isinstance(OBJECTIVES.get(value), Elbo):
            raise ValueError(
                f"`objective` of a {type(self).__name__} must be 'elbo', but got {value!r}, which is made of draws; "
                "this model is trained on a bound without draws. Train the network that it was made of."
            )
        VariationalMixin.objective.fset(self, value)  # type: ignore[attr-defined]

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The raw outputs: in training their means, marked with their variances; otherwise those of one draw."""
        if not training:
            return super().call(inputs, training=training, mask=mask)
        layer, below = _last_layer(self.network)
        features = tf.cast(below(inputs, training=True, mask=mask), tf.float32)
        weights = layer.variational_weights
        mean = features @ weights["kernel"].mean
        variance = tf.square(features) @ weights["kernel"].variance
        if "bias" in weights:
            mean, variance = mean + weights["bias"].mean, variance + weights["bias"].variance
        elif layer.bias is not None:
            mean += tf.cast(tf.convert_to_tensor(layer.bias), tf.float32)
        return set_variance(mean, variance)


def vbll(model: VariationalMixin, name: str | None = None) -> LastLayerModel:
    """A copy of a model with a variational last layer, ready to be compiled and fitted on a bound without samples.

        loss = -E_q[log p(y | features' w)] + beta * (KL(q(w) || p(w)) - log p(others)) / N,   in nats per example

    The outputs of a dense layer are normal under q, so the expectation is exact for numbers with normal noise. For
    classes and labels it is bounded by Jensen's inequality. All other weights become points (the posterior `delta`)
    that start at their posterior means. Training costs one forward pass and no noise. In prediction and `evaluate` a
    draw is one draw of the last layer, and the number of draws is unlimited.

    The copy has this bound whatever the objective of the model, and no calibration.

    The posterior of the last layer is independent per weight; that of the paper has a full covariance for each output.

    Args:
        model: A built model with Bayesian layers, whose last layer is dense; trained or not. It is not changed.
        name: Name of the copy. Default: that of the model.

    Returns:
        A `LastLayerModel`, built, not compiled.

    Raises:
        TypeError: If the model has no `VariationalMixin`.
        ValueError: If the model is not built, has an `MCDropout` layer, a prior with a learned scale, or is no
            functional or sequential model; if its outputs are not those of a dense layer that is used once, without
            activation and with the posterior `mean_field_normal`; if the likelihood is none of `normal`, `categorical`
            and `bernoulli`, when it is trained.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> layers = [keras.Input((2,)), tfp_bnn.layers.DenseFlipout(8, activation="tanh")]
        >>> layers += [tfp_bnn.layers.DenseFlipout(1)]
        >>> model = tfp_bnn.inference.vbll(tfp_bnn.VariationalSequential(layers, likelihood="normal", seed=0))
        >>> model.compile("adam")
        >>> history = model.fit(np.zeros((8, 2)), np.zeros(8), verbose=0)
        >>> model.posterior_predictive(np.ones((1, 2)), num_samples=20).samples.shape
        (20, 1, 1)

    References:
        Harrison, Willes and Snoek 2024, Variational Bayesian Last Layers, https://arxiv.org/abs/2404.11599
    """
    require_built_model(model, "vbll")
    dropped = dropout_layers(model)
    if dropped:
        raise ValueError(f"The layers {', '.join(dropped)} stay random in prediction. Remove them.")
    points = with_point_weights(model)
    if not hasattr(points, "network"):
        raise ValueError(f"`vbll` takes functional and sequential models, but got {type(model).__name__}.")
    copy = last_layer_model(points, model.network, name or model.name)  # type: ignore[attr-defined]
    known = weight_distributions(model)
    assign_weight_distributions(copy, {key: known[key] for key in weight_distributions(copy)})
    freeze_like(copy, model)
    if model.num_examples is not None:
        copy.num_examples = model.num_examples
    return copy


def last_layer_model(points: VariationalModel, network: keras.Model, name: str) -> LastLayerModel:
    """The layers of a network of points with another last layer, and everything else that the network has.

    Args:
        points: A built network. The new model has its layers, but for the last.
        network: The same network, with the last layer whose config the new last layer has.
        name: Name of the model.

    Raises:
        ValueError: As in `LastLayerModel`.
    """
    last, _ = _last_layer(network)
    _, features = maker_of(graph_of(points.network).outputs[0])
    return LastLayerModel(
        graph_of(points.network).input,
        type(last).from_config(last.get_config())(*features),
        name=name,
        likelihood=points.likelihood,
        beta_schedule=points.beta_schedule,
        seed=points.seed,
        class_names=points.class_names,
        target_units=points.target_units,
        inputs_expected=points.inputs_expected,
    )


def _last_layer(network: keras.Model) -> tuple[Any, keras.Model]:
    """The layer that makes the outputs of a network, and the model of its inputs. ValueError if it has no bound."""
    # Not the last of `network.layers`: these hold no operations, such as a sum of two layers.
    layer, features = maker_of(graph_of(network).outputs[0])
    if (
        len(network.outputs) != 1
        or not isinstance(layer, VariationalLayer)
        or not isinstance(layer, keras.layers.Dense)
        or layer.activation is not keras.activations.linear
        or len(features[0].shape) != 2
        or not all(posterior.independent_normal for posterior, _ in layer.distribution_specs.values())
    ):
        raise ValueError(
            "The outputs must be those of one Bayesian dense layer such as DenseFlipout, on inputs of rank 2, without "
            "activation and with the posterior 'mean_field_normal': only these have a variance in closed form. The "
            f"last layer, {layer.name!r}, is {type(layer).__name__}."
        )
    # Not an attribute of the model: Keras would save its layers twice.
    below = keras.Model(network.inputs, features[0])
    if any(part is layer for part in sublayers(below)):
        raise ValueError(
            f"The last layer, {layer.name!r}, is used below as well, so its outputs have no variance in closed form. "
            "Use a layer of its own for the outputs."
        )
    if layer.activity_regularizer is not None:
        raise ValueError(
            f"The last layer, {layer.name!r}, has an activity regularizer, but no draw of its outputs is made in "
            "training. Remove it; a prior keeps the weights small."
        )
    return layer, below
