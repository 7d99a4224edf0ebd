"""Beta, the term of the likelihood, and callbacks that follow the terms of the loss."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.models.fit_callbacks import tell_direction

from .elbo_networks import RAN_OUT, REL, N, X, Y, check_scaling, frozen_network, generator_pipeline, last, network


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


# === N ===


@pytest.fixture(scope="module")
def frozen():
    return frozen_network()


# === Beta ===


@pytest.mark.slow
def test_a_warmup_shows_in_training_and_not_in_validation():
    model = frozen_network(beta_schedule={"name": "linear_warmup", "steps": 4, "initial": 0.2, "final": 1.0})
    assert math.isnan(model.beta)
    history = model.fit(X, Y, batch_size=50, epochs=3, validation_data=(X, Y), verbose=0).history
    # The means over the two steps of an epoch, at iterations 0 and 1, 2 and 3, 4 and 5.
    np.testing.assert_allclose(history["beta"], [0.3, 0.7, 1.0], rtol=1e-6)
    # The KL stays what it is, because the weights do.
    kl = np.array(history["kl"]) / N
    np.testing.assert_allclose(np.subtract(history["loss"], history["nll"]), history["beta"] * kl, rtol=1e-4)
    np.testing.assert_allclose(history["val_beta"], 1.0)
    np.testing.assert_allclose(np.subtract(history["val_loss"], history["val_nll"]), kl, rtol=1e-4)
    np.testing.assert_allclose(history["elbo"], -(np.array(history["nll"]) + kl), rtol=REL)
    assert model.beta == 1.0


# === The likelihood term ===


def test_the_nll_is_a_mean_over_examples(frozen):
    log_prob = frozen.plug_in_predictive(X).log_prob(Y)
    for batch_size in (1, 48, N):
        history = frozen.fit(X, Y, batch_size=batch_size, verbose=0)
        assert last(history)["nll"] == pytest.approx(-log_prob.mean(), rel=REL)


def test_sample_weights_multiply_log_likelihoods_and_rows_are_counted(frozen):
    log_prob = frozen.plug_in_predictive(X).log_prob(Y)
    weights = np.random.default_rng(3).uniform(0.0, 5.0, N).astype(np.float32)
    expected = -np.mean(weights * log_prob)
    for batch_size in (48, N):
        logs = last(frozen.fit(X, Y, sample_weight=weights, batch_size=batch_size, verbose=0))
        assert logs["nll"] == pytest.approx(expected, rel=1e-4)
        check_scaling(logs, 1.0, N)
    logs = frozen.evaluate(X, Y, sample_weight=weights[:, None], return_dict=True, verbose=0)
    assert logs["nll"] == pytest.approx(expected, rel=1e-4)
    triples = tf.data.Dataset.from_tensor_slices((X, Y, weights)).batch(48)
    assert last(frozen.fit(triples, verbose=0))["nll"] == pytest.approx(expected, rel=1e-4)


def test_class_weights_are_the_sample_weights_of_the_class(frozen):
    log_prob = frozen.plug_in_predictive(X).log_prob(Y)
    class_weight = {0: 0.5, 1: 1.0, 2: 4.0}
    expected = -np.mean(np.array([0.5, 1.0, 4.0])[Y] * log_prob)
    assert abs(expected + log_prob.mean()) > 0.1
    for labels in (Y, np.eye(3, dtype=np.float32)[Y]):
        logs = last(frozen.fit(X, labels, class_weight=class_weight, verbose=0))
        assert logs["nll"] == pytest.approx(expected, rel=1e-4)
        check_scaling(logs, 1.0, N)


def test_one_hot_labels_are_integer_labels():
    final = []
    for labels in (Y, Y[:, None], Y.astype(np.float32), np.eye(3, dtype=np.float32)[Y]):
        keras.utils.set_random_seed(1)
        model = network(compiled=False, seed=5)
        model.num_examples = N
        logs = model.train_on_batch(X, labels, return_dict=True)
        final.append([*logs.values(), *np.concatenate([np.ravel(w) for w in model.get_weights()])])
    for values in final[1:]:
        np.testing.assert_array_equal(values, final[0])


# === Callbacks ===


def test_callbacks_in_auto_mode_learn_which_way_terms_improve():
    expected = {"elbo": "max", "val_elbo": "max", "nll": "min", "val_nll": "min", "kl": "min", "val_kl": "min"}
    for monitor, direction in expected.items():
        callbacks = [
            keras.callbacks.EarlyStopping(monitor),
            keras.callbacks.ReduceLROnPlateau(monitor),
            keras.callbacks.ModelCheckpoint("unused.keras", monitor),
        ]
        tell_direction(callbacks)
        assert [callback.mode for callback in callbacks] == [direction] * 3
    untold = [
        keras.callbacks.EarlyStopping("val_accuracy"),
        keras.callbacks.EarlyStopping("elbo", mode="min"),
        keras.callbacks.History(),
    ]
    tell_direction(untold)
    assert [untold[0].mode, untold[1].mode] == ["auto", "min"]
    tell_direction(None)
    tell_direction(keras.callbacks.EarlyStopping("val_elbo"))


@pytest.mark.slow
def test_callbacks_in_auto_mode_follow_the_terms(tmp_path):
    model = frozen_network()
    # The scale starts at 1e-6, so the KL falls, and the ELBO rises, in every epoch.
    model.compile(keras.optimizers.Adam(0.5))
    stopping = [keras.callbacks.EarlyStopping(f"val_{term}", patience=1) for term in ("elbo", "kl", "loss")]
    plateau = keras.callbacks.ReduceLROnPlateau("val_elbo", patience=1)
    best = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras", "val_elbo", save_best_only=True)
    data = (X, Y)
    history = model.fit(*data, epochs=4, validation_data=data, callbacks=[*stopping, plateau, best], verbose=0).history
    assert np.all(np.diff(history["val_elbo"]) > 0)
    assert float(model.optimizer.learning_rate) == 0.5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.keras", "2.keras", "3.keras", "4.keras"]
    assert best.best == max(history["val_elbo"])

    # The other way around: from good to bad the run is stopped.
    worse = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: model.layers[0].bias.assign([epoch * 9.0, 0, 0])
    )
    model.compile(keras.optimizers.SGD(0.0))
    stop = keras.callbacks.EarlyStopping("val_elbo", patience=1)
    history = model.fit(*data, epochs=5, validation_data=data, callbacks=[worse, stop], verbose=0).history
    assert len(history["val_elbo"]) == 2
    assert history["val_elbo"][1] < history["val_elbo"][0]


@pytest.mark.filterwarnings(RAN_OUT)
def test_a_callback_list_is_taken(frozen):
    callbacks = keras.callbacks.CallbackList(
        [keras.callbacks.EarlyStopping("elbo")], model=frozen, add_history=True, epochs=1
    )
    frozen.fit(generator_pipeline(), num_examples=N, callbacks=callbacks, verbose=0)
    assert [callback.mode for callback in callbacks.callbacks if hasattr(callback, "monitor")] == ["max"]


@pytest.mark.slow
def test_validation_data_put_the_split_out_of_force():
    model = tfp_bnn.VariationalSequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(3)], seed=0)
    model.compile("sgd", run_eagerly=True)
    x, y = np.zeros((10, 2), "float32"), np.zeros(10, int)
    model.fit(x, y, validation_split=0.5, validation_data=(x, y), verbose=0)
    assert model.num_examples == model.rows_seen == 10


@pytest.mark.parametrize(
    ("likelihood", "outputs", "y"),
    [
        ("bernoulli", 1, np.full((8, 1), 5.0)),
        pytest.param("categorical", 3, np.full((8, 3), 5.0), marks=pytest.mark.slow),
        pytest.param("categorical", 3, np.full(8, 1.7), marks=pytest.mark.slow),
        ("categorical", 3, np.full(8, 3)),
        pytest.param("categorical", 1, np.full((8, 1), 0), marks=pytest.mark.slow),
    ],
)
def test_labels_of_a_pipeline_are_held_against_the_likelihood(likelihood, outputs, y):
    model = tfp_bnn.VariationalSequential(
        [keras.Input((2,)), tfp_bnn.layers.DenseFlipout(outputs)], likelihood=likelihood
    )
    model.compile("sgd")
    data = tf.data.Dataset.from_tensor_slices((np.zeros((8, 2), "float32"), y)).batch(4)
    with pytest.raises(ValueError, match=r"abels|at least 2 classes"):
        model.fit(data, verbose=0)


def test_a_step_that_diverges_is_not_applied():
    model = tfp_bnn.VariationalSequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(3)], seed=0)
    model.compile(keras.optimizers.SGD(1e30))
    with pytest.raises(ValueError, match=r"of a training step is NaN or infinite"):
        model.fit(np.ones((8, 2), "float32"), np.zeros(8, int), batch_size=4, epochs=9, verbose=0)
    assert all(np.isfinite(keras.ops.convert_to_numpy(weight)).all() for weight in model.trainable_weights)


def test_a_step_on_one_batch_that_diverges_is_not_applied():
    model = tfp_bnn.VariationalSequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(3)], seed=0)
    model.compile(keras.optimizers.SGD(1e30))
    model.num_examples = 8
    batch = np.ones((8, 2), "float32"), np.zeros(8, int)
    model.train_on_batch(*batch)
    with pytest.raises(ValueError, match=r"of a training step is NaN or infinite"):
        model.train_on_batch(*batch)
    assert all(np.isfinite(keras.ops.convert_to_numpy(weight)).all() for weight in model.trainable_weights)
