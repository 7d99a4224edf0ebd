"""Grouped flipout: which example is in which group, how the groups' draws go together, and what its gradient is.

Outputs, moments, saving, precision and the like are those of the conformance suite, for batches of three and K = 4.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.noise import noise_scope
from tfp_bnn.layers import (
    Convolution1DFlipout,
    Convolution2DFlipout,
    DenseFlipout,
    SeparableConvolution2DFlipout,
)

from .conformance.reference import expected_outputs, moments, randomize
from .conformance.test_outputs import assert_sum_of_fair_signs

FALSE_FAILURE_RATE = 1e-6
NUM_DRAWS = 2000


def make(num_groups, bias_posterior="mean_field_normal", **kwargs):
    layer = Convolution1DFlipout(3, 2, groups_of_noise=num_groups, bias_posterior=bias_posterior, **kwargs)
    layer.build((None, 4, 2))
    return layer


def inputs_of(batch):
    return np.random.default_rng(1).normal(size=(batch, 4, 2)).astype(np.float32)


# === Exactly ===


@pytest.mark.parametrize("num_groups", [2, 3, 4, 7])
def test_batches_of_any_size_have_their_rows_in_turn_in_the_groups(num_groups, injected_noise):
    layer = make(num_groups)
    parameters = randomize(layer)

    @tf.function(input_signature=[tf.TensorSpec((None, 4, 2))], autograph=False)
    def of_unknown_batch(x):
        with noise_scope({id(layer): injected_noise}):
            return layer(x, training=True)

    for batch in (1, 2, 3, 4, 5, 8, 9):
        inputs = inputs_of(batch)
        with noise_scope({id(layer): injected_noise}):
            outputs = layer(inputs, training=True)
        expected = expected_outputs(layer, inputs, parameters, injected_noise.drawn, training=True)
        np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(of_unknown_batch(inputs), expected, rtol=1e-5, atol=1e-5)


def test_images_of_unknown_size_keep_their_channels():
    layer = Convolution2DFlipout(3, 3, groups_of_noise=4, seed=0)
    outputs = tf.function(lambda x: layer(x, training=True), autograph=False).get_concrete_function(tf.TensorSpec((None, None, None, 2)))
    assert outputs.outputs[0].shape[-1] == 3
    assert outputs(tf.zeros((5, 6, 7, 2))).shape == (5, 4, 5, 3)


@pytest.mark.parametrize("batch", [4, 6, 3])
def test_the_gradient_is_unbiased(batch, injected_noise):
    """Of a loss that is quadratic in the outputs, against its exact expectation.

    Gradients are quadratic in the noise, and the mean of a quadratic function over N(0, I) in d dimensions is its mean
    over the 2 d points at a distance of sqrt(d) on the axes. It is the same for all signs.
    """
    layer = make(4)
    randomize(layer)
    inputs, weights = inputs_of(batch), layer.variational_weights
    variables = [weights[name].posterior_variables[role] for name in weights for role in ("loc", "untransformed_scale")]
    values = [variable.value for variable in variables]
    size = sum(weight.size for weight in weights.values())

    found = []
    for point in np.sqrt(size) * np.concatenate([np.eye(size), -np.eye(size)]):
        kernel, bias = np.split(point.astype(np.float32), [weights["kernel"].size])
        injected_noise.drawn["kernel"] = kernel.reshape(weights["kernel"].shape)
        injected_noise.drawn["bias"] = bias
        with noise_scope({id(layer): injected_noise}), tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(inputs, training=True) ** 2) / 2
        found.append([tf.convert_to_tensor(gradient).numpy() for gradient in tape.gradient(loss, values)])

    kernel, bias, x = weights["kernel"], weights["bias"], tf.constant(inputs)
    with tf.GradientTape() as tape:
        mean = layer.operation(x, kernel.mean) + bias.mean
        variance = layer.operation(x**2, kernel.variance) + bias.variance
        expected_loss = tf.reduce_sum(mean**2 + variance) / 2
    expected = tape.gradient(expected_loss, values)
    for variable, gradient, *gradients in zip(variables, expected, *found, strict=True):
        error = np.mean(gradients, axis=0, dtype=np.float64) - gradient
        np.testing.assert_allclose(error, 0.0, atol=1e-4 * np.abs(gradients).max(), err_msg=variable.path)


def test_without_an_argument_it_is_flipout_and_a_file_of_before_loads(injected_noise):
    layer = Convolution1DFlipout(3, 2, seed=0, name="layer")
    config = layer.get_config()
    assert config.pop("groups_of_noise") is None
    copy = Convolution1DFlipout.from_config(config)
    assert layer.estimator is copy.estimator is Convolution1DFlipout.estimator
    for each in (layer, copy):
        injected_noise.drawn.clear()
        with noise_scope({id(each): injected_noise}):
            each(inputs_of(5), training=True)
        assert injected_noise.drawn["input_signs"].shape == (5, 1, 2)


@pytest.mark.parametrize("value", [1, 0, -4, 2.0, True, "4"])
def test_a_number_of_groups_below_two_is_refused(value):
    with pytest.raises(ValueError, match=rf"`groups_of_noise` must be an integer >= 2, but got {value!r}"):
        Convolution1DFlipout(3, 2, groups_of_noise=value)


def test_layers_that_are_no_convolution_do_not_take_it():
    with pytest.raises(ValueError, match="groups_of_noise"):
        DenseFlipout(3, groups_of_noise=4)


# === In distribution ===


@pytest.mark.statistical
def test_draws_of_a_pair_are_opposite_and_those_of_different_pairs_uncorrelated(draw_outputs):
    """2,000 draws of twelve equal examples in six groups; false-failure rate 1e-6, by Hoeffding's inequality.

    The covariance within a pair is minus the variance, exactly, and that of two examples of a group plus the variance.
    Of different pairs, the sign of the product of two deviations is a fair coin.
    """
    layer = make(6, seed=0)
    parameters, inputs = randomize(layer), np.repeat(inputs_of(1), 12, axis=0)
    draws = draw_outputs(layer, inputs, NUM_DRAWS, training=True)
    mean, variance = moments(layer, inputs, "mean_field_normal", parameters)
    deviations = draws.astype(np.float64) - mean
    assert deviations.var(axis=0).min() > variance.min() / 2
    np.testing.assert_allclose(deviations[:, 0::2], -deviations[:, 1::2], atol=1e-4)
    np.testing.assert_allclose(draws[:, :6], draws[:, 6:], atol=1e-5)
    pairs = [(0, 2), (0, 3), (0, 4), (2, 4), (1, 5)]
    for one, other in pairs:
        assert_sum_of_fair_signs(deviations[:, one] * deviations[:, other], FALSE_FAILURE_RATE / len(pairs))


@pytest.mark.statistical
def test_signs_act_on_input_and_output_channels_and_biases(draw_outputs):
    """2,000 draws of four examples in four groups; false-failure rate 1e-6, by Hoeffding's inequality.

    Two pairs differ by more than a common sign: deviations of the second pair, over those of the first, are fair coins
    for each output, and the product of the coins of two outputs is fair too.
    """
    layer = make(4, seed=0)
    parameters, inputs = randomize(layer), np.repeat(inputs_of(1), 4, axis=0)
    deviations = draw_outputs(layer, inputs, NUM_DRAWS, training=True).astype(np.float64)
    deviations -= moments(layer, inputs, "mean_field_normal", parameters)[0]
    products = deviations[:, 0] * deviations[:, 2]
    of_two_channels = products[..., 0] * products[..., 1]
    assert_sum_of_fair_signs(of_two_channels, FALSE_FAILURE_RATE)


# === In models ===


def network(num_groups):
    keras.utils.set_random_seed(0)
    return tfp_bnn.VariationalSequential(
        [
            keras.Input((6, 6, 1)),
            Convolution2DFlipout(4, 3, activation="relu", groups_of_noise=num_groups, name="conv"),
            SeparableConvolution2DFlipout(4, 3, activation="relu", groups_of_noise=num_groups, name="separable"),
            keras.layers.Flatten(),
            DenseFlipout(2, name="logits"),
        ],
        seed=0,
    )


@pytest.mark.slow
def test_a_model_trains_says_so_in_its_summary_and_keeps_it_in_its_file(tmp_path, capsys):
    model = network(4)
    model.compile(keras.optimizers.Adam(1e-2))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(13, 6, 6, 1)).astype(np.float32), rng.integers(2, size=13)
    # Batches of eight and five.
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.summary(line_length=120)
        assert "Grouped flipout, 4 groups: conv, separable." in capsys.readouterr().out
        assert each.get_layer("conv").groups_of_noise == 4
    continued = [each.fit(x, y, batch_size=8, shuffle=False, verbose=0).history["loss"] for each in (model, loaded)]
    assert continued[0] == continued[1]
    twin = tfp_bnn.transfer.to_deterministic(model, probabilities=True)
    np.testing.assert_allclose(twin(x), model.plug_in_predictive(x).mean(), atol=1e-5)


def test_prediction_does_not_depend_on_the_groups():
    x = np.random.default_rng(0).normal(size=(5, 6, 6, 1)).astype(np.float32)
    one, other = (network(num_groups).posterior_predictive(x, num_samples=3, seed=1).mean() for num_groups in (4, None))
    np.testing.assert_array_equal(one, other)
