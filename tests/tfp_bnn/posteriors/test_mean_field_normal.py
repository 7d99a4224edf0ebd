"""The mean-field normal posterior."""

from __future__ import annotations

import numpy as np
import pytest


def test_a_perturbation_is_the_noise_times_the_scale(random_weight, injected_noise):
    weight = random_weight()
    perturbation = weight.perturbation(injected_noise)
    parameters = weight.parameters()
    assert set(injected_noise.drawn) == {"kernel"}
    np.testing.assert_allclose(perturbation, parameters["scale"] * injected_noise.drawn["kernel"], rtol=1e-6)
    np.testing.assert_allclose(weight.sample(injected_noise), parameters["loc"] + perturbation, rtol=1e-6)
    np.testing.assert_allclose(weight.variance, parameters["scale"] ** 2, rtol=1e-6)


@pytest.mark.statistical
def test_draws_have_the_stated_mean_and_variance(random_weight, draw_tensors, assert_moments):
    """20,000 draws of 12 independent normals. False-failure rate 1e-6: see `assert_moments`."""
    weight = random_weight()
    parameters = {key: value.astype(np.float64) for key, value in weight.parameters().items()}
    assert_moments(draw_tensors(weight.sample, 20_000), parameters["loc"], parameters["scale"] ** 2)
