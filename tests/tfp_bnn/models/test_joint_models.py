"""Networks with several outputs of different kinds: trained, judged, predicted, saved and loaded."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.noise import Noise
from tfp_bnn.layers import DenseFlipout
from tfp_bnn.models.weight_record import assign_weight_distributions, weight_distributions

N = 48
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype(np.float32)
CLASS = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
VALUE = (X[:, 2] + 0.1 * RNG.normal(size=N)).astype(np.float32)
Y = {"class": CLASS, "value": VALUE}
LIKELIHOOD = {"class": "categorical", "value": "normal"}


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


def network(as_list=False, likelihood=LIKELIHOOD, **kwargs):
    x = keras.Input((4,))
    h = DenseFlipout(8, activation="relu", name="hidden")(x)
    outputs = {"class": DenseFlipout(3, name="class")(h), "value": DenseFlipout(1, name="value")(h)}
    return tfp_bnn.VariationalModel(
        x, [*outputs.values()] if as_list else outputs, likelihood=likelihood, seed=0, **kwargs
    )


@keras.saving.register_keras_serializable(package="test_joint_models")
class Net(tfp_bnn.VariationalMixin, keras.Model):
    """A subclass, whose outputs are known once it is called."""

    def __init__(self, as_list=False, **kwargs):
        super().__init__(**kwargs)
        self.as_list = as_list
        self.of_class, self.of_value = DenseFlipout(3), DenseFlipout(1)

    def call(self, inputs, training=None):
        outputs = {"class": self.of_class(inputs), "value": self.of_value(inputs)}
        return [*outputs.values()] if self.as_list else outputs

    def get_config(self):
        return {**super().get_config(), "as_list": self.as_list}


def compiled(model, **kwargs):
    model.compile(
        "adam", metrics={"class": ["accuracy"], "value": ["mae"]}, weighted_metrics={"value": ["mse"]}, **kwargs
    )
    return model


METRICS = {"class_accuracy", "value_mae", "value_mse"}
TERMS = {"loss", "nll", "kl", "elbo", "beta"}


# === Training ===


@pytest.mark.parametrize(
    "make",
    [
        lambda: (network(), Y),
        *(
            pytest.param(make, marks=pytest.mark.slow)
            for make in (
                lambda: (network(as_list=True, likelihood=["categorical", "normal"]), [CLASS, VALUE]),
                lambda: (network(as_list=True), Y),
                lambda: (Net(likelihood=LIKELIHOOD, seed=0), Y),
                lambda: (Net(as_list=True, likelihood=LIKELIHOOD, seed=0), [CLASS, VALUE]),
            )
        ),
    ],
    ids=["dict", "list", "list_by_name", "subclass", "subclass_with_list"],
)
def test_a_class_and_a_number_are_trained_judged_and_predicted(make, tmp_path):
    model, y = make()
    compiled(model, run_eagerly=True)
    history = model.fit(X, y, epochs=2, verbose=0, validation_split=0.25)
    assert set(history.history) == {f"{prefix}{name}" for prefix in ("", "val_") for name in TERMS | METRICS}
    assert model.num_examples == 36
    assert set(model.evaluate(X, y, verbose=0, return_dict=True)) == TERMS | METRICS
    predictive = model.posterior_predictive(X, 5)
    assert predictive["class"].mean().shape == (N, 3)
    assert predictive["value"].quantiles([0.1, 0.9]).shape == (2, N, 1)
    assert np.isfinite(predictive.nll(y))
    assert model.plug_in_predictive(X).num_samples == 1
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.likelihood == model.likelihood
    assert loaded.posterior_predictive(X, 5).nll(y) == predictive.nll(y)
    of_batches = list(loaded.stream_predictive(X, Y, 5, batch_size=20))
    assert [of_batch.num_examples for of_batch, _ in of_batches] == [20, 20, 8]
    assert tfp_bnn.predictive.score(of_batches) == pytest.approx(tfp_bnn.predictive.score(predictive, y), rel=1e-5)
    again = loaded.fit(X, y, verbose=0).history
    assert again["nll"] == model.fit(X, y, verbose=0).history["nll"]


def test_the_loss_is_the_weighted_sum_of_the_heads_under_one_draw():
    model = network(likelihood={"name": "joint", "heads": LIKELIHOOD, "weights": {"value": 0.25}})
    model.num_examples = N
    noise = Noise(tf.constant([1, 2], tf.int64))
    outputs = model.call_with_noise(X, noise)
    loss = model.compute_loss(X, Y, outputs, training=False)
    of_class = scipy.special.log_softmax(outputs["class"].numpy(), axis=1)[np.arange(N), CLASS]
    of_value = scipy.stats.norm.logpdf(VALUE, outputs["value"].numpy()[:, 0], 1.0)
    expected = -np.mean(of_class + 0.25 * of_value) + float(model.kl()) / N
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_all_heads_of_a_draw_share_the_weights():
    model = network()
    predictive = model.posterior_predictive(X, 3, seed=7)
    for draw in range(3):
        outputs = model.draws(7)(draw)(tf.constant(X))
        np.testing.assert_allclose(predictive["value"].samples[draw], outputs["value"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            predictive["class"].samples[draw], tf.nn.softmax(outputs["class"]), rtol=1e-5, atol=1e-6
        )


@pytest.mark.thorough
def test_a_compiled_step_under_xla_trains_and_refuses():
    model = compiled(
        network(likelihood={**LIKELIHOOD, "value": {"name": "normal", "missing": "nan"}}), jit_compile=True
    )
    value = np.where(np.arange(N) % 2, VALUE, np.nan)
    # A batch whose numbers are all missing is one of classes.
    value[:16] = np.nan
    data = tf.data.Dataset.from_tensor_slices((X, {"class": CLASS, "value": value})).batch(16)
    history = model.fit(data, epochs=20, verbose=0, validation_data=data).history
    assert history["val_nll"][-1] < history["val_nll"][0]
    assert model.num_examples == N
    before = [np.asarray(variable) for variable in model.trainable_variables]
    wrong = tf.data.Dataset.from_tensor_slices((X, {"class": CLASS + 7, "value": value})).batch(16)
    with pytest.raises(ValueError, match="Labels out of range"):
        model.fit(wrong, verbose=0)
    infinite = tf.data.Dataset.from_tensor_slices((X, {"class": CLASS, "value": value + np.inf})).batch(N)
    with pytest.raises(ValueError, match="The targets of a batch have NaN or infinite values"):
        model.fit(infinite, verbose=0)
    for variable, value_before in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value_before)


def test_sample_weights_of_each_head_multiply_its_terms():
    model = compiled(network(), run_eagerly=True)
    model.num_examples = N
    ones = np.ones(N, np.float32)
    alone = model.test_on_batch(X, Y, sample_weight={"class": 0 * ones, "value": ones}, return_dict=True)
    assert np.isfinite(alone["nll"])
    # Equal noise: the weight of the head is 0 either way.
    model.fit(X, Y, sample_weight={"class": 0 * ones, "value": ones}, verbose=0)
    assert model.num_examples == N
    for_all = model.train_on_batch(X, Y, sample_weight=ones, return_dict=True)
    assert set(for_all) == TERMS | METRICS
    data = tf.data.Dataset.from_tensor_slices((X, Y, {"class": ones, "value": 2 * ones})).batch(16)
    assert np.isfinite(model.fit(data, verbose=0).history["nll"]).all()


def test_a_class_for_each_image_and_one_for_each_pixel():
    images = RNG.normal(size=(8, 4, 4, 1)).astype(np.float32)
    y = {"class": RNG.integers(3, size=8), "mask": (images[..., 0] > 0).astype(int)}
    x = keras.Input((4, 4, 1))
    features = tfp_bnn.layers.Convolution2DFlipout(2, 3, padding="same")(x)
    outputs = {
        "class": DenseFlipout(3)(keras.layers.GlobalAveragePooling2D()(features)),
        "mask": tfp_bnn.layers.Convolution2DFlipout(1, 1)(features),
    }
    model = tfp_bnn.VariationalModel(x, outputs, likelihood={"class": "categorical", "mask": "bernoulli"}, seed=0)
    model.compile("adam", metrics={"class": ["accuracy"], "mask": ["accuracy"]}, run_eagerly=True)
    model.fit(images, y, verbose=0, sample_weight={"class": np.ones(8), "mask": np.ones((8, 4, 4))})
    predictive = model.posterior_predictive(images, 3)
    assert predictive["mask"].mean().shape == (8, 4, 4, 1)
    assert predictive.log_prob(y).shape == (8,)
    with pytest.raises(ValueError, match=r"The head 'mask': Targets of shape \(8, 2, 2\) do not fit outputs"):
        model.fit(images, {**y, "mask": y["mask"][:, ::2, ::2]}, verbose=0)


# === Weights, copies and other ways to a posterior ===


def test_learned_parameters_are_named_by_head():
    model = network(likelihood={"class": "categorical", "value": {"name": "normal", "initial_scale": 0.5}})
    arrays = weight_distributions(model)
    np.testing.assert_allclose(arrays["likelihood/value.scale"], 0.5, rtol=1e-6)
    other = network()
    assign_weight_distributions(other, arrays)
    np.testing.assert_allclose(weight_distributions(other)["likelihood/value.scale"], 0.5, rtol=1e-6)


def test_an_ensemble_a_map_estimate_and_a_clone():
    members = [compiled(tfp_bnn.inference.map_estimate(network())) for _ in range(2)]
    members[1].likelihood_weights["value.log_scale"].assign(-2.0)
    joined = tfp_bnn.inference.ensemble(members)
    predictive = joined.posterior_predictive(X, 50)
    assert predictive.num_samples == 2
    of_members = [member.posterior_predictive(X).log_prob(Y) for member in members]
    expected = scipy.special.logsumexp(of_members, axis=0) - np.log(2)
    np.testing.assert_allclose(predictive.log_prob(Y), expected, rtol=1e-4, atol=1e-5)
    assert keras.models.clone_model(network()).likelihood == network().likelihood
    other = network(likelihood={"class": "categorical", "value": "laplace"})
    with pytest.raises(ValueError, match="different likelihoods"):
        tfp_bnn.inference.ensemble([members[0], other])


# === Refusals ===


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ({"class": CLASS}, r"`y`: .* missing \['value'\]"),
        ({**Y, "other": VALUE}, r"`y`: .* unexpected \['other'\]"),
        (CLASS, r"one array or tensor of shape \(48,\)"),
        ([CLASS], "a list of 1"),
        ({**Y, "value": VALUE[:5]}, r"`x` has 48 rows, but `y\['value'\]` has the shape \(5,\)"),
        ({**Y, "value": np.zeros((N, 2))}, r"The head 'value': Targets of shape \(48, 2\) do not fit"),
        ({**Y, "class": CLASS + 5}, "The head 'class': Labels out of range"),
        ({**Y, "value": VALUE + np.nan}, r"`y\['value'\]` has 48 values that are NaN"),
        ({"class": {"a": CLASS}, "value": VALUE}, r"`y\['class'\]` is a dict"),
    ],
)
def test_targets_that_do_not_fit_are_refused_before_the_first_step(y, message):
    model = compiled(network())
    for attempt in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=message):
            attempt(X, y, verbose=0)
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y, verbose=0, validation_data=(X, y))
    assert int(model.optimizer.iterations) == 0


def test_pipelines_without_a_head_are_refused_before_the_first_step():
    model = compiled(network())
    data = tf.data.Dataset.from_tensor_slices((X, {"class": CLASS})).batch(16)
    with pytest.raises(ValueError, match=r"`y`: .* missing \['value'\]"):
        model.fit(data, verbose=0)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        ("categorical", r"has 2 outputs, but one likelihood .* likelihood={'class': 'categorical', 'value': 'normal'}"),
        ({"klass": "categorical", "value": "normal"}, r"heads \['klass', 'value'\].*\['class', 'value'\]"),
        ({"class": "categorical"}, r"heads \['class'\].*\['class', 'value'\]"),
        ({"class": {"a": "normal"}, "value": "normal"}, "is a joint likelihood itself"),
    ],
)
def test_likelihoods_that_do_not_fit_the_outputs_are_refused(as_list, likelihood, message):
    with pytest.raises(ValueError, match=message):
        network(as_list, likelihood)


def test_a_joint_likelihood_of_one_tensor_is_refused():
    x = keras.Input((4,))
    with pytest.raises(ValueError, match="The outputs of the model: the likelihood has the heads"):
        tfp_bnn.VariationalModel(x, DenseFlipout(3)(x), likelihood=LIKELIHOOD)
    model = tfp_bnn.VariationalSequential([DenseFlipout(3)], likelihood=LIKELIHOOD)
    model.compile("adam")
    with pytest.raises(ValueError, match="The outputs of the model: the likelihood has the heads"):
        model.fit(X, Y, verbose=0)


def test_what_one_head_only_can_have_is_refused():
    model = compiled(network())
    with pytest.raises(ValueError, match="`class_weight` is for a single output"):
        model.fit(X, Y, class_weight={0: 1.0, 1: 2.0}, verbose=0)
    with pytest.raises(ValueError, match=r"There is no calibration of several outputs, \['class', 'value'\]"):
        tfp_bnn.calibrate(model, X, Y)
    model.compile("adam", metrics={"klass": ["accuracy"]})
    with pytest.raises(ValueError, match=r"The metrics: .* unexpected \['klass'\]"):
        model.fit(X, Y, verbose=0)


def test_a_softmax_at_the_end_of_a_head_warns():
    x = keras.Input((4,))
    outputs = {"value": DenseFlipout(1)(x), "class": DenseFlipout(3, activation="softmax")(x)}
    with pytest.warns(UserWarning, match=r"ends in the softmax of .*Categorical"):
        tfp_bnn.VariationalModel(x, outputs, likelihood=LIKELIHOOD)
