"""Default seeds for a block: those that `set_random_seed` gives, without a trace outside of it."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context as tf_context
from tensorflow.python.framework import config as tf_config

from tfp_bnn.core.library_state import deterministic_operations
from tfp_bnn.core.randomness import default_seeds_from


def first_weights():
    layers = [keras.layers.Dense(3), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    return [*model.get_weights(), layers[1].seed_generator.state.numpy()]


def test_weights_are_those_of_set_random_seed():
    keras.utils.set_random_seed(11)
    expected = first_weights()
    with default_seeds_from(11):
        found = first_weights()
    for value, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(value, wanted)


def next_numbers():
    python = random.random()  # noqa: S311
    return python, np.random.rand(), float(tf.random.normal(())), float(keras.random.normal(()))


def seed_all():
    keras.utils.set_random_seed(5)
    # `conftest.py` keeps the kernels, and random operations with a state are kernels.
    tf_context.context().clear_kernel_cache()


def test_the_caller_finds_every_generator_as_it_was():
    seed_all()
    expected = next_numbers()
    seed_all()
    with default_seeds_from(7):
        first_weights()
    assert next_numbers() == expected


@pytest.mark.parametrize("seed", [None, 5])
def test_determinism_and_the_seed_it_needs_end_with_their_block(seed):
    if seed is not None:
        tf.random.set_seed(seed)
    before = tf_context.global_seed(), tf_config.is_op_determinism_enabled()
    with deterministic_operations(7):
        assert tf_config.is_op_determinism_enabled()
        tf.random.normal(())
    assert (tf_context.global_seed(), tf_config.is_op_determinism_enabled()) == before
    tf.random.normal(())


def test_so_does_the_caller_of_a_block_that_fails():
    before = random.getstate()
    with pytest.raises(KeyError), default_seeds_from(7):
        raise KeyError
    assert random.getstate() == before
