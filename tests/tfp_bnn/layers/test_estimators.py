"""The estimators in all geometries, with noise that is known; and the noise itself.

Moments, gradients, KL and the like are those of the conformance suite, for every combination that exists.
"""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfp_bnn.core.noise import Noise, noise_scope
from tfp_bnn.layers import (
    Convolution1DFlipout,
    Convolution1DLocalReparameterization,
    Convolution1DReparameterization,
    Convolution2DFlipout,
    Convolution2DLocalReparameterization,
    Convolution2DReparameterization,
    Convolution2DTransposeFlipout,
    Convolution3DFlipout,
    Convolution3DLocalReparameterization,
    Convolution3DReparameterization,
    DenseFlipout,
    DenseLocalReparameterization,
    DenseReparameterization,
    DepthwiseConvolution2DFlipout,
    SeparableConvolution2DFlipout,
)

from .conformance.reference import expected_outputs, randomize

DENSE = [DenseFlipout, DenseReparameterization, DenseLocalReparameterization]
BIASES = {
    "deterministic_bias": {},
    "bayesian_bias": {"bias_posterior": "mean_field_normal"},
    "no_bias": {"use_bias": False},
}
FIRST = {"data_format": "channels_first"}
# For layers with the same arguments: the shape of one example, channels last, and geometries by name.
CONVOLUTIONS = {
    (Convolution1DFlipout, Convolution1DReparameterization, Convolution1DLocalReparameterization): (
        (7, 4),
        {
            "valid": {"filters": 8, "kernel_size": 3},
            "same": {"filters": 8, "kernel_size": 4, "padding": "same"},
            "strides": {"filters": 8, "kernel_size": 3, "strides": 2},
            "causal": {"filters": 8, "kernel_size": 3, "padding": "causal"},
            "causal_dilation": {"filters": 8, "kernel_size": 3, "padding": "causal", "dilation_rate": 2},
            "causal_strides": {"filters": 8, "kernel_size": 3, "padding": "causal", "strides": 2},
            "groups": {"filters": 8, "kernel_size": 3, "groups": 2, "padding": "same"},
            "channels_first": {"filters": 8, "kernel_size": 3, "padding": "same", **FIRST},
        },
    ),
    (Convolution2DFlipout, Convolution2DReparameterization, Convolution2DLocalReparameterization): (
        (7, 6, 4),
        {
            "valid": {"filters": 8, "kernel_size": (3, 2)},
            "same": {"filters": 8, "kernel_size": (3, 2), "padding": "same"},
            "strides": {"filters": 8, "kernel_size": 3, "strides": (2, 1)},
            "strides_same": {"filters": 8, "kernel_size": (3, 4), "strides": 2, "padding": "same"},
            "dilation": {"filters": 8, "kernel_size": 2, "dilation_rate": (2, 3)},
            "dilation_same": {"filters": 8, "kernel_size": 3, "dilation_rate": (1, 2), "padding": "same"},
            "groups": {"filters": 8, "kernel_size": 3, "groups": 2},
            "groups_strides_same": {"filters": 8, "kernel_size": 2, "groups": 2, "strides": 2, "padding": "same"},
            "groups_dilation": {"filters": 8, "kernel_size": 2, "groups": 4, "dilation_rate": 2},
            "channels_first": {"filters": 8, "kernel_size": (3, 2), "padding": "same", **FIRST},
            "channels_first_groups": {"filters": 8, "kernel_size": 3, "groups": 2, "strides": (1, 2), **FIRST},
        },
    ),
    (Convolution3DFlipout, Convolution3DReparameterization, Convolution3DLocalReparameterization): (
        (4, 3, 5, 4),
        {
            "valid": {"filters": 4, "kernel_size": (2, 1, 3)},
            "strides_same": {"filters": 4, "kernel_size": 2, "strides": (1, 2, 2), "padding": "same"},
            "dilation": {"filters": 4, "kernel_size": 2, "dilation_rate": 2},
            "groups": {"filters": 4, "kernel_size": 2, "groups": 2},
        },
    ),
    (DepthwiseConvolution2DFlipout,): (
        (7, 6, 4),
        {
            "valid": {"kernel_size": (3, 2)},
            "multiplier": {"kernel_size": 3, "depth_multiplier": 3},
            "strides_same": {"kernel_size": 3, "strides": 2, "padding": "same", "depth_multiplier": 2},
            "dilation_same": {"kernel_size": 2, "dilation_rate": (2, 2), "padding": "same"},
            "channels_first": {"kernel_size": 3, "depth_multiplier": 2, **FIRST},
        },
    ),
    (SeparableConvolution2DFlipout,): (
        (7, 6, 4),
        {
            "valid": {"filters": 5, "kernel_size": (3, 2)},
            "strides_same": {
                "filters": 5,
                "kernel_size": 3,
                "strides": 2,
                "padding": "same",
                "depth_multiplier": 2,
            },
            "dilation": {"filters": 5, "kernel_size": 2, "dilation_rate": 2},
            "channels_first": {"filters": 5, "kernel_size": 3, **FIRST},
        },
    ),
    (Convolution2DTransposeFlipout,): (
        (4, 3, 4),
        {
            "valid": {"filters": 5, "kernel_size": (3, 2)},
            "same": {"filters": 5, "kernel_size": (3, 2), "padding": "same"},
            "strides": {"filters": 5, "kernel_size": 3, "strides": (2, 1)},
            "strides_same": {"filters": 5, "kernel_size": (3, 4), "strides": 2, "padding": "same"},
            "strides_beyond_the_kernel": {"filters": 5, "kernel_size": 2, "strides": 3},
            "output_padding": {"filters": 5, "kernel_size": 3, "strides": 2, "output_padding": 1},
            "dilation": {"filters": 5, "kernel_size": 2, "dilation_rate": 2},
            "channels_first": {"filters": 5, "kernel_size": 3, "strides": 2, "padding": "same", **FIRST},
        },
    ),
}


def _marks(cls, name, training):
    # Flipout and local reparameterization evaluate as plain reparameterization does, which is the same in training;
    # and those of one and three dimensions run through that of two. `conformance` has every layer in both modes.
    if (cls.estimator.name == "reparameterization") == training:
        return pytest.mark.thorough
    if cls.estimator.name != "flipout" and "2D" not in cls.__name__:
        return pytest.mark.thorough
    # Each is compiled by XLA; flipout stands for the others, which have the same operation.
    if name.startswith("channels_first") and (cls.estimator.name != "flipout" or "groups" in name):
        return pytest.mark.slow
    return ()


GEOMETRIES = [
    pytest.param(
        *(cls, shape, arguments, training),
        marks=_marks(cls, name, training),
        id=f"{cls.__name__}-{name}-{'training' if training else 'evaluation'}",
    )
    for classes, (shape, geometries) in CONVOLUTIONS.items()
    for cls in classes
    for name, arguments in geometries.items()
    for training in (True, False)
]
# Each statistical test fails by chance with this probability.
FALSE_FAILURE_RATE = 1e-6


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


def random_inputs(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def assert_outputs_equal_the_formula(layer, inputs, training, noise):
    """All noise is known; the outputs are compared with arithmetic in NumPy."""
    parameters = randomize(layer)

    def call(x):
        with noise_scope({id(layer): noise}):
            return layer(x, training=training)

    if getattr(layer, "data_format", None) == "channels_first":
        # TensorFlow convolves channels-first on the CPU only under XLA, where shapes are symbolic: draw the noise here.
        draw_channels_first(layer, inputs.shape, noise, training)
        call = tf.function(call, jit_compile=True, autograph=False)
    outputs = call(inputs)
    expected = expected_outputs(layer, inputs, parameters, noise.drawn, training)
    assert outputs.shape == expected.shape == tuple(layer.compute_output_shape(inputs.shape))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def draw_channels_first(layer, shape, noise, training):
    """Draws the signs and outputs that a layer of two spatial dimensions or one will ask for, in shapes known here."""
    batch, channels, *space = shape
    shape_of_outputs = layer.compute_output_shape(shape)
    ones = [1] * len(space)
    if training and layer.estimator.name == "local reparameterization":
        noise.normal("outputs", shape_of_outputs)
    if training and layer.estimator.name == "flipout":
        sides = {"input_signs": channels, "output_signs": shape_of_outputs[1]}
        if isinstance(layer, SeparableConvolution2DFlipout):
            between = channels * layer.depth_multiplier
            sides = {
                "depthwise_kernel_input_signs": channels,
                "depthwise_kernel_output_signs": between,
                "pointwise_kernel_input_signs": between,
                "pointwise_kernel_output_signs": shape_of_outputs[1],
            }
        for name, count in sides.items():
            noise.signs(name, (batch, count, *ones))


# === Exactly ===


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 4), (2, 3, 2, 4)], ids=["rank2", "rank3", "rank4"])
@pytest.mark.parametrize("cls", DENSE)
def test_dense_outputs_equal_the_formula(cls, shape, bias, training, injected_noise):
    layer = cls(5, **BIASES[bias])
    layer.build(shape)
    assert_outputs_equal_the_formula(layer, random_inputs(*shape), training, injected_noise)


def has_dilated_transposes():
    """Without AVX-512, TensorFlow leaves oneDNN off, and Keras's own layers fail, too."""
    try:
        keras.ops.conv_transpose(np.ones((1, 4, 4, 1), "float32"), np.ones((2, 2, 1, 1), "float32"), dilation_rate=2)
    except tf.errors.InvalidArgumentError:
        return False
    return True


@pytest.mark.parametrize(("cls", "shape", "arguments", "training"), GEOMETRIES)
def test_convolution_outputs_equal_the_formula(cls, shape, arguments, training, injected_noise):
    if "Transpose" in cls.__name__ and "dilation_rate" in arguments and not has_dilated_transposes():
        pytest.skip("TensorFlow has no dilated transposed convolutions on this processor")
    layer = cls(**arguments, bias_posterior="mean_field_normal")
    if layer.data_format == "channels_first":
        shape = (shape[-1], *shape[:-1])
    layer.build((3, *shape))
    assert_outputs_equal_the_formula(layer, random_inputs(3, *shape), training, injected_noise)


@pytest.mark.parametrize("bias", ["deterministic_bias", "no_bias"])
@pytest.mark.parametrize("classes", CONVOLUTIONS, ids=lambda classes: classes[0].__name__)
def test_convolutions_without_a_bayesian_bias_equal_the_formula(classes, bias, injected_noise):
    shape, geometries = CONVOLUTIONS[classes]
    for cls in classes:
        injected_noise.drawn.clear()
        layer = cls(**geometries["valid"], **BIASES[bias])
        layer.build((3, *shape))
        assert_outputs_equal_the_formula(layer, random_inputs(3, *shape), True, injected_noise)
        assert "bias" not in injected_noise.drawn


@pytest.mark.parametrize("cls", [*DENSE, SeparableConvolution2DFlipout, Convolution2DTransposeFlipout])
def test_the_activation_acts_on_the_noisy_outputs(cls, injected_noise):
    arguments, shape = ((5,), (3, 4)) if cls in DENSE else ((5, 3), (3, 7, 6, 4))
    layer = cls(*arguments, activation="relu")
    layer.build(shape)
    parameters = randomize(layer)
    inputs = random_inputs(*shape)
    with noise_scope({id(layer): injected_noise}):
        outputs = layer(inputs, training=True)
    expected = np.maximum(expected_outputs(layer, inputs, parameters, injected_noise.drawn, training=True), 0.0)
    assert (expected == 0.0).any()
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cls", DENSE)
def test_without_spread_the_outputs_are_those_of_the_mean(cls, injected_noise):
    layer = cls(5, bias_posterior="mean_field_normal")
    layer.build((None, 4))
    for weight in layer.variational_weights.values():
        weight.assign_parameters({"loc": weight.parameters()["loc"], "scale": np.full(weight.shape, 2e-7, np.float32)})
    inputs = random_inputs(3, 4)
    with noise_scope({id(layer): injected_noise}):
        outputs = layer(inputs, training=True)
    np.testing.assert_allclose(outputs, inputs @ layer.kernel + layer.bias, atol=1e-5)


def test_no_training_argument_is_evaluation(injected_noise):
    layer = DenseFlipout(5)
    with noise_scope({id(layer): injected_noise}):
        layer(random_inputs(3, 4))
    assert set(injected_noise.drawn) == {"kernel"}


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
        weight.assign_parameters({"loc": np.zeros(weight.shape), "scale": np.ones(weight.shape)})
    call = tf.function(layer, autograph=False) if compiled else layer
    return np.stack([call(inputs, training=training) for _ in range(num_steps)])


def assert_standard_normal_and_unrelated(steps, false_failure_rate):
    """Kolmogorov-Smirnov over all steps, and Pearson's correlation, exact for normals, between each pair of steps.

    Correlated are the values and also their sizes, brought back to a normal, because a repeated draw under fresh signs
    shows in the sizes alone.
    """
    steps = steps.reshape(len(steps), -1).astype(np.float64)
    # A float32 normal is exactly 0 now and then, which has no finite size.
    shares = np.minimum(2 * scipy.stats.norm.sf(np.abs(steps)), 1.0 - 2.0**-50)
    sizes = scipy.stats.norm.isf(shares)
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
    # Noise depends on the name too, which is a count of layers otherwise.
    layer = cls(40, use_bias=False, seed=7, name="noisy")
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
