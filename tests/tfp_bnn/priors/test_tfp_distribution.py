"""Distributions of TensorFlow Probability as priors (case 15)."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.stats
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

import tfp_bnn
from tfp_bnn.layers import DenseFlipout
from tfp_bnn.priors import PRIORS, Cauchy, Horseshoe, Laplace, Normal, StudentT, TfpDistribution

W = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
MIXTURE = tfd.MixtureSameFamily(tfd.Categorical(probs=[0.25, 0.75]), tfd.Normal([-1.0, 2.0], [0.5, 1.0]))


@pytest.mark.parametrize(
    ("distribution", "prior"),
    [
        (tfd.Normal(1.0, 0.5), Normal(0.5, loc=1.0)),
        (tfd.Normal(np.float32(1.0), 0.5, validate_args=True, name="mine"), Normal(0.5, loc=1.0)),
        (tfd.Independent(tfd.Normal(1.0, 0.5), 0), Normal(0.5, loc=1.0)),
        (tfd.Sample(tfd.Laplace(0.0, 2.0), (3, 2)), Laplace(2.0)),
        (tfd.Cauchy(0.0, 2.0), Cauchy(2.0)),
        (tfd.StudentT(4.0, 0.5, 2.0), StudentT(4.0, 2.0, loc=0.5)),
        (tfd.Horseshoe(0.1), Horseshoe(0.1)),
        (tfd.Gumbel(0.0, 1.0), TfpDistribution("Gumbel", {"loc": 0.0, "scale": 1.0})),
    ],
)
def test_a_distribution_becomes_the_prior_that_describes_it(distribution, prior):
    assert PRIORS.get(distribution) == prior
    layer = DenseFlipout(2, kernel_prior=distribution)
    layer.build((None, 3))
    assert layer.variational_weights["kernel"].prior_spec == prior


def test_the_density_is_that_of_the_distribution_for_each_weight():
    prior = PRIORS.get(MIXTURE)
    expected = np.log(0.25 * scipy.stats.norm.pdf(W, -1.0, 0.5) + 0.75 * scipy.stats.norm.pdf(W, 2.0, 1.0)).sum()
    np.testing.assert_allclose(prior.distribution(W.shape, {}).log_prob(W), expected, rtol=1e-5)


@pytest.mark.parametrize("prior", [MIXTURE, tfd.Normal(1.0, 0.5)], ids=["mixture", "normal"])
def test_a_model_with_such_a_prior_trains_and_comes_back_from_a_file(prior, tmp_path):
    model = tfp_bnn.VariationalSequential([keras.Input((3,)), DenseFlipout(2, kernel_prior=prior)], seed=0)
    model.compile("sgd", run_eagerly=True)
    model.fit(np.ones((4, 3), np.float32), np.arange(4) % 2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].variational_weights["kernel"].prior_spec == PRIORS.get(prior)
    assert float(loaded.kl()) == pytest.approx(float(model.kl()), rel=1e-6)


def half_and_half(*components):
    return tfd.Mixture(tfd.Categorical(probs=[0.5, 0.5]), components)


@pytest.mark.parametrize(
    "distribution",
    [
        # Their density at -30 is too small for float32.
        tfd.Gumbel(0.0, 0.3),
        tfd.MixtureSameFamily(tfd.Categorical(probs=[0.2, 0.3, 0.5]), tfd.Gumbel([0.0, 1.0, 2.0], 0.3)),
        half_and_half(tfd.HalfNormal(1.0), tfd.Normal(0.0, 1.0)),
        tfd.JohnsonSU(0.0, 1.0, 0.0, 1.0),
    ],
    ids=["narrow", "narrow mixture", "one component", "another map"],
)
def test_a_distribution_on_the_whole_line_is_a_prior(distribution):
    prior = PRIORS.get(distribution)
    np.testing.assert_allclose(prior.distribution(W.shape, {}).log_prob(W), np.sum(distribution.log_prob(W)), rtol=1e-5)


class OwnDistribution(tfd.Normal):
    """A class that TensorFlow Probability does not have."""


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        (tfd.HalfNormal(1.0), r"HalfNormal has the log-density -inf at -30\. Expected a density above 0"),
        (tfd.Uniform(-2.0, 2.0), "Uniform has the log-density -inf at -30"),
        (
            tfd.TruncatedNormal(0.0, 20.0, -50.0, 50.0),
            r"TruncatedNormal has a bounded range\. Expected a density above 0",
        ),
        (tfd.Gumbel(0.0, 0.01), "Gumbel has the log-density -inf at -1.* so narrow that its density at 1 or -1 is 0"),
        (tfd.DoublesidedMaxwell(0.0, 1.0), "DoublesidedMaxwell has the log-density -inf at 0"),
        (
            tfd.MixtureSameFamily(tfd.Categorical(probs=[0.5, 0.5]), tfd.Horseshoe([0.1, 1.0])),
            "MixtureSameFamily has the log-density inf at 0.* take the prior 'horseshoe'",
        ),
        (tfd.Skellam(1.0, 1.0), "Skellam is discrete, or a part of it is, and has no density. Expected a continuous"),
        (tfd.Deterministic(0.0), "Deterministic is discrete"),
        (half_and_half(tfd.Skellam(1.0, 1.0), tfd.Normal(0.0, 1.0)), "Mixture is discrete, or a part of it is"),
        (tfd.Gumbel([0.0, 1.0], 1.0), r"batch shape \(2,\) and event shape \(\)"),
        (tfd.MultivariateNormalDiag([0.0, 1.0]), r"event shape \(2,\)"),
        (tfd.Logistic(keras.Variable(1.0).value, 1.0), "'loc' is .*names and numbers alone"),
        (tfd.TransformedDistribution(tfd.Normal(0.0, 1.0), tfb.Sinh()), "'bijector' is .*names and numbers alone"),
        (OwnDistribution(0.0, 1.0), "OwnDistribution is not a class of tensorflow_probability.distributions"),
    ],
)
def test_what_cannot_be_a_prior_is_refused_with_the_reason(distribution, message):
    with pytest.raises(ValueError, match=message):
        DenseFlipout(2, kernel_prior=distribution)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"family": "Gumble"}, "Did you mean 'Gumbel'"),
        ({"family": "Distribution", "parameters": {}}, "cannot be made from"),
        ({"family": "Gumbel", "parameters": {"loc": 0.0}}, "cannot be made from {'loc': 0.0}"),
        (
            {"family": "Gumbel", "parameters": {"loc": float("nan"), "scale": 1.0}},
            "must be finite numbers, but got nan",
        ),
        (
            {"family": "Gumbel", "parameters": {"loc": {"a": 1}, "scale": 1.0}},
            "'family' and 'parameters' were expected",
        ),
        ({"family": "Gumbel", "parameters": 3}, "must be a mapping by name, but got 3"),
    ],
)
def test_bad_configs_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PRIORS.get({"name": "tfp_distribution", **arguments})


def test_a_function_is_no_prior():
    with pytest.raises(TypeError, match="Cannot make a prior from <function"):
        DenseFlipout(2, kernel_prior=lambda *_: tfd.Normal(0.0, 1.0))
