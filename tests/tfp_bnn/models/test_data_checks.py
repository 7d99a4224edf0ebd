"""Checks of the data before training."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn.core.checks import assert_finite, invalid_arguments_as_value_errors
from tfp_bnn.likelihoods import LIKELIHOODS
from tfp_bnn.models.data_checks import check_examples, check_inputs


def with_nan(*index):
    array = np.zeros((5, 3), np.float32)
    array[index] = np.nan
    return array


# === Inputs ===


@pytest.mark.parametrize(
    "x", [np.zeros((2, 3)), np.zeros((2, 3), np.uint8), np.zeros((2, 3), bool), tf.zeros((2, 3)), np.full((1, 3), 1e38)]
)
def test_sound_inputs_pass(x):
    check_inputs(x, (None, 3))
    check_inputs(x, (None, None))
    check_inputs(x, None)


@pytest.mark.parametrize("shape", [(2, 4), (3,), (2, 3, 1), (2,)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"`x` has the shape .* but the model takes \('batch', 3\)"):
        check_inputs(np.zeros(shape), (None, 3))


@pytest.mark.parametrize("x", [np.zeros((0, 3)), {"a": np.zeros((2, 3)), "b": np.zeros((0,))}])
def test_empty_inputs_are_refused(x):
    with pytest.raises(ValueError, match=r"`x` is empty.* at least one example"):
        check_inputs(x, (None, 3))


def test_a_single_number_is_refused():
    with pytest.raises(ValueError, match="batch axis"):
        check_inputs(np.float32(1), (None, 3))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_that_are_not_finite_are_counted_and_located(value, dtype):
    x = np.zeros((5, 3), dtype)
    x[2, 1] = x[4, 0] = value
    with pytest.raises(ValueError, match=r"`pixels` has 2 values .* of 15; the first is -?(nan|inf) at index \(2, 1\)"):
        check_inputs(x, None, name="pixels")


# === Examples ===


def check(x, y, likelihood="categorical", output_shape=(3,)):
    check_examples(x, y, LIKELIHOODS.get(likelihood), (None, 3), output_shape)


@pytest.mark.parametrize(
    ("y", "likelihood"),
    [
        (np.arange(5) % 3, "categorical"),
        ((np.arange(5) % 3).astype(np.float32), "categorical"),
        ((np.arange(5) % 3)[:, None], "categorical"),
        (np.eye(3)[np.arange(5) % 3], "categorical"),
        (np.zeros((5, 3)), "bernoulli"),
        (np.zeros((5, 3)), "normal"),
    ],
)
def test_sound_examples_pass(y, likelihood):
    check(np.zeros((5, 3)), y, likelihood)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((5, 3)), None, "`y` is missing"),
        (np.zeros((5, 3)), np.zeros(4), r"`x` has 5 rows, but `y` has the shape \(4,\)"),
        (np.zeros((5, 3)), np.float32(0), r"`x` has 5 rows, but `y` has the shape \(\)"),
        (np.zeros((5, 4)), np.zeros(5), "but the model takes"),
        (np.zeros((0, 3)), np.zeros(0), "empty"),
        (with_nan(1, 2), np.zeros(5), r"`x` has 1 values .* index \(1, 2\)"),
        (np.zeros((5, 3)), with_nan(0, 0)[:, 0], r"`y` has 1 values .* index \(0,\)"),
        (np.zeros((5, 3)), np.array([0, 1, 2, 3, 4]), "Labels out of range: expected integers from 0 to 2"),
        (np.zeros((5, 3)), np.array([0, 1, -1, 0, 0]), r"the first is -1 in row 2"),
        (np.zeros((5, 3)), np.array([0, 1, 0.5, 0, 0]), r"the first is 0\.5 in row 2"),
        (np.zeros((5, 3)), np.ones((5, 3)), "sum to 1"),
        (np.zeros((5, 3)), np.zeros((5, 2)), "do not fit a model with 3 outputs"),
    ],
)
def test_unsound_examples_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        check(x, y)


def test_targets_of_regression_have_the_shape_of_the_outputs():
    check(np.zeros((5, 3)), np.zeros(5), "normal", output_shape=(1,))
    with pytest.raises(ValueError, match=r"expected the shape \(batch, 3\)"):
        check(np.zeros((5, 3)), np.zeros(5), "normal", output_shape=(3,))


def test_targets_of_an_unbuilt_model_are_checked_for_finiteness_only():
    check(np.zeros((5, 3)), np.array([7, 8, 9, 10, 11]), output_shape=None)
    with pytest.raises(ValueError, match="`y` has 1 values"):
        check(np.zeros((5, 3)), with_nan(0, 0)[:, 0], output_shape=None)


# === Within a step ===


@pytest.mark.parametrize("compiled", [True, False])
def test_a_batch_that_is_not_finite_becomes_a_value_error(compiled):
    def step(x):
        with tf.control_dependencies(assert_finite({"a": x, "labels": tf.constant([1])}, "inputs")):
            return x + 1.0

    step = tf.function(step, autograph=False) if compiled else step
    np.testing.assert_array_equal(step(tf.zeros(3)), 1.0)
    with (
        pytest.raises(ValueError, match=r"^The inputs of a batch have NaN .*missing values\.$"),
        invalid_arguments_as_value_errors(),
    ):
        step(tf.constant([0.0, np.inf]))


def test_other_errors_stay_what_they_are():
    with pytest.raises(tf.errors.InvalidArgumentError), invalid_arguments_as_value_errors():
        tf.reshape(tf.zeros(3), (2, 2))
    with pytest.raises(KeyError), invalid_arguments_as_value_errors():
        raise KeyError("mine")
