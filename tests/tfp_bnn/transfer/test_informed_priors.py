"""The posterior of one model as the prior of the next."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow_probability as tfp

import tfp_bnn
from tfp_bnn.layers import DenseFlipout, DenseReparameterization
from tfp_bnn.models.weight_record import assign_weight_distributions, weight_distributions
from tfp_bnn.priors import Informed
from tfp_bnn.transfer import informed_prior, transfer_posterior

tfd = tfp.distributions

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 3)).astype(np.float32), RNG.integers(0, 2, 32)


def functional(units=2, prior="informed", posterior="mean_field_normal", **kwargs):
    """A network with a shared layer, one in a nested model, and batch normalization."""
    common = {"kernel_prior": prior, "kernel_posterior": posterior}
    inputs = keras.Input((3,))
    shared = DenseReparameterization(3, activation="tanh", name="shared", **common)
    h = shared(shared(inputs))
    inner = keras.Input((3,))
    bias = {"bias_prior": prior, "bias_posterior": posterior}
    nested = keras.Model(inner, DenseReparameterization(4, name="in", **common, **bias)(inner))
    h = keras.layers.BatchNormalization(name="norm")(nested(h))
    return tfp_bnn.VariationalModel(inputs, DenseReparameterization(units, name="head", **common)(h), seed=0, **kwargs)


def scattered(model, seed=1):
    """Gives all learned parameters random values, as training would."""
    rng = np.random.default_rng(seed)
    arrays = weight_distributions(model)
    for name, value in arrays.items():
        parameter = name.rpartition("/")[2]
        if parameter in ("loc", "factor"):
            arrays[name] = rng.normal(scale=0.3, size=value.shape).astype(np.float32)
        elif not parameter.startswith("prior_"):
            # All positive, as scales and moving variances are.
            arrays[name] = rng.uniform(0.05, 0.5, size=value.shape).astype(np.float32)
    assign_weight_distributions(model, arrays)
    return model


@pytest.fixture(scope="module")
def source():
    return scattered(functional(prior={"name": "normal", "scale": 0.5, "empirical_bayes": True, "shared": "all"}))


def weights_of(model):
    return {
        f"{layer.name}/{name}": weight
        for layer in model.variational_layers
        for name, weight in layer.variational_weights.items()
    }


def test_every_prior_is_the_inflated_posterior_and_the_posterior_is_kept(source):
    before = weight_distributions(source)
    tuned = informed_prior(source, inflate=3.0)
    assert list(weights_of(tuned)) == ["shared/kernel", "in/kernel", "in/bias", "head/kernel"]
    for name, weight in weights_of(tuned).items():
        posterior = weights_of(source)[name].posterior
        np.testing.assert_array_equal(weight.posterior.mean(), posterior.mean())
        np.testing.assert_allclose(weight.posterior.stddev(), posterior.stddev(), rtol=1e-6)
        np.testing.assert_array_equal(weight.prior.mean(), posterior.mean())
        np.testing.assert_allclose(weight.prior.stddev(), 3.0 * np.asarray(posterior.stddev()), rtol=1e-6)
        # KL(N(m, s^2) || N(m, 9 s^2)) = log 3 - 4/9 for each weight.
        size = int(np.prod(weight.shape))
        assert float(tfd.kl_divergence(weight.posterior, weight.prior)) == pytest.approx(size * (np.log(3) - 4 / 9))
    after = weight_distributions(source)
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_all_else_is_copied(source):
    tuned = informed_prior(source)
    for name in ("norm/moving_mean", "norm/gamma", "shared/bias", "head/bias"):
        np.testing.assert_array_equal(weight_distributions(tuned)[name], weight_distributions(source)[name])
    assert (tuned.seed, tuned.likelihood, tuned.beta_schedule) == (0, source.likelihood, source.beta_schedule)
    np.testing.assert_allclose(tuned.plug_in_predictive(X).mean(), source.plug_in_predictive(X).mean(), rtol=1e-5)
    assert {id(v) for v in tuned.variables}.isdisjoint(id(v) for v in source.variables)


def test_weights_frozen_one_by_one_stay_frozen():
    def trained_values(model):
        return sorted(v.path.rpartition("/")[2] for v in model.trainable_variables)

    layer = DenseReparameterization(1, bias_posterior=None)
    model = tfp_bnn.VariationalSequential([keras.Input((3,)), layer], likelihood="normal", seed=0)
    everything = trained_values(model)
    model.layers[0].bias.trainable = model.likelihood_weights["log_scale"].trainable = False
    expected = trained_values(model)
    assert len(expected) == len(everything) - 2
    for copy in (informed_prior(model), tfp_bnn.compression.prune(model, 0.5)):
        assert trained_values(copy) == expected


@pytest.mark.slow
def test_the_prior_stays_while_the_posterior_learns(source):
    tuned = informed_prior(source, inflate=2.0, mix=0.25)
    before = {name: weight.parameters() for name, weight in weights_of(tuned).items()}
    tuned.compile("adam")
    tuned.fit(X, Y, batch_size=16, epochs=2, verbose=0)
    for name, weight in weights_of(tuned).items():
        for key, value in weight.parameters().items():
            assert np.array_equal(value, before[name][key]) == key.startswith("prior_"), (name, key)


@pytest.mark.parametrize("mix", [None, 0.25])
def test_the_prior_is_saved_with_the_model(source, mix, tmp_path):
    tuned = scattered(informed_prior(source, inflate=2.0, mix=mix, broad_scale=0.7), seed=2)
    tuned.save(tmp_path / "tuned.keras")
    loaded = keras.models.load_model(tmp_path / "tuned.keras")
    for name, value in weight_distributions(tuned).items():
        np.testing.assert_array_equal(weight_distributions(loaded)[name], value)
    specs = {weight.prior_spec for weight in weights_of(loaded).values()}
    assert specs == {Informed(mix=mix or 0.0, broad_scale=0.7)}


def test_models_of_all_kinds_are_copied():
    sequential = tfp_bnn.VariationalSequential([DenseFlipout(4, activation="relu"), DenseFlipout(2)], seed=0)
    sequential.build((None, 3))
    scattered(sequential)
    tuned = informed_prior(sequential, inflate=2.0)
    assert isinstance(tuned, tfp_bnn.VariationalSequential)
    np.testing.assert_allclose(tuned.plug_in_predictive(X).mean(), sequential.plug_in_predictive(X).mean(), rtol=1e-5)
    again = informed_prior(scattered(tuned, seed=2), inflate=1.0)
    for name, weight in weights_of(again).items():
        np.testing.assert_allclose(weight.prior.stddev(), weights_of(tuned)[name].posterior.stddev(), rtol=1e-6)


def test_a_low_rank_posterior_gives_its_marginal_spread():
    model = tfp_bnn.VariationalSequential(
        [keras.Input((3,)), DenseReparameterization(2, kernel_posterior={"name": "low_rank_normal", "rank": 1})]
    )
    scattered(model)
    (weight,) = weights_of(model).values()
    (copied,) = weights_of(informed_prior(model, inflate=2.0)).values()
    np.testing.assert_allclose(copied.prior.variance(), 4 * np.asarray(weight.variance), rtol=1e-5)
    for name in ("loc", "scale", "factor"):
        np.testing.assert_allclose(copied.parameters()[name], weight.parameters()[name], rtol=1e-5)


def test_a_calibration_is_not_taken_over(source):
    config = source.get_config()
    calibrated = type(source).from_config({**config, "calibration": {"name": "temperature", "temperature": 2.0}})
    calibrated.set_weights(source.get_weights())
    assert informed_prior(calibrated).calibration is None
    assert calibrated.calibration is not None


def test_new_layers_keep_their_prior_and_start(source):
    target = functional(units=5, prior={"name": "informed", "initial_scale": 0.3})
    before = weights_of(target)["head/kernel"].parameters()
    transfer_posterior(source, target, inflate=2.0, new_layers=["head"])
    for key, value in weights_of(target)["head/kernel"].parameters().items():
        np.testing.assert_array_equal(value, before[key])
    np.testing.assert_allclose(before["prior_scale"], 0.3)
    np.testing.assert_array_equal(
        weights_of(target)["shared/kernel"].prior.mean(), weights_of(source)["shared/kernel"].posterior.mean()
    )


def test_learned_noise_of_the_likelihood_is_taken_over():
    def model():
        layers = [keras.Input((3,)), DenseFlipout(1, name="out", kernel_prior="informed")]
        return tfp_bnn.VariationalSequential(layers, likelihood={"name": "normal", "initial_scale": 2.0}, seed=0)

    source, target = model(), model()
    scattered(source)
    assert weight_distributions(target)["likelihood/scale"] == 2.0
    transfer_posterior(source, target)
    assert weight_distributions(target)["likelihood/scale"] == weight_distributions(source)["likelihood/scale"]


def test_what_differs_is_listed_and_nothing_is_changed(source):
    inputs = keras.Input((3,))
    h = DenseReparameterization(3, name="shared", kernel_prior="informed", use_bias=False)(inputs)
    h = DenseReparameterization(4, name="other", kernel_prior="informed")(h)
    h = keras.layers.BatchNormalization(name="norm")(h)
    target = tfp_bnn.VariationalModel(inputs, DenseReparameterization(5, name="head")(h))
    before = weight_distributions(target)
    with pytest.raises(ValueError, match="The models do not match") as refusal:
        transfer_posterior(source, target)
    for what in (
        "'in' is in the source only",
        "'other' is in the target only",
        "shared/bias is float32 (3,) in the source, nothing in the target",
        "head/kernel has the shape (4, 2) in the source, (4, 5) in the target",
        "head/kernel has the prior Normal(",
        "head/bias is float32 (2,) in the source, float32 (5,) in the target",
    ):
        assert what in str(refusal.value)
    for name, value in weight_distributions(target).items():
        np.testing.assert_array_equal(value, before[name])


def test_other_posteriors_and_other_dtypes_are_differences():
    source = functional()
    with pytest.raises(
        ValueError, match="shared/kernel has the posterior mean_field_normal in the source, low_rank_no"
    ):
        transfer_posterior(source, functional(posterior={"name": "low_rank_normal", "rank": 1}))
    keras.config.set_dtype_policy("float64")
    try:
        double = functional()
    finally:
        keras.config.set_dtype_policy("float32")
    with pytest.raises(ValueError, match=re.escape("norm/beta is float32 (4,) in the source, float64 (4,) in the t")):
        transfer_posterior(source, double)


def test_unknown_new_layers_are_refused(source):
    with pytest.raises(ValueError, match="Did you mean 'head'"):
        transfer_posterior(source, functional(), new_layers=["headd"])


def test_the_start_is_taken_over_without_the_prior(source):
    target = functional(prior={"name": "laplace", "scale": 0.4})
    transfer_posterior(source, target, inflate=None)
    for name, weight in weights_of(target).items():
        np.testing.assert_array_equal(weight.mean, weights_of(source)[name].mean)
        assert weight.prior_spec.scale == 0.4


@pytest.mark.parametrize("inflate", [0, -1.0, float("nan"), float("inf"), "auto"])
def test_factors_out_of_range_are_refused(source, inflate):
    with pytest.raises(ValueError, match="`inflate` of informed_prior must be a finite number larger than 0"):
        informed_prior(source, inflate=inflate)
    with pytest.raises(ValueError, match="`inflate` of transfer_posterior must be a finite number larger than 0"):
        transfer_posterior(source, functional(), inflate=inflate)


@pytest.mark.parametrize("mix", [0.0, 1.0, -0.1, "0.1"])
def test_shares_out_of_range_are_refused(source, mix):
    with pytest.raises(ValueError, match="`mix` must lie between 0 and 1"):
        informed_prior(source, mix=mix)


def test_models_without_a_posterior_are_refused():
    inputs = keras.Input((3,))
    plain = keras.layers.Dense(2, name="plain")(inputs)
    with pytest.raises(TypeError, match="Expected a Bayesian model, but got a Functional"):
        informed_prior(keras.Model(inputs, plain))
    with pytest.raises(ValueError, match=re.escape("has no Bayesian layer whose posterior could be a prior. Its lay")):
        informed_prior(tfp_bnn.VariationalModel(inputs, plain))
    with pytest.raises(ValueError, match="not built"):
        informed_prior(tfp_bnn.VariationalSequential([DenseFlipout(2)]))
    point = functional(prior="normal", posterior="delta")
    with pytest.raises(ValueError, match=r"The posterior of shared/kernel is Delta.*cannot be a prior"):
        informed_prior(point)


def test_a_subclass_that_makes_its_layers_is_told_what_to_do():
    class Net(tfp_bnn.VariationalMixin, keras.Model):
        def __init__(self, prior="normal", **kwargs):
            super().__init__(**kwargs)
            self.head = DenseFlipout(2, name="head", kernel_prior=prior)

        def call(self, inputs, training=None):
            return self.head(inputs, training=training)

    net, target = Net(seed=0), Net("informed", seed=0)
    net(X), target(X)
    with pytest.raises(ValueError, match=r"creates its layers itself.*transfer_posterior"):
        informed_prior(net)
    transfer_posterior(net, target, inflate=2.0)
    np.testing.assert_array_equal(target.head.kernel_prior.mean(), net.head.kernel_posterior.mean())
