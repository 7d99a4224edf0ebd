"""Several draws of the weights in each training step."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import DenseFlipout, DenseReparameterization, MCDropout
from tfp_bnn.variational.objectives import OBJECTIVES

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3)).astype(np.float32)
Y = X[:, :1] + RNG.normal(size=(6, 1)).astype(np.float32)
N = 50
# Wide, so that draws differ; a KL without a closed form, so that its draws count.
SPECS = {"kernel_posterior": {"name": "mean_field_normal", "initial_scale": 0.7}, "kernel_prior": "laplace"}


def make(*layers, num_draws=3, optimizer=None, metrics=("mean_squared_error",), likelihood="normal", **how):
    keras.utils.set_random_seed(0)
    layers = layers or (DenseFlipout(4, activation="tanh", activity_regularizer="l2", **SPECS), MCDropout(0.3))
    head = DenseReparameterization(1, kernel_regularizer="l2", **SPECS)
    stack = [keras.Input((3,)), *layers, head]
    model = tfp_bnn.VariationalSequential(stack, likelihood=likelihood, num_draws=num_draws, seed=0)
    model.compile(optimizer or keras.optimizers.SGD(1.0), metrics=list(metrics), **{"run_eagerly": True, **how})
    model.num_examples = N
    return model


def by_hand(num_draws):
    """What a step computes under each of the next draws of training, from a model with the same weights and noise."""
    twin = make(num_draws=1)
    terms, losses, predictions = [], [], []
    with tf.GradientTape() as tape:
        for _ in range(num_draws):
            with twin._draw(training=True):
                outputs = twin(X, training=True)
                nll = -tf.reduce_mean(twin.likelihood.log_likelihood(Y, outputs, twin.likelihood_weights, None))
                kl = twin.kl()
            terms.append((float(nll), float(kl)))
            predictions.append(outputs.numpy())
            losses.append(nll + kl / N + tf.add_n(twin.losses))
        loss = tf.add_n(losses) / num_draws
    return loss, tape.gradient(loss, twin.trainable_weights), np.mean(terms, axis=0), predictions


def test_loss_gradient_and_metrics_are_those_of_the_mean_over_independent_draws():
    model = make(num_draws=3)
    before = [weight.numpy() for weight in model.trainable_weights]
    logs = model.train_on_batch(X, Y, return_dict=True)
    loss, gradients, (nll, kl), predictions = by_hand(3)
    assert np.std(predictions, axis=0).min() > 0.01
    assert logs["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert logs["nll"] == pytest.approx(nll, rel=1e-5)
    assert logs["kl"] == pytest.approx(kl, rel=1e-5)
    assert logs["elbo"] == pytest.approx(-nll - kl / N, rel=1e-5)
    # The metric of the mean prediction, and not the mean of the metrics.
    assert logs["mean_squared_error"] == pytest.approx(np.mean((np.mean(predictions, axis=0) - Y) ** 2), rel=1e-5)
    for weight, start, gradient in zip(model.trainable_weights, before, gradients, strict=True):
        np.testing.assert_allclose(weight.numpy(), start - gradient, rtol=1e-4, atol=1e-5)


def test_the_next_step_goes_on_with_the_next_draws():
    several, single = make(num_draws=2), make(num_draws=1)
    several.train_on_batch(X, Y)
    for _ in range(2):
        single.train_on_batch(X, Y)
    for name, variable in several.noise_variables.items():
        np.testing.assert_array_equal(variable, single.noise_variables[name])


def test_evaluation_takes_one_draw():
    several, single = make(num_draws=4), make(num_draws=1)
    assert several.evaluate(X, Y, verbose=0, return_dict=True) == single.evaluate(X, Y, verbose=0, return_dict=True)


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"jit_compile": True, "run_eagerly": False}, {"run_eagerly": False}])
def test_compiled_steps_agree_with_eager_ones_and_refuse_bad_batches(how):
    # The noise is not the same under XLA, so the network has none.
    point = {"kernel_posterior": "delta", "kernel_prior": {"name": "normal", "scale": 1.0}}
    x = np.tile(X, (4, 1))

    def trained(**how):
        keras.utils.set_random_seed(0)
        layers = [keras.Input((3,)), DenseFlipout(4, activation="tanh", **point), DenseReparameterization(1, **point)]
        model = tfp_bnn.VariationalSequential(layers, likelihood="normal", num_draws=2, seed=0)
        model.compile(keras.optimizers.SGD(0.1), **how)
        model.fit(x, x[:, 0], batch_size=6, epochs=1, shuffle=False, verbose=0)
        return model

    model = trained(steps_per_execution=2, **how)
    for weight, expected in zip(model.get_weights(), trained(run_eagerly=True).get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5)
    before = model.get_weights()
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match="inputs of a batch have NaN"):
        model.fit(tf.data.Dataset.from_tensor_slices((x, x[:, 1])).batch(6), verbose=0)
    for weight, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_statistics_of_normalization_move_once_with_each_draw():
    normalization = keras.layers.BatchNormalization(momentum=0.5)
    model = make(normalization, num_draws=3)
    model.train_on_batch(X, Y)
    np.testing.assert_allclose(normalization.moving_mean, X.mean(axis=0) * (1 - 0.5**3), rtol=1e-5)


def test_missing_targets_are_left_out_of_the_metrics_of_the_mean():
    likelihood = {"name": "normal", "missing": "nan"}
    full, missing = make(likelihood=likelihood), make(likelihood=likelihood)
    y = np.array([*Y[:4], [np.nan], [np.nan]], np.float32)
    masked = missing.train_on_batch(X, y, return_dict=True)["mean_squared_error"]
    # Far targets would show.
    weighted = full.train_on_batch(X, np.array([*Y[:4], [1e3], [1e3]], np.float32), return_dict=True)
    assert masked < 100 < weighted["mean_squared_error"]


@pytest.mark.slow
def test_the_number_can_be_changed_after_training_and_is_saved(tmp_path):
    model = make(MCDropout(0.3), num_draws=1, run_eagerly=False)
    model.train_on_batch(X, Y)
    (training, _), before = model.noise_variables.values(), int(model.noise_variables["training_noise"][1])
    model.num_draws = 4
    model.train_on_batch(X, Y)
    assert int(training[1]) - before == 4
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").num_draws == 4
    assert keras.models.clone_model(model).num_draws == 4


@pytest.mark.parametrize("wrong", [0, 2.5, "two", True])
def test_a_number_that_is_not_at_least_one_is_refused(wrong):
    with pytest.raises(ValueError, match="`num_draws` must be an integer >= 1"):
        make(num_draws=wrong)


@pytest.mark.parametrize(("rate", "draws"), [(None, 1), (0.5, 3)])
def test_points_are_trained_on_the_loss_that_is_documented(rate, draws):
    """Other objectives are made of several draws, of which a point has one."""
    dropout = [] if rate is None else [MCDropout(rate)]
    layers = [keras.Input((2,)), *dropout, DenseFlipout(1)]
    model = tfp_bnn.VariationalSequential(layers, likelihood="normal", objective="pac_m", num_draws=3, seed=0)
    copy = (tfp_bnn.inference.map_estimate if rate is None else tfp_bnn.inference.mc_dropout)(model)
    assert (OBJECTIVES.name_of(copy.objective), copy.num_draws) == ("elbo", draws)
    assert (OBJECTIVES.name_of(model.objective), model.num_draws) == ("pac_m", 3)
