"""Noise is the same function of its seed in every mode, and the one that TensorFlow documents."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn.core.noise import Noise

SEEDS = [tf.constant([3, -7]), tf.constant([2**40, -5], tf.int64)]
NUMBERS = [4, tf.constant(-9), tf.constant(2**35 + 1, tf.int64)]


class Documented(Noise):
    """The same noise by TensorFlow's functions for it."""

    def fold_in(self, number):
        return Documented(tf.random.fold_in(self.seed, number, alg="philox"))

    def normal(self, name, shape):
        return tf.random.stateless_normal(shape, self._seed_of(name), alg="philox")

    def signs(self, name, shape):
        bits = tf.random.stateless_uniform(shape, self._seed_of(name), 0, 2, tf.int32, alg="philox")
        return tf.cast(2 * bits - 1, tf.float32)

    def keep(self, name, shape, probability):
        uniform = tf.random.stateless_uniform(shape, self._seed_of(name), alg="philox")
        return tf.cast(uniform < probability, tf.float32)


def draws_of(noise):
    """Draws of all kinds from three seeds, all whose shapes differ."""
    for parent, number in itertools.product((noise, noise.fold_in(5)), NUMBERS):
        child = parent.fold_in(number)
        yield child.seed
        yield child.normal("kernel", (7, 4))
        yield child.normal("scale", ())
        yield child.signs("inputs", (tf.constant(3), 20))
        yield child.keep("mask", (4, 4), 0.3)


@pytest.mark.parametrize("seed", SEEDS, ids=["int32", "int64"])
@pytest.mark.parametrize(
    "how", [None, {}, pytest.param({"jit_compile": True}, marks=pytest.mark.thorough)], ids=["eager", "graph", "xla"]
)
def test_the_draws_are_those_of_tensorflow_to_the_last_bit(how, seed):
    def ours():
        return list(draws_of(Noise(seed)))

    def documented():
        return list(draws_of(Documented(seed)))

    if how is not None:
        ours, documented = tf.function(ours, **how), tf.function(documented, **how)
    for found, expected in zip(ours(), documented(), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_children_of_a_noise_share_its_draw_within_one_graph_only():
    noise = Noise(tf.constant([3, -7]))

    def children(number):
        return tf.stack([noise.fold_in(number).seed, noise.fold_in(2).seed])

    def of_branches(number):
        return tf.cond(number > 0, lambda: children(number), lambda: children(-number)) + 0 * children(number)

    traced = tf.function(children).get_concrete_function(tf.constant(1))
    kinds = [operation.type for operation in traced.graph.get_operations()]
    # One scrambles the seed, and one is drawn for both.
    assert kinds.count("StatelessRandomUniformFullIntV2") == 2
    expected = [tf.random.fold_in([3, -7], number, alg="philox") for number in (1, 2)]
    for way in (children, traced, tf.function(of_branches), children, tf.function(children)):
        np.testing.assert_array_equal(way(tf.constant(1)), expected)
