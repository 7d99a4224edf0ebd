"""N, the number of training examples: where it comes from, and when it is asked for."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import DenseFlipout

from .elbo_networks import RAN_OUT, REL, N, X, Y, check_scaling, frozen_network, generator_pipeline, last, pipeline


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


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
@pytest.mark.slow
def test_what_cannot_be_counted_needs_num_examples(frozen):
    unknown = {
        "filter": pipeline().unbatch().filter(lambda x, y: True).batch(48),
        "generator": generator_pipeline(),
        "PyDataset": Pairs(),
        "Python generator": ((X, Y) for _ in range(3)),
    }
    for name, data in unknown.items():
        with pytest.raises(ValueError, match=r"N, the number of training examples.*num_examples=60000"):
            frozen.fit(data, verbose=0)
        if name != "Python generator":
            check_scaling(last(frozen.fit(data, num_examples=N, verbose=0)), 1.0, N)


@pytest.mark.filterwarnings(RAN_OUT)
@pytest.mark.parametrize("repeated", [pipeline().repeat(2), pipeline().unbatch().repeat(2).batch(48)])
def test_repeated_examples_count_once_and_nothing_is_said_of_the_longer_epoch(frozen, repeated):
    # Warnings are errors in these tests.
    check_scaling(last(frozen.fit(repeated, verbose=0)), 1.0, N)
    assert frozen.rows_seen == 2 * N


def test_endless_data_are_scaled_by_what_is_repeated(frozen):
    # No comparison with the rows of an epoch: its length is at will.
    history = frozen.fit(pipeline().repeat(), steps_per_epoch=2, epochs=2, verbose=0)
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
@pytest.mark.parametrize(
    ("given", "validation_data"),
    [
        pytest.param(60, None, id="60-alone"),
        pytest.param(90, None, id="90-alone", marks=pytest.mark.slow),
        pytest.param(1000, (X[:30], Y[:30]), id="1000-with validation"),
    ],
)
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


@pytest.mark.filterwarnings(RAN_OUT)
def test_an_epoch_that_a_callback_ends_says_nothing_of_their_number(frozen):
    stop = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: setattr(frozen, "stop_training", True))
    # Warnings are errors in these tests.
    frozen.fit(pipeline(), callbacks=[stop], verbose=0)
    assert frozen.rows_seen < frozen.num_examples


@pytest.mark.filterwarnings(RAN_OUT)
def test_an_epoch_that_was_whole_is_compared_though_a_callback_stops_there(frozen):
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(frozen, "stop_training", True))
    with pytest.warns(UserWarning, match="The first epoch had 100 examples, but N is 1000"):
        frozen.fit(generator_pipeline(), num_examples=1000, callbacks=[stop], verbose=0)
