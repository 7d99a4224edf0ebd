"""The improper flat prior."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn.priors import Flat
from tfp_bnn.priors.flat import ImproperUniform


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_the_density_is_one_everywhere(shape):
    prior = Flat().distribution(shape, {})
    for prefix in ((), (5,), (4, 1)):
        log_prob = prior.log_prob(tf.random.stateless_normal([*prefix, *shape], (0, 0)) * 1e30)
        assert log_prob.shape == prefix
        assert log_prob.dtype == tf.float32
        np.testing.assert_array_equal(log_prob, np.zeros(prefix))
    copy = prior.copy()
    assert isinstance(copy, ImproperUniform)
    assert copy.event_shape == shape


def test_it_has_no_draws_and_no_mean():
    prior = Flat().distribution((2, 3), {})
    for ask in (lambda: prior.sample(seed=(0, 0)), prior.mean):
        with pytest.raises(NotImplementedError):
            ask()


def test_the_kl_of_a_point_is_zero(random_weight, injected_noise):
    weight = random_weight("flat", "delta")
    (loc,) = weight.variables
    with tf.GradientTape() as tape:
        kl = tf.function(weight.kl, autograph=False)(injected_noise)
    assert kl == 0.0
    assert kl.shape == ()
    gradient = tape.gradient(kl, loc.value)
    assert gradient is None or not np.any(gradient)
