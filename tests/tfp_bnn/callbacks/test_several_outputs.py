"""The callbacks on a model with a class and a number as outputs."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.callbacks import BayesianTensorBoard, CalibrationEarlyStopping, PosteriorDoctor, measuring
from tfp_bnn.callbacks.board import recorder
from tfp_bnn.callbacks.board.measurement_figures import measurement_figures
from tfp_bnn.callbacks.measuring import measure
from tfp_bnn.callbacks.rows import take_rows
from tfp_bnn.layers import DenseFlipout

N = 32
X = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
Y = {"class": (X[:, 0] > 0).astype(int), "value": X[:, 1]}


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    x = keras.Input((2,))
    outputs = {"class": DenseFlipout(2)(x), "value": DenseFlipout(1)(x)}
    likelihood = {"class": {"name": "categorical", "missing": -1}, "value": "normal"}
    made = tfp_bnn.VariationalModel(x, outputs, likelihood=likelihood, seed=0)
    made.compile("adam", metrics={"class": ["accuracy"]}, run_eagerly=True)
    return made


def test_early_stopping_watches_the_joint_nll(model):
    stopping = CalibrationEarlyStopping((X, Y), num_samples=4)
    history = model.fit(X, Y, epochs=2, verbose=0, callbacks=[stopping]).history
    expected = model.posterior_predictive(X, 4).nll(Y)
    np.testing.assert_allclose(history["val_mc_nll"][-1], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="Use monitor='nll'"):
        model.fit(X, Y, verbose=0, callbacks=[CalibrationEarlyStopping((X, Y), "ece")])


def test_the_doctor_examines_the_posterior_and_the_joint_nll(model):
    doctor = PosteriorDoctor((X, Y), num_samples=2, tolerance=1e-9)
    with pytest.warns(tfp_bnn.callbacks.PosteriorWarning, match="The predictive NLL of 32 rows"):
        model.fit(X, Y, verbose=0, callbacks=[doctor])
    assert "too_few_samples" in {finding.kind for finding in doctor.findings}


def test_scores_are_the_same_whatever_memory_the_draws_take(model, monkeypatch):
    """Outputs of 128 x 128 pixels ended a training after its first epoch: ten draws of 1,000 take more than 1 GiB."""
    rows = take_rows((X, Y), N, "validation_data")
    kept = measure(model, rows, 4, 0)
    # Of a row: two logits and a number of four draws.
    monkeypatch.setattr(measuring, "_MOST_BYTES", 5 * 4 * 4 * 3)
    monkeypatch.setattr(measuring, "_measurements", {})
    streamed = measure(model, rows, 4, 0)
    assert (kept.predictive.has_draws, streamed.predictive.has_draws) == (True, False)
    assert streamed.scores == pytest.approx(kept.scores, rel=1e-5)
    assert streamed.standard_errors == {}
    for draw in measurement_figures(model, streamed, None, None, 4, 0).values():
        draw()


@pytest.mark.slow
def test_the_board_logs_the_scores_and_figures_of_each_head(model, tmp_path, read_run):
    board = BayesianTensorBoard(tmp_path, (X, Y), ood_data=(X + 5, Y), num_samples=3, every=1)
    model.fit(X, Y, verbose=0, callbacks=[board])
    found = set(read_run(tmp_path, "validation").values)
    assert {
        "predictive/nll",
        "predictive/class/accuracy",
        "predictive/value/rmse",
        "margins/predictive/value/rmse/lower",
        "out_of_distribution/class/mutual_information",
        "out_of_distribution/value/epistemic_std",
        "out_of_distribution/auroc/class/mutual_information",
        "rows/class/predictive_entropy",
        "precision_recall/class/1",
        "figures/class/reliability_diagram",
        "figures/class/decision_surface",
        "figures/value/quantile_calibration",
    } <= found
    with pytest.raises(ValueError, match="`class_names` are those of one output"):
        model.fit(X, Y, verbose=0, callbacks=[BayesianTensorBoard(tmp_path, class_names=["a", "b"])])


def test_an_output_without_any_target_has_the_figures_that_need_none(model):
    rows = take_rows((X, {**Y, "class": np.full(N, -1)}), N, "validation_data")
    found = measurement_figures(model, measure(model, rows, 2, 0), None, None, 2, 0)
    of_value = {"value/regression_predictions", "value/quantile_calibration", "value/uncertainty_histograms"}
    assert set(found) == {"class/uncertainty_histograms", *of_value}


def test_figures_that_cannot_be_prepared_cost_a_warning(model, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no figure")

    monkeypatch.setattr(recorder, "measurement_figures", fail)
    board = recorder.Recorder(str(tmp_path), model, {"validation_data": take_rows((X, Y), N, "x")}, 2, 0, None)
    monkeypatch.setattr(board, "_kl_terms", fail)
    with pytest.warns(UserWarning, match="the figures of the .*: RuntimeError: no figure") as caught:
        board.draw("train", "validation", 1)
    assert len(caught) == 2


def test_targets_in_a_list_of_outputs_are_not_rows():
    heads = [Y["class"], Y["value"]]
    assert [len(of_head) for of_head in take_rows((X, heads), 5, "validation_data").y] == [5, 5]
    one_hot = list(np.eye(N)[:, :2])
    assert take_rows((X, one_hot), 5, "validation_data").y.shape == (5, 2)
    assert take_rows((X, Y), 5, "x").digest != take_rows((X, {**Y, "value": -X[:, 1]}), 5, "x").digest


def test_callbacks_refuse_targets_without_a_head(model):
    with pytest.raises(ValueError, match=r"`validation_data` of the callback cannot be .* missing \['value'\]"):
        model.fit(X, Y, verbose=0, callbacks=[PosteriorDoctor((X, {"class": Y["class"]}))])
