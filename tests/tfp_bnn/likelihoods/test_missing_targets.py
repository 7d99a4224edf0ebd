"""Missing targets contribute nothing, and scores skip them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from scipy.special import expit, log_softmax
from tensorflow_probability import distributions as tfd

from tfp_bnn.likelihoods import LIKELIHOODS, Bernoulli, Categorical, Likelihood, Normal
from tfp_bnn.likelihoods.scoring import STEPS
from tfp_bnn.predictive import PosteriorPredictive, monte_carlo_error, score, standard_errors

RNG = np.random.default_rng(0)
ROWS = 12
OUTPUTS = RNG.normal(size=(3, ROWS, 2)).astype(np.float32)
NUMBERS = RNG.normal(size=(ROWS, 2)).astype(np.float32)
GONE = RNG.uniform(size=(ROWS, 2)) < 0.4
# An example without any target.
GONE[0] = True
WITH_NAN = np.where(GONE, np.nan, NUMBERS).astype(np.float32)


class Joint(Likelihood):
    """Two correlated numbers."""

    def distribution(self, outputs, weights):
        return tfd.MultivariateNormalTriL(outputs, tf.constant([[1.0, 0.0], [0.8, 0.6]]))


def predictive_of(likelihood, outputs=OUTPUTS):
    return PosteriorPredictive(likelihood, {}, outputs, {}, outputs.shape)


# === Log-likelihood ===


@pytest.mark.parametrize(("missing", "y"), [("nan", WITH_NAN), (-99.0, np.where(GONE, -99.0, NUMBERS))])
def test_missing_numbers_contribute_nothing(missing, y):
    likelihood = Normal(0.7, missing=missing)
    expected = np.where(GONE, 0.0, scipy.stats.norm.logpdf(NUMBERS, OUTPUTS, 0.7)).sum(-1)
    np.testing.assert_allclose(likelihood.log_likelihood(y, OUTPUTS, {}, draws=True), expected, rtol=1e-5, atol=1e-6)
    likelihood.check_examples(y, (2,))


def test_missing_labels_contribute_nothing():
    y = np.where(GONE, -1, NUMBERS > 0)
    expected = np.where(GONE, 0.0, scipy.stats.bernoulli.logpmf(NUMBERS > 0, expit(OUTPUTS[0].astype(np.float64)))).sum(
        -1
    )
    found = Bernoulli(missing=-1).log_likelihood(y, OUTPUTS[0], {})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    Bernoulli(missing=-1).check_examples(y, (2,))


@pytest.mark.parametrize(
    ("missing", "form"),
    [
        (-1, lambda classes, gone: np.where(gone, -1, classes)),
        (255, lambda classes, gone: np.where(gone, 255, classes).astype(np.uint8)),
        ("nan", lambda classes, gone: np.where(gone, np.nan, classes)[:, np.newaxis]),
        ("nan", lambda classes, gone: np.where(gone[:, np.newaxis], np.nan, np.eye(2)[classes])),
    ],
    ids=["int", "uint8", "column", "one-hot"],
)
def test_missing_classes_contribute_nothing(missing, form):
    classes, gone = RNG.integers(2, size=ROWS), GONE[:, 0]
    y = form(classes, gone)
    likelihood = Categorical(missing=missing)
    likelihood.check_examples(y, (2,))
    expected = np.where(gone, 0.0, log_softmax(OUTPUTS[0].astype(np.float64), axis=-1)[np.arange(ROWS), classes])
    np.testing.assert_allclose(likelihood.log_likelihood(y, OUTPUTS[0], {}), expected, rtol=1e-5, atol=1e-6)


def test_missing_targets_give_no_gradient_and_no_nan():
    outputs = tf.Variable(np.where(GONE, 80.0, OUTPUTS[0]).astype(np.float32))

    class Counts(Likelihood):
        def distribution(self, outputs, weights):
            return tfd.Independent(tfd.Poisson(log_rate=outputs), reinterpreted_batch_ndims=1)

    y = np.where(GONE, np.nan, 2.0).astype(np.float32)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(Counts(missing="nan").log_likelihood(y, outputs, {}))
    expected = np.where(GONE, 0.0, 2.0 - np.exp(OUTPUTS[0].astype(np.float64)))
    np.testing.assert_allclose(tape.gradient(total, outputs), expected, rtol=1e-4, atol=1e-6)


def test_targets_that_depend_on_each_other_are_missing_together():
    y = NUMBERS.copy()
    y[3] = np.nan
    expected = scipy.stats.multivariate_normal([0, 0], [[1.0, 0.8], [0.8, 1.0]]).logpdf(NUMBERS - OUTPUTS[0])
    expected[3] = 0.0
    likelihood = Joint(missing="nan")
    likelihood.check_examples(y, (2,))
    np.testing.assert_allclose(likelihood.log_likelihood(y, OUTPUTS[0], {}), expected, rtol=1e-4, atol=1e-5)
    y[4, 0] = np.nan
    with pytest.raises(ValueError, match="cannot be missing or have a weight on its own"):
        likelihood.check_examples(y, (2,))
    with pytest.raises(ValueError, match="cannot be missing or have a weight on its own"):
        Joint().log_likelihood(NUMBERS, OUTPUTS[0], {}, np.ones((ROWS, 2)))


# === Scores ===


def test_scores_of_numbers_skip_missing_targets():
    predictive = predictive_of(Normal(0.7, missing="nan"))
    complete = predictive_of(Normal(0.7))
    found = score(predictive, WITH_NAN)
    errors = (complete.mean() - NUMBERS)[~GONE]
    lower, upper = complete.interval(0.9)
    covered = ((lower <= NUMBERS) & (NUMBERS <= upper))[~GONE]
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-6)
    assert found["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-6)
    assert found["coverage_90"] == pytest.approx(covered.mean())
    assert found["nll"] == pytest.approx(-predictive.log_prob(WITH_NAN).mean(), rel=1e-6)
    pit = predictive.pit(WITH_NAN)
    np.testing.assert_array_equal(np.isnan(pit), GONE)
    np.testing.assert_array_equal(pit[~GONE], complete.pit(NUMBERS)[~GONE])


@pytest.mark.parametrize("likelihood", [Bernoulli(missing=-1), Normal(0.7, missing=-1)])
def test_standard_errors_skip_missing_targets(likelihood, monkeypatch):
    monkeypatch.setattr(monte_carlo_error, "NUM_RESAMPLES", 8)
    y = np.where(GONE, -1, NUMBERS > 0)
    errors = standard_errors(predictive_of(likelihood), y)
    without = [score(predictive_of(likelihood, np.delete(OUTPUTS, draw, axis=0)), y) for draw in range(3)]
    resamples = np.random.default_rng(0).integers(3, size=(8, 3))
    repeated = [score(predictive_of(likelihood, OUTPUTS[draws]), y) for draws in resamples]
    for name, error in errors.items():
        expected = np.sqrt(2 * np.var([scores[name] for scores in without]))
        if name in STEPS:
            expected = np.std([scores[name] for scores in repeated], ddof=1)
        assert error == pytest.approx(expected, rel=2e-3, abs=1e-6), name


def test_scores_of_classes_and_labels_skip_missing_ones():
    labels = predictive_of(Bernoulli(missing=-1))
    found = score(labels, np.where(GONE, -1, NUMBERS > 0))
    assert found["accuracy"] == pytest.approx(((labels.mean() > 0.5) == (NUMBERS > 0))[~GONE].mean())
    classes, gone = RNG.integers(2, size=ROWS), GONE[:, 0]
    predictive = predictive_of(Categorical(missing="nan"))
    found = score(predictive, np.where(gone, np.nan, classes))
    assert found["accuracy"] == pytest.approx((predictive.mean().argmax(1) == classes)[~gone].mean())


# === Refusals and configs ===


@pytest.mark.parametrize(("missing", "mark"), [(255, 255), (-1, -1), ("nan", np.nan)])
def test_a_missing_label_is_no_class_of_its_own(missing, mark):
    likelihood = Categorical(missing=missing)
    assert likelihood.num_outputs_for(np.array([0, 2, mark, 1])) == 3
    assert likelihood.num_outputs_for(np.array([[mark], [mark]])) == 2


@pytest.mark.parametrize(
    "likelihood", [Normal(1.0, missing="nan"), Bernoulli(missing="nan"), Categorical(missing="nan")], ids=repr
)
def test_targets_of_which_none_is_left_are_refused(likelihood):
    y = np.full((ROWS, 2), np.nan)
    with pytest.raises(ValueError, match=r"No target is left: all targets of `y`, of shape \(12, 2\)"):
        likelihood.check_examples(y, (2,))
    with pytest.raises(ValueError, match="No target is left"):
        score(predictive_of(likelihood), y)


@pytest.mark.parametrize("likelihood", [Normal(0.7), Bernoulli(), Categorical(), Normal(0.7, missing=-1)], ids=repr)
def test_nan_is_no_target_of_a_likelihood_that_does_not_mark_missing_ones_by_it(likelihood):
    predictive = predictive_of(likelihood)
    y = np.where(GONE, np.nan, NUMBERS > 0)
    y = y[:, 0] if isinstance(likelihood, Categorical) else y
    uses = [predictive.log_prob, predictive.log_likelihood, lambda y: score(predictive, y), predictive.pit]
    uses += [lambda y: standard_errors(predictive, y), lambda y: score([(predictive, y)])]
    for use in uses:
        with pytest.raises(ValueError, match=r"`y` has \d+ values that are NaN or infinite.*'missing': 'nan'"):
            use(y)


def test_targets_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match=r"`y` holds <U3 values; numbers were expected"):
        score(predictive_of(Categorical()), np.array(["cat", "dog"] * 6))


def test_other_markers_are_not_missing():
    with pytest.raises(ValueError, match="Labels out of range"):
        Bernoulli(missing="nan").check_examples(np.where(GONE, -1, 1), (2,))
    with pytest.raises(ValueError, match="Labels out of range"):
        Bernoulli().check_examples(np.where(GONE, -1, 1), (2,))


@pytest.mark.parametrize("name", ["categorical", "bernoulli", "normal"])
def test_missing_is_in_the_config_only_if_it_is_set(name):
    assert "missing" not in repr(LIKELIHOODS.get(name))
    for missing, kept in (("nan", "nan"), (float("nan"), "nan"), (-1, -1)):
        likelihood = LIKELIHOODS.get({"name": name, "missing": missing})
        assert likelihood.get_config()["missing"] == kept
        assert type(likelihood).from_config(likelihood.get_config()) == likelihood
        assert likelihood != LIKELIHOODS.get(name)
        assert likelihood.rescaled(2.0).missing == kept


@pytest.mark.parametrize("missing", ["none", True, np.inf, [1]])
def test_a_marker_is_nan_or_a_finite_number(missing):
    with pytest.raises(ValueError, match="must be None, 'nan' or a finite number, but got"):
        Normal(missing=missing)
