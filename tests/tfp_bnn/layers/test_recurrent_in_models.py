"""The Bayesian LSTM in models and files, and what it refuses."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import EmbeddingReparameterization, LSTMFlipout, MCDropout
from tfp_bnn.models.weight_record import assign_weight_distributions, weight_distributions

from .recurrent import BAYESIAN_BIAS, EVERYTHING, FEATURES, STEPS, UNITS, inputs_of, make, noise_of, under


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


# === In a model ===


def network(**kwargs):
    layers = [keras.Input((None, FEATURES)), LSTMFlipout(UNITS, name="lstm", **kwargs), keras.layers.Dense(2, name="y")]
    return tfp_bnn.VariationalSequential(layers, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("run_eagerly", [True, False])
def test_a_model_trains_on_a_pipeline(run_eagerly):
    model = network(**EVERYTHING)
    inputs = inputs_of(batch=64)
    labels = (inputs.sum(axis=(1, 2)) > 0).astype(np.int64)
    data = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(32)
    model.compile(keras.optimizers.Adam(0.05), run_eagerly=run_eagerly)
    before = {v.path: v.numpy() for v in model.trainable_variables}
    history = model.fit(data, epochs=2 if run_eagerly else 15, verbose=0).history
    assert run_eagerly or history["nll"][-1] < history["nll"][0]
    assert len(before) == 11
    for variable in model.trainable_variables:
        assert (variable.numpy() != before[variable.path]).all(), variable.path
    assert np.isfinite(model.evaluate(data, verbose=0, return_dict=True)["elbo"])


def test_compiled_and_eager_outputs_agree():
    layer = make()
    compiled = tf.function(lambda x: under(noise_of(), layer, x, training=True), autograph=False)
    np.testing.assert_allclose(compiled(inputs_of()), under(noise_of(), layer, inputs_of(), training=True), atol=1e-6)


def test_a_sample_of_the_predictive_is_one_function():
    model, inputs = network(), inputs_of(batch=7)
    samples = model.posterior_predictive(inputs, num_samples=4, seed=1, batch_size=7).samples
    other = model.posterior_predictive(inputs, num_samples=4, seed=1, batch_size=2).samples
    np.testing.assert_allclose(other, samples, atol=1e-6)
    assert len({sample.tobytes() for sample in samples}) == 4


@pytest.mark.slow
def test_its_distributions_are_stored_in_natural_units():
    model, other = network(), network()
    arrays = weight_distributions(model)
    assert sorted(arrays) == [
        "lstm/bias",
        *(f"lstm/{name}/{role}" for name in ("kernel", "recurrent_kernel") for role in ("loc", "scale")),
        "y/bias",
        "y/kernel",
    ]
    arrays["lstm/recurrent_kernel/scale"] = np.full((UNITS, 4 * UNITS), 0.3, np.float32)
    assign_weight_distributions(other, arrays)
    np.testing.assert_allclose(other.layers[0].recurrent_posterior.stddev(), 0.3, rtol=1e-6)
    assert other.variational_layers == [other.layers[0]]


# === Configs and files ===


def test_config_round_trip():
    layer = LSTMFlipout(
        UNITS,
        activation="relu",
        recurrent_activation="hard_sigmoid",
        unit_forget_bias=False,
        recurrent_initializer="zeros",
        recurrent_regularizer="l2",
        bias_constraint="non_neg",
        activity_regularizer="l1",
        return_sequences=True,
        go_backwards=True,
        zero_output_for_mask=True,
        recurrent_prior={"name": "scale_mixture", "scale_1": 0.7},
        recurrent_posterior={"name": "mean_field_normal", "initial_scale": 0.01},
        seed=11,
        kl_weight=0.25,
        dtype="mixed_bfloat16",
        name="mine",
        **BAYESIAN_BIAS,
    )
    config = layer.get_config()
    assert set(inspect.signature(LSTMFlipout.__init__).parameters) - {"self", "kwargs"} <= set(config)
    for copy in (
        LSTMFlipout.from_config(config),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer), safe_mode=True),
    ):
        assert type(copy) is LSTMFlipout
        assert copy.get_config() == config
        copy.build((None, None, FEATURES))
        np.testing.assert_array_equal(copy.recurrent_posterior.mean(), 0.0)
        np.testing.assert_allclose(copy.recurrent_posterior.stddev(), 0.01, rtol=1e-4)
    assert LSTMFlipout.from_config(keras.layers.LSTM(UNITS, unroll=True).get_config()).unroll


LOAD = """
import sys
import keras, numpy as np, tfp_bnn
model = keras.saving.load_model(sys.argv[1] + "/model.keras", safe_mode=True)
x = np.load(sys.argv[1] + "/x.npy")
found = model(x, training=True), model(x), model.posterior_predictive(x, num_samples=3).samples
np.savez(sys.argv[1] + "/found.npz", *found)
"""


@pytest.mark.thorough
def test_a_fresh_process_finds_embedding_dropout_and_lstm_as_they_were(tmp_path):
    x = keras.Input((STEPS,), dtype="int32")
    h = MCDropout(0.3, noise_shape=(None, 1, None))(EmbeddingReparameterization(9, 4, mask_zero=True)(x))
    h = MCDropout(0.2)(LSTMFlipout(UNITS, **EVERYTHING)(h))
    model = tfp_bnn.VariationalModel(x, keras.layers.Dense(2)(h), likelihood="normal")
    ids = np.random.default_rng(0).integers(9, size=(6, STEPS))
    model.compile("adam")
    model.fit(ids, np.zeros((6, 2)), verbose=0)
    np.save(tmp_path / "x.npy", ids)
    model.save(tmp_path / "model.keras")
    path = os.pathsep.join([str(Path(tfp_bnn.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", LOAD, str(tmp_path)]
    result = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    expected = model(ids, training=True), model(ids), model.posterior_predictive(ids, num_samples=3).samples
    with np.load(tmp_path / "found.npz") as found:
        for ours, theirs in zip(expected, found.values(), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


# === Refusals ===


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 0}, "`units` must be a positive integer, but got 0."),
        ({"units": -2}, "`units` must be a positive integer, but got -2."),
        ({"units": 1.5}, "`units` must be a positive integer, but got 1.5."),
        ({"units": True}, "`units` must be a positive integer, but got True."),
        ({"dropout": 0.5}, "Got dropout=0.5, but this layer has a distribution over its weights instead."),
        ({"recurrent_dropout": 0.1}, "put an `MCDropout` before or after it"),
        ({"recurrent_prior": "norml"}, "Unknown prior 'norml'. Did you mean 'normal'?"),
        ({"bias_prior": "normal"}, "Got bias_prior='normal' without a `bias_posterior`"),
        ({"use_bias": False, **BAYESIAN_BIAS}, "with use_bias=False"),
        ({"kl_weight": -1.0}, "`kl_weight` must be None or a finite number >= 0, but got -1.0"),
        ({"seed": 1.5}, "`seed` must be an integer or None, but got 1.5"),
        ({"lora_rank": 1}, "does not support `lora_rank`"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LSTMFlipout(**{"units": UNITS, **arguments})


def test_a_posterior_that_flipout_does_not_fit_is_refused():
    with pytest.raises(TypeError, match="The flipout estimator does not exist for recurrent_posterior="):
        LSTMFlipout(UNITS, recurrent_posterior="radial", recurrent_prior="normal")


def test_inputs_of_another_shape_are_refused():
    layer = make(name="lstm")
    for shape in ((4, FEATURES), (4, STEPS, FEATURES, 1), (4, STEPS, FEATURES + 1)):
        with pytest.raises(ValueError, match="incompatible with the layer"):
            layer(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="The number of features of the layer 'other' must be known"):
        LSTMFlipout(UNITS, name="other")(keras.Input((None, None)))
    state = [np.zeros((4, UNITS), np.float32), np.zeros((4, UNITS + 1), np.float32)]
    message = r"The initial state of the layer 'lstm' must be two tensors, h and c, of shape \(batch, 3\)"
    for wrong in (state, state[:1]):
        with pytest.raises(ValueError, match=message):
            layer(inputs_of(), initial_state=wrong)
    with pytest.raises(ValueError, match="batch size must be static"):
        LSTMFlipout(UNITS, stateful=True)(keras.Input((None, FEATURES)))
    with pytest.raises(ValueError, match="Cannot unroll a RNN if the time dimension is undefined"):
        tf.function(make(unroll=True), autograph=False).get_concrete_function(tf.TensorSpec((4, None, FEATURES)))


def test_several_draws_through_a_state_are_refused():
    inputs = keras.Input((STEPS, FEATURES), batch_size=4)
    layers = [inputs, LSTMFlipout(UNITS, stateful=True, name="lstm"), keras.layers.Dense(2)]
    model = tfp_bnn.VariationalSequential(layers, num_draws=2)
    model.compile()
    with pytest.raises(ValueError, match=r"The layers lstm have stateful=True.*Set model.num_draws = 1"):
        model.fit(inputs_of(), np.zeros(4), batch_size=4, verbose=0)


@pytest.mark.parametrize("attribute", ["kernel_posterior", "recurrent_prior", "bias_posterior", "kl"])
def test_distributions_exist_once_the_layer_is_built(attribute):
    layer = LSTMFlipout(UNITS, name="unbuilt")
    with pytest.raises(ValueError, match=f"`{attribute}` of the layer 'unbuilt' exists only once the layer is built"):
        getattr(layer, attribute)() if attribute == "kl" else getattr(layer, attribute)
