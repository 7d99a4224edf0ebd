"""Hamiltonian Monte Carlo and NUTS, against the closed form of a linear-Gaussian model."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.inference import hmc, mcmc, nuts, sgld, way_of
from tfp_bnn.inference.convergence import effective_sample_size
from tfp_bnn.layers import DenseFlipout

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3)).astype(np.float32)
Y = (X @ np.array([[1.0], [-0.5], [0.2]]) + 0.5 * RNG.normal(size=(30, 1))).astype(np.float32)
NOISE, PRIOR_SCALE = 0.5, 0.7
QUICK = {"num_samples": 10, "burn_in": 10, "num_chains": 2, "verbose": 0}


def linear_gaussian():
    layer = DenseFlipout(1, use_bias=False, kernel_prior={"name": "normal", "scale": PRIOR_SCALE}, name="outputs")
    likelihood = {"name": "normal", "scale": NOISE}
    return tfp_bnn.VariationalSequential([keras.Input((3,)), layer], likelihood=likelihood, seed=0, name="linear")


def closed_form():
    """w ~ N(m, C): C = (x'x / s^2 + 1 / t^2)^-1, m = C x'y / s^2."""
    x = X.astype(np.float64)
    covariance = np.linalg.inv(x.T @ x / NOISE**2 + np.eye(3) / PRIOR_SCALE**2)
    return (covariance @ x.T @ Y / NOISE**2)[:, 0], covariance


def z_scores(values, expected):
    """Errors of the means of `(chains, samples, ...)` in units of their Monte Carlo standard error."""
    error = values.std(axis=(0, 1)) / np.sqrt(effective_sample_size(values))
    return (values.mean(axis=(0, 1)) - expected) / error


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("sample", [hmc, nuts])
def test_chains_have_the_mean_and_covariance_of_the_closed_form(sample):
    """4 chains of 400 states, with an effective size of more than 400.

    Each of the 3 means and 6 second moments is within 5.5 standard errors: below 4e-7 for all of them.
    """
    arguments = {"num_leapfrog_steps": 5} if sample is hmc else {}
    chains = sample(linear_gaussian(), X, Y, num_samples=400, burn_in=100, seed=1, verbose=0, **arguments)
    mean, covariance = closed_form()
    weights = chains.states["outputs/kernel"][..., 0].astype(np.float64)
    assert effective_sample_size(weights).min() > 400
    assert np.abs(z_scores(weights, mean)).max() < 5.5
    products = np.einsum("csi,csj->csij", weights - mean, weights - mean)[..., *np.triu_indices(3)]
    assert np.abs(z_scores(products, covariance[np.triu_indices(3)])).max() < 5.5
    assert way_of(chains) == sample.__name__
    assert chains.convergence(X[:3]).worst_rhat() < 1.05
    log_posterior = -0.5 * np.einsum("csi,ij,csj->cs", weights - mean, np.linalg.inv(covariance), weights - mean)
    difference = chains.statistics["log_posterior"] - log_posterior
    np.testing.assert_allclose(difference, difference[0, 0], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("sample", [hmc, nuts])
def test_equal_seeds_give_equal_chains_and_thinning_keeps_every_second_state(sample):
    first, again, other, thinned = (
        sample(linear_gaussian(), X, Y, **{**QUICK, **arguments}).states["outputs/kernel"]
        for arguments in ({}, {}, {"seed": 1}, {"num_samples": 5, "thin": 2})
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape == (2, 10, 3, 1)
    np.testing.assert_array_equal(thinned, first[:, 1::2])
    assert not np.isclose(first, other).any()
    assert len(np.unique(first)) > 30


@pytest.mark.slow
def test_the_progress_bar_ends_at_all_steps(capsys):
    chains = hmc(linear_gaussian(), X, Y, **{**QUICK, "verbose": 1})
    assert "20/20" in capsys.readouterr().out
    assert set(chains.statistics) == {"acceptance_rate", "step_size", "log_posterior", "diverging", "n_steps"}
    assert len(np.unique(chains.statistics["n_steps"])) > 3
    assert (chains.statistics["step_size"] == chains.statistics["step_size"][0, 0]).all()


@pytest.mark.slow
def test_chains_that_hardly_move_or_diverge_are_warned_of():
    with (
        pytest.warns(UserWarning, match="2 of 2 chains accepted less than 10%"),
        pytest.warns(UserWarning, match="20 of 20 trajectories diverged"),
    ):
        hmc(linear_gaussian(), X, Y, **{**QUICK, "burn_in": 0}, step_size=5.0)


def test_more_than_the_memory_holds_is_refused_with_the_numbers(monkeypatch):
    with pytest.raises(ValueError, match=r"2 chains x 100000000 samples x 3 weights take 2\.2 GiB; at most 1 GiB"):
        hmc(linear_gaussian(), X, Y, num_chains=2, num_samples=100_000_000)
    monkeypatch.setattr(mcmc, "_MOST_ROWS", 100)
    with pytest.raises(ValueError, match=r"4 x 30 = 120 rows through the network at once; at most 100 fit"):
        nuts(linear_gaussian(), X, Y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "`num_samples` must be an integer >= 1"),
        ({"burn_in": -1}, "`burn_in` must be an integer >= 0"),
        ({"num_chains": 1.5}, "`num_chains` must be an integer >= 1"),
        ({"thin": 0}, "`thin` must be an integer >= 1"),
        ({"step_size": 0}, "`step_size` of `hmc` must be a finite number larger than 0"),
        ({"num_leapfrog_steps": 0}, "`num_leapfrog_steps` must be an integer >= 1"),
        ({"target_acceptance": 1.0}, "`target_acceptance` must lie between 0 and 1"),
        ({"start": "zero"}, "`start` must be 'prior'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        hmc(linear_gaussian(), X, Y, **arguments)


# === Stochastic gradients ===


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("rate", [{"final_step_size": 2e-4}, {"cycles": 5}])
def test_langevin_dynamics_come_near_the_closed_form(rate):
    """Each mean is within a third of a posterior standard deviation, and each standard deviation within 25 %.

    That is the bias of the steps and of batches of 15 of the 30 rows. 64 chains of 200 states have an effective size
    above 200, so the Monte Carlo error is at most 7 % and 5 %: the bounds are 5 of them.
    """
    chains = sgld(
        linear_gaussian(), X, Y, num_samples=200, num_steps=2000, num_chains=64, batch_size=15, step_size=1e-3,
        seed=1, verbose=0, **rate,
    )  # fmt: skip
    mean, covariance = closed_form()
    weights = chains.states["outputs/kernel"][..., 0].astype(np.float64)
    assert effective_sample_size(weights).min() > 200
    scale = np.sqrt(np.diag(covariance))
    assert np.abs((weights.mean(axis=(0, 1)) - mean) / scale).max() < 0.34
    np.testing.assert_allclose(weights.std(axis=(0, 1)), scale, rtol=0.25)
    assert way_of(chains) == "sgld"


def test_equal_seeds_give_equal_langevin_dynamics():
    arguments = {"num_samples": 4, "num_steps": 8, "num_chains": 2, "batch_size": 5, "verbose": 0}
    first, again, other = (
        sgld(linear_gaussian(), X, Y, seed=seed, **arguments).states["outputs/kernel"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first, other).any()


def test_rates_fall_as_stated_and_states_are_kept_where_there_is_noise():
    from tfp_bnn.inference.sgld import _plan

    plan = _plan(4, 100, 0.1, 0.01, None, 0.5)
    assert plan.rates[[0, -1]] == pytest.approx([0.1, 0.01])
    assert plan.kept == [61, 74, 86, 99]
    assert plan.noisy.all()
    plan = _plan(4, 100, 0.1, None, 2, 0.8)
    assert plan.kept == [44, 49, 94, 99]
    np.testing.assert_allclose(plan.rates[[0, 25, 50, 75]], [0.1, 0.05, 0.1, 0.05], rtol=1e-6)
    assert plan.noisy[plan.kept].all()
    assert plan.noisy.sum() == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 31}, "`batch_size` is 31, but there are only 30 examples"),
        ({"num_samples": 10, "num_steps": 12}, "10 states cannot be kept of 6 steps"),
        ({"cycles": 3}, "must be multiples of cycles=3, but are 100 and 10000"),
        ({"cycles": 2, "final_step_size": 0.1}, "Got `final_step_size` with `cycles`"),
        ({"final_step_size": 0.1}, "The rate must not grow"),
        ({"exploration": 1.0}, "`exploration` must be a number from 0 to below 1"),
    ],
)
def test_langevin_dynamics_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sgld(linear_gaussian(), X, Y, verbose=0, **arguments)


@pytest.mark.slow
def test_langevin_dynamics_that_leave_the_finite_numbers_are_refused():
    arguments = {"num_samples": 2, "num_steps": 50, "batch_size": 5, "verbose": 0}
    with pytest.raises(ValueError, match=r"\d of 4 chains were NaN or infinite after step \d+. Lower `step_size`"):
        sgld(linear_gaussian(), X, Y, step_size=1e6, **arguments)
