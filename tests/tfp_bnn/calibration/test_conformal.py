"""Conformal sets and intervals: thresholds by hand, and the coverage that the theory promises."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.calibration import conformalize
from tfp_bnn.likelihoods import Bernoulli, Categorical, Normal, Poisson
from tfp_bnn.predictive import CONFORMALS, ConformalIntervals, ConformalSets, PosteriorPredictive
from tfp_bnn.predictive.conformal import conformal_for

RNG = np.random.default_rng(0)


def predictive_of(likelihood, outputs):
    outputs = np.asarray(outputs, np.float32)
    return PosteriorPredictive(likelihood, {}, outputs, {}, outputs.shape)


def fitted(likelihood, outputs, y, level, by_class=False):
    predictive = predictive_of(likelihood, outputs)
    kind = conformal_for(likelihood, (*predictive.positions, predictive.num_outputs))
    return kind.fitted(predictive, y, level, by_class)


def numbers(rows):
    """Predictions N(m, 1) with m of two draws, and targets that are wider."""
    outputs = RNG.normal(size=(2, rows, 2))
    return outputs, outputs.mean(axis=0) + 3.0 * RNG.standard_t(3, size=(rows, 2))


def test_the_threshold_is_the_score_of_the_right_rank():
    outputs, labels = RNG.normal(size=(3, 19, 4)), RNG.integers(4, size=19)
    conformal = fitted(Categorical(), outputs, labels, 0.81)
    scores = np.sort(1 - predictive_of(Categorical(), outputs).mean()[np.arange(19), labels].astype(float))
    # ceil(20 * 0.81) = 17 of 19; ceil(19 * 0.81) would be 16.
    assert conformal.thresholds == pytest.approx(scores[16], rel=1e-6)
    sets = conformal.predict(predictive_of(Categorical(), outputs))
    assert sets.shape == (19, 4)
    assert sets[np.arange(19), labels].sum() == 17
    assert conformal.covers(predictive_of(Categorical(), outputs), labels).sum() == 17


def test_thresholds_of_sure_predictions_are_finer_than_the_rounding_of_float32():
    logits = np.stack([np.linspace(18.0, 25.0, 9), np.zeros(9), np.zeros(9)], axis=-1)
    conformal = fitted(Categorical(), logits[np.newaxis], np.zeros(9, int), 0.5)
    # 1 - p is 0 in float32.
    assert conformal.thresholds == pytest.approx(2 * np.exp(-logits[4, 0]), rel=1e-5)
    assert conformal.covers(predictive_of(Categorical(), logits[np.newaxis]), np.zeros(9)).sum() == 5


def test_margins_are_in_widths_of_the_interval_of_each_target():
    outputs, y = numbers(39)
    conformal = fitted(Normal(scale=1.0), outputs, y, 0.9)
    predictive = predictive_of(Normal(scale=1.0), outputs)
    lower, upper = predictive.interval(0.9)
    outside = np.sort(np.maximum(lower - y, y - upper) / (upper - lower), axis=0)
    assert conformal.margins == pytest.approx(outside[35], rel=1e-5)
    found = conformal.predict(predictive)
    np.testing.assert_allclose(found[0], lower - outside[35] * (upper - lower), rtol=1e-4, atol=1e-4)
    # Both ends belong to it.
    assert conformal.covers(predictive, y).sum(axis=0).tolist() == [36, 36]


def test_intervals_of_rare_counts_have_a_width():
    rates = np.where(np.arange(40) % 2, 5.0, 0.05)[:, np.newaxis]
    # Half of the central intervals are [0, 0], and half of these miss the target.
    y = np.where(np.arange(40) % 4 == 0, 1, np.where(np.arange(40) % 2, 5, 0))
    conformal = fitted(Poisson(), np.log(rates)[np.newaxis], y, 0.9)
    predictive = predictive_of(Poisson(), np.log(rates)[np.newaxis])
    # [-.5, .5] misses 1 by half its width; 5 is within [2, 9].
    assert conformal.margins == [0.5]
    assert [end[:2, 0].tolist() for end in conformal.predict(predictive)] == [[-1.0, -1.5], [1.0, 12.5]]
    # As files of older versions do.
    assert ConformalIntervals(0.9, 1.0).predict(predictive)[1][0, 0] < 1e-11


def test_intervals_of_an_atom_have_the_width_of_half_a_standard_deviation(monkeypatch):
    predictive = predictive_of(Normal(scale=2.0), np.zeros((1, 9, 1)))
    monkeypatch.setattr(predictive, "interval", lambda level: (np.zeros((9, 1)), np.zeros((9, 1))))
    conformal = ConformalIntervals.fitted(predictive, np.full(9, 1.5), 0.5, False)
    assert conformal.margins == [1.0]
    assert [end[0, 0] for end in conformal.predict(predictive)] == [-1.5, 1.5]


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize(("kind", "fits"), [("sets", 500), ("sets by class", 500), ("intervals", 40)])
def test_the_coverage_is_that_of_the_theory(kind, fits):
    """Over fits to 30 examples (of each class), with 70 or more tests each, the mean coverage is ceil(31 level) / 31.

    The standard deviation of a coverage is at most sqrt(.8 * .2 / 32 + .16 / 35) = .098; 6 of those of the mean: by
    chance below 1e-8. The raw intervals would cover less than half.
    """
    level, rows, covered = 0.8, 130, []
    for _ in range(fits):
        if kind == "intervals":
            outputs, y = numbers(rows)
            likelihood = Normal(scale=1.0)
        else:
            y = np.arange(rows) % 2 if kind == "sets by class" else RNG.integers(3, size=rows)
            outputs = RNG.normal(size=(2, rows, 3)) + 1.5 * np.eye(3)[y]
            likelihood = Categorical()
        used = slice(0, 60 if kind == "sets by class" else 30)
        rest = slice(used.stop, None)
        by_class = kind == "sets by class"
        if by_class:
            outputs = outputs[..., :2]
        conformal = fitted(likelihood, outputs[:, used], y[used], level, by_class)
        covers = conformal.covers(predictive_of(likelihood, outputs[:, rest]), y[rest])
        covered.append([covers[y[rest] == k].mean() for k in range(2)] if by_class else covers.mean(axis=0))
    np.testing.assert_allclose(np.mean(covered, axis=0), math.ceil(31 * level) / 31, atol=6 * 0.098 / math.sqrt(fits))


def test_a_model_is_conformalized_with_its_calibration():
    model = tfp_bnn.VariationalSequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(3)], seed=0)
    x, y = RNG.normal(size=(50, 2)).astype(np.float32), RNG.integers(3, size=50)
    model.calibration = {"name": "temperature", "temperature": 2.0}
    conformal = conformalize(model, x, y, num_samples=4, seed=1)
    predictive = model.posterior_predictive(x, num_samples=4, seed=1)
    assert conformal == ConformalSets.fitted(predictive, y, 0.9, False, num_samples=4, seed=1) == model.conformal
    assert CONFORMALS.get({"name": "sets", **conformal.get_config()}) == conformal
    assert conformal.covers(predictive, y).mean() == pytest.approx(46 / 50)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: fitted(Categorical(), np.zeros((1, 8, 2)), np.zeros(8, int), 0.9),
            "at least 9 examples, but .* 8",
        ),
        (
            lambda: fitted(Categorical(), np.zeros((1, 9, 2)), np.zeros(9, int), 0.5, True),
            "at least 1 examples of each class, but class 1 has 0",
        ),
        (lambda: fitted(Normal(scale=1.0), np.zeros((1, 9, 1)), np.zeros(9), 0.5, True), "which have no classes"),
        (
            lambda: fitted(Bernoulli(), np.zeros((1, 9, 2)), np.zeros((9, 2)), 0.5),
            "for several labels",
        ),
        (lambda: fitted(Categorical(), np.zeros((1, 9, 5, 2)), np.zeros((9, 5), int), 0.5), r"positions \(5,\)"),
        (lambda: fitted(Categorical(), np.zeros((1, 9, 2)), np.full(9, 2), 0.5), "label"),
        (
            lambda: fitted(Normal(scale=1.0, missing="nan"), np.zeros((1, 9, 1)), [0.0] * 8 + [np.nan], 0.5),
            "1 of 9 targets are missing",
        ),
        (lambda: ConformalSets(1.0, 0.5), "`level` must be a number between 0 and 1"),
        (lambda: ConformalSets(0.9, [0.5, 1.5]), "`thresholds` must be a number from 0 to 1"),
        (lambda: ConformalIntervals(0.9, math.nan), "`margins` must be a number from -0.5"),
        (lambda: ConformalIntervals(0.9, 0.0, least_width=-1), "`least_width` must be a number from 0"),
        (
            lambda: ConformalSets(0.9, [0.5, 0.5]).predict(predictive_of(Categorical(), np.zeros((1, 3, 4)))),
            "thresholds for 2 classes, but the predictions are of 4",
        ),
        (
            lambda: ConformalIntervals(0.9, [0.5, 0.5]).predict(predictive_of(Normal(1.0), np.zeros((1, 3, 3)))),
            "margins for 2 targets, but the predictions are of 3",
        ),
    ],
)
def test_what_cannot_be_conformal_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
