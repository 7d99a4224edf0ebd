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
from tfp_bnn.models.fit_callbacks import tell_direction

# Not a multiple of 48: the last batch is partial.
N = 100
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
REL = 2e-5
# Keras says so at the end of the first epoch of any data whose length it cannot know.
RAN_OUT = "ignore:Your input ran out of data"


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


def network(compiled=True, learning_rate=0.01, **kwargs):
    x = keras.Input((4,))
    outputs = DenseFlipout(3, bias_posterior="mean_field_normal")(x)
    model = tfp_bnn.VariationalModel(x, outputs, **kwargs)
    model.compile(keras.optimizers.Adam(learning_rate), run_eagerly=not compiled)
    return model


def frozen_network(compiled=True, **kwargs):
    """A network whose weights are known to six digits and stay what they are: losses can be computed by hand."""
    posterior = {"name": "mean_field_normal", "initial_scale": 1e-6}
    layers = [keras.Input((4,)), DenseReparameterization(3, kernel_posterior=posterior)]
    model = tfp_bnn.VariationalSequential(layers, seed=0, **kwargs)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=not compiled)
    return model


def pipeline(number=N, batch_size=48, **kwargs):
    return tf.data.Dataset.from_tensor_slices((X[:number], Y[:number])).batch(batch_size, **kwargs)


def generator_pipeline(batch_size=48):
    signature = (tf.TensorSpec((4,), tf.float32), tf.TensorSpec((), tf.int64))
    rows = tf.data.Dataset.from_generator(lambda: zip(X, Y, strict=True), output_signature=signature)
    return rows.batch(batch_size)


def closed_form_kl(weight, prior_scale):
    """KL(N(loc, scale) || N(0, prior_scale)) of a weight tensor, in float64."""
    loc, scale = (weight.parameters()[key].astype(np.float64) for key in ("loc", "scale"))
    return np.sum(np.log(prior_scale / scale) + (scale**2 + loc**2) / (2 * prior_scale**2) - 0.5)


def check_scaling(logs, beta, number, prefix=""):
    """`loss - nll == beta * kl / N`; the KL is weighty enough that another scale would show."""
    loss, nll, kl, elbo, logged_beta = (float(logs[prefix + key]) for key in ("loss", "nll", "kl", "elbo", "beta"))
    assert kl / number > 0.02
    assert loss - nll == pytest.approx(beta * kl / number, rel=1e-4)
    assert elbo == pytest.approx(-(nll + kl / number), rel=REL)
    assert logged_beta == pytest.approx(beta, rel=1e-6)


def last(history, prefix=""):
    return {key: values[-1] for key, values in history.history.items()}


# === Scale ===


@pytest.fixture(scope="module")
def scaled():
    """A beta that is not 1, so that one left out shows, and a network that is trained with it."""
    beta = 0.3
    return beta, network(beta_schedule={"name": "constant", "beta": beta}, seed=0)


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


def test_the_scale_survives_saving(scaled, tmp_path):
    beta, model = scaled
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    logs = loaded.evaluate(X, Y, return_dict=True, verbose=0)
    check_scaling(logs, 1.0, N)
    assert logs["kl"] == pytest.approx(float(model.kl()), rel=1e-6)
    check_scaling(last(loaded.fit(X[:60], Y[:60], verbose=0)), beta, 60)


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
        # The ELBO knows nothing of them.
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


# === N ===


@pytest.fixture(scope="module")
def frozen():
    return frozen_network()


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        half = slice(50 * index, 50 * (index + 1))
        return X[half], Y[half]


@pytest.mark.filterwarnings("ignore:Your `PyDataset` class should call", RAN_OUT)
def test_what_cannot_be_counted_needs_num_examples(frozen):
    unknown = {
        "filter": pipeline().unbatch().filter(lambda x, y: True).batch(48),
        "generator": generator_pipeline(),
        "repeat": pipeline().repeat(2),
        "unbatch": pipeline().unbatch().batch(48),
        "PyDataset": Pairs(),
        "Python generator": ((X, Y) for _ in range(3)),
    }
    for name, data in unknown.items():
        with pytest.raises(ValueError, match=r"N, the number of training examples.*num_examples=60000"):
            frozen.fit(data, verbose=0)
        if name != "Python generator":
            check_scaling(
                last(frozen.fit(data, num_examples=200 if name == "repeat" else N, verbose=0)), 1.0, frozen.num_examples
            )


def test_endless_data_are_scaled_by_what_is_given(frozen):
    # No comparison with the rows of an epoch: its length is at will.
    history = frozen.fit(pipeline().repeat(), num_examples=N, steps_per_epoch=2, epochs=2, verbose=0)
    check_scaling(last(history), 1.0, N)


def test_a_dataset_of_1000_rows_in_batches_of_128_has_1000_examples(frozen):
    data = tf.data.Dataset.from_tensor_slices((np.tile(X, (10, 1)), np.tile(Y, 10)))
    data = data.cache().shuffle(1000, seed=0).map(lambda x, y: (x, y)).batch(128).prefetch(1)
    history = frozen.fit(data, validation_data=pipeline(), verbose=0)
    assert frozen.num_examples == 1000
    loss, nll, kl = (history.history[key][0] for key in ("loss", "nll", "kl"))
    assert loss - nll == pytest.approx(kl / 1000, rel=1e-4)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "100"])
def test_a_wrong_number_of_examples_is_refused(frozen, value):
    with pytest.raises(ValueError, match="`num_examples` must be an integer >= 1"):
        frozen.num_examples = value
    with pytest.raises(ValueError, match="`num_examples` must be an integer >= 1"):
        tfp_bnn.VariationalSequential([DenseFlipout(3)], num_examples=value)


def test_the_constructor_takes_the_number_of_examples():
    model = frozen_network(compiled=False, num_examples=40)
    assert model.num_examples == 40
    check_scaling(model.evaluate(X, Y, return_dict=True, verbose=0), 1.0, 40)


def test_a_number_that_contradicts_the_arrays_is_used_with_a_warning(frozen):
    with pytest.warns(UserWarning, match=r"num_examples=40 was given, but the data have 100 examples; 40 is used"):
        history = frozen.fit(X, Y, num_examples=40, verbose=0)
    check_scaling(last(history), 1.0, 40)


@pytest.mark.filterwarnings(RAN_OUT)
@pytest.mark.parametrize("validation_data", [None, (X[:30], Y[:30])], ids=["alone", "with validation"])
@pytest.mark.parametrize("given", [60, 90, 1000])
def test_a_wrong_number_of_examples_is_noticed_after_the_first_epoch(frozen, given, validation_data):
    with pytest.warns(UserWarning, match=f"The first epoch had 100 examples, but N is {given}") as noticed:
        frozen.fit(generator_pipeline(), num_examples=given, epochs=3, validation_data=validation_data, verbose=0)
    assert len([warning for warning in noticed if "first epoch" in str(warning.message)]) == 1


@pytest.mark.filterwarnings(RAN_OUT)
def test_a_dropped_remainder_is_no_wrong_number(frozen):
    # Warnings are errors in these tests.
    frozen.fit(pipeline(drop_remainder=True), verbose=0)
    assert frozen.rows_seen == 96
    assert frozen.num_examples == N
    frozen.fit(generator_pipeline(), num_examples=N, validation_data=pipeline(30), epochs=2, verbose=0)


def test_a_model_that_was_never_fitted_says_so_once():
    model = frozen_network(compiled=False)
    assert model.num_examples is None
    with pytest.warns(UserWarning, match="never fitted") as said:
        logs = model.evaluate(X, Y, batch_size=50, return_dict=True, verbose=0)
    assert len(said) == 1
    assert math.isnan(logs["elbo"])
    assert math.isnan(logs["loss"])
    assert logs["nll"] == pytest.approx(-model.plug_in_predictive(X).log_prob(Y).mean(), rel=REL)
    assert logs["kl"] == pytest.approx(float(model.kl()), rel=REL)


def test_train_on_batch_needs_the_number_of_examples():
    model = frozen_network(compiled=False)
    with pytest.raises(ValueError, match="num_examples"):
        model.train_on_batch(X, Y)
    model.num_examples = 30
    check_scaling(model.train_on_batch(X, Y, return_dict=True), 1.0, 30)
    check_scaling(model.test_on_batch(X, Y, return_dict=True), 1.0, 30)


# === Beta ===


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
    # The scale starts at 1e-6, so that the KL falls, and the ELBO rises, in every epoch.
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


def test_validation_data_put_the_split_out_of_force():
    model = tfp_bnn.VariationalSequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(3)], seed=0)
    model.compile("sgd")
    x, y = np.zeros((10, 2), "float32"), np.zeros(10, int)
    model.fit(x, y, validation_split=0.5, validation_data=(x, y), verbose=0)
    assert model.num_examples == model.rows_seen == 10


@pytest.mark.parametrize(
    ("likelihood", "outputs", "y"),
    [
        ("bernoulli", 1, np.full((8, 1), 5.0)),
        ("categorical", 3, np.full((8, 3), 5.0)),
        ("categorical", 3, np.full(8, 1.7)),
        ("categorical", 3, np.full(8, 3)),
        ("categorical", 1, np.full((8, 1), 0)),
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
