"""One scale of a prior for several layers: one variable, counted once, still one after saving and loading."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.noise import Noise, noise_scope
from tfp_bnn.layers import DenseFlipout, DenseReparameterization
from tfp_bnn.models.training_state import restore_training_state, training_state
from tfp_bnn.models.weight_record import assign_weight_distributions, count_weights, weight_distributions

# Steps are few; conformance/test_xla.py compiles them with every prior.
pytestmark = pytest.mark.usefixtures("steps_run_eagerly")

N = 64
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
INFERRED = {"name": "normal", "hyperprior": "half_cauchy", "shared": "all"}
LEARNED = {"name": "laplace", "scale": 0.5, "empirical_bayes": True, "shared": "all"}


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


@keras.saving.register_keras_serializable(package="test_shared_priors")
class Net(tfp_bnn.VariationalMixin, keras.Model):
    """Has no weights before its first call."""

    def __init__(self, prior=INFERRED, **kwargs):
        super().__init__(**kwargs)
        self.prior = prior
        self.hidden = DenseFlipout(5, activation="relu", kernel_prior=prior, name="hidden")
        self.top = DenseReparameterization(2, kernel_prior=prior, bias_posterior="mean_field_normal", name="top")

    def call(self, inputs, training=None):
        return self.top(self.hidden(inputs, training=training), training=training)

    def get_config(self):
        return {**super().get_config(), "prior": self.prior}


def stack(prior):
    return [
        DenseFlipout(5, activation="relu", kernel_prior=prior, name="hidden"),
        DenseReparameterization(2, kernel_prior=prior, bias_posterior="mean_field_normal", name="top"),
    ]


def functional(prior):
    x = keras.Input((4,))
    hidden, top = stack(prior)
    return tfp_bnn.VariationalModel(x, top(hidden(x)), seed=1)


def sequential(prior):
    return tfp_bnn.VariationalSequential([keras.Input((4,)), *stack(prior)], seed=1)


def sequential_without_input(prior):
    return tfp_bnn.VariationalSequential(stack(prior), seed=1)


def subclass(prior):
    return Net(prior, seed=1)


for_each_model = pytest.mark.parametrize(
    "make", [functional, *(pytest.param(make, marks=pytest.mark.slow) for make in (sequential_without_input, subclass))]
)


def fitted(make, prior, epochs=2):
    model = make(prior)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(X, Y, epochs=epochs, batch_size=16, verbose=0)
    return model


def scale_variables(model):
    return [variable for variable in model.trainable_variables if "all_prior" in variable.name]


@pytest.mark.parametrize(
    ("make", "prior"),
    [
        pytest.param(functional, INFERRED, id="functional-inferred"),
        *(
            pytest.param(make, prior, id=f"{make.__name__}-{scale}", marks=pytest.mark.thorough)
            for make, prior, scale in [
                (subclass, INFERRED, "inferred"),
                (functional, LEARNED, "learned"),
                (sequential, LEARNED, "learned"),
                (sequential_without_input, INFERRED, "inferred"),
            ]
        ),
    ],
)
@pytest.mark.slow
def test_one_scale_is_trained_saved_and_loaded_as_one(make, prior, tmp_path):
    model = fitted(make, prior)
    assert list(model.shared_priors) == ["all"]
    number = 2 if prior is INFERRED else 1
    assert len(scale_variables(model)) == number
    scale = weight_distributions(model)["prior/all/scale"]
    assert scale != prior.get("scale", 1.0)
    model.save(tmp_path / "x.keras")
    loaded = keras.models.load_model(tmp_path / "x.keras")
    assert len(scale_variables(loaded)) == number
    for name, value in weight_distributions(model).items():
        np.testing.assert_array_equal(weight_distributions(loaded)[name], value)
    hidden, top = (layer.variational_weights["kernel"] for layer in loaded.variational_layers)
    assert hidden.shared_prior is top.shared_prior is loaded.shared_priors["all"]
    for each in (model, loaded):
        each.fit(X, Y, epochs=2, batch_size=16, verbose=0)
    for name, value in weight_distributions(model).items():
        np.testing.assert_array_equal(weight_distributions(loaded)[name], value)
    assert weight_distributions(loaded)["prior/all/scale"] != scale


@pytest.mark.slow
@for_each_model
def test_the_kl_of_the_scale_is_one_term_of_its_own(make):
    model = fitted(make, INFERRED, epochs=1)
    with noise_scope(model._noise_of_layers(Noise(tf.constant([3, 4], tf.int64)))):
        terms = {name: float(kl) for name, kl in model.kl_by_layer().items()}
        total = float(model.kl())
        of_layers = [float(layer.kl()) for layer in model.variational_layers]
    hidden, top = (layer.name for layer in model.variational_layers)
    assert list(terms) == [hidden, top, "prior/all"]
    assert [terms[hidden], terms[top]] == of_layers
    np.testing.assert_allclose(total, sum(terms.values()), rtol=1e-6)


def test_one_draw_of_the_scale_serves_all_layers(injected_noise):
    model = functional(INFERRED)
    shared = model.shared_priors["all"]
    scope = {id(shared): injected_noise, **{id(layer): Noise(tf.constant([1, 2])) for layer in model.stochastic_layers}}
    with noise_scope(scope):
        kl = [float(layer.variational_weights["kernel"].kl(scope[id(layer)])) for layer in model.variational_layers]
    assert list(injected_noise.drawn) == ["prior_scale"]
    drawn = float(injected_noise.drawn["prior_scale"])
    values = weight_distributions(model)
    median, spread = (float(values[f"prior/all/{name}"]) for name in ("scale", "scale_spread"))
    scale = 1e-3 + (median - 1e-3) * np.exp(spread * drawn)
    for layer, found in zip(model.variational_layers, kl, strict=True):
        loc, sigma = (values[f"{layer.name}/kernel/{name}"].astype(np.float64) for name in ("loc", "scale"))
        expected = (np.log(scale / sigma) + (sigma**2 + loc**2) / (2 * scale**2) - 0.5).sum()
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_without_sharing_each_weight_has_its_own_scale_and_term():
    model = functional({**INFERRED, "shared": None})
    assert not model.shared_priors
    assert list(model.kl_by_layer()) == ["hidden", "top", "prior/hidden/kernel", "prior/top/kernel"]
    assert "hidden/kernel/prior_scale_spread" in weight_distributions(model)


@pytest.mark.thorough
def test_the_scale_counts_as_no_weight_and_is_put_back(tmp_path):
    model = fitted(functional, INFERRED)
    assert count_weights(model) == 4 * 5 + 5 + 5 * 2 + 2
    other = functional(INFERRED)
    assign_weight_distributions(other, weight_distributions(model))
    for name, value in weight_distributions(model).items():
        np.testing.assert_allclose(weight_distributions(other)[name], value, rtol=2e-6)
    with pytest.raises(ValueError, match=r"'prior/all/scale' has 1 values that are NaN, infinite, beyond .* or"):
        assign_weight_distributions(other, {**weight_distributions(model), "prior/all/scale": np.float32(-1.0)})
    state = training_state(model)
    model.fit(X, Y, verbose=0)
    restore_training_state(model, state)
    np.testing.assert_array_equal(weight_distributions(model)["prior/all/scale"], state_scale(model, state))


def state_scale(model, state):
    (raw,) = [value for name, value in state.items() if name.endswith("all_prior_untransformed_scale")]
    return np.float32(1e-3) + np.exp(raw)


@pytest.mark.thorough
def test_a_clone_has_a_scale_of_its_own():
    model = fitted(functional, INFERRED)
    clone = keras.models.clone_model(model)
    assert list(clone.shared_priors) == ["all"]
    assert clone.shared_priors["all"] is not model.shared_priors["all"]
    assert weight_distributions(clone)["prior/all/scale"] == 1.0


@pytest.mark.thorough
def test_weights_are_loaded_into_a_subclass_that_was_built_by_a_call(tmp_path):
    model = fitted(subclass, INFERRED)
    model.save_weights(tmp_path / "x.weights.h5")
    other = subclass(INFERRED)
    other(X)
    other.load_weights(tmp_path / "x.weights.h5")
    np.testing.assert_array_equal(
        other.shared_priors["all"].parameters()["scale"], model.shared_priors["all"].parameters()["scale"]
    )


def test_a_nested_model_and_the_outer_one_share():
    inner = functional(INFERRED)
    x = keras.Input((4,))
    outer = tfp_bnn.VariationalModel(x, DenseFlipout(2, kernel_prior=INFERRED)(inner(x)))
    assert outer.shared_priors["all"] is inner.shared_priors["all"]
    assert len(scale_variables(outer)) == 2
    assert list(outer.kl_by_layer())[-1] == "prior/all"


def test_a_layer_that_is_added_later_shares():
    model = sequential(INFERRED)
    model.add(DenseFlipout(2, kernel_prior=INFERRED))
    assert len({id(layer.variational_weights["kernel"].shared_prior) for layer in model.variational_layers}) == 1


def test_priors_that_differ_cannot_share_a_name():
    x = keras.Input((4,))
    hidden, _ = stack(INFERRED)
    _, top = stack(LEARNED)
    with pytest.raises(ValueError, match=r"Two priors are shared as 'all', but they differ: Normal.*Laplace.*'top/ker"):
        tfp_bnn.VariationalModel(x, top(hidden(x)))


def test_a_layer_of_another_model_is_refused():
    x = keras.Input((4,))
    hidden, top = stack(INFERRED)
    outputs = top(hidden(x))
    tfp_bnn.VariationalModel(x, outputs)
    with pytest.raises(ValueError, match="'hidden/kernel' is already shared as 'all' within another model"):
        tfp_bnn.VariationalModel(x, outputs)


def test_a_layer_in_no_variational_model_is_refused():
    layer = DenseFlipout(2, kernel_prior=INFERRED)
    layer(X)
    for use in (lambda: layer.kl(), lambda: layer.kernel_prior):
        with pytest.raises(ValueError, match="is shared: its scale belongs to a model, but its layer is not in one"):
            use()
