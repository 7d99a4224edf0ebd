"""What has no posterior stays as it was learned, and only the weights with a distribution are sampled."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.inference import hmc, map_estimate, with_fixed_parameters
from tfp_bnn.inference.log_posterior import LogPosterior
from tfp_bnn.models.weight_record import assign_weight_distributions, weight_distributions

X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)
Y = np.array([[0.5], [-1.0], [2.0], [0.0]], np.float32)


def trained_model(**prior):
    """A linear model whose prior, bias and noise are away from where they start, as after a training."""
    prior = {"name": "normal", "empirical_bayes": True, **prior}
    layer = tfp_bnn.layers.DenseFlipout(1, kernel_prior=prior, name="dense")
    model = tfp_bnn.VariationalSequential([keras.Input((2,)), layer], likelihood="normal", seed=0)
    model.num_examples = 4
    learned = {"dense/kernel/prior_scale": 0.7, "dense/bias": [0.3], "likelihood/scale": 1.5}
    known = weight_distributions(model)
    changed = {name: np.full_like(known[name], value) for name, value in learned.items() if name in known}
    assign_weight_distributions(model, {**known, **changed})
    return model


def test_the_log_posterior_is_that_of_scipy_at_the_learned_values():
    posterior = LogPosterior(with_fixed_parameters(trained_model()), X, Y, None, 1.0, "hmc")
    assert list(posterior.variables) == ["dense/kernel"]
    weights = np.array([[0.4, -0.6], [1.0, 2.0]], np.float32)
    of_data = scipy.stats.norm.logpdf(Y[:, 0], weights @ X.T + 0.3, 1.5).sum(axis=1)
    expected = of_data + scipy.stats.norm.logpdf(weights, 0.0, 0.7).sum(axis=1)
    np.testing.assert_allclose(posterior(tf.constant(weights)), expected, rtol=1e-5)


def test_a_learned_centre_and_a_shared_scale_become_constants():
    fixed = with_fixed_parameters(trained_model(learn_loc=True, loc=0.2, shared="all"))
    (weight,) = fixed.variational_layers[0].variational_weights.values()
    assert not weight.prior_spec.is_learned
    assert weight.prior_spec.shared is None
    assert weight.prior_spec.loc == np.float32(0.2)


def test_arguments_with_other_names_than_their_weights_are_found():
    learned = {"name": "normal", "empirical_bayes": True}
    lstm = tfp_bnn.layers.LSTMFlipout(2, kernel_prior=learned, recurrent_prior=learned, name="lstm")
    model = tfp_bnn.VariationalSequential([keras.Input((3, 2)), lstm], likelihood="normal", seed=0)
    known = weight_distributions(model)
    values = {"lstm/kernel/prior_scale": np.float32(0.3), "lstm/recurrent_kernel/prior_scale": np.float32(0.6)}
    assign_weight_distributions(model, {**known, **values})
    weights = with_fixed_parameters(model).layers[0].variational_weights
    assert weights["kernel"].prior_spec.scale == pytest.approx(0.3)
    assert weights["recurrent_kernel"].prior_spec.scale == pytest.approx(0.6)


@pytest.mark.parametrize("use_bias", [True, False])
def test_groups_that_learned_a_scale_for_each_weight_are_refused(use_bias):
    of_groups = {"name": "normal", "empirical_bayes": True}
    layer = tfp_bnn.layers.HierarchicalDenseReparameterization(
        1, 2, use_bias=use_bias, group_prior=of_groups, name="groups"
    )
    x, groups = keras.Input((2,)), keras.Input((), dtype="int32")
    model = tfp_bnn.VariationalModel([x, groups], layer([x, groups]), likelihood="normal", seed=0)
    same = with_fixed_parameters(model)
    assert not any(w.prior_spec.is_learned for w in same.variational_layers[0].variational_weights.values())
    if not use_bias:
        return
    known = weight_distributions(model)
    assign_weight_distributions(model, {**known, "groups/group_bias/prior_scale": np.float32(0.5)})
    with pytest.raises(ValueError, match="group_kernel, group_bias of the layer 'groups' have one argument, 'group'"):
        with_fixed_parameters(model)


def test_the_copy_predicts_the_same_bits_and_the_model_does_not_change():
    model = trained_model()
    before = weight_distributions(model)
    fixed = with_fixed_parameters(model)
    of_both = [part.posterior_predictive(X, num_samples=3, seed=1).quantiles([0.1]) for part in (model, fixed)]
    np.testing.assert_array_equal(*of_both)
    assert model.layers[0].bias.trainable
    assert not fixed.layers[0].bias.trainable
    for name, array in weight_distributions(model).items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.slow
def test_chains_hold_the_weights_with_a_distribution_only():
    chains = hmc(
        with_fixed_parameters(trained_model()), X, Y, num_samples=4, burn_in=5, num_leapfrog_steps=2, verbose=0
    )
    assert list(chains.states) == ["dense/kernel"]
    predictive = chains.posterior_predictive(np.zeros((1, 2), np.float32), num_samples=16)
    np.testing.assert_allclose(predictive.mean(), [[0.3]], rtol=1e-6)
    np.testing.assert_allclose(predictive.aleatoric(), [[1.5**2]], rtol=1e-5)


def test_a_weight_that_is_frozen_alone_stays_frozen_in_a_point_estimate():
    model = trained_model(empirical_bayes=False)
    model.layers[0].bias.trainable = False
    assert "bias" not in [variable.name for variable in map_estimate(model).trainable_variables]


def test_an_inferred_scale_is_refused():
    prior = {"empirical_bayes": False, "hyperprior": "half_normal"}
    with pytest.raises(ValueError, match="is inferred, so it has a distribution and no value to fix it at"):
        with_fixed_parameters(trained_model(**prior))
