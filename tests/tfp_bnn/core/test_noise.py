"""Noise is the same function of its seed in every mode, and the one that its documentation says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn.core import noise as module
from tfp_bnn.core.noise import Noise, number_of

SEEDS = [(3, -7), (2**40, -5)]
MASK = 0xFFFFFFFF


def philox(key, counter):
    """Four words by the paper of Salmon et al. 2011, from a key of 64 bits and a counter of 2 x 64 bits."""
    a, b, c, d = (int(word) >> shift & MASK for word in counter for shift in (0, 32))
    first, second = key & MASK, key >> 32
    for _ in range(10):
        product, other = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = other >> 32 ^ b ^ first, other & MASK, product >> 32 ^ d ^ second, product & MASK
        first, second = first + 0x9E3779B9 & MASK, second + 0xBB67AE85 & MASK
    return a, b, c, d


def words_of(key, block, number):
    """The first words of a block, int32."""
    found = [word for k in range(-(-number // 4)) for word in philox(key, (k, block))]
    return np.array(found[:number], np.uint32).view(np.int32)


def key_under(key, counter):
    low, high, *_ = philox(key, counter)
    return high << 32 | low


def root_of(seed):
    return key_under(0x02461E293EC8F720, [number % 2**64 for number in seed])


@pytest.mark.parametrize("seed", SEEDS, ids=["int32", "int64"])
def test_every_tensor_has_the_words_of_its_own_block_under_the_key_of_the_draw(seed):
    root = Noise(tf.constant(seed))
    of_child = key_under(root_of(seed), (-9 % 2**64, 1 << 31))
    of_nested = key_under(root_of(seed), (4, 6 << 32 | 1 << 31))
    name = number_of("kernel")
    for noise, key, owner in (
        (root, root_of(seed), 0),
        (root.block(0), root_of(seed), 1),
        (root.block(2**32 - 2), root_of(seed), 2**32 - 1),
        (root.fold_in(-9), of_child, 0),
        (root.fold_in(tf.constant(-9, tf.int64)).block(5), of_child, 6),
        (root.block(5).fold_in(4), of_nested, 0),
    ):
        words = words_of(key, owner << 32 | name, 12)
        # 3 x 33 signs: two words for each row.
        bits = (words[:6].view(np.uint32).reshape(3, 2, 1) >> np.arange(31, -1, -1, np.uint32) & 1).reshape(3, 64)
        np.testing.assert_array_equal(noise.signs("kernel", (tf.constant(3), 33)), (1.0 - 2.0 * bits)[:, :33])
        np.testing.assert_array_equal(noise.keep("kernel", (3, 4), 0.25).numpy().ravel(), words < -(2**30))
        np.testing.assert_array_equal(noise.seed, words_of(key, owner << 32 | 1 << 31 | 1, 4).view(np.int64))
        uniform, angle = np.abs(words[:6] | 1) / 2**31, words[6:] / 2**31 * math.pi
        pairs = np.sqrt(-2 * np.log(uniform)) * [np.cos(angle), np.sin(angle)]
        np.testing.assert_allclose(noise.normal("kernel", (11, 1)).numpy().ravel(), pairs.ravel()[:11], atol=2e-6)


@pytest.mark.parametrize(
    "how", [{}, pytest.param({"jit_compile": True}, marks=pytest.mark.thorough)], ids=["graph", "xla"]
)
def test_a_graph_draws_as_eagerly_and_xla_too_but_for_the_rounding_of_normals(how):
    def draws(seed, number, rows):
        for noise in (Noise(seed), Noise(seed).fold_in(number), Noise(seed).block(3).fold_in(number).block(2)):
            yield noise.seed
            yield noise.signs("few", (rows, 1, 6))
            yield noise.signs("many", (rows, 70))
            yield noise.keep("mask", (rows, 40), 0.3)
            yield noise.normal("kernel", (701, 43))
            yield noise.normal("scale", ())
            yield noise.normal("outputs", tf.stack([rows, 17]))

    arguments = tf.constant(SEEDS[1]), tf.constant(-9), tf.constant(37)
    compiled = tf.function(lambda *given: list(draws(*given)), **how, autograph=False)(*arguments)
    for found, expected in zip(compiled, draws(*arguments), strict=True):
        assert found.shape == expected.shape
        if how and expected.dtype == tf.float32:
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
        else:
            np.testing.assert_array_equal(found, expected)


def test_the_key_is_scrambled_once_for_all_layers_and_tensors_of_a_step():
    def step(seed):
        noise = Noise(seed)
        owners = [noise.block(index) for index in range(5)]
        return [owner.normal(name, (3,)) for owner in owners for name in ("kernel", "bias")]

    graph = tf.function(step, autograph=False).get_concrete_function(tf.constant(SEEDS[0])).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("StatelessRandomUniformFullIntV2") == 1 + 10


def test_extreme_words_give_finite_normals_and_fair_limits(monkeypatch):
    words = np.array([0, 1, -1, 2**31 - 1, -(2**31), 2**30], np.int32)
    monkeypatch.setattr(module, "_words", lambda *_: tf.constant([words, np.zeros_like(words)]))
    noise = Noise(tf.constant(SEEDS[0]))
    # The angle is 0: the radii, and then zeros.
    radii, zeros = noise.normal("kernel", (2, len(words))).numpy()
    largest = math.sqrt(62 * math.log(2))
    np.testing.assert_allclose(radii, [largest] * 3 + [0, 0, math.sqrt(2 * math.log(2))], atol=1e-6)
    np.testing.assert_array_equal(zeros, 0)
    monkeypatch.setattr(module, "_words", lambda *_: tf.constant(words))
    np.testing.assert_array_equal(noise.keep("mask", (6,), 1.0), 1.0)
    np.testing.assert_array_equal(noise.keep("mask", (6,), 1e-12), words == -(2**31))
    np.testing.assert_array_equal(noise.keep("mask", (6,), 0.5), words < 0)


@pytest.mark.parametrize("owner", [-1, 2**32 - 1])
def test_an_owner_out_of_range_is_refused(owner):
    with pytest.raises(ValueError, match=r"`owner` must be from 0 to 2\^32 - 2"):
        Noise(tf.constant(SEEDS[0])).block(owner)


def test_an_owner_gets_no_second_block_which_could_be_that_of_another():
    with pytest.raises(ValueError, match="without an owner"):
        Noise(tf.constant(SEEDS[0])).block(0).block(1)
