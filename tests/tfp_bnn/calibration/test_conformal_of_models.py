"""`model.conformal`: what may be set, what keeps it, and what takes it back."""

from __future__ import annotations

import copy
import json

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn import inference
from tfp_bnn.calibration import Temperature
from tfp_bnn.inference.point_weights import with_point_weights
from tfp_bnn.layers import DenseReparameterization
from tfp_bnn.predictive import ConformalIntervals, ConformalSets

RNG = np.random.default_rng(0)
X, LABELS, NUMBERS = RNG.normal(size=(60, 4)).astype(np.float32), RNG.integers(3, size=60), RNG.normal(size=60)
SETS = ConformalSets(0.9, [0.5, 0.25, 1.0], num_samples=7, seed=-3)
INTERVALS = ConformalIntervals(0.8, 0.3, num_samples=7, seed=2**40)


def network(likelihood="categorical", outputs=3, **kwargs):
    layers = [keras.Input((4,)), DenseReparameterization(outputs)]
    return tfp_bnn.VariationalSequential(layers, likelihood=likelihood, seed=0, **kwargs)


def test_a_model_takes_a_config_or_an_object():
    model = network(conformal=SETS)
    assert model.conformal == SETS
    model.conformal = None
    assert model.conformal is None
    model.conformal = {"name": "sets", **SETS.get_config()}
    assert model.conformal == SETS


@pytest.mark.parametrize(
    ("likelihood", "conformal"),
    [("categorical", INTERVALS), ("normal", SETS), ({"class": "categorical", "value": "normal"}, SETS)],
)
def test_a_conformal_prediction_of_other_targets_is_refused(likelihood, conformal):
    x = keras.Input((4,))
    heads = {"class": DenseReparameterization(3)(x), "value": DenseReparameterization(1)(x)}
    outputs = heads if isinstance(likelihood, dict) else heads["class" if likelihood == "categorical" else "value"]
    model = tfp_bnn.VariationalModel(x, outputs, likelihood=likelihood, seed=0)
    with pytest.raises(ValueError, match=r"Conformal.* does not fit the likelihood .* Fit one to this model, with"):
        model.conformal = conformal
    assert model.conformal is None


def test_several_outputs_are_refused_before_anything_is_predicted():
    x = keras.Input((4,))
    heads = {"class": DenseReparameterization(3)(x), "value": DenseReparameterization(1)(x)}
    model = tfp_bnn.VariationalModel(x, heads, likelihood={"class": "categorical", "value": "normal"}, seed=0)
    with pytest.raises(ValueError, match=r"for several outputs, \['class', 'value'\]"):
        tfp_bnn.conformalize(model, X, {"class": LABELS, "value": NUMBERS})


def test_what_cannot_be_fitted_leaves_the_old_one():
    model = network(conformal=SETS)
    with pytest.raises(ValueError, match="needs at least 99 examples"):
        tfp_bnn.conformalize(model, X, LABELS, level=0.99)
    with pytest.raises(ValueError, match=r"`num_samples` must be an integer from 1 to 100000, or None, but got 100001"):
        ConformalSets(0.9, 0.5, num_samples=100_001)
    with pytest.raises(ValueError, match=r"`seed` must be an integer from -9223372036854775808 to"):
        ConformalSets(0.9, 0.5, seed=2**63)
    with pytest.raises(ValueError, match=r"`margins` must be a number from -0.5 to 1e\+30, .* but got inf"):
        ConformalIntervals(0.9, [0.0, float("inf")])
    assert model.conformal == SETS


def test_training_takes_the_conformal_prediction_back():
    model = network(conformal=SETS)
    model.compile("sgd", run_eagerly=True)
    model.num_examples = 60
    model.evaluate(X, LABELS, verbose=0)
    assert model.conformal == SETS
    with pytest.warns(UserWarning, match=r"conformal prediction, ConformalSets.*, but training .* None now. Fit it"):
        model.fit(X, LABELS, verbose=0)
    assert model.conformal is None
    model.conformal = SETS
    with pytest.warns(UserWarning, match=r"model.conformal is None now"):
        model.train_on_batch(X, LABELS)
    assert model.conformal is None


def test_training_a_member_takes_back_those_of_the_ensemble():
    members = [network(name="one"), network(name="two")]
    joined = inference.ensemble(members)
    joined.calibration, joined.conformal = Temperature(2.0), SETS
    members[1].compile("sgd", run_eagerly=True)
    with (
        pytest.warns(UserWarning, match=r"posterior 'ensemble', .* 'two', had a conf.* posterior.conformal is None"),
        pytest.warns(UserWarning, match=r"posterior 'ensemble', .* was calibrated, .* posterior.calibration is None"),
    ):
        members[1].fit(X, LABELS, verbose=0)
    assert joined.conformal is joined.calibration is None
    joined.conformal = SETS
    copied = copy.copy(joined)
    with pytest.warns(UserWarning, match="posterior.conformal is None now"):
        members[1].train_on_batch(X, LABELS)
    assert copied.conformal is joined.conformal is None


def test_another_calibration_takes_the_conformal_prediction_back():
    model = network(calibration=Temperature(2.0), conformal=SETS)
    model.calibration = Temperature(2.0)
    assert model.conformal == SETS
    with pytest.warns(UserWarning, match=r"another calibration: model.conformal is None now. Fit it after"):
        model.calibration = None
    assert model.conformal is None


@pytest.mark.parametrize(("likelihood", "conformal"), [("categorical", SETS), ("normal", INTERVALS)])
def test_files_and_clones_keep_it(likelihood, conformal, tmp_path):
    model = network(likelihood, 3 if likelihood == "categorical" else 1, conformal=conformal)
    json.dumps(model.get_config())
    assert keras.models.clone_model(model).conformal == conformal
    model.save(tmp_path / "conformal.keras")
    loaded = keras.models.load_model(tmp_path / "conformal.keras")
    assert loaded.conformal == conformal
    found, expected = (m.conformal.predict(m.posterior_predictive(X, 7, seed=1)) for m in (loaded, model))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "copied",
    [
        tfp_bnn.transfer.informed_prior,
        with_point_weights,
        inference.with_fixed_parameters,
        lambda model: tfp_bnn.compression.prune(model, 0.5),
    ],
    ids=["informed prior", "points", "fixed parameters", "pruned"],
)
def test_a_copy_with_another_posterior_has_none(copied):
    model = network(conformal=SETS)
    assert copied(model).conformal is None
    assert model.conformal == SETS


def test_an_ensemble_has_its_own():
    joined = inference.ensemble([network(conformal=SETS), network(name="other")])
    assert joined.conformal is None
    conformal = tfp_bnn.conformalize(joined, X, LABELS, level=0.5)
    assert joined.conformal == conformal
    # All draws that there are.
    assert conformal.num_samples == 2


def test_predictions_of_another_number_of_draws_raise_a_warning():
    for conformal, model in ((SETS, network()), (INTERVALS, network("normal", 1))):
        with pytest.warns(UserWarning, match=rf"have 2 draws, .* to 7, .*num_samples=7, seed={conformal.seed}\."):
            conformal.predict(model.posterior_predictive(X, 2))
    # Both are all the draws there are.
    joined = inference.ensemble([network(name="point"), network(name="other")], draws_per_member=1)
    SETS.predict(joined.posterior_predictive(X))


def test_scores_are_the_share_that_is_covered_and_the_mean_size():
    model = network(conformal=SETS)
    predictive = model.posterior_predictive(X, num_samples=7, seed=-3)
    sets = 1 - predictive.mean().astype(np.float64) <= np.array([0.5, 0.25, 1.0])
    assert SETS.score(predictive, LABELS) == {
        "coverage": np.mean([row[label] for row, label in zip(sets, LABELS, strict=True)]),
        "mean_size": sets.sum() / 60,
    }
    regression = network("normal", 1)
    predictive = regression.posterior_predictive(X, num_samples=7, seed=0)
    lower, upper = INTERVALS.predict(predictive)
    assert INTERVALS.score(predictive, NUMBERS) == {
        "coverage": np.mean((lower[:, 0] <= NUMBERS) & (NUMBERS <= upper[:, 0])),
        "mean_width": pytest.approx(1.6 * np.subtract(*predictive.interval(0.8)[::-1]).mean(), rel=1e-5),
    }


@pytest.mark.parametrize("by_class", [False, True])
def test_sets_of_classes_are_fitted_and_judged_without_draws_in_memory(by_class):
    model = network()
    kept, streamed = (model.posterior_predictive(X, 5, seed=1, max_bytes=size) for size in (2**30, 1))
    assert not streamed.has_draws
    fitted = [ConformalSets.fitted(of, LABELS, 0.5, by_class) for of in (kept, streamed)]
    np.testing.assert_allclose(fitted[0].thresholds, fitted[1].thresholds, rtol=1e-5)
    assert fitted[1].score(streamed, LABELS)["coverage"] >= 0.5
    with pytest.raises(ValueError, match="targets have the shape"):
        ConformalSets.fitted(streamed, LABELS[1:], 0.5, by_class)
