"""Models of several inputs: training, prediction, saving, refusals."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import DenseFlipout

N = 30
LEFT = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
RIGHT = np.random.default_rng(1).integers(0, 5, size=(N, 1))
Y = np.arange(N) % 2
STRUCTURES = {
    "list": lambda left, right: [left, right],
    "tuple": lambda left, right: (left, right),
    "dict": lambda left, right: {"left": left, "right": right},
}


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


def two_inputs(structure="list"):
    left, right = keras.Input((4,), name="left"), keras.Input((1,), dtype="int32", name="right")
    known = keras.layers.CategoryEncoding(5, output_mode="one_hot")(right)
    h = DenseFlipout(6, activation="relu")(keras.layers.Concatenate()([left, known]))
    return tfp_bnn.VariationalModel(STRUCTURES[structure](left, right), DenseFlipout(2)(h), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURES)
def test_training_and_prediction_take_the_structure_of_the_inputs(structure):
    model = two_inputs(structure)
    # Of a compiled step one structure is enough: it takes seconds to make.
    model.compile("adam", metrics=["accuracy"], run_eagerly=structure != "dict")
    x = STRUCTURES[structure](LEFT, RIGHT)
    history = model.fit(x, Y, batch_size=8, epochs=2, verbose=0, validation_split=0.2).history
    assert np.isfinite(history["val_elbo"]).all()
    assert model.num_examples == 24
    assert np.isfinite(model.evaluate(x, Y, verbose=0)).all()
    whole = model.posterior_predictive(x, num_samples=3)
    assert whole.mean().shape == (N, 2)
    by_parts = model.posterior_predictive(x, num_samples=3, batch_size=7)
    np.testing.assert_allclose(whole.mean(), by_parts.mean(), atol=1e-6)
    assert model.plug_in_predictive(x).mean().shape == (N, 2)


@pytest.mark.slow
def test_a_pipeline_of_several_inputs_is_counted():
    model = two_inputs()
    model.compile("adam", run_eagerly=True)
    model.fit(tf.data.Dataset.from_tensor_slices(((LEFT, RIGHT), Y)).batch(8), verbose=0)
    assert model.num_examples == N


def test_a_saved_model_takes_the_same_inputs(tmp_path):
    model = two_inputs()
    model.save(tmp_path / "x.keras")
    loaded = keras.models.load_model(tmp_path / "x.keras")
    for each in (model, loaded):
        each.predicted = each.posterior_predictive([LEFT, RIGHT], num_samples=2).mean()
    np.testing.assert_array_equal(model.predicted, loaded.predicted)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([LEFT, RIGHT[:-1]], r"The inputs in `x` have \[30, 29\] rows. Expected the same number in each"),
        ([LEFT[:0], RIGHT[:0]], "`x` is empty"),
        ([LEFT * np.nan, RIGHT], "NaN or infinite"),
    ],
)
def test_bad_inputs_are_refused(x, message):
    model = two_inputs()
    model.compile("adam")
    for use in (lambda: model.fit(x, Y[: len(x[0])], verbose=0), lambda: model.posterior_predictive(x)):
        with pytest.raises(ValueError, match=message):
            use()


def test_a_dict_with_other_keys_is_refused():
    model = two_inputs("dict")
    model.compile("adam", run_eagerly=True)
    # Sorted before "right", of which it would take the place.
    good = {"left": LEFT, "right": RIGHT}
    x = {**good, "number": RIGHT}
    stream = tf.data.Dataset.from_tensor_slices((x, Y)).batch(8)
    message = r"the inputs \['left', 'right'\]: \['number'\] unexpected. Pass a dict with exactly these"
    for use in (
        lambda: model(x),
        lambda: model(inputs=x),
        lambda: model.fit(x, Y, verbose=0),
        lambda: model.fit(stream, verbose=0),
        lambda: model.posterior_predictive(x),
        lambda: model.fit(good, Y, callbacks=[tfp_bnn.callbacks.PosteriorDoctor((x, Y))], verbose=0),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    with pytest.raises(ValueError, match=r"\['right'\] missing and \['wrong'\] unexpected"):
        model.posterior_predictive({"left": LEFT, "wrong": RIGHT})
