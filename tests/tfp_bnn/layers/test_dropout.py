"""Monte Carlo dropout: the masks exactly, in distribution, and in a model whose samples are functions."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.noise import Noise, NoNoise, noise_scope
from tfp_bnn.layers import DenseFlipout, MCDropout, StochasticLayer, VariationalLayer

RATE = 0.3
FALSE_FAILURE_RATE = 1e-6


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


def inputs_of(*shape):
    return np.random.default_rng(1).uniform(1.0, 2.0, size=shape).astype(np.float32)


def noise_of(seed=0):
    return Noise(tf.constant([seed, 0], tf.int32))


def under(noise, layer, inputs, training=False):
    with noise_scope({id(layer): noise}):
        return layer(inputs, training=training)


def masks(layer, inputs, training):
    """Where the inputs were kept."""
    return layer(inputs, training=training).numpy() != 0.0


# === The mask ===


@pytest.mark.parametrize("training", [True, False])
def test_outputs_are_exact_under_known_noise(training, injected_noise):
    layer, inputs = MCDropout(RATE), inputs_of(3, 4, 5)
    outputs = under(injected_noise, layer, inputs, training)
    mask = injected_noise.drawn["mask"]
    assert mask.shape == ((3, 4, 5) if training else (1, 4, 5))
    assert set(np.unique(mask)) == {0.0, 1.0}
    np.testing.assert_allclose(outputs, inputs * mask / (1 - RATE), rtol=1e-6)


def test_a_mask_is_exactly_zero_or_one():
    for probability in (0.2, 0.7):
        mask = noise_of().keep("mask", (1000,), probability)
        assert mask.dtype == tf.float32
        assert set(np.unique(mask)) == {0.0, 1.0}
    np.testing.assert_array_equal(noise_of().keep("mask", (1000,), 1.0), 1.0)
    np.testing.assert_array_equal(NoNoise().keep("mask", (3, 2), 0.7), np.full((3, 2), np.float32(0.7)))


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("training", [True, False])
def test_without_noise_it_is_the_identity(training, dtype):
    inputs = inputs_of(3, 4)
    for rate in (0.0, 0.1, 1 / 3, 0.5, 0.9):
        layer = MCDropout(rate, dtype=dtype)
        expected = tf.cast(inputs, layer.compute_dtype)
        np.testing.assert_array_equal(under(NoNoise(), layer, inputs, training), expected)


def test_a_rate_of_zero_drops_nothing():
    inputs = inputs_of(3, 4)
    for training in (True, False):
        np.testing.assert_array_equal(MCDropout(0)(inputs, training=training), inputs)


@pytest.mark.parametrize(
    ("noise_shape", "training_shape"),
    [
        (None, (6, 4, 5)),
        ((None, 1, None), (6, 1, 5)),
        ((6, 4, 1), (6, 4, 1)),
        ([1, None, 5], (1, 4, 5)),
        ((1, 1, 1), (1, 1, 1)),
    ],
)
def test_the_noise_shape_says_what_shares_a_value(noise_shape, training_shape, injected_noise):
    layer, inputs = MCDropout(0.5, noise_shape=noise_shape), inputs_of(6, 4, 5)
    for training, shape in ((True, training_shape), (False, (1, *training_shape[1:]))):
        injected_noise.drawn.clear()
        outputs = under(injected_noise, layer, inputs, training)
        assert injected_noise.drawn["mask"].shape == shape
        np.testing.assert_array_equal(outputs, 2 * inputs * injected_noise.drawn["mask"])


def test_training_has_a_mask_for_each_example_and_prediction_one_for_all():
    layer, inputs = MCDropout(0.5, seed=0), inputs_of(4, 64)
    in_training, otherwise = masks(layer, inputs, True), masks(layer, inputs, False)
    assert len(np.unique(in_training, axis=0)) == 4
    assert len(np.unique(otherwise, axis=0)) == 1
    assert len(np.unique(masks(layer, inputs, None), axis=0)) == 1


def test_masks_are_fresh_and_reproducible():
    one, other = MCDropout(0.5, seed=3, name="same"), MCDropout(0.5, seed=3, name="same")
    inputs = inputs_of(1, 64)
    calls = (True, False, True, False)
    drawn = [masks(one, inputs, training) for training in calls]
    assert len({mask.tobytes() for mask in drawn}) == 4
    # The same calls in another order: the two streams do not know of each other.
    again = [masks(other, inputs, training) for training in sorted(calls)]
    for mine, theirs in ((drawn[0], again[2]), (drawn[2], again[3]), (drawn[1], again[0]), (drawn[3], again[1])):
        np.testing.assert_array_equal(mine, theirs)
    assert (masks(MCDropout(0.5, seed=3, name="another"), inputs, True) != drawn[0]).any()


def test_a_layer_that_is_used_twice_has_one_mask():
    layer, inputs = MCDropout(0.5), inputs_of(2, 64)
    with noise_scope({id(layer): noise_of()}):
        np.testing.assert_array_equal(layer(inputs), layer(inputs))


@pytest.mark.statistical
def test_entries_are_kept_with_the_right_probability_and_independently():
    # 200,000 entries and 100,000 pairs of examples, each a binomial count; false-failure rate 1e-6 for all six tails.
    layer = MCDropout(RATE, seed=0)
    kept = masks(layer, inputs_of(2, 100_000), True)
    tail = FALSE_FAILURE_RATE / 6
    shared = masks(layer, inputs_of(1, 200_000), False)
    both = (1 - RATE) ** 2 + RATE**2
    for count, number, probability in (
        (kept.sum(), kept.size, 1 - RATE),
        (shared.sum(), shared.size, 1 - RATE),
        ((kept[0] == kept[1]).sum(), kept.shape[1], both),
    ):
        assert scipy.stats.binom.ppf(tail, number, probability) <= count
        assert count <= scipy.stats.binom.isf(tail, number, probability)


# === As a Keras layer ===


def test_it_has_no_weights_and_no_kl():
    layer = MCDropout(0.5)
    layer(inputs_of(2, 3))
    assert layer.weights == []
    assert layer.losses == []
    assert isinstance(layer, StochasticLayer)
    assert not isinstance(layer, VariationalLayer)
    for part in ("~ Bernoulli", "Example:", "References:", "https://arxiv.org/abs/1506.02142"):
        assert part in MCDropout.__doc__


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_outputs_are_in_the_compute_dtype(policy):
    layer = MCDropout(0.5, dtype=policy)
    outputs = layer(inputs_of(2, 64), training=True)
    assert outputs.dtype == layer.compute_dtype == layer(keras.Input((3,))).dtype
    expected = tf.cast(2 * tf.cast(inputs_of(2, 64), layer.compute_dtype), tf.float32)
    found = tf.cast(outputs, tf.float32).numpy()
    np.testing.assert_array_equal(found[found != 0], expected.numpy()[found != 0])


@pytest.mark.parametrize("shape", [(None, 3), (2, None, 3), (4,)])
def test_the_shape_is_that_of_the_inputs(shape):
    assert MCDropout(0.5).compute_output_shape(shape) == keras.layers.Dropout(0.5).compute_output_shape(shape) == shape


def test_masks_of_time_steps_are_passed_on():
    embedding = keras.layers.Embedding(5, 4, mask_zero=True)
    ids = np.array([[1, 2, 0, 0]])
    outputs = MCDropout(0.5)(embedding(ids))
    np.testing.assert_array_equal(outputs._keras_mask, ids != 0)


def test_config_round_trip():
    layer = MCDropout(0.25, noise_shape=[None, 1, 3], seed=11, name="mine", dtype="mixed_bfloat16")
    config = layer.get_config()
    assert {key: config[key] for key in ("rate", "noise_shape", "seed", "name")} == {
        "rate": 0.25,
        "noise_shape": (None, 1, 3),
        "seed": 11,
        "name": "mine",
    }
    for copy in (
        MCDropout.from_config(config),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer), safe_mode=True),
    ):
        assert type(copy) is MCDropout
        assert copy.get_config() == config
    assert MCDropout(**keras.layers.Dropout(0.5, seed=1).get_config()).rate == 0.5


def test_the_state_of_the_noise_survives_a_file(tmp_path):
    model = keras.Sequential([keras.Input((64,)), MCDropout(0.5, name="drop")])
    inputs = inputs_of(2, 64)
    for training in (True, False, False):
        model(inputs, training=training)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    for training in (True, False, True):
        np.testing.assert_array_equal(loaded(inputs, training=training), model(inputs, training=training))


# === In a Bayesian model ===


def network(**kwargs):
    x = keras.Input((8,))
    h = keras.layers.Dense(32, activation="relu")(x)
    return tfp_bnn.VariationalModel(x, keras.layers.Dense(3)(MCDropout(0.5)(h)), seed=0, **kwargs)


def test_a_sample_of_the_predictive_is_one_function():
    model, inputs = network(), inputs_of(7, 8)
    samples = model.posterior_predictive(inputs, num_samples=5, seed=1, batch_size=7).samples
    for batch_size in (1, 3):
        other = model.posterior_predictive(inputs, num_samples=5, seed=1, batch_size=batch_size).samples
        np.testing.assert_allclose(other, samples, atol=1e-6)
    assert len({sample.tobytes() for sample in samples}) == 5
    repeated = model.posterior_predictive(np.repeat(inputs[:1], 4, axis=0), num_samples=5, seed=1).samples
    np.testing.assert_allclose(repeated, np.repeat(samples[:, :1], 4, axis=1), atol=1e-6)
    assert (model.posterior_predictive(inputs, num_samples=5, seed=2).samples != samples).any()


def test_the_plug_in_prediction_is_that_without_dropout():
    model, inputs = network(), inputs_of(7, 8)
    plain = keras.Sequential([layer for layer in model.layers[1:] if not isinstance(layer, MCDropout)])
    expected = tf.nn.softmax(plain(inputs))
    np.testing.assert_allclose(model.plug_in_predictive(inputs).mean(), expected, atol=1e-6)


@pytest.mark.parametrize("run_eagerly", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_it_trains_beside_bayesian_layers(run_eagerly):
    x = keras.Input((8,))
    h = MCDropout(0.2)(DenseFlipout(16, activation="relu")(x))
    model = tfp_bnn.VariationalModel(x, DenseFlipout(3)(h), seed=0)
    model.compile(keras.optimizers.Adam(0.05), run_eagerly=run_eagerly)
    inputs = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices((inputs, (inputs[:, 0] > 0).astype(np.int64))).batch(16)
    history = model.fit(data, epochs=5, verbose=0).history
    assert history["nll"][-1] < history["nll"][0]
    assert np.isfinite(model.evaluate(data, verbose=0, return_dict=True)["elbo"])


def test_training_in_a_model_drops_something_else_for_each_example():
    x = keras.Input((64,))
    model = tfp_bnn.VariationalModel(x, MCDropout(0.5)(x), likelihood="normal")
    inputs = inputs_of(4, 64)
    assert len(np.unique(model(inputs, training=True).numpy() != 0, axis=0)) == 4
    assert len(np.unique(model(inputs, training=False).numpy() != 0, axis=0)) == 1


# === Refusals ===


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, True, None, "0.5", float("nan")])
def test_a_rate_out_of_range_is_refused(rate):
    message = re.escape(f"`rate` of MCDropout must be a number with 0 <= rate < 1, but got {rate!r}.")
    with pytest.raises(ValueError, match=message):
        MCDropout(rate)


def test_what_models_are_compiled_with_cannot_be_set():
    layer = MCDropout(0.5, name="drop")
    for name in ("rate", "noise_shape"):
        with pytest.raises(AttributeError, match=f"`{name}` of the layer 'drop' cannot be set.*with another one"):
            setattr(layer, name, 0.0)
    assert (layer.rate, layer.noise_shape) == (0.5, None)


@pytest.mark.parametrize("noise_shape", ["abc", 3, (None, 0), (None, -1), (1.5,), (True,)])
def test_a_noise_shape_out_of_range_is_refused(noise_shape):
    with pytest.raises(ValueError, match=re.escape(f"of positive integers and None, but got {noise_shape!r}")):
        MCDropout(0.5, noise_shape=noise_shape)


@pytest.mark.parametrize("noise_shape", [(None,), (None, 1, 1), (None, 4), (3, None)])
def test_inputs_that_do_not_fit_the_noise_shape_are_refused(noise_shape):
    layer = MCDropout(0.5, noise_shape=noise_shape, name="drop")
    message = re.escape(f"The layer 'drop' has noise_shape={noise_shape}, which does not fit inputs of shape (2, 5)")
    with pytest.raises(ValueError, match=message):
        layer(inputs_of(2, 5))
    with pytest.raises(ValueError, match="which does not fit inputs of shape"):
        layer(keras.Input(batch_shape=(2, 5)))


def test_integers_and_bad_seeds_are_refused():
    with pytest.raises(ValueError, match="MCDropout takes floating-point inputs, but got int64"):
        MCDropout(0.5)(np.ones((2, 3), np.int64))
    with pytest.raises(ValueError, match=r"`seed` must be an integer or None, but got 1\.5"):
        MCDropout(0.5, seed=1.5)
