"""The outputs of the layers: exactly, with noise that is known, and in distribution, with noise of their own."""

from __future__ import annotations

import itertools
import math

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfp_bnn.layers import (
    Convolution2DFlipout,
    Convolution2DReparameterization,
    DenseFlipout,
    DenseReparameterization,
)
from tfp_bnn.layers.noise import Noise, noise_scope
from tfp_bnn.posteriors import POSTERIORS, MeanFieldNormal

DENSE = [DenseFlipout, DenseReparameterization]
CONVOLUTIONS = [Convolution2DFlipout, Convolution2DReparameterization]
BIASES = {
    "deterministic_bias": {},
    "bayesian_bias": {"bias_posterior": "mean_field_normal"},
    "no_bias": {"use_bias": False},
}
# Arguments of the convolution; inputs are 7 x 6 with 4 channels.
GEOMETRIES = {
    "valid": {"kernel_size": (3, 2)},
    "same": {"kernel_size": (3, 2), "padding": "same"},
    "strides": {"kernel_size": 3, "strides": (2, 1)},
    "strides_same": {"kernel_size": (3, 4), "strides": 2, "padding": "same"},
    "dilation": {"kernel_size": 2, "dilation_rate": (2, 3)},
    "dilation_same": {"kernel_size": 3, "dilation_rate": (1, 2), "padding": "same"},
    "groups": {"kernel_size": 3, "groups": 2},
    "groups_strides_same": {"kernel_size": 2, "groups": 2, "strides": 2, "padding": "same"},
    "groups_dilation": {"kernel_size": 2, "groups": 4, "dilation_rate": 2},
    "channels_first": {"kernel_size": (3, 2), "padding": "same", "data_format": "channels_first"},
    "channels_first_groups": {"kernel_size": 3, "groups": 2, "strides": (1, 2), "data_format": "channels_first"},
}
# The geometry and the bias are separate matters: all biases with one geometry, all geometries with one bias.
GEOMETRIES_AND_BIASES = [("same", bias) for bias in BIASES] + [
    (geometry, "bayesian_bias") for geometry in GEOMETRIES if geometry != "same"
]
FILTERS = 8
# Each statistical test fails by chance with this probability.
FALSE_FAILURE_RATE = 1e-6


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


def random_inputs(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def is_flipout(layer):
    return type(layer) in (DenseFlipout, Convolution2DFlipout)


def is_channels_first(layer):
    return getattr(layer, "data_format", None) == "channels_first"


def convolve(inputs, kernel, layer):
    """The convolution of one example, `(rows, columns, channels)`, in plain NumPy: one term for each kernel offset."""
    offsets, groups = kernel.shape[:2], layer.groups
    pads, sizes = [], []
    for size, taps, stride, dilation in zip(inputs.shape[:2], offsets, layer.strides, layer.dilation_rate, strict=True):
        extent = (taps - 1) * dilation + 1
        out = math.ceil(size / stride) if layer.padding == "same" else (size - extent) // stride + 1
        total = max((out - 1) * stride + extent - size, 0) if layer.padding == "same" else 0
        pads.append((total // 2, total - total // 2))
        sizes.append(out)
    padded = np.pad(inputs, [*pads, (0, 0)])
    outputs = np.zeros((*sizes, kernel.shape[-1]))
    for offset in itertools.product(*map(range, offsets)):
        rows, columns = (
            slice(tap * dilation, tap * dilation + (size - 1) * stride + 1, stride)
            for tap, dilation, size, stride in zip(offset, layer.dilation_rate, sizes, layer.strides, strict=True)
        )
        channels_of_groups = np.split(padded[rows, columns], groups, axis=-1)
        kernels_of_groups = np.split(kernel[offset], groups, axis=-1)
        outputs += np.concatenate([c @ k for c, k in zip(channels_of_groups, kernels_of_groups, strict=True)], axis=-1)
    return outputs


def apply(layer, inputs, kernel, bias):
    """What the layer's Keras twin computes for one example, without the activation."""
    inputs = np.asarray(inputs, np.float64)
    if type(layer) in DENSE:
        return inputs @ kernel + bias
    if is_channels_first(layer):
        return np.moveaxis(convolve(np.moveaxis(inputs, 0, -1), kernel, layer) + bias, -1, 0)
    return convolve(inputs, kernel, layer) + bias


def signs_on_kernel(layer, input_signs, output_signs):
    """s_i r_j for each weight: with groups a kernel sees only the input channels of its group."""
    groups = getattr(layer, "groups", 1)
    inputs_of_groups = np.split(input_signs, groups)
    outputs_of_groups = np.split(output_signs, groups)
    return np.concatenate([np.outer(s, r) for s, r in zip(inputs_of_groups, outputs_of_groups, strict=True)], axis=1)


def expected_outputs(layer, inputs, parameters, drawn):
    """Each example with its own weights: mean + s_n r_n^T * scale * noise; all s and r are 1 without flipout."""
    outputs = []
    channel_axis = 1 if is_channels_first(layer) else -1
    in_channels, out_channels = inputs.shape[channel_axis], parameters["bias_loc"].size
    for n, example in enumerate(inputs):
        input_signs = drawn["input_signs"][n].reshape(in_channels) if "input_signs" in drawn else np.ones(in_channels)
        output_signs = (
            drawn["output_signs"][n].reshape(out_channels) if "output_signs" in drawn else np.ones(out_channels)
        )
        kernel_noise = drawn["kernel"] * signs_on_kernel(layer, input_signs, output_signs)
        bias_noise = drawn.get("bias", 0.0) * output_signs
        kernel = parameters["kernel_loc"] + parameters["kernel_scale"] * kernel_noise
        outputs.append(apply(layer, example, kernel, parameters["bias_loc"] + parameters["bias_scale"] * bias_noise))
    return np.stack(outputs)


def names_of_noise(layer, training):
    names = set(layer.variational_weights)
    return names | {"input_signs", "output_signs"} if training and is_flipout(layer) else names


def moments(layer, inputs, parameters):
    """Mean op(x, mean) and variance op(x^2, scale^2) of the outputs under the posterior."""
    mean = [apply(layer, x, parameters["kernel_loc"], parameters["bias_loc"]) for x in inputs]
    variance = [apply(layer, x**2, parameters["kernel_scale"] ** 2, parameters["bias_scale"] ** 2) for x in inputs]
    return np.stack(mean), np.stack(variance)


# === Exactly ===


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 4), (2, 3, 2, 4)], ids=["rank2", "rank3", "rank4"])
@pytest.mark.parametrize("cls", DENSE)
def test_dense_outputs_equal_the_formula(cls, shape, bias, training, injected_noise, randomize):
    layer = cls(5, **BIASES[bias])
    layer.build(shape)
    parameters = randomize(layer)
    inputs = random_inputs(*shape)
    with noise_scope({id(layer): injected_noise}):
        outputs = layer(inputs, training=training)
    assert set(injected_noise.drawn) == names_of_noise(layer, training)
    np.testing.assert_allclose(
        outputs, expected_outputs(layer, inputs, parameters, injected_noise.drawn), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(("geometry", "bias"), GEOMETRIES_AND_BIASES)
@pytest.mark.parametrize("cls", CONVOLUTIONS)
def test_convolution_outputs_equal_the_formula(cls, geometry, bias, training, injected_noise, randomize):
    layer = cls(FILTERS, **GEOMETRIES[geometry], **BIASES[bias])
    shape = (3, 4, 7, 6) if is_channels_first(layer) else (3, 7, 6, 4)
    layer.build(shape)
    parameters = randomize(layer)
    inputs = random_inputs(*shape)

    def call(x):
        with noise_scope({id(layer): injected_noise}):
            return layer(x, training=training)

    if is_channels_first(layer):
        # TensorFlow convolves channels-first on the CPU only under XLA, where shapes are symbolic: draw the signs here.
        if "input_signs" in names_of_noise(layer, training):
            injected_noise.signs("input_signs", (3, 4, 1, 1))
            injected_noise.signs("output_signs", (3, FILTERS, 1, 1))
        call = tf.function(call, jit_compile=True)
    outputs = call(inputs)
    assert set(injected_noise.drawn) == names_of_noise(layer, training)
    expected = expected_outputs(layer, inputs, parameters, injected_noise.drawn)
    assert outputs.shape == layer.compute_output_shape(shape)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cls", [*DENSE, *CONVOLUTIONS])
def test_the_activation_acts_on_the_noisy_outputs(cls, injected_noise, randomize):
    arguments, shape = ((5,), (3, 4)) if cls in DENSE else ((5, 3), (3, 7, 6, 4))
    layer = cls(*arguments, activation="relu")
    layer.build(shape)
    parameters = randomize(layer)
    inputs = random_inputs(*shape)
    with noise_scope({id(layer): injected_noise}):
        outputs = layer(inputs, training=True)
    expected = np.maximum(expected_outputs(layer, inputs, parameters, injected_noise.drawn), 0.0)
    assert (expected == 0.0).any()
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def test_without_spread_flipout_is_the_mean(injected_noise):
    layer = DenseFlipout(5, bias_posterior="mean_field_normal")
    layer.build((None, 4))
    for weight in layer.variational_weights.values():
        weight.assign_natural({"loc": weight.natural()["loc"], "scale": np.full(weight.shape, 2e-7, np.float32)})
    inputs = random_inputs(3, 4)
    with noise_scope({id(layer): injected_noise}):
        outputs = layer(inputs, training=True)
    np.testing.assert_allclose(outputs, inputs @ layer.kernel + layer.bias, atol=1e-5)


# === In distribution ===


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("shape", "bias", "training"),
    [
        *(((3, 4), bias, True) for bias in BIASES),
        ((2, 3, 4), "bayesian_bias", True),
        ((3, 4), "bayesian_bias", False),
    ],
    ids=[*(f"rank2-{bias}" for bias in BIASES), "rank3-bayesian_bias", "rank2-bayesian_bias-evaluation"],
)
@pytest.mark.parametrize("cls", DENSE)
def test_moments_of_dense_outputs(cls, shape, bias, training, draw_outputs, randomize, assert_moments):
    """2,000 draws; false-failure rate 1e-6 over all elements and both moments: normal and chi-square quantiles."""
    layer = cls(5, **BIASES[bias])
    layer.build(shape)
    parameters = randomize(layer)
    inputs = random_inputs(*shape)
    draws = draw_outputs(layer, inputs, 2000, training)
    assert_moments(draws, *moments(layer, inputs, parameters), FALSE_FAILURE_RATE)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("geometry", "bias"),
    [
        ("same", "deterministic_bias"),
        ("strides_same", "bayesian_bias"),
        ("dilation", "no_bias"),
        ("groups", "bayesian_bias"),
    ],
)
@pytest.mark.parametrize("cls", CONVOLUTIONS)
def test_moments_of_convolution_outputs(cls, geometry, bias, draw_outputs, randomize, assert_moments):
    """1,000 draws; false-failure rate 1e-6 over all elements and both moments: normal and chi-square quantiles."""
    layer = cls(FILTERS, **GEOMETRIES[geometry], **BIASES[bias])
    shape = (2, 7, 6, 4)
    layer.build(shape)
    parameters = randomize(layer)
    inputs = random_inputs(*shape)
    draws = draw_outputs(layer, inputs, 1000, training=True)
    assert_moments(draws, *moments(layer, inputs, parameters), FALSE_FAILURE_RATE)


@pytest.mark.statistical
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("pair", [(DenseFlipout, DenseReparameterization), tuple(CONVOLUTIONS)], ids=["dense", "conv"])
def test_flipout_draws_of_two_examples_are_uncorrelated(pair, bias, draw_outputs, randomize):
    """2,000 draws; false-failure rate 1e-6 over all elements, by Hoeffding's inequality.

    The sign of each product of the two examples' deviations is a fair coin (r_1 r_2), independent of its size. The two
    examples are equal, so that a shared draw of any weight would show: with reparameterization they agree exactly.
    """
    flipout, reparameterization = pair
    arguments, shape = ((5,), (4,)) if flipout is DenseFlipout else ((5, 2), (4, 3, 4))
    example = random_inputs(*shape)
    inputs = np.stack([example, example])

    def sum_of_products(cls):
        layer = cls(*arguments, **BIASES[bias])
        layer.build(inputs.shape)
        # Half of the variance or more comes from a Bayesian bias.
        parameters = randomize(layer, scale=(0.2, 0.4), bias_scale=(2.0, 3.0))
        deviations = draw_outputs(layer, inputs, 2000, training=True) - moments(layer, inputs, parameters)[0]
        products = deviations[:, 0].astype(np.float64) * deviations[:, 1]
        bound = np.sqrt(2 * math.log(2 * products[0].size / FALSE_FAILURE_RATE) * (products**2).sum(axis=0))
        return np.abs(products.sum(axis=0)), bound

    total, bound = sum_of_products(flipout)
    np.testing.assert_array_less(total, bound)
    if bias == "bayesian_bias":
        total, bound = sum_of_products(reparameterization)
        np.testing.assert_array_less(bound, total)


@pytest.mark.parametrize("cls", [DenseReparameterization, Convolution2DReparameterization])
def test_reparameterization_shares_one_draw_in_training(cls):
    arguments, shape = ((5,), (4,)) if cls is DenseReparameterization else ((5, 2), (4, 3, 4))
    outputs = cls(*arguments)(np.stack([random_inputs(*shape)] * 3), training=True).numpy()
    np.testing.assert_array_equal(outputs, np.broadcast_to(outputs[0], outputs.shape))


# === The noise ===


@pytest.mark.statistical
def test_signs_are_one_or_minus_one_and_balanced():
    """2,000 x 20 signs; false-failure rate 1e-6 over the 20 columns, their 190 pairs and the total: exact binomial."""
    signs = Noise(tf.constant([3, 1])).signs("input_signs", (2000, 20)).numpy()
    np.testing.assert_array_equal(np.abs(signs), 1.0)
    tail = FALSE_FAILURE_RATE / (1 + 20 + 190)
    assert scipy.stats.binomtest(int((signs > 0).sum()), signs.size).pvalue > tail
    for column in signs.T:
        assert scipy.stats.binomtest(int((column > 0).sum()), column.size).pvalue > tail
    for one, other in itertools.combinations(signs.T, 2):
        assert scipy.stats.binomtest(int((one == other).sum()), one.size).pvalue > tail


@pytest.mark.statistical
def test_input_and_output_signs_are_independent():
    """20,000 signs; false-failure rate 1e-6: exact binomial."""
    noise = Noise(tf.constant([3, 1]))
    agree = noise.signs("input_signs", (20_000,)).numpy() == noise.signs("output_signs", (20_000,)).numpy()
    assert scipy.stats.binomtest(int(agree.sum()), agree.size).pvalue > FALSE_FAILURE_RATE


def outputs_of_steps(layer, inputs, num_steps, training, compiled):
    """Outputs of successive calls of a layer whose posterior is N(0, 1) for each weight."""
    if not layer.built:
        layer.build(inputs.shape)
    for weight in layer.variational_weights.values():
        weight.assign_natural({"loc": np.zeros(weight.shape), "scale": np.ones(weight.shape)})
    call = tf.function(layer) if compiled else layer
    return np.stack([call(inputs, training=training) for _ in range(num_steps)])


def assert_standard_normal_and_unrelated(steps, false_failure_rate):
    """Kolmogorov-Smirnov over all steps, and Pearson's correlation, exact for normals, between each two of them.

    Correlated are the values and also their sizes, brought back to a normal, because a repeated draw under fresh signs
    shows in the sizes alone.
    """
    steps = steps.reshape(len(steps), -1).astype(np.float64)
    sizes = scipy.stats.norm.isf(2 * scipy.stats.norm.sf(np.abs(steps)))
    pairs = list(itertools.combinations(range(len(steps)), 2))
    tail = false_failure_rate / (1 + 2 * len(pairs))
    assert scipy.stats.kstest(steps.ravel(), "norm").pvalue > tail
    for one, other in pairs:
        assert scipy.stats.pearsonr(steps[one], steps[other]).pvalue > tail
        assert scipy.stats.pearsonr(sizes[one], sizes[other]).pvalue > tail


@pytest.mark.statistical
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("cls", DENSE)
def test_kernel_noise_is_standard_normal_and_fresh_at_each_step(cls, compiled):
    """5 training and 5 evaluation steps of 1,600 weights; false-failure rate 1e-6 over all.

    The unit vectors as inputs read the kernel's noise off the outputs.
    """
    layer = cls(40, use_bias=False, seed=7)
    inputs = np.eye(40, dtype=np.float32)
    steps = [outputs_of_steps(layer, inputs, 5, training, compiled) for training in (True, False)]
    assert_standard_normal_and_unrelated(np.concatenate(steps), FALSE_FAILURE_RATE)


@pytest.mark.statistical
@pytest.mark.parametrize("cls", DENSE)
def test_bias_noise_is_standard_normal_and_fresh_at_each_step(cls):
    """5 training and 5 evaluation steps of 1,600 biases; false-failure rate 1e-6 over all. The inputs are zeros."""
    layer = cls(1600, bias_posterior="mean_field_normal", seed=7)
    inputs = np.zeros((1, 1), np.float32)
    steps = [outputs_of_steps(layer, inputs, 5, training, compiled=False) for training in (True, False)]
    assert_standard_normal_and_unrelated(np.concatenate(steps), FALSE_FAILURE_RATE)


@pytest.mark.statistical
def test_weights_layers_and_seeds_have_their_own_noise():
    """Tensors of 1,600 from children, names and seeds of a noise; false-failure rate 1e-6 over all pairs."""
    root = Noise(tf.constant([0, 0]))
    sources = [root, root.fold_in(0), root.fold_in(1), root.fold_in(0).fold_in(0), Noise(tf.constant([0, 1]))]
    tensors = [source.normal(name, (1600,)).numpy() for source in sources for name in ("kernel", "bias")]
    assert_standard_normal_and_unrelated(np.stack(tensors), FALSE_FAILURE_RATE)


@pytest.mark.statistical
def test_two_layers_with_one_seed_do_not_share_noise():
    """3 steps of two layers, 1,600 weights each; false-failure rate 1e-6 over all pairs."""
    inputs = np.eye(40, dtype=np.float32)
    layers = [DenseReparameterization(40, use_bias=False, seed=7, name=name) for name in ("first", "second")]
    steps = [outputs_of_steps(layer, inputs, 3, True, compiled=False) for layer in layers]
    assert_standard_normal_and_unrelated(np.concatenate(steps), FALSE_FAILURE_RATE)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("cls", DENSE)
def test_a_seed_and_a_name_determine_the_noise(cls, compiled):
    inputs = np.eye(6, dtype=np.float32)

    def outputs(seed):
        layer = cls(5, use_bias=False, seed=seed, name="layer")
        return outputs_of_steps(layer, inputs, 3, True, compiled)

    np.testing.assert_array_equal(outputs(7), outputs(7))
    assert (outputs(7) != outputs(8)).all()


def test_evaluation_does_not_disturb_the_noise_of_training():
    inputs = np.eye(6, dtype=np.float32)
    plain, interrupted = (DenseFlipout(5, use_bias=False, seed=7, name="layer") for _ in range(2))
    expected = outputs_of_steps(plain, inputs, 2, True, compiled=False)
    outputs = [outputs_of_steps(interrupted, inputs, 1, training, compiled=False) for training in (True, False, True)]
    np.testing.assert_array_equal(np.concatenate([outputs[0], outputs[2]]), expected)


# === One draw for the whole batch, outside of training ===


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("cls", [*DENSE, *CONVOLUTIONS])
def test_evaluation_takes_one_draw_for_the_whole_batch(cls, bias):
    arguments, shape = ((5,), (4,)) if cls in DENSE else ((5, 2), (4, 3, 4))
    layer = cls(*arguments, kernel_posterior={"name": "mean_field_normal", "initial_scale": 1.0}, **BIASES[bias])
    first, second = random_inputs(2, *shape)
    batch = np.stack([first, second, first, first + second, np.zeros_like(first)])
    outputs = layer(batch, training=False).numpy()
    np.testing.assert_array_equal(outputs[0], outputs[2])
    # One function of the inputs, and affine as any draw of the weights is.
    np.testing.assert_allclose(outputs[0] + outputs[1], outputs[3] + outputs[4], rtol=1e-4, atol=1e-4)
    again = layer(batch, training=False).numpy()
    assert (np.abs(again[:4] - outputs[:4]) > 0.0).all(), "the next call takes another draw"


def test_no_training_argument_is_evaluation(injected_noise):
    layer = DenseFlipout(5)
    with noise_scope({id(layer): injected_noise}):
        layer(random_inputs(3, 4))
    assert set(injected_noise.drawn) == {"kernel"}


def test_flipout_draws_of_one_batch_differ():
    outputs = DenseFlipout(40)(np.stack([random_inputs(30)] * 2), training=True).numpy()
    assert (outputs[0] != outputs[1]).mean() > 0.9


# === Combinations that do not exist ===


class Asymmetric(MeanFieldNormal):
    """A posterior that flipout would be wrong for."""

    symmetric_and_independent = False


@pytest.mark.parametrize("weight", ["kernel", "bias"])
@pytest.mark.parametrize("cls", [DenseFlipout, Convolution2DFlipout])
def test_flipout_refuses_an_asymmetric_posterior(cls, weight, monkeypatch):
    monkeypatch.setitem(POSTERIORS._things, "asymmetric", Asymmetric)
    arguments = (5,) if cls is DenseFlipout else (5, 3)
    message = r"symmetric about its mean and independent per weight, but got Asymmetric\(initial_scale=0.05\)"
    with pytest.raises(TypeError, match=message) as refusal:
        cls(*arguments, **{f"{weight}_posterior": "asymmetric"})
    for word in ("Combinations that exist", "estimator", "flipout", "reparameterization", "mean_field_normal"):
        assert word in str(refusal.value)


@pytest.mark.parametrize("cls", [DenseReparameterization, Convolution2DReparameterization])
def test_reparameterization_takes_any_posterior(cls, monkeypatch):
    monkeypatch.setitem(POSTERIORS._things, "asymmetric", Asymmetric)
    arguments, shape = ((5,), (2, 4)) if cls is DenseReparameterization else ((5, 2), (2, 4, 3, 4))
    layer = cls(*arguments, kernel_posterior="asymmetric", bias_posterior="asymmetric")
    assert np.isfinite(layer(random_inputs(*shape), training=True)).all()
