"""The loss of training and evaluation: loss = nll + beta * kl / N + regularizers, with the right N, beta and KL."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

import tfp_bnn
from tfp_bnn.core.noise import Noise, noise_scope
from tfp_bnn.layers import Convolution2DFlipout, DenseFlipout, DenseReparameterization

from .elbo_networks import REL, N, X, Y, check_scaling, frozen_network, last, network, pipeline


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


def closed_form_kl(weight, prior_scale):
    """KL(N(loc, scale) || N(0, prior_scale)) of a weight tensor, in float64."""
    loc, scale = (weight.parameters()[key].astype(np.float64) for key in ("loc", "scale"))
    return np.sum(np.log(prior_scale / scale) + (scale**2 + loc**2) / (2 * prior_scale**2) - 0.5)


# === Scale ===


@pytest.fixture(scope="module")
def scaled():
    """A beta other than 1, so a missing one shows, and a network trained with it."""
    beta = 0.3
    return beta, network(beta_schedule={"name": "constant", "beta": beta}, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 48, N])
def test_the_kl_is_divided_by_the_number_of_examples(scaled, batch_size):
    beta, model = scaled
    history = model.fit(X, Y, batch_size=batch_size, validation_data=(X[:30], Y[:30]), verbose=0)
    check_scaling(last(history), beta, N)
    # In validation beta is 1 and N still that of training.
    check_scaling(last(history), 1.0, N, prefix="val_")
    assert model.num_examples == N
    assert model.beta == np.float32(beta)
    logs = model.evaluate(X, Y, batch_size=batch_size, return_dict=True, verbose=0)
    check_scaling(logs, 1.0, N)
    assert logs["kl"] == pytest.approx(float(model.kl()), rel=REL)


@pytest.mark.slow
def test_another_number_of_examples_is_honoured_by_a_compiled_model(scaled):
    beta, model = scaled
    for number in (10, N, 50):
        check_scaling(last(model.fit(X[:number], Y[:number], verbose=0)), beta, number)
    for number in (7, 1000):
        model.num_examples = number
        check_scaling(model.evaluate(X, Y, return_dict=True, verbose=0), 1.0, number)


def test_a_validation_split_is_not_counted(scaled):
    beta, model = scaled
    history = model.fit(X, Y, validation_split=0.3, verbose=0)
    assert model.num_examples == 70
    check_scaling(last(history), beta, 70)
    check_scaling(last(history), 1.0, 70, prefix="val_")


@pytest.mark.slow
def test_the_scale_survives_saving(scaled, tmp_path):
    beta, model = scaled
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    logs = loaded.evaluate(X, Y, return_dict=True, verbose=0)
    check_scaling(logs, 1.0, N)
    assert logs["kl"] == pytest.approx(float(model.kl()), rel=1e-6)
    check_scaling(last(loaded.fit(X[:60], Y[:60], verbose=0)), beta, 60)


@pytest.mark.slow
def test_several_steps_in_one_execution():
    model = frozen_network()
    model.compile(keras.optimizers.SGD(0.0), steps_per_execution=2)
    check_scaling(last(model.fit(X, Y, batch_size=20, epochs=2, verbose=0)), 1.0, N)
    # An odd number of batches, counted by the check of the rows.
    check_scaling(last(model.fit(pipeline(batch_size=40), epochs=2, verbose=0)), 1.0, N)
    check_scaling(model.evaluate(X, Y, batch_size=20, return_dict=True, verbose=0), 1.0, N)


# === The KL ===


def test_the_kl_of_layers_is_the_closed_form():
    x = keras.Input((4,))
    h = DenseFlipout(5, activation="relu", bias_posterior="mean_field_normal")(x)
    outputs = DenseReparameterization(3, kernel_prior={"name": "normal", "scale": 0.5})(h)
    model = tfp_bnn.VariationalModel(x, outputs)
    for weight in model.trainable_weights:
        weight.assign(np.random.default_rng(1).normal(size=weight.shape) / 3)
    first, second = model.variational_layers
    expected = {
        first.name: closed_form_kl(first.variational_weights["kernel"], 1.0)
        + closed_form_kl(first.variational_weights["bias"], 1.0),
        second.name: closed_form_kl(second.variational_weights["kernel"], 0.5),
    }
    by_layer = model.kl_by_layer()
    assert list(by_layer) == [first.name, second.name]
    for name, kl in by_layer.items():
        assert float(kl) == pytest.approx(expected[name], rel=REL)
    assert float(model.kl()) == pytest.approx(sum(expected.values()), rel=REL)
    of_tfp = tfd.kl_divergence(second.kernel_posterior, second.kernel_prior)
    assert float(by_layer[second.name]) == pytest.approx(float(of_tfp), rel=1e-6)
    assert model.kl().dtype == tf.float32
    assert model.kl().shape == ()


def test_a_model_without_bayesian_layers_has_no_kl():
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", run_eagerly=True)
    logs = last(model.fit(X, Y, verbose=0))
    assert logs["kl"] == 0.0
    assert logs["loss"] == pytest.approx(logs["nll"])
    assert model.kl_by_layer() == {}


def test_layers_of_the_same_name_are_told_apart():
    def half(name):
        x = keras.Input((4,))
        return keras.Model(x, DenseFlipout(3, name="dense")(x), name=name)

    x = keras.Input((4,))
    model = tfp_bnn.VariationalModel(x, keras.layers.Add()([half("left")(x), half("right")(x)]))
    by_layer = model.kl_by_layer()
    assert list(by_layer) == ["dense", "dense#2"]
    assert float(model.kl()) == pytest.approx(float(sum(by_layer.values())), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("layer_class", [DenseFlipout, DenseReparameterization])
def test_a_layer_used_twice_counts_once_and_shares_its_draw(layer_class):
    x = keras.Input((8,))
    shared = layer_class(3, use_bias=False)
    model = tfp_bnn.VariationalModel(
        x, keras.layers.Concatenate()([shared(x[:, :4]), shared(x[:, 4:])]), likelihood="normal"
    )
    assert list(model.kl_by_layer()) == [shared.name]
    assert float(model.kl()) == pytest.approx(closed_form_kl(shared.variational_weights["kernel"], 1.0), rel=REL)

    twice = np.concatenate([X, X], axis=1)
    draws = [
        model(twice),
        model(twice),
        model.predict(twice, verbose=0),
        model.posterior_predictive(twice, 1).samples[0],
    ]
    for outputs in map(np.asarray, draws):
        np.testing.assert_allclose(outputs[:, :3], outputs[:, 3:], rtol=1e-5, atol=1e-6)
    assert np.abs(draws[0] - draws[1]).max() > 1e-3

    model.compile("sgd", run_eagerly=True)
    model.num_examples = 10
    logs = model.evaluate(twice, np.zeros((N, 6)), return_dict=True, verbose=0)
    assert logs["loss"] - logs["nll"] == pytest.approx(float(shared.kl()) / 10, rel=1e-4)


def test_regularizers_of_the_user_are_added():
    layers = [
        keras.Input((4,)),
        DenseFlipout(5, kernel_regularizer=keras.regularizers.L2(0.1)),
        keras.layers.Dense(3, bias_initializer="ones", bias_regularizer=keras.regularizers.L1(0.2)),
    ]
    model = tfp_bnn.VariationalSequential(layers)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    penalty = 0.1 * np.sum(np.asarray(layers[1].kernel) ** 2) + 0.2 * 3
    for logs in (last(model.fit(X, Y, verbose=0)), model.evaluate(X, Y, return_dict=True, verbose=0)):
        assert logs["loss"] - logs["nll"] - logs["kl"] / N == pytest.approx(penalty, rel=1e-4)
        # The ELBO does not include regularizers.
        assert logs["elbo"] == pytest.approx(-(logs["nll"] + logs["kl"] / N), rel=REL)


def log_ratio(draw, layer):
    """log q(w) - log p(w) under the default scale mixture, in float64."""
    loc, scale = (layer.variational_weights["kernel"].parameters()[key].astype(np.float64) for key in ("loc", "scale"))
    draw = np.asarray(draw, np.float64)

    def log_normal(value, mean, deviation):
        return -0.5 * ((value - mean) / deviation) ** 2 - np.log(deviation) - 0.5 * math.log(2 * math.pi)

    log_prior = np.logaddexp(log_normal(draw, 0.0, 1.0), log_normal(draw, 0.0, math.exp(-6.0))) + math.log(0.5)
    return np.sum(log_normal(draw, loc, scale) - log_prior)


@pytest.mark.parametrize("layer_class", [DenseFlipout, DenseReparameterization])
def test_a_monte_carlo_kl_is_that_of_the_draw_in_scope(layer_class):
    layer = layer_class(3, use_bias=False, kernel_prior="scale_mixture")
    layer.build((None, 4))
    kls = []
    for seed in range(3):
        with noise_scope({id(layer): Noise(tf.constant([seed, 0], tf.int64))}):
            # The outputs for the unit vectors are the kernel.
            draw, kl = layer(np.eye(4, dtype=np.float32), training=False), float(layer.kl())
        assert kl == pytest.approx(log_ratio(draw, layer), rel=1e-4)
        kls.append(kl)
    assert len(set(kls)) == 3


def test_a_monte_carlo_kl_of_a_step_is_that_of_its_very_draw():
    drawn = []

    def probe(y_true, y_pred):
        drawn.append(y_pred.numpy())
        return tf.reduce_mean(y_pred)

    layer = DenseReparameterization(3, use_bias=False, kernel_prior="scale_mixture")
    model = tfp_bnn.VariationalSequential(
        [keras.Input((4,)), layer], likelihood={"name": "normal", "scale": 1.0}, seed=1
    )
    model.compile(keras.optimizers.SGD(0.0), metrics=[probe], run_eagerly=True)
    units, targets = np.eye(4, dtype=np.float32), np.zeros((4, 3), np.float32)
    kl_of_steps = model.fit(units, targets, epochs=3, shuffle=False, verbose=0).history["kl"]
    kl_of_steps.append(model.evaluate(units, targets, return_dict=True, verbose=0)["kl"])
    assert len(drawn) == 4
    for kl, draw in zip(kl_of_steps, drawn, strict=True):
        assert kl == pytest.approx(log_ratio(draw, layer), rel=1e-4)
    assert len(set(kl_of_steps)) == 4


def test_convolutions_are_scaled_alike():
    layers = [keras.Input((5, 5, 1)), Convolution2DFlipout(2, 3), keras.layers.Flatten(), DenseFlipout(3)]
    model = tfp_bnn.VariationalSequential(layers)
    model.compile("adam", run_eagerly=True)
    images = np.random.default_rng(0).normal(size=(20, 5, 5, 1))
    check_scaling(last(model.fit(images, Y[:20], batch_size=16, verbose=0)), 1.0, 20)
    expected = sum(closed_form_kl(layer.variational_weights["kernel"], 1.0) for layer in model.variational_layers)
    assert float(model.kl()) == pytest.approx(expected, rel=REL)
