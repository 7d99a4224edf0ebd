"""The predictive of several outputs: one set of draws, and a joint density, against NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats

from tfp_bnn.core.draws import FiniteDraws
from tfp_bnn.likelihoods import Joint, Normal
from tfp_bnn.predictive import JointPredictive, PosteriorPredictive, score, standard_errors
from tfp_bnn.predictive.calibrators import Temperature

ROWS, DRAWS = 5, 4
X = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
FACTORS = np.array([0.5, 1.0, -1.0, 2.0], np.float32)
LIKELIHOOD = Joint(
    {"class": "categorical", "value": {"name": "normal", "scale": 0.5}},
    # They must not change the predictive.
    {"class": 3.0, "value": 0.1},
)
Y = {"class": np.array([0, 1, 2, 1, 0]), "value": X[:, 1]}


def network(factor):
    """Both outputs depend on the draw, so the heads are dependent in the predictive."""
    return lambda x: {"value": factor * x[:, :1], "class": factor * x}


class Draws(FiniteDraws):
    """These draws, and more of them that are never asked for: they have a Monte Carlo error."""

    num_draws = None


@pytest.fixture(scope="module")
def predictive():
    return JointPredictive.from_draws(Draws([network(f) for f in FACTORS]), X, LIKELIHOOD, DRAWS)


def densities():
    """Log p of each head under each draw, `(S, n)`."""
    logits = FACTORS[:, None, None] * X
    of_class = scipy.special.log_softmax(logits, axis=2)[:, np.arange(ROWS), Y["class"]]
    return of_class, scipy.stats.norm.logpdf(Y["value"], FACTORS[:, None] * X[:, 0], 0.5)


def test_the_joint_density_averages_the_product_of_the_heads(predictive):
    of_class, of_value = densities()
    expected = scipy.special.logsumexp(of_class + of_value, axis=0) - np.log(DRAWS)
    np.testing.assert_allclose(predictive.log_prob(Y), expected, rtol=1e-5)
    np.testing.assert_allclose(predictive.nll(Y), -expected.mean(), rtol=1e-6)
    for name, by_draw in zip(("class", "value"), (of_class, of_value), strict=True):
        of_head = scipy.special.logsumexp(by_draw, axis=0) - np.log(DRAWS)
        np.testing.assert_allclose(predictive[name].log_prob(Y[name]), of_head, rtol=1e-5)
        np.testing.assert_allclose(predictive[name].log_likelihood(Y[name]), by_draw, rtol=1e-5)


def test_it_is_a_mapping_of_predictives_of_the_same_draws(predictive):
    assert list(predictive) == ["class", "value"]
    assert (len(predictive), predictive.num_examples, predictive.num_samples) == (2, ROWS, DRAWS)
    assert not predictive.exhaustive
    np.testing.assert_allclose(predictive["value"].samples[..., 0], FACTORS[:, None] * X[:, 0], rtol=1e-6)
    expected = scipy.special.softmax(FACTORS[:, None, None] * X, axis=2)
    np.testing.assert_allclose(predictive["class"].samples, expected, rtol=1e-5)


def test_heads_may_come_in_a_list():
    draws = FiniteDraws([lambda x, f=f: [f * x, f * x[:, :1]] for f in FACTORS])
    predictive = JointPredictive.from_draws(draws, X, LIKELIHOOD)
    assert predictive.exhaustive
    np.testing.assert_allclose(predictive["value"].samples[..., 0], FACTORS[:, None] * X[:, 0], rtol=1e-6)
    assert standard_errors(predictive, [Y["class"], Y["value"]]) == {}


def test_scores_are_those_of_the_heads_and_the_joint_nll(predictive):
    found = score(predictive, Y)
    expected = {"nll": predictive.nll(Y)}
    for name, of_head in predictive.items():
        expected |= {f"{name}/{key}": value for key, value in score(of_head, Y[name]).items()}
    assert found == expected
    assert set(found) == set(LIKELIHOOD.score_names(None))
    assert set(score(predictive)) == {"class/entropy", "class/mutual_information", "value/epistemic_std"}


def test_a_stream_of_predictives_has_the_same_scores(predictive):
    def batches(y):
        for rows in (slice(0, 2), slice(2, ROWS)):
            draws = FiniteDraws([network(f) for f in FACTORS])
            of_batch = JointPredictive.from_draws(draws, X[rows], LIKELIHOOD)
            yield of_batch, None if y is None else {name: of_head[rows] for name, of_head in y.items()}

    for y in (Y, None):
        found = score(batches(y))
        assert found == pytest.approx(score(predictive, y), rel=1e-6)


def test_standard_errors_are_a_jackknife_of_the_joint_nll(predictive):
    by_draw = sum(densities())
    without = [
        np.log(DRAWS - 1) - scipy.special.logsumexp(np.delete(by_draw, s, axis=0), axis=0).mean() for s in range(DRAWS)
    ]
    found = standard_errors(predictive, Y)
    assert found["nll"] == pytest.approx(np.sqrt((DRAWS - 1) * np.var(without)), rel=1e-4)
    for name, of_head in predictive.items():
        for key, value in standard_errors(of_head, Y[name]).items():
            assert found[f"{name}/{key}"] == pytest.approx(value)


def test_samples_of_the_heads_share_the_draw_and_not_the_noise():
    joint = Joint({"a": Normal(scale=1.0), "b": Normal(scale=1.0)})
    draws = FiniteDraws([lambda x, f=f: {"a": f + 0.0 * x[:, :1], "b": f + 0.0 * x[:, :1]} for f in (0.0, 1000.0)])
    predictive = JointPredictive.from_draws(draws, X, joint)
    drawn = predictive.sample(200, seed=3)
    for name, of_head in predictive.sample(200, seed=np.int32(3)).items():
        np.testing.assert_array_equal(of_head, drawn[name])
    a, b = (drawn[name][..., 0] for name in ("a", "b"))
    assert np.array_equal(a > 500, b > 500)
    noise = [np.where(values > 500, values - 1000, values) for values in (a, b)]
    # 1,000 pairs: a correlation of 0.16 has a probability below 1e-6; equal noise has 1.
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.16


def test_a_head_without_targets_is_left_out_of_the_joint_density():
    joint = Joint({"class": "categorical", "value": {"name": "normal", "scale": 0.5, "missing": "nan"}})
    predictive = JointPredictive.from_draws(Draws([network(f) for f in FACTORS]), X, joint, DRAWS)
    y = {"class": Y["class"], "value": np.full(ROWS, np.nan)}
    np.testing.assert_allclose(predictive.log_prob(y), predictive["class"].log_prob(Y["class"]), rtol=1e-5)
    found = score(predictive, y)
    assert found["nll"] == pytest.approx(found["class/nll"])
    assert {key for key in found if key.startswith("value/")} == {"value/epistemic_std"}
    assert standard_errors(predictive, y)["nll"] == pytest.approx(standard_errors(predictive, y)["class/nll"])
    half = {**y, "value": np.where(np.arange(ROWS) < 2, Y["value"], np.nan)}
    assert score([(predictive, half)]) == pytest.approx(score(predictive, half))


def test_outputs_of_all_heads_together_are_bounded():
    wide = Joint({"class": "categorical", "value": {"name": "normal", "scale": 0.5}})
    draws = Draws([network(f) for f in FACTORS])
    whole = JointPredictive.from_draws(draws, X, wide, DRAWS)
    # 4 outputs in all, of which 3 would fit.
    bounded = JointPredictive.from_draws(draws, X, wide, DRAWS, max_bytes=4 * DRAWS * ROWS * 3, batch_size=2)
    for name, of_head in whole.items():
        for moment in ("mean", "aleatoric", "epistemic", "entropy"):
            found, expected = getattr(bounded[name], moment)(), getattr(of_head, moment)()
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="above `max_bytes`"):
        bounded.log_prob(Y)
    streamed = JointPredictive.from_draws(draws, iter([(X[:2],), (X[2:],)]), wide, DRAWS)
    np.testing.assert_allclose(streamed.log_prob(Y), whole.log_prob(Y), rtol=1e-6)


def test_what_only_a_head_has_is_pointed_to(predictive):
    with pytest.raises(AttributeError, match=r"predictive\['class'\].mean. Heads: \['class', 'value'\]"):
        predictive.mean()
    assert not hasattr(predictive, "anything_else")
    with pytest.raises(KeyError, match=r"'mask' is no head. Expected one of \['class', 'value'\]"):
        predictive["mask"]


def test_what_does_not_fit_is_refused(predictive):
    draws = FiniteDraws([network(1.0)])
    with pytest.raises(ValueError, match=r"Use tfp_bnn\.predictive\.JointPredictive"):
        PosteriorPredictive.from_draws(draws, X, LIKELIHOOD)
    with pytest.raises(ValueError, match=r"has no heads\. Use PosteriorPredictive"):
        JointPredictive.from_draws(draws, X, Normal())
    with pytest.raises(ValueError, match="There is no calibration of several outputs"):
        JointPredictive.from_draws(draws, X, LIKELIHOOD, calibration=Temperature(2.0))
    with pytest.raises(ValueError, match=r"`y`: .* missing \['value'\]"):
        predictive.log_prob({"class": Y["class"]})
    with pytest.raises(ValueError, match=r"The outputs of the model: .* missing \['class'\]"):
        JointPredictive.from_draws(FiniteDraws([lambda x: {"value": x}]), X, LIKELIHOOD)
    with pytest.raises(ValueError, match="there are 5 predictions"):
        predictive.log_prob({"class": Y["class"][:3], "value": Y["value"]})
