"""Draws of a model in one call: the same as one by one, kept while the posterior stays, without repeated work."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import DenseFlipout, DenseReparameterization, MCDropout
from tfp_bnn.predictive import seeded_draws

SAMPLES = seeded_draws._LOOP_FROM + 1
X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
WIDE = {"name": "mean_field_normal", "initial_scale": 0.7}


def stack(*layers, **kwargs):
    keras.utils.set_random_seed(0)
    return tfp_bnn.VariationalSequential([keras.Input((4,)), *layers], seed=0, **kwargs)


def with_two_outputs():
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    outputs = {"a": DenseFlipout(3)(x), "b": DenseFlipout(1)(keras.layers.Dense(2)(x))}
    return tfp_bnn.VariationalModel(x, outputs, likelihood={"a": "categorical", "b": "normal"}, seed=0)


MODELS = {
    "dense": lambda: stack(DenseFlipout(6, activation="tanh", bias_posterior=WIDE), DenseReparameterization(3)),
    "deterministic first": lambda: stack(
        keras.layers.Rescaling(0.5), keras.layers.Dense(6), keras.layers.BatchNormalization(), DenseFlipout(3)
    ),
    "low rank": lambda: stack(DenseReparameterization(3, kernel_posterior="low_rank_normal")),
    "masks of dropout": lambda: stack(keras.layers.Dense(6), MCDropout(0.5), keras.layers.Dense(3)),
    "two outputs": with_two_outputs,
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]()


def one_by_one(model, x, number, seed=3):
    draws = model.draws(seed)
    of_draws = [draws(index)(x) for index in range(number)]
    return keras.tree.map_structure(lambda *outputs: np.stack(outputs), *of_draws)


def assert_same(found, expected):
    for name, of_head in found.items() if isinstance(found, dict) else [("", found)]:
        np.testing.assert_allclose(of_head, expected[name] if name else expected, rtol=1e-5, atol=1e-6)


def test_the_draws_in_one_call_are_those_one_by_one(model):
    assert_same(model.draws(3).first(SAMPLES, X), one_by_one(model, X, SAMPLES))


def test_draws_too_large_to_be_kept_are_the_same(model, monkeypatch):
    monkeypatch.setattr(seeded_draws, "_MOST_KEPT_BYTES", 0)
    vars(model).pop("_kept_draws", None)
    assert_same(model.draws(3).first(SAMPLES, X), one_by_one(model, X, SAMPLES))
    assert "_kept_draws" not in vars(model)


def test_kept_draws_are_used_until_posterior_seed_or_number_change():
    model = MODELS["dense"]()

    def kept_after(number, seed=3):
        found = model.draws(seed).first(number, X)
        assert_same(found, one_by_one(model, X, number, seed))
        return vars(model)["_kept_draws"]

    first = kept_after(SAMPLES)
    assert kept_after(SAMPLES) is kept_after(SAMPLES - 1) is first
    assert kept_after(SAMPLES + 1) is not first
    assert kept_after(SAMPLES, seed=4).seed == 4
    for layer in model.variational_layers:
        for variable in layer.variational_weights["kernel"].posterior_variables.values():
            before = kept_after(SAMPLES)
            variable.assign_add(tf.ones(variable.shape))
            assert kept_after(SAMPLES) is not before


@pytest.mark.parametrize("most_kept", [seeded_draws._MOST_KEPT_BYTES, 0])
def test_scales_are_computed_once_for_all_draws(most_kept, monkeypatch):
    computed, softplus = [], tf.nn.softplus
    monkeypatch.setattr(tf.nn, "softplus", lambda values: computed.append(1) or softplus(values))
    monkeypatch.setattr(seeded_draws, "_MOST_KEPT_BYTES", most_kept)
    stack(DenseFlipout(3)).draws(0).first(SAMPLES, X)
    assert len(computed) == 1


def test_layers_that_no_draw_changes_run_once():
    runs = []

    def count(x):
        runs.append(len(x))
        return x

    @keras.saving.register_keras_serializable(package="tests")
    class Counting(keras.layers.Layer):
        def call(self, inputs):
            return tf.ensure_shape(tf.numpy_function(count, [inputs], tf.float32), inputs.shape)

        def compute_output_shape(self, shape):
            return shape

    model = stack(Counting(), DenseFlipout(3))
    model.draws(0).first(SAMPLES, X)
    assert runs == [len(X)]
    model.draws(0)(1)(X)
    assert runs == [len(X)] * 2


def test_masks_and_inference_mode_are_those_of_the_model():
    tokens = keras.Input((6,), dtype="int32")
    embedded = keras.layers.Embedding(9, 4, mask_zero=True)(tokens)
    masked = tfp_bnn.VariationalModel(tokens, DenseFlipout(3)(keras.layers.LSTM(4)(embedded)), seed=0)
    x = keras.Input((4,))
    h = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x), training=True)
    forced = tfp_bnn.VariationalModel(x, DenseFlipout(3)(keras.layers.Dense(4, "tanh")(h) + x), seed=0)
    rows = np.array([[1, 2, 0, 0, 0, 0], [3, 4, 5, 6, 7, 8]], np.int32)
    for model, inputs in ((masked, rows), (forced, X)):
        assert_same(model.draws(3).first(SAMPLES, inputs), one_by_one(model, inputs, SAMPLES))


def test_few_draws_and_outputs_of_unknown_size_are_not_looped_over():
    model = MODELS["dense"]()
    assert model.draws(0).bytes_of_row(SAMPLES - 2, X) is None
    assert model.draws(0).bytes_of_row(SAMPLES, X) == 4 * 3 * SAMPLES
    series = tfp_bnn.VariationalSequential([keras.Input((None, 2)), DenseFlipout(3)], seed=0)
    steps = np.ones((2, 6, 2), np.float32)
    predictive = series.posterior_predictive(steps, SAMPLES, seed=3)
    expected = np.mean([keras.ops.softmax(o) for o in one_by_one(series, steps, SAMPLES)], axis=0)
    np.testing.assert_allclose(predictive.mean(), expected, rtol=1e-5)


def test_rows_at_once_depend_on_the_largest_array_between_layers():
    assert MODELS["dense"]().draws(0).rows_at_once == seeded_draws._MOST_ROWS
    wide = stack(keras.layers.Dense(2**14), DenseFlipout(3))
    # 64 KiB for a row.
    assert wide.draws(0).rows_at_once == wide.plug_in_draws().rows_at_once == 2**10
    unknown = tfp_bnn.VariationalSequential([keras.Input((None, 2)), DenseFlipout(3)], seed=0)
    assert unknown.draws(0).rows_at_once == 512
