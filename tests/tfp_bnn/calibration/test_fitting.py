"""Calibration: one number fitted to validation data, and a predictive that stays one mixture under it."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats

import tfp_bnn
from tfp_bnn.calibration import CALIBRATIONS, Calibration, Scale, Temperature, calibrate
from tfp_bnn.layers import DenseFlipout, DenseReparameterization
from tfp_bnn.likelihoods import Bernoulli, Categorical, Normal
from tfp_bnn.predictive import PosteriorPredictive

ROWS, SAMPLES = 40, 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 4)).astype(np.float32)
WIDE = {"name": "mean_field_normal", "initial_scale": 0.7}
MOMENTS = ("mean", "entropy", "aleatoric", "epistemic")
NETWORKS = {
    "categorical": ("categorical", 3, Temperature(2.5)),
    "bernoulli": ("bernoulli", 2, Temperature(0.4)),
    "learned": ({"name": "normal", "scale": "learned", "initial_scale": 0.6}, 2, Scale(1.7)),
    "known": ({"name": "normal", "scale": 0.4}, 1, Scale(0.3)),
    "per_example": ({"name": "normal", "scale": "per_example"}, 4, Scale(2.0)),
}
REGRESSION = ["learned", "known", "per_example"]


class Passing(tfp_bnn.VariationalMixin, keras.Model):
    """A network without noise whose outputs are its inputs, so a test chooses the outputs."""

    def call(self, inputs, training=None):
        return inputs


def network(name, **kwargs):
    likelihood, num_outputs, _ = NETWORKS[name]
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    outputs = DenseReparameterization(num_outputs, kernel_posterior=WIDE)(DenseFlipout(5, activation="tanh")(x))
    return tfp_bnn.VariationalModel(x, outputs, likelihood=likelihood, seed=0, **kwargs)


@pytest.fixture(scope="module")
def models():
    return {name: network(name, calibration=calibration) for name, (_, _, calibration) in NETWORKS.items()}


@pytest.fixture(params=NETWORKS)
def each(request, models):
    return models[request.param]


def targets_for(model):
    if model.likelihood.task == "regression":
        return RNG.normal(size=(ROWS, model.posterior_predictive(X[:1], 1).mean().shape[1])).astype(np.float32)
    return RNG.integers(3, size=ROWS) if isinstance(model.likelihood, Categorical) else RNG.integers(2, size=(ROWS, 2))


def predictive_of(outputs, likelihood):
    """The raw predictive of outputs that the test chose, of shape `(S, n, outputs)`."""
    outputs = np.asarray(outputs, np.float32)
    return PosteriorPredictive(likelihood, {}, outputs, {}, outputs.shape)


def giving(predictive):
    """A model with this raw predictive."""
    model = Passing(likelihood=predictive.likelihood)
    model.posterior_predictive = lambda *args, **kwargs: predictive
    return model


def both(model, **kwargs):
    return [model.posterior_predictive(X, SAMPLES, calibrated=calibrated, **kwargs) for calibrated in (False, True)]


# === The specs ===


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_every_calibration_has_a_docstring_and_a_config(name, check_spec):
    check_spec(CALIBRATIONS, name)
    assert issubclass(CALIBRATIONS[name], Calibration)
    assert CALIBRATIONS[name].__name__.lower() == name


def test_there_are_calibrations():
    assert {"temperature", "scale"} <= {*CALIBRATIONS}


@pytest.mark.parametrize("name", ["temperature", "scale"])
@pytest.mark.parametrize("value", [0.0, -1.0, 0.00999, 100.01, float("nan"), float("inf"), True, "1", None])
def test_numbers_out_of_range_are_refused(name, value):
    message = f"`{name}` of the calibration '{name}' must be a number from 0.01 to 100, but got {value!r}."
    with pytest.raises(ValueError, match=re.escape(message)):
        CALIBRATIONS[name](value)
    for end in (0.01, 100):
        assert CALIBRATIONS[name](end).get_config() == {name: end}


# === What it does to the predictive ===


def test_the_logits_of_each_draw_are_divided_by_the_temperature(models):
    for name, to_probabilities in (("categorical", scipy.special.softmax), ("bernoulli", None)):
        model = models[name]
        raw, tempered = both(model)
        t = model.calibration.temperature
        if to_probabilities is None:
            expected = scipy.special.expit(scipy.special.logit(raw.samples.astype(np.float64)) / t)
        else:
            expected = scipy.special.softmax(np.log(raw.samples.astype(np.float64)) / t, axis=-1)
        np.testing.assert_allclose(tempered.samples, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(tempered.mean(), expected.mean(axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["categorical", "bernoulli"])
def test_the_parts_of_the_entropy_are_those_of_one_mixture(models, name):
    raw, tempered = both(models[name])
    for predictive in (raw, tempered):
        parts = predictive.aleatoric() + predictive.epistemic()
        np.testing.assert_allclose(predictive.entropy(), parts, rtol=1e-5, atol=1e-6)
    p = tempered.samples.astype(np.float64)
    expected = -(scipy.special.xlogy(p, p) + (scipy.special.xlogy(1 - p, 1 - p) if name == "bernoulli" else 0))
    np.testing.assert_allclose(tempered.aleatoric(), expected.sum(axis=-1).mean(axis=0), rtol=1e-4)
    # Surer below 1, less sure above.
    assert np.sign(np.mean(tempered.entropy() - raw.entropy())) == np.sign(models[name].calibration.temperature - 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", REGRESSION)
def test_a_scale_widens_the_predictive_about_its_mean(models, name):
    model = models[name]
    c = model.calibration.scale
    raw, wide = both(model)
    mean = raw.mean()
    np.testing.assert_allclose(wide.mean(), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(wide.samples, mean + c * (raw.samples - mean), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(wide.aleatoric(), c**2 * raw.aleatoric(), rtol=1e-5)
    np.testing.assert_allclose(wide.epistemic(), c**2 * raw.epistemic(), rtol=1e-4)
    stds = [np.sqrt(predictive.distribution().variance()) for predictive in (raw, wide)]
    np.testing.assert_allclose(stds[1], c * stds[0], rtol=1e-4)
    np.testing.assert_allclose(wide.entropy(), raw.entropy() + np.log(c), atol=2e-4)
    levels = [0.05, 0.3, 0.5, 0.95]
    np.testing.assert_allclose(wide.quantiles(levels), mean + c * (raw.quantiles(levels) - mean), rtol=1e-3, atol=1e-3)
    # The density of m + c (y - m) for y of the raw mixture.
    y = targets_for(model)
    expected = raw.log_prob(mean + (y - mean) / c) - y.shape[1] * np.log(c)
    np.testing.assert_allclose(wide.log_prob(y), expected, rtol=1e-4, atol=1e-4)


def test_the_log_probability_is_that_of_the_calibrated_mixture(each):
    predictive, y = both(each)[1], targets_for(each)
    np.testing.assert_allclose(predictive.log_prob(y), predictive.distribution().log_prob(y), rtol=1e-4, atol=1e-5)


def test_a_calibration_of_1_changes_nothing(each):
    raw = both(each)[0]
    same = raw.calibrated_by(type(each.calibration)(1.0))
    np.testing.assert_allclose(same.samples, raw.samples, rtol=1e-6, atol=1e-6)
    for name in MOMENTS:
        np.testing.assert_allclose(getattr(same, name)(), getattr(raw, name)(), rtol=1e-5, atol=1e-6)


def test_one_run_of_the_network_serves_both(each):
    raw, calibrated = both(each)
    again = raw.calibrated_by(each.calibration)
    np.testing.assert_array_equal(again.samples, calibrated.samples)
    y = targets_for(each)
    np.testing.assert_array_equal(again.log_prob(y), calibrated.log_prob(y))
    # Two calibrations, one after the other, are one of the product.
    cls, value = type(each.calibration), next(iter(each.calibration.get_config().values()))
    twice = again.calibrated_by(cls(2.0))
    np.testing.assert_allclose(twice.log_prob(y), raw.calibrated_by(cls(2.0 * value)).log_prob(y), rtol=1e-4, atol=1e-5)


def test_without_a_calibration_nothing_has_changed(each):
    never = next(network(name) for name, (likelihood, *_) in NETWORKS.items() if _same(likelihood, each.likelihood))
    assert never.calibration is None
    y = targets_for(each)
    expected = never.posterior_predictive(X, SAMPLES)
    for found in (both(each)[0], never.posterior_predictive(X, SAMPLES, calibrated=False)):
        np.testing.assert_array_equal(found.samples, expected.samples)
        np.testing.assert_array_equal(found.log_prob(y), expected.log_prob(y))
        np.testing.assert_array_equal(found.quantiles([0.1, 0.9]), expected.quantiles([0.1, 0.9]))
        for name in MOMENTS:
            np.testing.assert_array_equal(getattr(found, name)(), getattr(expected, name)())


def _same(likelihood, other):
    return tfp_bnn.likelihoods.LIKELIHOODS.get(likelihood) == other


def test_the_plug_in_prediction_is_never_calibrated(each):
    calibration, calibrated = each.calibration, each.plug_in_predictive(X)
    each.calibration = None
    try:
        raw = each.plug_in_predictive(X)
    finally:
        each.calibration = calibration
    for name in MOMENTS:
        np.testing.assert_array_equal(getattr(calibrated, name)(), getattr(raw, name)())


def test_neither_batches_nor_the_memory_cap_matter(each):
    whole = each.posterior_predictive(X, SAMPLES)
    streamed = each.posterior_predictive(X, SAMPLES, batch_size=7, max_bytes=1)
    parts = each.posterior_predictive(X, SAMPLES, batch_size=7)
    np.testing.assert_allclose(parts.samples, whole.samples, rtol=1e-5, atol=2e-6)
    for name in MOMENTS:
        for found in (streamed, parts):
            np.testing.assert_allclose(getattr(found, name)(), getattr(whole, name)(), rtol=1e-5, atol=2e-6)
    with pytest.raises(ValueError, match="`calibrated_by` needs all 6 draws of 40 predictions"):
        streamed.calibrated_by(each.calibration)


def test_training_and_evaluation_are_not_calibrated():
    logs = []
    for calibration in (None, Scale(3.0)):
        model = network("learned", calibration=calibration)
        model.compile("sgd", run_eagerly=True)
        model.num_examples = ROWS
        logs.append(model.test_on_batch(X, X[:, :2], return_dict=True))
    assert logs[0] == logs[1]


# === Fitting ===


@pytest.mark.statistical
def test_the_temperature_of_sharpened_logits_is_found():
    # Labels from softmax(logits), predictions from 3 x logits. The Fisher information of 20,000 rows gives a standard
    # error of 0.034, so a deviation of 0.17 has a probability of 1e-6.
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20_000, 4)).astype(np.float32)
    y = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
    model = Passing(likelihood="categorical")
    found = calibrate(model, 3.0 * logits, y, num_samples=1)
    assert isinstance(found, Temperature)
    assert found.temperature == pytest.approx(3.0, abs=0.17)
    assert model.calibration is found
    before, after = (model.posterior_predictive(3.0 * logits, 1, calibrated=c).log_prob(y).mean() for c in (0, 1))
    assert after > before + 0.1
    # The factor itself is found exactly, whatever the chance in the labels.
    plain = calibrate(Passing(likelihood="categorical"), logits, y, num_samples=1, sharpen=True)
    assert found.temperature == pytest.approx(3.0 * plain.temperature, rel=1e-3)
    # Again, on a calibrated model: it is the raw predictive that is fitted.
    assert calibrate(model, 3.0 * logits, y, num_samples=1) == found


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli(), Normal(0.5), Normal("per_example")], ids=repr)
def test_no_other_number_fits_better(likelihood):
    rng = np.random.default_rng(2)
    truth = 2.0 * rng.normal(size=(100, 4))
    outputs = 3.0 * truth + 2.0 * rng.normal(size=(12, 100, 4))
    # The scales of single draws and examples are outputs, too: within an order of magnitude.
    raw = predictive_of(outputs / 8.0 if likelihood == Normal("per_example") else outputs, likelihood)
    y = {
        "Categorical": np.argmax(truth + rng.gumbel(size=truth.shape), axis=1),
        "Bernoulli": truth + rng.logistic(size=truth.shape) > 0,
        "Normal": raw.mean() + rng.normal(scale=3.0, size=raw.mean().shape),
    }[type(likelihood).__name__]
    found = calibrate(giving(raw), truth, y, sharpen=True)
    cls, (value,) = type(found), found.get_config().values()
    assert 0.1 < value < 50.0

    def nll(number):
        return -raw.calibrated_by(cls(number)).log_prob(y).mean(dtype=np.float64)

    assert nll(value) <= min(nll(number) for number in np.geomspace(0.01, 100.0, 120)) + 1e-6
    # And it is a minimum, not the end of a plateau.
    assert nll(value) < min(nll(0.9 * value), nll(1.1 * value)) - 1e-5


def test_the_scale_of_one_draw_has_a_closed_form():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 2)).astype(np.float32)
    y = x + 0.8 * rng.standard_t(4, size=x.shape)
    model = Passing(likelihood={"name": "normal", "scale": 0.3})
    found = calibrate(model, x, y, num_samples=1)
    # The maximum of the likelihood: c^2 is the mean squared standardized residual.
    expected = np.sqrt(np.mean(((y - x) / 0.3) ** 2))
    assert found == Scale(found.scale)
    assert found.scale == pytest.approx(expected, rel=1e-3)


def test_a_predictive_that_is_right_is_left_alone():
    # 4,000 standardized residuals whose mean square is 1: exact, no chance involved.
    residuals = scipy.stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    residuals /= np.sqrt(np.mean(residuals**2))
    model = Passing(likelihood={"name": "normal", "scale": 0.3})
    found = calibrate(model, np.zeros((4000, 1), np.float32), 0.3 * residuals, num_samples=1)
    assert found.scale == pytest.approx(1.0, rel=1e-3)


def test_of_two_minima_the_lower_is_taken():
    # Logits of class 1, which is right, under two draws, by number of rows. The NLL has minima at 0.033 and 59.
    rows = [(60, (0.1, -30.0)), (30, (0.1, 0.1)), (10, (-0.05, -0.05)), (30, (60.0, 60.0))]
    logits = np.concatenate([np.tile(np.reshape(draws, (2, 1, 1)), (1, number, 1)) for number, draws in rows], axis=1)
    raw = predictive_of(logits, Bernoulli())
    y = np.ones((130, 1))

    def nll(temperature):
        return -raw.calibrated_by(Temperature(temperature)).log_prob(y).mean()

    assert nll(59.0) < min(nll(20.0), nll(99.0)) - 1e-3
    assert calibrate(giving(raw), logits[0], y, sharpen=True).temperature == pytest.approx(0.0328, abs=2e-4)
    # Of those that do not sharpen, too.
    assert nll(1.0) > nll(59.0) + 1e-3
    assert calibrate(giving(raw), logits[0], y).temperature == pytest.approx(59.0, abs=1.0)


@pytest.mark.parametrize(
    ("likelihood", "x", "y", "sharpened"),
    [
        ("categorical", np.eye(3)[[0, 1, 2] * 4], [0, 1, 2] * 3 + [1, 2, 0], Temperature),
        ({"name": "normal", "scale": 1.0}, np.zeros((3, 1)), [-0.5, 0.0, 0.5], Scale),
    ],
    ids=["temperature", "scale"],
)
def test_predictions_are_made_more_confident_only_on_request(likelihood, x, y, sharpened):
    model, x, y = Passing(likelihood=likelihood), x.astype(np.float32), np.array(y)
    assert calibrate(model, x, y, 1) == sharpened(1.0)
    assert calibrate(model, x, y, 1, sharpen=True).get_config().popitem()[1] < 0.9


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 0.01), (-1.0, 100.0)])
def test_data_that_do_not_determine_it_give_a_warning(sign, expected):
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]] * 9.0
    model = Passing(likelihood="categorical")
    with pytest.warns(UserWarning, match=r"fits these 4 examples best is at the end of its range, 0.01 to 100"):
        assert calibrate(model, sign * logits, np.array([0, 1, 2, 2]), 1, sharpen=True) == Temperature(expected)


def test_the_draws_are_known_by_their_seed():
    model = network("known")
    y = targets_for(model)
    found = [calibrate(model, X, y, num_samples=5, seed=seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, np.zeros(ROWS - 1, int), r"`x` has 40 rows, but `y` has the shape \(39,\)"),
        (X, np.full(ROWS, 3), "Labels out of range"),
        (X, np.zeros((ROWS, 2)), "do not fit a model with 3 outputs"),
        (X, None, "`y` is missing"),
        (X * np.nan, np.zeros(ROWS, int), "NaN or infinite"),
        (X[:0], np.zeros(0, int), "`x` is empty"),
        (X[:, :2], np.zeros(ROWS, int), "but the model takes"),
    ],
)
def test_bad_data_are_refused_and_leave_the_model_as_it_was(x, y, message):
    model = network("categorical", calibration=Temperature(2.0))
    with pytest.raises(ValueError, match=message):
        calibrate(model, x, y, 2)
    assert model.calibration == Temperature(2.0)


@pytest.mark.parametrize("likelihood", [Categorical(), Normal(1.0)], ids=repr)
def test_predictions_that_are_nan_are_refused(likelihood):
    raw = predictive_of(np.full((2, 5, 3), np.nan), likelihood)
    model = giving(raw)
    with pytest.raises(ValueError, match="The predictions of the model have NaN"):
        calibrate(model, np.zeros((5, 3)), np.eye(3)[[0, 1, 2, 0, 1]])
    assert model.calibration is None


def test_bad_arguments_are_refused(models):
    y = np.zeros(ROWS, int)
    with pytest.raises(ValueError, match="`num_samples` must be an integer >= 1"):
        calibrate(models["categorical"], X, y, num_samples=0)
    with pytest.raises(ValueError, match="`seed` must be an integer"):
        calibrate(models["categorical"], X, y, seed=None)
