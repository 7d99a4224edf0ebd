"""`BayesianTensorBoard.write` and `PosteriorDoctor.examine` take the posterior of every inference method."""

from __future__ import annotations

import re
import warnings

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn import inference
from tfp_bnn.callbacks import BayesianTensorBoard, PosteriorDoctor, PosteriorWarning
from tfp_bnn.callbacks.board.recorder import Recorder
from tfp_bnn.callbacks.measuring import measure
from tfp_bnn.callbacks.rows import Rows
from tfp_bnn.inference import WAYS
from tfp_bnn.layers import DenseFlipout, MCDropout
from tfp_bnn.models.weight_record import trainable_values

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int)
PRIOR = {"name": "normal", "scale": 0.7}
CHAINS = ("hmc", "nuts", "sgld")


def network(rate=0.0, seed=0):
    keras.utils.set_random_seed(seed)
    hidden = [DenseFlipout(4, activation="tanh", name="hidden", kernel_prior=PRIOR), MCDropout(rate)]
    layers = [keras.Input((3,)), *hidden, DenseFlipout(2, name="logits", kernel_prior=PRIOR)]
    model = tfp_bnn.VariationalSequential(layers, seed=seed, name=f"net_{seed}")
    model.num_examples = len(X)
    return model


def swag():
    point, iterates = inference.map_estimate(network()), inference.SwagIterates(rank=2)
    iterates.set_model(point)
    for _ in range(3):
        for variable in trainable_values(point).values():
            variable.assign_add(RNG.normal(scale=0.2, size=variable.shape))
        iterates.collect()
    return inference.swag(point, iterates)


def chains(way, distance=3.0):
    """Two chains of six states, each around weights of its own."""
    point = inference.map_estimate(network())
    states = {
        name: RNG.normal(scale=0.1, size=(2, 6, *variable.shape)).astype(np.float32)
        + distance * RNG.normal(size=(2, 1, *variable.shape)).astype(np.float32)
        for name, variable in trainable_values(point).items()
    }
    return inference.Chains(point, states, way=way)


FULL_BATCHES = {"num_steps": 4, "num_draws": 4, "plain_prior": "normal", "verbose": 0}
MADE = {
    "variational": network,
    "map": lambda: inference.map_estimate(network()),
    "maximum_likelihood": lambda: inference.maximum_likelihood(network()),
    "mc_dropout": lambda: inference.mc_dropout(network(0.3)),
    "vbll": lambda: inference.vbll(network()),
    "ensemble": lambda: inference.ensemble([inference.map_estimate(network(seed=k)) for k in range(3)]),
    "swag": swag,
    "laplace": lambda: inference.laplace(inference.map_estimate(network()), X, LABELS),
    "full_rank": lambda: inference.full_rank(network(), X, LABELS, **FULL_BATCHES),
    "mean_field": lambda: inference.mean_field(network(), X, LABELS, **FULL_BATCHES),
    **{way: lambda way=way: chains(way) for way in CHAINS},
}
WITH_KL = ("variational", "map", "maximum_likelihood", "mc_dropout", "vbll")
WITH_ELBO = ("variational", "vbll")


def doctored(model, **arguments):
    """The findings of a doctor, whose warnings are silenced; any other warning fails the test."""
    doctor = PosteriorDoctor((X, LABELS), **{"tolerance": 10.0, **arguments})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosteriorWarning)
        return doctor.examine(model)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_scores_are_logged_and_elbo_and_kl_where_they_are_defined(way, tmp_path, read_run, monkeypatch):
    monkeypatch.setattr(Recorder, "draw", lambda *_: None)
    model = MADE[way]()
    BayesianTensorBoard(tmp_path, (X, LABELS), ood_data=10 * X, num_samples=4).write(model)
    run = read_run(tmp_path, "evaluation")
    expected = tfp_bnn.predictive.score(model.posterior_predictive(X, num_samples=4), LABELS)
    tags = {"accuracy": "predictive/accuracy", "nll": "predictive/nll", "ece": "calibration/ece"}
    for name, tag in {**tags, "brier": "calibration/brier"}.items():
        assert run.last(tag) == pytest.approx(expected[name], rel=1e-5)
    assert "out_of_distribution/auroc/predictive_entropy" in run
    assert ("kl/total" in run) is (way in WITH_KL)
    page = run["about/inference"][0].item().decode()
    assert f"| inference | {way} |" in page
    assert ("| ELBO | not defined: " in page) is (way not in WITH_ELBO)
    assert ("| KL | not defined |" in page) is (way not in WITH_KL)
    diagnostics = {tag for tag in run.values if tag.startswith("diagnostics/")}
    of_laplace = {"diagnostics/log_marginal_likelihood", "diagnostics/prior_precision"}
    of_chains = {"diagnostics/rhat", "diagnostics/ess"}
    assert diagnostics == {"laplace": of_laplace, **dict.fromkeys(CHAINS, of_chains)}.get(way, set())


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_doctor_examines_every_way(way):
    found = {(finding.kind, finding.where) for finding in doctored(MADE[way]())}
    assert found == ({("not_converged", "rhat"), ("not_converged", "ess")} if way in CHAINS else set())


@pytest.mark.slow
def test_figures_of_a_posterior_beside_its_network_are_drawn(tmp_path, read_run):
    BayesianTensorBoard(tmp_path, (X, LABELS), num_samples=4).write(MADE["laplace"]())
    assert "figures/reliability_diagram" in read_run(tmp_path, "evaluation")


@pytest.mark.slow
def test_chains_that_agree_and_are_long_are_in_order():
    """Independent states: R-hat is near 1, and the effective sample size that of the states."""
    point = inference.map_estimate(network())
    states = {
        name: RNG.normal(scale=0.1, size=(2, 200, *variable.shape)).astype(np.float32)
        for name, variable in trainable_values(point).items()
    }
    assert doctored(inference.Chains(point, states, way="hmc")) == []


def test_the_doctor_says_how_many_draws_are_enough_for_posteriors_of_any_way():
    findings = doctored(swag(), num_samples=4, tolerance=1e-6)
    assert {finding.kind for finding in findings} == {"too_few_samples"}
    assert {finding.epoch for finding in findings} == {0}
    with pytest.warns(PosteriorWarning, match=r"Report it with num_samples=\d+ or more"):
        PosteriorDoctor((X, LABELS), num_samples=4, tolerance=1e-6).examine(swag())


@pytest.mark.slow
def test_no_more_draws_are_advised_than_there_are():
    arguments = {"num_samples": 50, "tolerance": 1e-3}
    (message, *_) = [of.message for of in doctored(chains("hmc"), **arguments) if of.kind == "too_few_samples"]
    says = r"error of (\S+) with 12 weight draws.* (\d+) would do, but there are no more than 12\. Sample longer"
    error, enough = re.search(says, message).groups()
    assert int(enough) == pytest.approx(12 * (float(error) / 1e-3) ** 2, rel=0.01)
    (message, *_) = [of.message for of in doctored(MADE["ensemble"](), num_samples=2, tolerance=1e-9)]
    assert "Report it with num_samples=3, all draws that there are" in message


def test_a_measurement_is_new_when_the_posterior_beside_the_network_changes():
    model = MADE["laplace"]()
    rows = Rows(X, LABELS)
    first = measure(model, rows, 4, 0)
    assert measure(model, rows, 4, 0) is first
    model.prior_precision = 100.0
    again = measure(model, rows, 4, 0)
    assert not np.array_equal(first.predictive.samples, again.predictive.samples)


@pytest.mark.parametrize("make", [lambda: BayesianTensorBoard("nowhere").write, lambda: PosteriorDoctor().examine])
def test_a_model_without_a_posterior_is_refused(make):
    with pytest.raises(TypeError, match="is for models with a posterior, which `fit` or"):
        make()(keras.Sequential())
