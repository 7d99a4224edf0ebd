"""What every Bayesian layer does as a Keras layer: configs, saving, losses, dtypes, gradients, refusals."""

from __future__ import annotations

import inspect
import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import (
    Conv2DFlipout,
    Conv2DReparameterization,
    Convolution2DFlipout,
    Convolution2DReparameterization,
    DenseFlipout,
    DenseReparameterization,
    VariationalLayer,
)
from tfp_bnn.layers.noise import noise_scope
from tfp_bnn.posteriors import MeanFieldNormal
from tfp_bnn.priors import Normal, ScaleMixture

# Each layer, its Keras twin, positional arguments and the shape of the inputs without the batch axis.
LAYERS = {
    DenseFlipout: (keras.layers.Dense, (4,), (3,)),
    DenseReparameterization: (keras.layers.Dense, (4,), (3,)),
    Convolution2DFlipout: (keras.layers.Conv2D, (4, 3), (5, 6, 2)),
    Convolution2DReparameterization: (keras.layers.Conv2D, (4, 3), (5, 6, 2)),
}
DENSE = [cls for cls, (twin, *_) in LAYERS.items() if twin is keras.layers.Dense]
CONVOLUTIONS = [cls for cls, (twin, *_) in LAYERS.items() if twin is keras.layers.Conv2D]
for_each_layer = pytest.mark.parametrize("cls", LAYERS)

BAYESIAN_BIAS = {"bias_posterior": "mean_field_normal"}
# All that can be trained: both posteriors, and a learned scale of each prior.
EVERYTHING = {
    **BAYESIAN_BIAS,
    "kernel_prior": {"name": "normal", "scale": 0.5, "empirical_bayes": True},
    "bias_prior": {"name": "normal", "empirical_bayes": True},
}


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


def make(cls, built=False, **kwargs):
    """A layer; with `built=True` its variables too."""
    layer = cls(*LAYERS[cls][1], **kwargs)
    if built:
        layer.build((None, *LAYERS[cls][2]))
    return layer


def inputs_of(cls, batch=2):
    return np.random.default_rng(1).normal(size=(batch, *LAYERS[cls][2])).astype(np.float32)


def gradients_of(layer, inputs, loss_of_outputs=tf.reduce_sum):
    """Gradients of a loss that has a likelihood part and the KL, in training, by the variable's name."""
    with tf.GradientTape() as tape:
        loss = loss_of_outputs(tf.cast(layer(inputs, training=True), tf.float32)) + layer.kl()
    variables = layer.trainable_variables
    return dict(
        zip(
            [variable.name for variable in variables],
            tape.gradient(loss, [variable.value for variable in variables]),
            strict=True,
        )
    )


# === Names ===


def test_all_exported_layers_are_tested():
    exported = {getattr(tfp_bnn.layers, name) for name in tfp_bnn.layers.__all__}
    exported = {cls for cls in exported if issubclass(cls, VariationalLayer)} - {VariationalLayer}
    assert exported == set(LAYERS)
    registered = {
        cls
        for name, cls in keras.saving.get_custom_objects().items()
        if name.startswith("tfp_bnn>") and issubclass(cls, VariationalLayer)
    }
    assert registered == set(LAYERS)
    assert len(LAYERS) == 4


def test_short_names_are_aliases():
    assert Conv2DFlipout is Convolution2DFlipout
    assert Conv2DReparameterization is Convolution2DReparameterization


@for_each_layer
def test_layers_are_documented_keras_layers(cls):
    assert isinstance(make(cls), keras.layers.Layer)
    assert isinstance(make(cls), LAYERS[cls][0])
    for part in ("~ q(kernel)", "Example:", "References:", "https://arxiv.org/abs/"):
        assert part in cls.__doc__


@for_each_layer
def test_the_arguments_are_those_of_the_keras_twin(cls):
    of_twin = {
        name: parameter
        for name, parameter in inspect.signature(LAYERS[cls][0].__init__).parameters.items()
        if not name.startswith(("lora", "quantization"))
    }
    ours = inspect.signature(cls.__init__).parameters
    own = ["kernel_prior", "kernel_posterior", "bias_prior", "bias_posterior", "seed", "kl_weight"]
    assert [name for name in ours if name not in own] == list(of_twin)
    assert [name for name in ours if name not in of_twin] == own
    for name, parameter in of_twin.items():
        assert ours[name].default == parameter.default, name
        assert ours[name].kind == parameter.kind, name


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


@pytest.mark.parametrize("cls", CONVOLUTIONS)
def test_convolution_weights_have_the_shape_of_the_twin(cls):
    layer, twin = cls(6, (3, 2), groups=2), keras.layers.Conv2D(6, (3, 2), groups=2)
    layer.build((None, 9, 8, 4))
    twin.build((None, 9, 8, 4))
    assert layer.kernel_posterior.event_shape == layer.kernel.shape == twin.kernel.shape == (3, 2, 2, 6)
    assert layer.bias.shape == twin.bias.shape


@for_each_layer
def test_symbolic_outputs_have_the_shape_and_dtype_of_real_ones(cls):
    layer = make(cls)
    symbolic = layer(keras.Input(LAYERS[cls][2]))
    outputs = layer(inputs_of(cls))
    assert symbolic.shape == (None, *outputs.shape[1:])
    assert symbolic.dtype == outputs.dtype.name == "float32"


@for_each_layer
def test_refusals_of_the_keras_twin_are_ours(cls):
    with pytest.raises(ValueError, match=r"units|filters"):
        cls(-1, *LAYERS[cls][1][1:])
    layer = make(cls, built=True)
    with pytest.raises(ValueError, match="incompatible with the layer"):
        layer(np.zeros((2, *LAYERS[cls][2][:-1], 7), np.float32))


# === Variables and distributions ===


@for_each_layer
def test_variables_have_names_and_shapes(cls):
    layer = make(cls, built=True, **EVERYTHING)
    kernel, bias = layer.kernel.shape, (4,)
    assert {variable.name: tuple(variable.shape) for variable in layer.trainable_variables} == {
        "kernel_loc": kernel,
        "kernel_untransformed_scale": kernel,
        "kernel_prior_untransformed_scale": (),
        "bias_loc": bias,
        "bias_untransformed_scale": bias,
        "bias_prior_untransformed_scale": (),
    }
    assert layer.non_trainable_variables == []
    of_weights = [variable for weight in layer.variational_weights.values() for variable in weight.variables]
    assert {id(variable) for variable in of_weights} == {id(variable) for variable in layer.trainable_variables}


@for_each_layer
def test_a_deterministic_bias_is_a_plain_weight(cls):
    layer = make(cls, built=True)
    names = {variable.name for variable in layer.trainable_variables}
    assert names == {"kernel_loc", "kernel_untransformed_scale", "bias"}
    assert layer.bias_posterior is None
    assert layer.bias_prior is None
    assert list(layer.variational_weights) == ["kernel"]
    assert make(cls, built=True, use_bias=False).bias is None


@for_each_layer
def test_distributions_follow_the_variables(cls):
    layer = make(cls, built=True, **BAYESIAN_BIAS)
    before = layer.kernel_posterior
    layer.kernel.assign(np.full(layer.kernel.shape, 2.5))
    np.testing.assert_array_equal(layer.kernel_posterior.mean(), 2.5)
    assert layer.kernel_posterior is not before
    np.testing.assert_allclose(layer.kernel_posterior.stddev(), 0.05, rtol=1e-5)
    assert layer.kernel_prior.event_shape == layer.kernel.shape
    assert layer.bias_posterior.event_shape == layer.bias_prior.event_shape == (4,)


@for_each_layer
def test_initializers_set_the_posterior_means(cls):
    layer = make(
        cls, built=True, **BAYESIAN_BIAS, kernel_initializer="ones", bias_initializer=keras.initializers.Constant(3.0)
    )
    np.testing.assert_array_equal(layer.kernel_posterior.mean(), 1.0)
    np.testing.assert_array_equal(layer.bias_posterior.mean(), 3.0)


@for_each_layer
def test_kl_is_summed_over_weights_and_not_scaled(cls, randomize):
    layer = make(cls, built=True, **BAYESIAN_BIAS, bias_prior={"name": "normal", "scale": 2.0})
    p = randomize(layer)

    def kl(loc, scale, prior_scale):
        return (np.log(prior_scale / scale) + (scale**2 + loc**2) / (2 * prior_scale**2) - 0.5).sum()

    expected = kl(p["kernel_loc"], p["kernel_scale"], 1.0) + kl(p["bias_loc"], p["bias_scale"], 2.0)
    assert layer.kl().shape == ()
    np.testing.assert_allclose(layer.kl(), expected, rtol=1e-5)


# === Configs and files ===


@for_each_layer
def test_config_round_trip(cls):
    layer = make(
        cls,
        activation="relu",
        kernel_prior={"name": "scale_mixture", "scale_1": 0.7},
        kernel_posterior=MeanFieldNormal(initial_scale=0.01),
        bias_prior=Normal(scale=2.0),
        bias_posterior="mean_field_normal",
        kernel_regularizer="l2",
        seed=11,
        kl_weight=0.25,
        dtype="mixed_bfloat16",
        name="mine",
    )
    config = layer.get_config()
    for copy in (
        cls.from_config(config),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer), safe_mode=True),
        keras.layers.deserialize(keras.layers.serialize(layer)),
    ):
        assert type(copy) is cls
        assert copy.get_config() == config
        assert copy.name == "mine"
        assert copy.seed == 11
        assert copy.kl_weight == 0.25
        copy.build((None, *LAYERS[cls][2]))
        zeros = tf.zeros(copy.kernel.shape)
        expected = ScaleMixture(scale_1=0.7).distribution(zeros.shape, {}).log_prob(zeros)
        np.testing.assert_array_equal(copy.kernel_prior.log_prob(zeros), expected)
        np.testing.assert_allclose(copy.kernel_posterior.stddev(), 0.01, rtol=1e-4)
        np.testing.assert_allclose(copy.bias_prior.stddev(), 2.0, rtol=1e-6)


@for_each_layer
def test_config_names_every_argument(cls):
    config = make(cls, activity_regularizer="l2").get_config()
    signature = inspect.signature(cls.__init__).parameters
    assert set(signature) - {"self", "kwargs"} <= set(config)
    assert config["bias_posterior"] is None
    assert config["bias_prior"] is None


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@for_each_layer
def test_weights_and_noise_survive_a_file(cls, suffix, tmp_path):
    def make_model():
        return keras.Sequential([keras.Input(LAYERS[cls][2]), make(cls, name="layer", **EVERYTHING)])

    model, inputs = make_model(), inputs_of(cls)
    model.layers[0].kernel.assign(np.random.default_rng(2).normal(size=model.layers[0].kernel.shape))
    for training in (True, True, False):
        model(inputs, training=training)
    path = tmp_path / f"model{suffix}"
    if suffix == ".keras":
        model.save(path)
        loaded = keras.saving.load_model(path, safe_mode=True)
    else:
        model.save_weights(path)
        loaded = make_model()
        loaded.load_weights(path)
    assert len(model.variables) == len(loaded.variables) == 6
    for ours, theirs in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for training in (True, False, True, False):
        np.testing.assert_array_equal(loaded(inputs, training=training), model(inputs, training=training))


# === In a plain Keras model ===


@for_each_layer
def test_kl_weight_adds_the_kl_to_the_losses(cls):
    layer = make(cls, kl_weight=0.125, kernel_regularizer="l2", **BAYESIAN_BIAS)
    model = keras.Sequential([layer, keras.layers.Flatten()])
    outputs = model(inputs_of(cls))
    regularization = 0.01 * np.square(layer.kernel).sum()
    assert len(model.losses) == 2
    np.testing.assert_allclose(sum(model.losses), 0.125 * layer.kl() + regularization, rtol=1e-5)
    assert outputs.shape[0] == 2
    without = make(cls)
    without(inputs_of(cls))
    assert without.losses == []


@for_each_layer
def test_training_in_a_plain_model(cls):
    layer = make(cls, kl_weight=1e-3, **EVERYTHING)
    model = keras.Sequential([layer, keras.layers.Flatten()])
    inputs = inputs_of(cls, batch=32)
    targets = inputs.reshape(32, -1)[:, :1] * np.ones(model(inputs).shape)
    model.compile(keras.optimizers.Adam(0.05), loss="mse")
    before = [variable.numpy() for variable in model.trainable_variables]
    history = model.fit(inputs, targets, epochs=15, batch_size=32, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (variable.numpy() != old).any(), variable.name


@for_each_layer
def test_the_loss_of_a_plain_model_has_the_weighted_kl(cls):
    layer = make(cls, kl_weight=1e-3, **EVERYTHING)
    model = keras.Sequential([layer, keras.layers.Flatten()])
    inputs = inputs_of(cls)
    targets = np.zeros(model(inputs).shape)
    model.compile(loss="mse", metrics=["mse"], run_eagerly=True)
    results = model.test_on_batch(inputs, targets, return_dict=True)
    assert results["loss"] == pytest.approx(results["mse"] + 1e-3 * float(layer.kl()), rel=1e-4)


@for_each_layer
def test_a_kl_without_closed_form_reuses_the_draw_of_the_step(cls, injected_noise, randomize):
    layer = make(cls, built=True, kernel_prior="scale_mixture", kl_weight=1.0, use_bias=False)
    p = randomize(layer)
    with noise_scope({id(layer): injected_noise}):
        layer(inputs_of(cls), training=True)
        kl = layer.kl()
    draw = (p["kernel_loc"] + p["kernel_scale"] * injected_noise.drawn["kernel"]).astype(np.float32)
    expected = layer.kernel_posterior.log_prob(draw) - layer.kernel_prior.log_prob(draw)
    np.testing.assert_allclose(layer.losses[0], expected, rtol=1e-4)
    np.testing.assert_allclose(kl, expected, rtol=1e-4)


@pytest.mark.parametrize("cls", DENSE)
def test_a_kl_without_closed_form_reuses_the_draw_of_the_layers_own_noise(cls):
    layer = make(cls, kernel_prior="scale_mixture", kl_weight=1.0, use_bias=False)
    # The unit vectors as inputs read the draw of the kernel off the outputs.
    for _ in range(2):
        draw = layer(np.eye(3, dtype=np.float32), training=False)
        expected = layer.kernel_posterior.log_prob(draw) - layer.kernel_prior.log_prob(draw)
        np.testing.assert_allclose(layer.losses[-1], expected, rtol=1e-4)


@for_each_layer
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


# === Dtypes ===


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
@for_each_layer
def test_low_precision_is_for_the_outputs_only(cls, policy):
    layer = make(cls, dtype=policy, kl_weight=1e-3, **EVERYTHING)
    compute_dtype = policy.removeprefix("mixed_")
    for training in (True, False):
        outputs = layer(inputs_of(cls), training=training)
        assert outputs.dtype == compute_dtype
        assert np.isfinite(tf.cast(outputs, tf.float32)).all()
    assert len(layer.trainable_variables) == 6
    assert {variable.dtype for variable in layer.trainable_variables} == {"float32"}
    for value in (layer.kl(), layer.losses[0], layer.kernel_posterior.mean(), layer.kernel_prior.stddev()):
        assert value.dtype == tf.float32
        assert np.isfinite(value).all()
    gradients = gradients_of(layer, inputs_of(cls), lambda outputs: tf.reduce_sum(outputs**2))
    for name, gradient in gradients.items():
        assert gradient.dtype == tf.float32, name
        assert np.isfinite(gradient).all(), name


@for_each_layer
def test_parameters_are_read_in_float32_under_a_mixed_policy(cls):
    # 1 + 2^-10 is 1 in bfloat16; the KL inside of `call` must not see that.
    layer = make(cls, built=True, dtype="mixed_bfloat16", kl_weight=1.0, use_bias=False)
    twin = make(cls, built=True, kl_weight=1.0, use_bias=False)
    for each in (layer, twin):
        each.kernel.assign(np.full(each.kernel.shape, 1 + 2**-10))
        each(inputs_of(cls), training=True)
    np.testing.assert_array_equal(layer.losses[0], twin.losses[0])


# === Gradients ===


@pytest.mark.parametrize("prior", ["normal", "scale_mixture"])
@for_each_layer
def test_gradients_reach_all_trainable_variables(cls, prior):
    arguments = EVERYTHING if prior == "normal" else {**EVERYTHING, "kernel_prior": prior}
    layer = make(cls, built=True, **arguments)
    gradients = gradients_of(layer, inputs_of(cls), lambda outputs: tf.reduce_sum(outputs**2))
    assert len(gradients) == (6 if prior == "normal" else 5)
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert np.isfinite(gradient).all(), name
        assert (np.asarray(gradient) != 0.0).all(), name


@for_each_layer
def test_the_deterministic_bias_has_a_gradient(cls):
    gradients = gradients_of(make(cls, built=True), inputs_of(cls))
    assert (np.asarray(gradients["bias"]) != 0.0).all()


@for_each_layer
def test_gradients_equal_those_of_the_formula(cls, injected_noise, randomize):
    layer = make(cls, built=True, use_bias=False)
    randomize(layer)
    with noise_scope({id(layer): injected_noise}), tf.GradientTape() as tape:
        likelihood = tf.reduce_sum(layer(inputs_of(cls), training=False) ** 2)
    variables = [variable.value for variable in layer.trainable_variables]
    loc, untransformed_scale = tape.gradient(likelihood, variables)
    # d kernel / d untransformed scale = noise * sigmoid(untransformed scale), by the chain rule.
    chain = injected_noise.drawn["kernel"] * tf.sigmoid(variables[1])
    np.testing.assert_allclose(untransformed_scale, loc * chain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("extreme", [-100.0, 100.0])
@for_each_layer
def test_extreme_scales_stay_finite(cls, extreme, policy):
    layer = make(cls, built=True, dtype=policy, **BAYESIAN_BIAS)
    for variable in layer.trainable_variables:
        if variable.name.endswith("untransformed_scale"):
            variable.assign(np.full(variable.shape, extreme))
    for posterior in (layer.kernel_posterior, layer.bias_posterior):
        scale = np.asarray(posterior.stddev())
        assert (scale > 0.0).all()
        np.testing.assert_allclose(scale, max(extreme, np.finfo(np.float32).eps), rtol=1e-5)
    assert np.isfinite(layer.kl())
    for training in (True, False):
        assert np.isfinite(tf.cast(layer(inputs_of(cls), training=training), tf.float32)).all()
    for name, gradient in gradients_of(layer, inputs_of(cls)).items():
        assert np.isfinite(gradient).all(), name


# === Refusals ===


@pytest.mark.parametrize("attribute", ["kernel_posterior", "kernel_prior", "bias_posterior", "bias_prior", "kl"])
@for_each_layer
def test_distributions_exist_once_the_layer_is_built(cls, attribute):
    layer = make(cls, name="unbuilt")
    assert layer.variational_weights == {}
    with pytest.raises(ValueError, match=f"`{attribute}` of the layer 'unbuilt' exists once the layer is built"):
        getattr(layer, attribute)() if attribute == "kl" else getattr(layer, attribute)


REFUSED = [
    ({"kernel_prior": "norml"}, "Unknown prior 'norml'. Did you mean 'normal'? Expected one of: normal"),
    ({"kernel_prior": "scalemixture"}, "Did you mean 'scale_mixture'?"),
    ({"kernel_posterior": "mean_field"}, "Unknown posterior 'mean_field'. Did you mean 'mean_field_normal'?"),
    ({"bias_posterior": "zzz"}, "Unknown posterior 'zzz'. Expected one of: mean_field_normal"),
    (
        {"kernel_prior": {"name": "normal", "scal": 1.0}},
        "Unknown argument of the prior 'normal': 'scal'. Did you mean 'scale'?",
    ),
    (
        {"kernel_posterior": {"name": "mean_field_normal", "sigma": 1.0}},
        "Unknown argument of the posterior 'mean_field_normal': 'sigma'. Expected one of: initial_scale",
    ),
    ({"bias_prior": "normal"}, "Got bias_prior='normal' without a `bias_posterior`"),
    ({"lora_rank": 2}, "does not support `lora_rank`"),
    ({"lora_alpha": 2}, "does not support `lora_alpha`"),
    ({"bias_posterior": "mean_field_normal", "use_bias": False}, "with use_bias=False"),
    ({"quantization_config": "int8"}, "does not support `quantization_config`"),
    ({"kernel_prior": {"name": "normal", "scale": -1.0}}, "must be a finite number larger than 0, but got -1.0"),
    ({"kernel_prior": {"name": "normal", "scale": 0}}, "must be a finite number larger than 0, but got 0"),
    ({"kernel_posterior": {"name": "mean_field_normal", "initial_scale": -0.1}}, "but got -0.1"),
    ({"seed": True}, "`seed` must be an integer or None, but got True"),
    ({"seed": 1.5}, "`seed` must be an integer or None, but got 1.5"),
    ({"kl_weight": -1.0}, "`kl_weight` must be None or a finite number >= 0, but got -1.0"),
    ({"kl_weight": True}, "`kl_weight` must be None or a finite number >= 0, but got True"),
    ({"kl_weight": float("nan")}, "`kl_weight` must be None or a finite number >= 0, but got nan"),
    ({"kl_weight": float("inf")}, "`kl_weight` must be None or a finite number >= 0, but got inf"),
    ({"kl_weight": "1"}, "`kl_weight` must be None or a finite number >= 0, but got '1'"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
@for_each_layer
def test_arguments_that_make_no_sense_are_refused(cls, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(cls, **arguments)


@pytest.mark.parametrize("wrong", [None, 3, ["normal"], MeanFieldNormal(), Normal, {"scale": 1.0}])
@for_each_layer
def test_things_that_are_no_prior_are_refused(cls, wrong):
    with pytest.raises(TypeError, match=r"Cannot make a prior from .* Expected a name \(normal, scale_mixture"):
        make(cls, kernel_prior=wrong)


@for_each_layer
def test_lora_and_quantization_are_refused_later_too(cls):
    layer = make(cls, built=True)
    with pytest.raises(NotImplementedError, match="LoRA"):
        layer.enable_lora(2)
    with pytest.raises(NotImplementedError, match="quantized"):
        layer.quantize("int8")
    assert len(layer.trainable_variables) == 3


@for_each_layer
def test_a_file_of_other_weights_is_refused(cls, tmp_path):
    path = tmp_path / "model.weights.h5"
    keras.Sequential([keras.Input(LAYERS[cls][2]), make(cls, name="layer", use_bias=False)]).save_weights(path)
    with pytest.raises(ValueError, match="expected 4 variables, but received 2"):
        keras.Sequential([keras.Input(LAYERS[cls][2]), make(cls, name="layer", **BAYESIAN_BIAS)]).load_weights(path)
