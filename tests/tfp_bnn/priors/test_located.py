"""Priors around a centre other than 0, fixed or learned."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import DenseReparameterization
from tfp_bnn.models.weight_record import weight_distributions
from tfp_bnn.priors import PRIORS, LocatedPrior

LOCATED = {
    "normal": scipy.stats.norm.logpdf,
    "laplace": scipy.stats.laplace.logpdf,
    "cauchy": scipy.stats.cauchy.logpdf,
    "student_t": lambda w, loc, scale: scipy.stats.t.logpdf(w, 3.0, loc, scale),
}
X = np.eye(4, dtype=np.float32)


def test_every_located_prior_has_a_reference():
    assert {name for name in PRIORS if issubclass(PRIORS[name], LocatedPrior)} == set(LOCATED)


@pytest.mark.parametrize("name", LOCATED)
def test_the_density_is_that_around_the_centre(name):
    w = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    prior = PRIORS.get({"name": name, "scale": 0.7, "loc": -1.5})
    expected = LOCATED[name](w.astype(np.float64), -1.5, 0.7).sum()
    np.testing.assert_allclose(prior.distribution((3, 4), {}).log_prob(w), expected, rtol=1e-5)


@pytest.mark.parametrize("name", LOCATED)
@pytest.mark.parametrize("scale", [{}, {"empirical_bayes": True}, {"hyperprior": "half_cauchy"}])
def test_a_learned_centre_starts_where_told_and_is_set_read_and_used(name, scale, add_weight):
    prior = PRIORS.get({"name": name, "scale": 0.7, "loc": 0.5, "learn_loc": True, **scale})
    weights = prior.add_weights(add_weight, "kernel", (2,))
    values = prior.parameters(weights)
    assert values.keys() == {"loc"} | ({"scale"} if scale else set()) | (
        {"scale_spread"} if "hyperprior" in scale else set()
    )
    assert values["loc"] == np.float32(0.5)
    prior.assign_parameters(weights, {**values, "loc": np.float32(-2.0)})
    assert prior.parameters(weights) == {**values, "loc": np.float32(-2.0)}
    w = np.array([0.3, -1.0], np.float32)
    expected = LOCATED[name](w.astype(np.float64), -2.0, 0.7).sum()
    np.testing.assert_allclose(prior.distribution((2,), weights).log_prob(w), expected, rtol=1e-4)
    for bad in ({**values, "loc": np.nan}, {key: value for key, value in values.items() if key != "loc"}):
        with pytest.raises(ValueError, match="`loc` must be a finite number"):
            prior.assign_parameters(weights, bad)
    assert prior.parameters(weights)["loc"] == -2.0


def test_the_best_centre_of_a_normal_is_the_mean_of_the_posterior_means():
    layer = DenseReparameterization(3, use_bias=False, kernel_prior={"name": "normal", "scale": 0.6, "learn_loc": True})
    layer.build((None, 4))
    loc = np.random.default_rng(0).normal(1.0, 1.0, (4, 3)).astype(np.float32)
    weight = layer.variational_weights["kernel"]
    weight.assign_parameters({**weight.parameters(), "loc": loc})
    (centre,) = [v for v in layer.trainable_variables if v.name == "kernel_prior_loc"]
    with tf.GradientTape() as tape:
        kl = layer.kl()
    # KL of normals: the gradient is -sum(loc - centre) / scale^2.
    np.testing.assert_allclose(tape.gradient(kl, centre.value), -loc.sum() / 0.36, rtol=1e-4)
    centre.assign(loc.mean())
    with tf.GradientTape() as tape:
        kl = layer.kl()
    assert abs(float(tape.gradient(kl, centre.value))) < 1e-4


def test_a_learned_centre_is_trained_recorded_saved_and_loaded(tmp_path):
    prior = {"name": "normal", "scale": 0.5, "loc": 0.2, "learn_loc": True, "empirical_bayes": True}
    layers = [keras.Input((4,)), DenseReparameterization(2, kernel_prior=prior, name="dense")]
    model = tfp_bnn.VariationalSequential(layers, seed=0)
    model.compile(keras.optimizers.Adam(0.1), run_eagerly=True)
    model.fit(X, np.arange(4) % 2, verbose=0)
    record = weight_distributions(model)
    assert record["dense/kernel/prior_loc"] != np.float32(0.2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].variational_weights["kernel"].prior_spec == PRIORS.get(prior)
    for name, value in weight_distributions(loaded).items():
        np.testing.assert_array_equal(value, record[name])


@pytest.mark.parametrize("name", LOCATED)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loc": "1"}, "`loc` of the prior '.*' must be a finite number, but got '1'"),
        ({"loc": float("inf")}, "must be a finite number, but got inf"),
        ({"learn_loc": 1}, "`learn_loc` of the prior '.*' must be True or False, but got 1"),
        ({"learn_loc": True, "shared": "all"}, "whose scale is fixed"),
    ],
)
def test_bad_arguments_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        PRIORS.get({"name": name, **arguments})


@pytest.mark.parametrize("learned", [{"learn_loc": True}, {"learn_loc": True, "empirical_bayes": True}])
def test_points_take_a_learned_centre_but_no_learned_scale(learned):
    layer = DenseReparameterization(2, kernel_prior={"name": "normal", "scale": 0.5, **learned})
    model = tfp_bnn.VariationalSequential([keras.Input((4,)), layer], seed=0)
    if "empirical_bayes" in learned:
        with pytest.raises(ValueError, match="learns its scale"):
            tfp_bnn.inference.map_estimate(model)
    else:
        point = tfp_bnn.inference.map_estimate(model)
        assert "kernel_prior_loc" in [variable.name for variable in point.trainable_variables]
