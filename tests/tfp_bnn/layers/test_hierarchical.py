"""The hierarchical dense layer: its draws, its KL, how it learns, and inputs that it refuses."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

import tfp_bnn
from tfp_bnn.core.noise import NoNoise, noise_scope
from tfp_bnn.layers import HierarchicalDenseReparameterization
from tfp_bnn.models.weight_record import assign_weight_distributions, weight_distributions

from .hierarchical import GROUPS, NUM_GROUPS, UNITS, inputs_of, make, model_of

WEIGHTS = ("kernel", "bias", "group_kernel", "group_bias")
# With more inputs than groups the product is computed in another order.
WIDTHS = pytest.mark.parametrize("width", [2, 7])


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


def parameters_of(layer, role):
    return {name: weight.parameters()[role].astype(np.float64) for name, weight in layer.variational_weights.items()}


def under(noise, layer, inputs, training=False):
    with noise_scope({id(layer): noise}):
        return layer(inputs, training=training)


def expected_outputs(x, groups, weights):
    """One example at a time, with the weights of its group."""
    none = {"bias": np.zeros(UNITS), "group_bias": np.zeros((NUM_GROUPS, UNITS))}
    kernel, bias, group_kernel, group_bias = ({**none, **weights}[name] for name in WEIGHTS)
    pairs = [(x_n, int(group)) for x_n, group in zip(x, groups, strict=True)]
    return np.stack([x_n @ (kernel + group_kernel[g]) + bias + group_bias[g] for x_n, g in pairs])


# === The draw ===


@WIDTHS
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_are_exact_under_known_noise(training, use_bias, width, injected_noise):
    layer = make(width, use_bias=use_bias, activation="relu")
    x, groups = inputs_of(width)
    outputs = under(injected_noise, layer, [x, groups], training)
    names = WEIGHTS if use_bias else ("kernel", "group_kernel")
    assert list(injected_noise.drawn) == list(names)
    loc, scale = parameters_of(layer, "loc"), parameters_of(layer, "scale")
    drawn = {name: loc[name] + scale[name] * injected_noise.drawn[name] for name in names}
    expected = np.maximum(expected_outputs(x, groups, drawn), 0.0)
    assert (expected == 0.0).any()
    assert (expected > 0.0).any()
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "groups",
    [
        GROUPS.astype(np.int8),
        GROUPS.astype(np.uint8),
        GROUPS.astype(np.int64),
        GROUPS.astype(np.float32),
        GROUPS.astype(np.float64),
        GROUPS[:, None],
        tf.constant(GROUPS[:, None], tf.float16),
        GROUPS.tolist(),
    ],
    ids=["int8", "uint8", "int64", "float32", "float64", "column", "half", "list"],
)
@pytest.mark.parametrize("together", [list, pytest.param(tuple, marks=pytest.mark.slow)])
def test_group_ids_come_in_many_forms(together, groups):
    layer, (x, _) = make(), inputs_of()
    expected = under(NoNoise(), layer, [x, GROUPS])
    if isinstance(groups, list):
        groups = tf.constant(groups)
    np.testing.assert_array_equal(under(NoNoise(), layer, together([x, groups])), expected)
    compiled = tf.function(lambda *inputs: under(NoNoise(), layer, together(inputs)), autograph=False)
    np.testing.assert_allclose(compiled(tf.constant(x), tf.constant(groups)), expected, rtol=1e-6)


@WIDTHS
def test_without_spread_it_is_one_dense_layer_for_all_groups(width):
    layer, twin = HierarchicalDenseReparameterization(UNITS, NUM_GROUPS), keras.layers.Dense(UNITS)
    inputs = inputs_of(width)
    layer.build([inputs[0].shape, inputs[1].shape])
    twin.build(inputs[0].shape)
    twin.set_weights([np.asarray(layer.kernel), np.asarray(layer.bias)])
    np.testing.assert_allclose(under(NoNoise(), layer, inputs), twin(inputs[0]), rtol=1e-6, atol=1e-6)


def test_an_empty_batch_has_empty_outputs():
    layer = make()
    empty = [np.zeros((0, 2), "float32"), np.zeros(0, "int32")]
    assert layer(empty).shape == (0, UNITS)
    assert tf.function(lambda x, g: layer([x, g]), autograph=False)(*map(tf.constant, empty)).shape == (0, UNITS)


def test_examples_of_a_group_share_one_draw_that_is_fresh_in_each_call():
    layer = make()
    inputs = [np.ones((4, 2), "float32"), np.array([1, 1, 2, 2])]
    for training in (True, False):
        one, other = layer(inputs, training=training).numpy(), layer(inputs, training=training).numpy()
        np.testing.assert_array_equal(one[0], one[1])
        np.testing.assert_array_equal(one[2], one[3])
        assert (one[0] != one[2]).all()
        assert (one != other).all()
    twice = [make(seed=5, name="same")(inputs, training=True).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*twice)


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("training", [True, False])
def test_outputs_have_the_moments_of_the_posterior(training, draw_outputs, assert_moments):
    """5,000 draws of 6 x 3 outputs; fails by chance with probability 1e-6."""
    layer, (x, groups) = make(), inputs_of()
    draws = draw_outputs(layer, [x, groups], 5000, training)
    variance = {name: scale**2 for name, scale in parameters_of(layer, "scale").items()}
    mean = expected_outputs(x, groups, parameters_of(layer, "loc"))
    assert_moments(draws, mean, expected_outputs(x.astype(np.float64) ** 2, groups, variance))


# === KL ===


def normal_kl(loc, scale, prior_scale):
    return tfd.kl_divergence(tfd.Normal(loc, scale), tfd.Normal(np.float64(0.0), np.float64(prior_scale))).numpy().sum()


@pytest.mark.parametrize("use_bias", [True, False])
def test_kl_sums_the_closed_forms_of_all_weights(use_bias):
    of_bias = {"bias_prior": {"name": "normal", "scale": 2.0}} if use_bias else {}
    layer = make(use_bias=use_bias, **of_bias, kl_weight=0.1)
    loc, scale = parameters_of(layer, "loc"), parameters_of(layer, "scale")
    # The default spread, at its median.
    spread = {name: layer.variational_weights[name].parameters().get("prior_scale", 1.0) for name in loc}
    if use_bias:
        spread["bias"] = 2.0
    weights = sum(normal_kl(loc[name], scale[name], spread[name]) for name in loc)
    assert set(loc) == set(WEIGHTS if use_bias else ("kernel", "group_kernel"))
    spreads = {name: layer.variational_weights[name].hyper_kl(NoNoise()) for name in loc if "group" in name}
    with noise_scope({id(layer): NoNoise()}):
        terms = {name: float(kl) for name, kl in layer.kl_terms().items()}
        assert set(terms) == {"weights", *(f"prior/{name}" for name in spreads)}
        np.testing.assert_allclose(terms["weights"], weights, rtol=1e-5)
        np.testing.assert_allclose(layer.kl(), weights + sum(map(float, spreads.values())), rtol=1e-5)
        layer(inputs_of())
    np.testing.assert_allclose(layer.losses, [0.1 * sum(terms.values())], rtol=1e-5)


def test_the_spread_is_drawn_anew_and_its_draw_enters_the_kl(injected_noise):
    layer = make()
    weight = layer.variational_weights["group_kernel"]
    kl = weight.kl(injected_noise)
    parameters = weight.parameters()
    exponent = (
        np.log(parameters["prior_scale"] - 1e-3)
        + parameters["prior_scale_spread"] * injected_noise.drawn["group_kernel_prior_scale"]
    )
    expected = normal_kl(*(parameters[role].astype(np.float64) for role in ("loc", "scale")), 1e-3 + np.exp(exponent))
    np.testing.assert_allclose(kl, expected, rtol=1e-5)


def test_a_spread_may_be_fixed_learned_or_shared_by_layers():
    x, group_id = inputs = [keras.Input((2,)), keras.Input((), dtype="int32")]
    shared = {"name": "normal", "scale": 0.5, "hyperprior": "half_cauchy", "shared": "spread"}
    learned = {"name": "laplace", "scale": 0.5, "empirical_bayes": True}
    h = HierarchicalDenseReparameterization(4, 3, "relu", group_prior=shared, name="first")([x, group_id])
    h = HierarchicalDenseReparameterization(4, 3, "relu", group_prior=shared, name="second")([h, group_id])
    h = HierarchicalDenseReparameterization(4, 3, "relu", group_prior=learned, name="third")([h, group_id])
    h = HierarchicalDenseReparameterization(2, 3, group_prior="normal", name="fourth")([h, group_id])
    model = tfp_bnn.VariationalModel(inputs, h, seed=0)
    scales = {name for name in weight_distributions(model) if name.startswith("prior/") or "prior_" in name}
    assert scales == {
        "prior/spread/scale",
        "prior/spread/scale_spread",
        "third/group_kernel/prior_scale",
        "third/group_bias/prior_scale",
    }
    assert set(model.kl_by_layer()) == {"first", "second", "third", "fourth", "prior/spread"}


# === Learning ===


@pytest.mark.slow
def test_a_training_step_reaches_every_parameter():
    layer = HierarchicalDenseReparameterization(UNITS, NUM_GROUPS)
    model = model_of(layer)
    before = {variable.path: variable.numpy() for variable in model.trainable_variables}
    assert len(before) == 12
    model.compile("adam", metrics=["accuracy"])
    history = model.fit(inputs_of(), np.arange(6) % UNITS, batch_size=6, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for variable in model.trainable_variables:
        assert (np.asarray(variable) != before[variable.path]).all(), variable.path


def test_data_of_one_group_move_only_its_weights_and_the_mean():
    layer = make()
    with tf.GradientTape() as tape:
        outputs = layer([np.ones((3, 2), "float32"), np.full(3, 2)], training=True)
    of_group, of_mean = tape.gradient(outputs, [layer.group_kernel.value, layer.kernel.value])
    moved = np.abs(tf.convert_to_tensor(of_group)).max(axis=(1, 2)) > 0
    np.testing.assert_array_equal(moved, [False, False, True, False])
    np.testing.assert_allclose(tf.convert_to_tensor(of_group)[2], of_mean, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("true_spread", "low", "high"), [(0.0, 0.0, 0.15), (2.0, 1.0, 4.0)])
def test_the_inferred_spread_is_that_of_the_groups(true_spread, low, high):
    num_groups, rows = 20, 15
    rng = np.random.default_rng(0)
    slopes = rng.normal(1.0, true_spread, num_groups)
    groups = np.repeat(np.arange(num_groups), rows)
    x = rng.normal(size=(len(groups), 1)).astype(np.float32)
    y = (x[:, 0] * slopes[groups] + rng.normal(0.0, 0.3, len(groups)))[:, None].astype(np.float32)
    inputs = [keras.Input((1,)), keras.Input((), dtype="int32")]
    layer = HierarchicalDenseReparameterization(1, num_groups, use_bias=False)
    model = tfp_bnn.VariationalModel(inputs, layer(inputs), likelihood={"name": "normal", "initial_scale": 0.3}, seed=0)
    model.compile(keras.optimizers.Adam(0.05))
    data = tf.data.Dataset.from_tensors(((x, groups), y)).repeat()
    model.fit(data, num_examples=len(x), steps_per_epoch=400, verbose=0)
    inferred = float(layer.variational_weights["group_kernel"].parameters()["prior_scale"])
    assert low <= inferred <= high
    means = np.asarray(layer.kernel)[0, 0] + np.asarray(layer.group_kernel)[:, 0, 0]
    np.testing.assert_allclose(means, slopes, atol=0.4)


# === In a model ===


@pytest.mark.parametrize("dtype", ["int32", "float32"])
@pytest.mark.parametrize("group_input", [(), (1,)])
def test_works_in_a_model_of_two_inputs(group_input, dtype):
    layer = make()
    model = model_of(layer, group_input, dtype)
    assert model.output_shape == (None, UNITS)
    x, groups = inputs_of()
    groups = groups.astype(dtype).reshape(-1, *group_input)
    predictive = model.posterior_predictive([x, groups], num_samples=4)
    assert predictive.samples.shape == (4, 6, UNITS)
    plug_in = model.plug_in_predictive([x, groups]).mean()
    expected = tf.nn.softmax(expected_outputs(x, groups.ravel(), parameters_of(layer, "loc")))
    np.testing.assert_allclose(plug_in, expected, rtol=1e-5)


@pytest.mark.slow
def test_saved_models_and_weights_give_the_same(tmp_path):
    layer = make(bias_posterior="delta", group_prior={"name": "normal", "hyperprior": "half_cauchy"}, name="dense")
    model, inputs = model_of(layer), inputs_of()
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert restored.network.layers[-1].get_config() == layer.get_config()
    arrays = weight_distributions(model)
    assert set(arrays) >= {"dense/kernel/loc", "dense/group_kernel/scale", "dense/group_bias/prior_scale"}
    other = model_of(HierarchicalDenseReparameterization.from_config(layer.get_config()))
    another = model_of(HierarchicalDenseReparameterization.from_config(layer.get_config()))
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assign_weight_distributions(another, arrays)
    for copy in (restored, other, another):
        for name, value in weight_distributions(copy).items():
            np.testing.assert_allclose(value, arrays[name], rtol=1e-6)
        np.testing.assert_allclose(
            copy.posterior_predictive(inputs, num_samples=3).samples,
            model.posterior_predictive(inputs, num_samples=3).samples,
            rtol=1e-5,
        )


def test_the_config_holds_one_prior_and_one_posterior_for_the_groups():
    layer = HierarchicalDenseReparameterization(
        UNITS, NUM_GROUPS, "tanh", group_prior="student_t", group_posterior="low_rank_normal", seed=3
    )
    config = layer.get_config()
    assert not [name for name in config if name.startswith(("group_kernel", "group_bias"))]
    restored = HierarchicalDenseReparameterization.from_config(config)
    assert restored.get_config() == config
    restored.build([(None, 2), (None, 1)])
    for name in ("group_kernel", "group_bias"):
        weight = restored.variational_weights[name]
        assert weight.prior_spec == tfp_bnn.priors.StudentT()
        assert weight.posterior_spec == tfp_bnn.posteriors.LowRankNormal()
    assert restored.variational_weights["kernel"].prior_spec == tfp_bnn.priors.Normal()


def test_a_bias_that_is_left_out_has_no_distribution():
    points = {"kernel_posterior": "delta", "group_posterior": "delta", "group_prior": "normal"}
    layer = HierarchicalDenseReparameterization(1, NUM_GROUPS, use_bias=False, **points)
    assert set(layer.distribution_specs) == {"kernel", "group_kernel"}
    assert not layer.is_random
    assert model_of(layer).draws().num_draws == 1
    config = layer.get_config()
    assert config["bias_prior"] is config["bias_posterior"] is None
    # As in a file of the time when a bias that is left out had them.
    with_bias = HierarchicalDenseReparameterization(1, NUM_GROUPS).get_config()
    older = {**config, "bias_prior": with_bias["bias_prior"], "bias_posterior": with_bias["bias_posterior"]}
    for known in (config, older):
        assert HierarchicalDenseReparameterization.from_config(known).get_config() == config


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_large_group_ids_apart(policy):
    layer = HierarchicalDenseReparameterization(UNITS, 3000, dtype=policy)
    layer.build([(None, 2), (None,)])
    layer.group_kernel.assign(np.arange(3000)[:, None, None] * np.ones((1, 2, UNITS)))
    for groups in (np.array([2497, 2999]), np.array([2497.0, 2999.0], "float32")):
        outputs = under(NoNoise(), layer, [np.array([[0.0, 1.0]] * 2, "float32"), groups])
        assert outputs.dtype == layer.compute_dtype
        bias_free = np.asarray(layer.kernel)[1] + groups[:, None]
        np.testing.assert_allclose(tf.cast(outputs, tf.float32), bias_free, rtol=1e-2)
    assert layer.kl().dtype == "float32"
    assert {variable.dtype for variable in layer.trainable_variables} == {"float32"}
    half = tf.constant([1.0, 2.0], layer.compute_dtype)
    with pytest.raises(ValueError, match=r"represents whole numbers only up to .* num_groups=3000. Pass integers"):
        layer([np.zeros((2, 2), "float32"), half])
