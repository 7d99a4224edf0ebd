"""A prior scale for each input or each output of a layer."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import DenseFlipout
from tfp_bnn.priors import PRIORS, Normal, ScaledPrior

LEARNED = {"empirical_bayes": True}
AXIS = {"outputs": 0, "inputs": 1}
"""Of a kernel of shape `(inputs, outputs)`, the axis over which the weights of a group lie."""


@pytest.mark.parametrize("groups", AXIS)
def test_the_kl_of_each_group_is_least_at_the_mean_square_of_its_weights(groups, random_weight, injected_noise):
    weight = random_weight(Normal(0.7, groups=groups, **LEARNED))
    parameters = weight.parameters()
    loc, scale = (parameters[name].astype(np.float64) for name in ("loc", "scale"))
    best = np.sqrt(np.mean(loc**2 + scale**2, axis=AXIS[groups], keepdims=True))
    assert parameters["prior_scale"].shape == best.shape
    weight.assign_parameters({**parameters, "prior_scale": best})
    (variable,) = [v for v in weight.variables if v.name == "kernel_prior_untransformed_scale"]
    with tf.GradientTape() as tape:
        kl = weight.kl(injected_noise)
    expected = (np.log(best / scale) + (scale**2 + loc**2) / (2 * best**2) - 0.5).sum()
    np.testing.assert_allclose(kl, expected, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(kl, variable.value), np.zeros(best.shape), atol=1e-4)


@pytest.mark.parametrize("name", [name for name in PRIORS if issubclass(PRIORS[name], ScaledPrior)])
def test_the_density_is_that_of_each_group_under_its_scale(name):
    w = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    scales = np.array([[0.2, 3.0]], np.float32)
    prior = PRIORS.get({"name": name, "groups": "outputs", **LEARNED})
    found = prior.with_scale((3, 2), tf.constant(scales)).log_prob(w)
    one_by_one = [
        PRIORS.get({"name": name, "scale": float(scale)}).distribution((3, 1), {}).log_prob(w[:, i : i + 1])
        for i, scale in enumerate(scales[0])
    ]
    np.testing.assert_allclose(found, np.sum(one_by_one), rtol=1e-5)


def test_each_inferred_scale_has_noise_and_a_divergence_of_its_own(random_weight, injected_noise):
    """The group horseshoe: half-Cauchy scales."""
    weight = random_weight(Normal(0.7, hyperprior="half_cauchy", groups="outputs"))
    weight.kl(injected_noise)
    noise = injected_noise.drawn["kernel_prior_scale"]
    assert noise.shape == (1, 4)
    u = np.log(0.7 - 0.001) + 0.1 * np.asarray(noise, np.float64)
    entropy = scipy.stats.norm.entropy(scale=0.1) + np.log(0.7 - 0.001)
    expected = -(entropy + scipy.stats.halfcauchy.logpdf(0.001 + np.exp(u))).sum()
    np.testing.assert_allclose(weight.hyper_kl(injected_noise), expected, rtol=1e-4)


def test_groups_of_filters_and_of_biases():
    assert Normal(groups="outputs", **LEARNED).scale_shape((3, 3, 2, 5)) == (1, 1, 1, 5)
    assert Normal(groups="inputs", **LEARNED).scale_shape((3, 3, 2, 5)) == (1, 1, 2, 1)
    assert Normal(groups="outputs", **LEARNED).scale_shape((5,)) == (5,)
    assert Normal(groups="inputs", **LEARNED).scale_shape((5,)) == (1,)


def test_they_are_saved_with_a_model_and_shown(tmp_path, capsys):
    prior = {"name": "normal", "groups": "inputs", **LEARNED}
    model = tfp_bnn.VariationalSequential([keras.Input((3,)), DenseFlipout(2, kernel_prior=prior, name="a")], seed=0)
    weight = model.get_layer("a").variational_weights["kernel"]
    scales = np.array([[0.1], [0.2], [0.3]], np.float32)
    weight.assign_parameters({**weight.parameters(), "prior_scale": scales})
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.get_layer("a").variational_weights["kernel"].parameters()["prior_scale"], scales, rtol=1e-6
    )
    model.summary()
    assert "3 learned scales, median 0.2" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ValueError, match=r"must have the shape \(3, 1\), but got an array of \(2,\)"):
        weight.assign_parameters({**weight.parameters(), "prior_scale": np.ones(2)})
    with pytest.raises(ValueError, match=r"above 0.001, but got 0.0001"):
        weight.assign_parameters({**weight.parameters(), "prior_scale": np.array([[1.0], [1e-4], [1.0]])})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"groups": "units", **LEARNED},
            "`groups` of the prior 'laplace' must be 'inputs', 'outputs' or None, but got",
        ),
        (
            {"groups": ["outputs"], **LEARNED},
            "`groups` of the prior 'laplace' must be 'inputs', 'outputs' or None, but got ['outputs'].",
        ),
        ({"groups": "inputs"}, "Got groups='inputs' for the prior 'laplace', whose scale is fixed"),
        ({"groups": "inputs", "shared": "all", **LEARNED}, "whose scale is shared"),
    ],
)
def test_groups_without_scales_of_their_own_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PRIORS.get({"name": "laplace", **arguments})


def test_a_scale_for_each_group_cannot_be_fixed_as_one():
    with pytest.raises(ValueError, match="a fixed prior has only one"):
        Normal(groups="inputs", **LEARNED).fixed({})
