"""What every Bayesian layer does as a Keras layer: names, arguments, shapes, variables, losses.

Outputs, KL, saving, precision and refusals are those of the conformance suite.
"""

from __future__ import annotations

import inspect
import itertools
import pydoc
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.noise import noise_scope
from tfp_bnn.layers import (
    Convolution2DFlipout,
    Convolution2DLocalReparameterization,
    Convolution2DReparameterization,
    DenseFlipout,
    DenseLocalReparameterization,
    DenseReparameterization,
    FilterResponseNormalizationReparameterization,
    GRUFlipout,
    HierarchicalDenseReparameterization,
    LSTMFlipout,
    MultiHeadAttentionFlipout,
)

from .conformance.cases import LAYERS, OPERATIONS, Case, operation_of

DENSE = [DenseFlipout, DenseReparameterization, DenseLocalReparameterization]
CONVOLUTIONS = [Convolution2DFlipout, Convolution2DReparameterization, Convolution2DLocalReparameterization]
# Those whose bias is deterministic unless it is given a posterior.
WITH_OPTIONAL_BIAS = [cls for cls in LAYERS if "bias" in cls.optional_weights]
# Those that have a kernel, and maybe a bias, and nothing else.
WITH_A_KERNEL = [cls for cls in LAYERS if list(cls.bayesian_weights) == ["kernel", "bias"]]
# The others have arguments of their own: see their tests.
LIKE_THEIR_TWIN = [cls for cls in LAYERS if cls is not HierarchicalDenseReparameterization]
# They hold weights that their twins have in inner layers, or as one: their own tests compare them.
WITH_WEIGHTS_LIKE_THEIR_TWIN = [cls for cls in LIKE_THEIR_TWIN if cls not in (GRUFlipout, MultiHeadAttentionFlipout)]
# Weights that are always deterministic.
DETERMINISTIC = {
    FilterResponseNormalizationReparameterization: {"tau"},
    MultiHeadAttentionFlipout: {f"{name}_bias" for name in ("query", "key", "value", "gate", "output")},
}
for_each_layer = pytest.mark.parametrize("cls", LAYERS)
# Where the estimator is all that differs, or that matters least.
for_some_layers = pytest.mark.parametrize("cls", [DenseFlipout, Convolution2DReparameterization])

BAYESIAN_BIAS = {"bias_posterior": "mean_field_normal"}
LEARNED = {"name": "normal", "scale": 0.5, "empirical_bayes": True}


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


def case_of(cls):
    return Case(cls, "mean_field_normal")


def make(cls, built=False, **kwargs):
    """A layer with its own defaults; with `built=True` its variables too."""
    layer = cls(**{**case_of(cls).operation.arguments, **kwargs})
    if built:
        layer.build(case_of(cls).input_shape)
    return layer


def inputs_of(cls, batch=2):
    return case_of(cls).inputs(batch)


def twin_of(cls, **kwargs):
    return OPERATIONS[operation_of(cls)].twin(**case_of(cls).operation.arguments, **kwargs)


def without_bias(cls):
    """The argument that leaves the bias out."""
    return {"bias_axes": None} if operation_of(cls) == "EinsumDense" else {"use_bias": False}


# === Names and arguments ===


def test_short_names_are_aliases():
    short = [name for name in tfp_bnn.layers.__all__ if name.startswith("Conv") and "Convolution" not in name]
    for name in [*short, "DepthwiseConv2DFlipout", "SeparableConv2DFlipout"]:
        long = name.replace("Conv", "Convolution")
        assert getattr(tfp_bnn.layers, name) is getattr(tfp_bnn.layers, long)
        assert f"Alias: `{name}`." in getattr(tfp_bnn.layers, long).__doc__ or "2D" not in name
    assert "Conv2DFlipout" in short


@for_each_layer
def test_layers_are_documented_keras_layers(cls):
    assert isinstance(make(cls), keras.layers.Layer)
    if cls not in (LSTMFlipout, GRUFlipout):
        assert isinstance(make(cls), OPERATIONS[operation_of(cls)].twin)
    assert re.search(r"^    \w+ ~ [pq]\(\w+\)", cls.__doc__, flags=re.MULTILINE)
    for part in ("outputs", "KL", "Example:", "References:", "https://"):
        assert part in cls.__doc__, part


@pytest.mark.parametrize("cls", LIKE_THEIR_TWIN)
def test_the_arguments_are_those_of_the_keras_twin_and_our_own_by_keyword(cls):
    of_twin = {
        name: parameter
        for name, parameter in inspect.signature(OPERATIONS[operation_of(cls)].twin).parameters.items()
        # What makes no sense with distributions; and dropout's seed, which is ours.
        if not name.startswith(("lora", "quantization", "gptq", "use_cudnn", "seed"))
    }
    ours = inspect.signature(cls).parameters
    own = [f"{prefix}_{role}" for prefix in cls.bayesian_weights.values() for role in ("prior", "posterior")]
    own += list(cls.own_arguments)
    assert [name for name in ours if name not in own] == list(of_twin)
    assert [name for name in ours if name not in of_twin] == own
    for name in own:
        assert ours[name].kind is inspect.Parameter.KEYWORD_ONLY, name
    for name, parameter in of_twin.items():
        assert ours[name].default == parameter.default, name


@for_each_layer
def test_help_shows_all_arguments(cls):
    page = pydoc.render_doc(cls, renderer=pydoc.plaintext)
    head = page[: page.index("Method resolution order")]
    for prefix in {name.removeprefix("group_") for name in cls.bayesian_weights.values()}:
        assert f"{prefix}_posterior" in head
        assert f"{prefix}_prior" in head
    assert re.search(r"\bseed\b[^,]*=\s?None", head)
    for name in case_of(cls).operation.arguments:
        assert name in head


def test_our_own_arguments_are_refused_by_position():
    positional = len(inspect.signature(keras.layers.Dense).parameters)
    with pytest.raises(TypeError, match="positional"):
        DenseFlipout(4, *[None] * positional)


# === Shapes ===


@pytest.mark.parametrize("shape", [(None, 3), (2, 3), (2, None, 3), (2, 5, 6, 3)])
@pytest.mark.parametrize("cls", DENSE)
def test_dense_output_shape_is_that_of_the_twin(cls, shape):
    assert cls(4).compute_output_shape(shape) == keras.layers.Dense(4).compute_output_shape(shape)


@pytest.mark.parametrize("cls", CONVOLUTIONS)
def test_convolution_output_shape_is_that_of_the_twin(cls):
    grid = {
        "kernel_size": [1, (3, 2)],
        "stride_and_dilation": [(1, 1), ((2, 3), 1), (1, (1, 2))],
        "padding": ["valid", "same"],
        "data_format": ["channels_last", "channels_first"],
        "groups": [1, 2],
        "batch": [None, 2],
    }
    combinations = list(itertools.product(*grid.values()))
    for kernel_size, (strides, dilation_rate), padding, data_format, groups, batch in combinations:
        shape = (batch, 4, 9, 8) if data_format == "channels_first" else (batch, 9, 8, 4)
        arguments = {
            "strides": strides,
            "padding": padding,
            "data_format": data_format,
            "dilation_rate": dilation_rate,
            "groups": groups,
        }
        layer = cls(6, kernel_size, **arguments)
        twin = keras.layers.Conv2D(6, kernel_size, **arguments)
        assert layer.compute_output_shape(shape) == twin.compute_output_shape(shape)
    assert len(combinations) == 96


@pytest.mark.parametrize("cls", WITH_WEIGHTS_LIKE_THEIR_TWIN)
def test_weights_have_the_shapes_of_the_twin(cls):
    layer, twin = make(cls, built=True), twin_of(cls)
    twin.build(case_of(cls).input_shape)
    shapes = {variable.name: tuple(variable.shape) for variable in twin.trainable_variables}
    ours = {name: weight.shape for name, weight in layer.variational_weights.items()}
    ours |= {name: tuple(getattr(layer, name).shape) for name in shapes if name not in ours}
    assert ours == shapes
    for weight in layer.variational_weights.values():
        assert weight.posterior.event_shape == weight.prior.event_shape == weight.shape


@for_each_layer
def test_symbolic_outputs_have_the_shape_and_dtype_of_real_ones(cls):
    outputs = make(cls)(inputs_of(cls))
    symbolic_inputs = tf.nest.map_structure(
        lambda array: keras.Input(array.shape[1:], dtype=array.dtype.name), inputs_of(cls)
    )
    symbolic = make(cls)(symbolic_inputs)
    assert symbolic.shape == (None, *outputs.shape[1:])
    assert symbolic.dtype == outputs.dtype.name == "float32"


# === Variables and distributions ===


@for_each_layer
def test_variables_have_names_and_shapes(cls):
    case = case_of(cls)
    layer = case.build(**case.of_all_weights("prior", LEARNED))
    expected = {}
    for name, weight in layer.variational_weights.items():
        expected |= {
            f"{name}_loc": weight.shape,
            f"{name}_untransformed_scale": weight.shape,
            f"{name}_prior_untransformed_scale": (),
        }
    found = {variable.name: tuple(variable.shape) for variable in layer.trainable_variables}
    plain = {name: found.pop(name) for name in DETERMINISTIC.get(cls, ())}
    assert found == expected
    assert layer.non_trainable_variables == []
    of_weights = [variable for weight in layer.variational_weights.values() for variable in weight.variables]
    bayesian = [variable for variable in layer.trainable_variables if variable.name not in plain]
    assert {id(variable) for variable in of_weights} == {id(variable) for variable in bayesian}


@pytest.mark.parametrize("cls", WITH_OPTIONAL_BIAS)
def test_a_deterministic_bias_is_a_plain_weight(cls):
    layer = make(cls, built=True)
    kernels = [name for name in cls.bayesian_weights if name not in cls.optional_weights]
    names = {variable.name for variable in layer.trainable_variables}
    assert names == {
        *cls.optional_weights,
        *(f"{name}_{part}" for name in kernels for part in ("loc", "untransformed_scale")),
    }
    assert layer.bias_posterior is None
    assert layer.bias_prior is None
    assert list(layer.variational_weights) == kernels
    config = layer.get_config()
    assert config["bias_posterior"] is config["bias_prior"] is None
    assert make(cls, built=True, **without_bias(cls)).bias is None


@pytest.mark.parametrize("cls", WITH_A_KERNEL)
def test_distributions_follow_the_variables(cls):
    layer = make(cls, built=True, **BAYESIAN_BIAS)
    before = layer.kernel_posterior
    layer.kernel.assign(np.full(layer.kernel.shape, 2.5))
    np.testing.assert_array_equal(layer.kernel_posterior.mean(), 2.5)
    assert layer.kernel_posterior is not before
    np.testing.assert_allclose(layer.kernel_posterior.stddev(), 0.05, rtol=1e-5)
    assert layer.kernel_prior.event_shape == layer.kernel.shape
    assert layer.bias_posterior.event_shape == layer.bias_prior.event_shape == layer.bias.shape


@pytest.mark.parametrize("cls", [cls for cls in LAYERS if cls is not MultiHeadAttentionFlipout])
def test_initializers_set_the_posterior_means(cls):
    parameters = inspect.signature(cls).parameters
    names = [name for name in parameters if name.endswith("_initializer")]
    if cls is HierarchicalDenseReparameterization:
        names = ["kernel_initializer", "bias_initializer"]
    # An LSTM sets part of its bias itself.
    options = {"unit_forget_bias": False} if cls is LSTMFlipout else {}
    values = {name: 1.0 + i for i, name in enumerate(names)}
    starts = {name: keras.initializers.Constant(value) for name, value in values.items()}
    layer = case_of(cls).build(**starts, **options)
    # Keras names that of a depthwise kernel after the kernel.
    prefixes = {"depthwise": "kernel", **{prefix: weight for weight, prefix in cls.bayesian_weights.items()}}
    assert len(values) >= 1
    for name, value in values.items():
        prefix = name.removesuffix("_initializer")
        weight = layer.variational_weights.get(prefixes.get(prefix, ""))
        np.testing.assert_array_equal(getattr(layer, prefix) if weight is None else weight.mean, value)


@pytest.mark.parametrize("cls", WITH_A_KERNEL)
def test_each_weight_has_the_prior_that_it_was_given(cls, randomize):
    layer = make(cls, built=True, **BAYESIAN_BIAS, bias_prior={"name": "normal", "scale": 2.0})
    p = randomize(layer)

    def kl(loc, scale, prior_scale):
        return (np.log(prior_scale / scale) + (scale**2 + loc**2) / (2 * prior_scale**2) - 0.5).sum()

    expected = kl(p["kernel_loc"], p["kernel_scale"], 1.0) + kl(p["bias_loc"], p["bias_scale"], 2.0)
    np.testing.assert_allclose(layer.kl(), expected, rtol=1e-5)


# === In a plain Keras model ===


@for_each_layer
def test_kl_weight_adds_the_kl_to_the_losses(cls):
    layer = make(cls, kl_weight=0.125)
    layer(inputs_of(cls))
    assert len(layer.losses) == 1
    assert layer.losses[0].dtype == tf.float32
    # The scales of a hierarchical layer are drawn again each time.
    spread = 0.1 if cls is HierarchicalDenseReparameterization else 1e-5
    np.testing.assert_allclose(layer.losses[0], 0.125 * layer.kl(), rtol=spread)
    without = make(cls)
    without(inputs_of(cls))
    assert without.losses == []


@pytest.mark.slow
@for_some_layers
def test_training_in_a_plain_model(cls):
    layer = make(cls, kl_weight=1e-3, kernel_prior=LEARNED, bias_prior=LEARNED, **BAYESIAN_BIAS)
    model = keras.Sequential([layer, keras.layers.Flatten()])
    inputs = inputs_of(cls, batch=32)
    targets = inputs.reshape(32, -1)[:, :1] * np.ones(model(inputs).shape)
    model.compile(keras.optimizers.Adam(0.05), loss="mse")
    before = [variable.numpy() for variable in model.trainable_variables]
    history = model.fit(inputs, targets, epochs=15, batch_size=32, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (variable.numpy() != old).any(), variable.name


@for_some_layers
def test_the_loss_of_a_plain_model_has_the_weighted_kl(cls):
    layer = make(cls, kl_weight=1e-3, **BAYESIAN_BIAS)
    model = keras.Sequential([layer, keras.layers.Flatten()])
    inputs = inputs_of(cls)
    targets = np.zeros(model(inputs).shape)
    model.compile(loss="mse", metrics=["mse"], run_eagerly=True)
    results = model.test_on_batch(inputs, targets, return_dict=True)
    assert results["loss"] == pytest.approx(results["mse"] + 1e-3 * float(layer.kl()), rel=1e-4)


@pytest.mark.parametrize("cls", DENSE)
def test_a_kl_without_closed_form_reuses_the_draw_of_the_layers_own_noise(cls):
    layer = make(cls, kernel_prior="scale_mixture", kl_weight=1.0, use_bias=False)
    # The unit vectors as inputs read the draw of the kernel off the outputs.
    for _ in range(2):
        draw = layer(np.eye(4, dtype=np.float32), training=False)
        expected = layer.kernel_posterior.log_prob(draw) - layer.kernel_prior.log_prob(draw)
        np.testing.assert_allclose(layer.losses[-1], expected, rtol=1e-4)


@pytest.mark.parametrize(
    "cls", [cls for cls in WITH_A_KERNEL if "kernel_regularizer" in inspect.signature(cls).parameters]
)
def test_regularizers_and_constraints_act_on_the_posterior_means(cls):
    layer = make(
        cls,
        built=True,
        **BAYESIAN_BIAS,
        bias_initializer="ones",
        kernel_regularizer=keras.regularizers.L2(0.5),
        bias_regularizer=keras.regularizers.L1(0.25),
        activity_regularizer=keras.regularizers.L2(0.125),
        kernel_constraint="non_neg",
    )
    outputs = layer(inputs_of(cls), training=True).numpy()
    weights = 0.5 * np.square(layer.kernel).sum() + 0.25 * np.abs(layer.bias).sum()
    activity = 0.125 * np.square(outputs).sum() / len(outputs)
    np.testing.assert_allclose(sum(layer.losses), weights + activity, rtol=1e-5)
    constrained = {variable.name: variable.constraint is not None for variable in layer.trainable_variables}
    assert [name for name, is_constrained in constrained.items() if is_constrained] == ["kernel_loc"]


@pytest.mark.parametrize("cls", WITH_OPTIONAL_BIAS)
def test_a_deterministic_bias_has_a_gradient(cls):
    layer = make(cls, built=True)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(inputs_of(cls), training=True) ** 2)
    assert (tape.gradient(loss, layer.bias.value).numpy() != 0.0).all()


@pytest.mark.parametrize("cls", WITH_A_KERNEL)
def test_gradients_equal_those_of_the_formula(cls, injected_noise, randomize):
    layer = make(cls, built=True, **without_bias(cls))
    randomize(layer)
    with noise_scope({id(layer): injected_noise}), tf.GradientTape() as tape:
        likelihood = tf.reduce_sum(layer(inputs_of(cls), training=False) ** 2)
    variables = [variable.value for variable in layer.trainable_variables]
    loc, untransformed_scale = tape.gradient(likelihood, variables)
    # d kernel / d untransformed scale = noise * sigmoid(untransformed scale), by the chain rule.
    chain = injected_noise.drawn["kernel"] * tf.sigmoid(variables[1])
    np.testing.assert_allclose(untransformed_scale, loc * chain, rtol=1e-4, atol=1e-5)
