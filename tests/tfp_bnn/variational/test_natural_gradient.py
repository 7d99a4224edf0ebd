"""Natural-gradient variational inference: its step, what it trains, what it refuses, and what is saved of it."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn import NaturalGradient
from tfp_bnn.compression import prune
from tfp_bnn.layers import DenseFlipout, DenseLocalReparameterization, DenseReparameterization

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
SCHEDULE = keras.optimizers.schedules.CosineDecay
BOTH = {"bias_posterior": "mean_field_normal"}


def network(optimizer, layer=DenseFlipout, seed=0, metrics=(), compile_options=(), **kwargs):
    keras.utils.set_random_seed(seed)
    model_options = {key: kwargs.pop(key) for key in ("beta_schedule", "likelihood", "num_draws") if key in kwargs}
    layers = [keras.Input((4,)), layer(3, activation="tanh", **{**BOTH, **kwargs}), layer(2, **kwargs)]
    model = tfp_bnn.VariationalSequential(layers, seed=seed, **model_options)
    model.compile(optimizer, metrics=list(metrics), **dict(compile_options))
    return model


def fit(model, epochs=2, **kwargs):
    return model.fit(X, Y, batch_size=5, epochs=epochs, shuffle=False, verbose=0, **kwargs)


def weights_of(model):
    every = [layer.variational_weights.values() for layer in model.variational_layers]
    return [weight for of_layer in every for weight in of_layer if weight.posterior_spec.has_spread]


def states(model):
    return [np.asarray(v) for v in (*model.weights, *model.optimizer.variables)]


# === The step ===


@pytest.mark.parametrize("beta", [1.0, 0.25])
def test_three_steps_are_those_of_the_published_equations(beta):
    """Shen et al. 2024, algorithm 1, and the retraction of Lin et al. 2020, in float64, with h and delta spelled out.

    Without momentum: with it, ours averages the pull of the prior too.
    """
    rng = np.random.default_rng(1)
    shape, number, rate, rho = (3, 2), 40, 0.3, 0.2
    layer = DenseReparameterization(2, use_bias=False, kernel_prior="informed")
    model = tfp_bnn.VariationalSequential([keras.Input((3,)), layer], beta_schedule={"name": "constant", "beta": beta})
    optimizer = NaturalGradient(rate, curvature_rate=rho, momentum=0.0)
    weight = layer.variational_weights["kernel"]
    start = {"loc": rng.normal(size=shape), "scale": rng.uniform(0.1, 0.3, shape)}
    prior = {"prior_loc": rng.normal(size=shape), "prior_scale": rng.uniform(0.5, 2.0, shape)}
    weight.assign_parameters({**start, **prior})
    optimizer.attach(model, lambda: tf.constant(beta / number))
    variables = list(model.trainable_variables)

    temper = number / beta
    delta = 1 / (temper * prior["prior_scale"] ** 2)
    m, h = start["loc"], 1 / (temper * start["scale"] ** 2) - delta
    for _ in range(3):
        gradient, of_scale = rng.normal(size=shape), rng.normal(size=shape) / 5
        with tf.GradientTape() as tape:
            q = weight.posterior
            nll = tf.reduce_sum(gradient * q.mean() + of_scale * q.stddev())
            loss = tf.cast(nll, tf.float32) + beta / number * layer.kl()
        optimizer.apply(tape.gradient(loss, variables), variables)
        scale = 1 / np.sqrt(temper * (h + delta))
        estimate = of_scale / scale
        h = (1 - rho) * h + rho * estimate + rho**2 * (h - estimate) ** 2 / (2 * (h + delta))
        m = m - rate * (gradient + delta * (m - prior["prior_loc"])) / (h + delta)
        found = weight.parameters()
        np.testing.assert_allclose(found["scale"], 1 / np.sqrt(temper * (h + delta)), rtol=2e-5)
        np.testing.assert_allclose(found["loc"], m, rtol=1e-4, atol=1e-5)


def test_the_momentum_is_an_average_without_bias():
    """A constant gradient gives the same step with and without momentum, from the first step on."""
    moved = []
    for momentum in (0.0, 0.9):
        layer = DenseReparameterization(1, use_bias=False)
        model = tfp_bnn.VariationalSequential([keras.Input((1,)), layer])
        optimizer = NaturalGradient(0.1, curvature_rate=0.0, momentum=momentum)
        optimizer.attach(model, lambda: tf.constant(0.5))
        loc, rho = model.trainable_variables
        loc.assign([[0.0]])
        for _ in range(3):
            optimizer.apply([tf.constant([[2.0]]), tf.constant([[5.0]])], [loc, rho])
            moved.append(float(loc.numpy()[0, 0]))
    # -0.1 * 2 * scale^2 / 0.5 a step, and no step of the scale, 0.05.
    np.testing.assert_allclose(moved, 2 * [-1e-3, -2e-3, -3e-3], rtol=1e-5)


def test_a_step_of_several_draws_goes_along_their_mean_gradient():
    """SGD with a rate of 1 moves a twin, with the same three draws, by minus that gradient."""
    rate, rho, compile_options = 0.3, 0.2, {"run_eagerly": True}
    natural = network(NaturalGradient(rate, rho, momentum=0.0), num_draws=3, compile_options=compile_options)
    twin = network(keras.optimizers.SGD(1.0), num_draws=3, compile_options=compile_options)
    before = [weight.parameters() for weight in weights_of(twin)]
    untransformed = [np.asarray(weight.posterior_variables["untransformed_scale"]) for weight in weights_of(twin)]
    for model in (natural, twin):
        model.num_examples = len(X)
        model.train_on_batch(X, Y)
    for start, u, moved, found in zip(before, untransformed, weights_of(twin), weights_of(natural), strict=True):
        of_loc = start["loc"] - moved.parameters()["loc"]
        of_u = u - np.asarray(moved.posterior_variables["untransformed_scale"])
        change = rho * len(X) * start["scale"] * of_u * (1 + np.exp(-u))
        scale = start["scale"] / np.sqrt(1 + change + change**2 / 2)
        np.testing.assert_allclose(found.parameters()["scale"], scale, rtol=1e-4)
        np.testing.assert_allclose(
            found.parameters()["loc"], start["loc"] - rate * len(X) * scale**2 * of_loc, rtol=1e-4
        )


@pytest.mark.slow
def test_a_cold_posterior_is_that_of_a_smaller_beta_with_a_colder_prior():
    """p(w | data)^(1 / T): the likelihood counts 1 / T times, and the normal prior has the scale s sqrt(T)."""
    temperature, one = 0.25, {"bias_posterior": None}
    schedule = {"name": "constant", "beta": temperature}
    prior, colder = ({"name": "normal", "scale": 0.8 * factor} for factor in (1.0, temperature**0.5))
    cold = network(NaturalGradient(0.1, 0.1, temperature=temperature), kernel_prior=prior, **one)
    same = network(NaturalGradient(0.1, 0.1), kernel_prior=colder, beta_schedule=schedule, **one)
    for model in (cold, same):
        fit(model)
    for first, second in zip(cold.trainable_variables, same.trainable_variables, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


def one_step(optimizer, variables):
    return lambda gradients: optimizer.apply(gradients, variables)


def test_scales_of_pruned_weights_stay():
    """They have no gradient that could balance the temperature."""
    model = prune(network("sgd", DenseReparameterization), 0.5)
    model.compile(NaturalGradient(0.01, curvature_rate=0.2, temperature=3.0))
    before = [np.asarray(weight.posterior_parameters()["scale"]) for weight in weights_of(model)]
    fit(model, epochs=1)
    for weight, scale in zip(weights_of(model), before, strict=True):
        now, kept = np.asarray(weight.posterior_parameters()["scale"]), np.asarray(weight.kept)
        np.testing.assert_allclose(now[~kept], scale[~kept], rtol=1e-6)
        assert (now[kept] != scale[kept]).all()


@pytest.mark.slow
def test_xla_gives_the_same_step():
    """Of the optimizer alone: noise differs under XLA."""
    finals = []
    for compiled in (False, True):
        layer = DenseReparameterization(2, **BOTH)
        model = tfp_bnn.VariationalSequential([keras.Input((3,)), layer], seed=0)
        optimizer = NaturalGradient(0.1, SCHEDULE(0.2, 10), temperature=0.5)
        optimizer.attach(model, lambda: tf.constant(0.1))
        variables = list(model.trainable_variables)
        variables[0].assign(np.linspace(-1, 1, 6).reshape(3, 2))
        optimizer.build(variables)
        step = one_step(optimizer, variables)
        if compiled:
            step = tf.function(step, jit_compile=True, autograph=False)
        gradients = [tf.fill(v.shape, 0.02 * (i + 1)) for i, v in enumerate(variables)]
        for _ in range(3):
            step(gradients)
        finals.append([np.asarray(v) for v in variables])
    for first, second in zip(*finals, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("layer", [DenseFlipout, DenseReparameterization, DenseLocalReparameterization])
def test_every_estimator_and_any_prior_is_trained_also_under_xla(layer):
    """A Laplace prior has no closed-form KL."""
    model = network(NaturalGradient(0.05, 0.02), layer, kernel_prior="laplace", compile_options={"jit_compile": True})
    history = fit(model, epochs=20).history
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]


# === Other weights ===


def test_all_other_weights_are_trained_by_the_companion():
    """Adam moves each weight by its rate in the first step: biases, delta posteriors and the scale of a prior."""
    companion = keras.optimizers.Adam(0.125, epsilon=1e-12)
    prior = {"name": "normal", "empirical_bayes": True}
    hidden = DenseFlipout(3, kernel_prior=prior)
    layers = [keras.Input((4,)), hidden, DenseFlipout(2, kernel_posterior="delta", use_bias=False)]
    model = tfp_bnn.VariationalSequential(layers, seed=0)
    model.compile(NaturalGradient(companion=companion), run_eagerly=True)
    before = {v.path: np.asarray(v).copy() for v in model.trainable_variables}
    model.num_examples = 12
    model.train_on_batch(X, Y)
    moved = {v.path: np.abs(np.asarray(v) - before[v.path]) for v in model.trainable_variables}
    mean, scale, *others = moved.values()
    assert len(others) == 3
    for value in others:
        np.testing.assert_allclose(value, 0.125, rtol=1e-3)
    for value in (mean, scale):
        assert 0 < value.max() < 0.1


def test_the_moving_averages_of_the_companion_are_what_a_training_ends_with():
    companion = keras.optimizers.Adam(0.1, use_ema=True, ema_momentum=0.5)
    model = network(NaturalGradient(companion=companion), bias_posterior=None, compile_options={"run_eagerly": True})
    bias, values = model.layers[-1].bias, []
    look = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: values.append(bias.numpy().copy()))
    fit(model, epochs=1, callbacks=[look])
    average = values[0]
    for value in values[1:]:
        average = 0.5 * average + 0.5 * value
    assert not np.allclose(average, values[-1])
    np.testing.assert_allclose(bias, average, rtol=1e-5)


@pytest.mark.slow
def test_the_scale_of_a_prior_is_learned_with_the_posterior():
    """Empirical Bayes: at the optimum it is the root of the mean of loc^2 + scale^2."""
    companion = keras.optimizers.Adam(SCHEDULE(0.05, 300))
    layer = DenseLocalReparameterization(2, kernel_prior={"name": "normal", "empirical_bayes": True})
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), layer], seed=0)
    model.compile(NaturalGradient(SCHEDULE(0.1, 300), 0.02, companion=companion), steps_per_execution=100)
    data = tf.data.Dataset.from_tensors((X, Y)).repeat()
    model.fit(data, steps_per_epoch=300, shuffle=False, verbose=0, num_examples=12)
    found = layer.variational_weights["kernel"].parameters()
    expected = np.sqrt(np.mean(found["loc"] ** 2 + found["scale"] ** 2))
    assert found["prior_scale"] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("frozen", ["loc", "scale"])
def test_a_posterior_with_one_frozen_part_trains_the_other(frozen):
    kept = {"loc": "scale", "scale": "loc"}[frozen]
    posterior = {"name": "mean_field_normal", "trainable": kept}
    model = network(NaturalGradient(0.1, 0.1), kernel_posterior=posterior, compile_options={"run_eagerly": True})
    weight = model.variational_layers[0].variational_weights["kernel"]
    before = weight.parameters()
    fit(model, epochs=1)
    np.testing.assert_array_equal(weight.parameters()[frozen], before[frozen])
    assert np.abs(weight.parameters()[kept] - before[kept]).max() > 0


# === Saving ===


@pytest.mark.slow
def test_a_saved_model_goes_on_with_the_same_bits(tmp_path):
    """Adam of the companion, schedules of both rates, momenta and the noise included."""

    def fresh():
        companion = keras.optimizers.Adam(SCHEDULE(0.01, 12))
        return network(NaturalGradient(SCHEDULE(0.1, 12), SCHEDULE(0.05, 12), companion=companion), bias_posterior=None)

    straight, stopped = fresh(), fresh()
    fit(straight, epochs=4)
    fit(stopped, epochs=2)
    stopped.save(tmp_path / "model.keras")
    resumed = keras.saving.load_model(tmp_path / "model.keras")
    assert resumed.optimizer.get_config() == stopped.optimizer.get_config()
    resumed.fit(X, Y, batch_size=5, epochs=4, initial_epoch=2, shuffle=False, verbose=0)
    assert len(states(straight)) == len(states(resumed))
    for expected, found in zip(states(straight), states(resumed), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_config_has_every_argument():
    arguments = {"momentum": 0.5, "temperature": 0.2, "companion": {"class_name": "SGD", "config": {}}, "name": "own"}
    optimizer = NaturalGradient(0.25, SCHEDULE(0.5, 10), **arguments)
    again = NaturalGradient.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    assert isinstance(again.companion, keras.optimizers.SGD)
    assert float(again.curvature_rate(5)) == pytest.approx(0.25)


# === Mixed precision ===


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_float32_posteriors(policy):
    """Under mixed_float16 Keras wraps the optimizer, scales the loss, and leaves out steps that overflow."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = network(NaturalGradient(0.05, 0.01))
    finally:
        keras.config.set_dtype_policy(before)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) is (policy == "mixed_float16")
    history = fit(model, epochs=20).history
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]


# === Refusals ===


def test_other_posteriors_are_refused_by_name():
    low_rank = DenseReparameterization(3, kernel_posterior="low_rank_normal", name="wide", **BOTH)
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), low_rank, DenseFlipout(2)])
    model.compile(NaturalGradient())
    message = "the model has wide/kernel (LowRankNormal("
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(model)


def test_a_model_without_a_posterior_is_refused():
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), DenseFlipout(2, kernel_posterior="delta")], name="points")
    model.compile(NaturalGradient())
    with pytest.raises(ValueError, match="no trainable weight of the model 'points' has one"):
        fit(model)


def test_a_beta_that_starts_at_0_is_refused():
    model = network(NaturalGradient(), beta_schedule={"name": "linear_warmup", "steps": 10})
    with pytest.raises(ValueError, match=r"beta is 0 at step 0 of LinearWarmup.*above 0 at every step"):
        fit(model)


def test_a_step_at_which_beta_falls_to_0_changes_nothing():
    falling = {"name": "linear_warmup", "steps": 2, "initial": 1.0, "final": 0.0}
    model, seen = network(NaturalGradient(), beta_schedule=falling), []
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(states(model)))
    with pytest.raises(ValueError, match=r"beta is 0 at step 2 of LinearWarmup.*weights are those before this step"):
        fit(model, epochs=1, callbacks=[note])
    assert len(seen) == 2
    for value, expected in zip(states(model), seen[-1], strict=True):
        np.testing.assert_array_equal(value, expected)


def test_weights_that_became_trainable_need_a_new_optimizer():
    model = network(NaturalGradient(), compile_options={"run_eagerly": True})
    model.layers[0].trainable = False
    fit(model, epochs=1)
    model.layers[0].trainable = True
    model.compile(model.optimizer, run_eagerly=True)
    with pytest.raises(ValueError, match="Compile the model with a new NaturalGradient"):
        fit(model, epochs=1)


def test_a_plain_keras_model_is_refused():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(NaturalGradient(), loss="mse", run_eagerly=True)
    with pytest.raises(ValueError, match="needs the variational model that it trains"):
        fit(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"curvature_rate": 1.5}, "`curvature_rate` must be a number in [0, 1]"),
        ({"momentum": 1.0}, "`momentum` must be a number in [0, 1), but got 1.0"),
        ({"temperature": 0.0}, "`temperature` must be a finite number > 0, but got 0.0"),
        ({"temperature": float("inf")}, "`temperature` must be a finite number > 0, but got inf"),
    ],
)
def test_values_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        NaturalGradient(**arguments)
