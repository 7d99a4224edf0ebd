"""The ELBO of a posterior, and the temperature of its scales, beside closed forms."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.inference.elbo_optimum import elbo_numbers
from tfp_bnn.layers import DenseFlipout, DenseReparameterization

ROWS, UNITS, NOISE, PRIOR = 40, 64, 0.5, 0.7
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 3)).astype(np.float32)
Y = (X @ RNG.normal(size=(3, UNITS)) + NOISE * RNG.normal(size=(ROWS, UNITS))).astype(np.float32)
PRECISION = X.T @ X / NOISE**2 + np.eye(3) / PRIOR**2


def linear(factor, beta=1.0):
    """A model whose best independent normals are known, with their scales times a factor."""
    layer = DenseReparameterization(UNITS, use_bias=False, kernel_prior={"name": "normal", "scale": PRIOR})
    model = tfp_bnn.VariationalSequential(
        [keras.Input((3,)), layer], likelihood={"name": "normal", "scale": NOISE}, num_examples=ROWS
    )
    loc = np.linalg.solve(PRECISION, X.T @ Y / NOISE**2)
    scale = np.repeat(factor / np.sqrt(np.diag(PRECISION))[:, np.newaxis], UNITS, axis=1)
    layer.variational_weights["kernel"].assign_parameters({"loc": loc, "scale": scale})
    return model


@pytest.mark.statistical
@pytest.mark.parametrize("factor", [1.0, 0.5, 1.5])
def test_the_temperature_of_scales_is_the_square_of_their_factor(factor):
    """E[-log p] has the term sum of precision * scale^2 / 2, of which the slope is n c^2.

    40 draws of 192 squared normals: the standard deviation of T is c^2 sqrt(2 / 7680) = 0.016 c^2, if all weights were
    independent; their correlations, at most 0.5, less than double it. 0.15 c^2 is failed by chance in less than 1e-6.
    """
    numbers = elbo_numbers(linear(factor), np.tile(X, (40, 1)), np.tile(Y, (40, 1)), batch_size=ROWS)
    assert numbers.temperature_of_scales == pytest.approx(factor**2, abs=0.15 * factor**2)
    elbo, nll, kl = exact(factor)
    # 7,680 squared normals again, as a part of the NLL.
    assert numbers.nll == pytest.approx(nll, rel=0.02)
    assert numbers.elbo == pytest.approx(elbo, rel=0.02)
    assert numbers.elbo == pytest.approx(-(numbers.nll + kl / ROWS), rel=1e-5)


@pytest.mark.statistical
def test_only_scales_that_are_kept_and_trained_have_a_temperature():
    """40 draws of 19 squared normals around the truth: the standard deviation of T is 0.013, 0.03 with correlations.

    0.2 is failed by chance in less than 1e-6. Counting pruned weights gives 0.92.
    """
    model = linear(0.5)
    pruned = tfp_bnn.compression.prune(model, 0.9)
    pruned.num_examples = ROWS
    y = X @ pruned.layers[0].variational_weights["kernel"].mean.numpy()
    numbers = elbo_numbers(pruned, np.tile(X, (40, 1)), np.tile(y, (40, 1)), batch_size=ROWS)
    assert numbers.temperature_of_scales == pytest.approx(0.25, abs=0.2)
    assert elbo_numbers(model, X, Y, frozen=[model.layers[0].name]).temperature_of_scales is None
    model.layers[0].trainable = False
    assert elbo_numbers(model, X, Y).temperature_of_scales is None


def exact(factor):
    loc = np.linalg.solve(PRECISION, X.T @ Y / NOISE**2)
    scale = factor / np.sqrt(np.diag(PRECISION))
    residuals = ((Y - X @ loc) ** 2).sum() + UNITS * (X**2 @ scale**2).sum()
    nll = residuals / 2 / NOISE**2 / ROWS + UNITS * np.log(NOISE * np.sqrt(2 * np.pi))
    ratio = scale**2 / PRIOR**2
    kl = 0.5 * (UNITS * (ratio - 1 - np.log(ratio)).sum() + (loc**2).sum() / PRIOR**2)
    return -(nll + kl / ROWS), nll, kl


def test_the_same_seed_gives_the_same_numbers_and_no_noise_of_the_model_is_used_up():
    prior = {"name": "scale_mixture", "mixture_probability": 0.5, "scale_1": 1.0, "scale_2": 0.1}
    model = tfp_bnn.VariationalSequential(
        [keras.Input((3,)), DenseFlipout(4, kernel_prior=prior)], num_examples=ROWS, seed=0
    )
    labels = np.arange(ROWS) % 4
    first = elbo_numbers(model, X, labels, batch_size=16, seed=1)
    before = model(X).numpy()
    assert elbo_numbers(model, X, labels, batch_size=16, seed=1) == first
    assert elbo_numbers(model, X, labels, batch_size=16, seed=2) != first
    assert not np.array_equal(model(X), before)


def test_points_have_no_temperature_and_an_untrained_model_no_elbo():
    layers = [keras.Input((3,)), DenseFlipout(4, kernel_posterior="delta")]
    model = tfp_bnn.VariationalSequential(layers, num_examples=ROWS)
    assert elbo_numbers(model, X, np.zeros(ROWS, int)).temperature_of_scales is None
    with pytest.raises(ValueError, match="does not know its number of training examples"):
        elbo_numbers(tfp_bnn.VariationalSequential([*layers[:1], DenseFlipout(4)]), X, np.zeros(ROWS, int))
