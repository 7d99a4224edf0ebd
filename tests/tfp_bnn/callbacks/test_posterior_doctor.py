"""Each finding comes from a model made to have it, is reported once, and names place, numbers and fix."""

from __future__ import annotations

import re
import warnings

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.callbacks import PosteriorDoctor, PosteriorWarning, posterior_doctor
from tfp_bnn.callbacks.measuring import learned_prior_scales
from tfp_bnn.layers import DenseReparameterization

INPUTS, UNITS, PATIENCE = 20, 30, 3
HEALTHY = {"nll": 0.3, "kl": 200.0, "beta": 1.0}


def make(prior=None, classes=3, likelihood="categorical", posterior="mean_field_normal"):
    """A network whose posteriors are healthy: a tenth of the weights stand out, the others are near the prior."""
    x = keras.Input((INPUTS,))
    prior = prior or {"name": "normal", "scale": 0.5}
    arguments = {"kernel_prior": prior, "kernel_posterior": posterior}
    h = DenseReparameterization(UNITS, name="hidden", activation="relu", **arguments)(x)
    outputs = DenseReparameterization(classes, name="logits", **arguments)(h)
    model = tfp_bnn.VariationalModel(x, outputs, likelihood=likelihood, num_examples=1000, seed=0)
    for layer in model.variational_layers:
        shape = layer.variational_weights["kernel"].shape
        stands_out = np.arange(np.prod(shape)).reshape(shape) % 10 == 0
        set_posterior(layer, np.where(stands_out, 1.0, 0.01), np.where(stands_out, 0.1, 0.4))
    return model


def set_posterior(layer, loc, scale):
    weight = layer.variational_weights["kernel"]
    values = weight.parameters()
    weight.assign_parameters(
        {
            **values,
            "loc": np.full(weight.shape, loc),
            **({"scale": np.full(weight.shape, scale)} if "scale" in values else {}),
        }
    )


def examine(model, epochs=PATIENCE, logs=HEALTHY, **arguments):
    """The doctor, after some epochs in which nothing changes, and what it said."""
    doctor = PosteriorDoctor(**arguments)
    doctor.set_model(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        doctor.on_train_begin()
        for epoch in range(epochs):
            doctor.on_epoch_end(epoch, logs)
        doctor.on_train_end()
    told = [str(warning.message) for warning in caught if issubclass(warning.category, PosteriorWarning)]
    assert told == [finding.message for finding in doctor.findings]
    return doctor, told


def test_nothing_is_said_of_a_healthy_posterior():
    model = make({"name": "normal", "scale": 0.5, "empirical_bayes": True})
    x, y = np.zeros((4, INPUTS)), np.zeros(4, int)
    for epochs in (1, 5):
        doctor, told = examine(model, epochs, validation_data=(x, y))
        assert told == doctor.findings == []


def test_a_collapsed_layer_is_named_with_its_numbers_and_the_mend():
    model = make()
    set_posterior(model.network.get_layer("hidden"), 0.001, 0.5)
    doctor, (message,) = examine(model, epochs=6)
    (finding,) = doctor.findings
    assert (finding.kind, finding.where, finding.epoch) == ("collapsed", "hidden", PATIENCE)
    assert "'hidden' has collapsed to its prior: KL 2e-06 nats per weight" in message
    assert "median |mean| / scale 0.002, and 0.00% of its 600 weights" in message
    assert "linear_warmup" in message


@pytest.mark.parametrize(
    ("loc", "scale", "numbers"),
    [
        (1.0, 0.005, r"median scale 0.005, 0.01 of the prior's, median |mean| / scale 200."),
        (0.01, 0.0005, r"median scale 0.0005, 0.001 of the prior's, median |mean| / scale 20."),
    ],
    ids=["relative to the means", "relative to the prior"],
)
def test_a_posterior_that_is_nearly_a_point_is_named(loc, scale, numbers):
    model = make()
    set_posterior(model.network.get_layer("logits"), loc, scale)
    doctor, (message,) = examine(model)
    assert [(finding.kind, finding.where) for finding in doctor.findings] == [("near_delta", "logits")]
    assert numbers in message
    assert "Raise beta" in message


@pytest.mark.parametrize(("loc", "scale", "share"), [(1.0, 0.005, "0.01"), (0.01, 0.0005, "0.001")])
def test_kept_weights_are_judged_by_their_prior_alone(loc, scale, share):
    model = tfp_bnn.compression.prune(make(), 0.7, scope="layer")
    model.num_examples = 1000
    set_posterior(model.network.get_layer("logits"), loc, scale)
    doctor, (message,) = examine(model)
    assert [(finding.kind, finding.where) for finding in doctor.findings] == [("near_delta", "logits")]
    assert f"{share} of the prior's" in message


def test_a_prior_without_a_variance_is_judged_by_its_scale():
    model = make({"name": "cauchy", "scale": 0.5})
    set_posterior(model.network.get_layer("logits"), 0.01, 0.0005)
    _, (message,) = examine(model)
    assert "0.001 of the prior's" in message


def test_a_posterior_that_is_meant_to_be_a_point_is_left_alone():
    _, told = examine(make({"name": "normal", "scale": 0.5}, posterior="delta"))
    assert told == []


@pytest.mark.parametrize(
    ("logs", "dominated"),
    [
        ({"nll": 1.0, "kl": 20_000.0, "beta": 1.0}, True),
        # Of little weight, of a network that fits the data, and not known.
        ({"nll": 1.0, "kl": 20_000.0, "beta": 0.1}, False),
        ({"nll": 0.1, "kl": 20_000.0, "beta": 1.0}, False),
        ({}, False),
    ],
)
def test_a_loss_about_the_prior_alone_is_told(logs, dominated):
    doctor, told = examine(make(), logs=logs)
    assert [finding.kind for finding in doctor.findings] == ["kl_dominated"] * dominated
    if dominated:
        assert "beta * kl / N = 1 * 2e+04 / 1000 = 20 nats per example, 20 times the NLL of 1" in told[0]
        assert "the 1.1 of guessing" in told[0]


def test_a_prior_scale_at_its_bound_is_told():
    model = make({"name": "normal", "scale": 0.5, "empirical_bayes": True})
    weight = model.network.get_layer("hidden").variational_weights["kernel"]
    weight.assign_parameters({**weight.parameters(), "prior_scale": np.float32(0.0011)})
    doctor, told = examine(model)
    assert [(finding.kind, finding.where) for finding in doctor.findings] == [("prior_scale_at_bound", "hidden/kernel")]
    assert "is 0.0011, next to its floor of 0.001" in told[0]


def test_the_fixed_scales_of_an_informed_prior_are_no_learned_ones():
    model = make({"name": "informed", "initial_scale": 0.001})
    assert learned_prior_scales(model) == {}


@pytest.mark.parametrize(("alive", "told"), [(0.0011, True), (0.5, False)])
def test_scales_of_groups_are_told_when_all_are_at_their_bound(alive, told):
    model = make({"name": "normal", "scale": 0.5, "empirical_bayes": True, "groups": "outputs"})
    weight = model.network.get_layer("hidden").variational_weights["kernel"]
    values = weight.parameters()
    scales = np.full_like(values["prior_scale"], 0.0011)
    scales.flat[0] = alive
    weight.assign_parameters({**values, "prior_scale": scales})
    doctor, _ = examine(model)
    assert [finding.where for finding in doctor.findings] == ["hidden/kernel"] * told


def test_scales_of_groups_that_are_pruned_are_not_among_the_learned_ones():
    layer = tfp_bnn.layers.DenseFlipout(
        3,
        use_bias=False,
        kernel_prior={"name": "normal", "scale": 0.5, "empirical_bayes": True, "groups": "inputs"},
        kernel_posterior={"name": "mean_field_normal", "pruned": True},
        name="hidden",
    )
    model = tfp_bnn.VariationalSequential([keras.Input((2,)), layer])
    weight = layer.variational_weights["kernel"]
    values = {**weight.parameters(), "prior_scale": np.array([[0.5], [0.25]], np.float32)}
    weight.assign_parameters({**values, "mask": np.array([[0, 0, 0], [0, 1, 0]], np.float32)})
    np.testing.assert_allclose(learned_prior_scales(model)["hidden/kernel"], [0.25])
    weight.assign_parameters({**values, "mask": np.zeros((2, 3), np.float32)})
    assert learned_prior_scales(model) == {}


def test_a_shared_prior_scale_at_its_bound_is_told_by_its_name():
    model = make({"name": "normal", "scale": 0.0015, "empirical_bayes": True, "shared": "all"})
    doctor, _ = examine(model)
    assert ("prior_scale_at_bound", "all") in {(finding.kind, finding.where) for finding in doctor.findings}


def test_too_few_draws_are_told_with_the_number_that_would_do():
    model = make(classes=2)
    set_posterior(model.network.get_layer("logits"), 0.0, 3.0)
    x = np.random.default_rng(0).normal(size=(50, INPUTS)).astype(np.float32)
    y = np.arange(50) % 2
    doctor, told = examine(model, validation_data=(x, y), num_samples=4, tolerance=0.01, seed=1)
    assert [(finding.kind, finding.where) for finding in doctor.findings] == [
        ("too_few_samples", "nll"),
        ("too_few_samples", "accuracy"),
    ]
    samples = model.posterior_predictive(x, num_samples=4, seed=1).samples
    nlls = [tfp_bnn.metrics.nll(y, np.delete(samples, draw, axis=0).mean(axis=0)) for draw in range(4)]
    error = np.sqrt(3 * np.var(nlls))
    found = re.search(r"standard error of (.*) with 4 weight draws, above .* 0.01:.*num_samples=(\d+) or more", told[0])
    assert float(found[1]) == pytest.approx(error, abs=2e-4)
    assert int(found[2]) == pytest.approx(4 * (error / 0.01) ** 2, rel=1e-3)
    assert examine(model, validation_data=(x, y), num_samples=4, tolerance=10.0)[1] == []


def test_findings_must_last_and_are_said_once():
    model = make()
    hidden = model.network.get_layer("hidden")
    sound = hidden.variational_weights["kernel"].parameters()
    doctor = PosteriorDoctor(patience=2)
    doctor.set_model(model)
    doctor.on_train_begin()
    for epoch in range(4):
        # Every other epoch only.
        set_posterior(hidden, 0.001, 0.5)
        if epoch % 2:
            hidden.variational_weights["kernel"].assign_parameters(sound)
        doctor.on_epoch_end(epoch, HEALTHY)
    assert doctor.findings == []
    set_posterior(hidden, 0.001, 0.5)
    doctor.on_epoch_end(4, HEALTHY)
    with pytest.warns(PosteriorWarning, match="'hidden' has collapsed"):
        doctor.on_epoch_end(5, HEALTHY)
    # A second warning would be an error.
    doctor.on_epoch_end(6, HEALTHY)
    assert [finding.epoch for finding in doctor.findings] == [6]


@pytest.mark.parametrize("resumed", [False, True])
def test_epochs_are_counted_over_all_calls_of_fit_and_over_a_resume(resumed):
    model, doctor = make(), PosteriorDoctor(patience=2)
    set_posterior(model.network.get_layer("hidden"), 0.001, 0.5)

    def epoch(doctor):
        doctor.set_model(model)
        doctor.on_train_begin()
        doctor.on_epoch_end(0, HEALTHY)

    def resume(doctor):
        fresh = PosteriorDoctor(patience=2)
        fresh.set_model(model)
        fresh.restore_arrays(doctor.state_arrays())
        return fresh

    epoch(doctor)
    doctor = resume(doctor) if resumed else doctor
    with pytest.warns(PosteriorWarning, match="'hidden' has collapsed"):
        epoch(doctor)
    # A second warning would be an error.
    doctor = resume(doctor) if resumed else doctor
    epoch(doctor)
    assert [finding.kind for finding in doctor.findings] == ["collapsed"]
    # What was said of a model says nothing of another.
    model = make()
    set_posterior(model.network.get_layer("hidden"), 0.001, 0.5)
    epoch(doctor)
    assert [finding.kind for finding in doctor.findings] == ["collapsed"]
    with pytest.warns(PosteriorWarning, match="'hidden' has collapsed"):
        epoch(doctor)
    for _ in range(2):
        with pytest.warns(PosteriorWarning, match="'hidden' has collapsed"):
            assert len(doctor.examine(model)) == 1


def test_each_examination_that_fails_is_told_once_and_keeps_its_counts(monkeypatch):
    model, doctor = make(), PosteriorDoctor(patience=2)
    set_posterior(model.network.get_layer("hidden"), 0.001, 0.5)
    doctor.set_model(model)
    doctor.on_train_begin()
    doctor.on_epoch_end(0, HEALTHY)

    def fail(model):
        raise RuntimeError("no pulse")

    with monkeypatch.context() as patch:
        patch.setattr(posterior_doctor, "layer_posteriors", fail)
        with pytest.warns(UserWarning, match=r"could not examine .* RuntimeError: no pulse. Training continues"):
            doctor.on_epoch_end(1, HEALTHY)
    with pytest.warns(PosteriorWarning, match="'hidden' has collapsed"):
        doctor.on_epoch_end(2, HEALTHY)
    monkeypatch.setattr(posterior_doctor, "natural_gradient_of", fail)
    with pytest.warns(UserWarning, match=r"could not examine the model: RuntimeError: no pulse\.$"):
        doctor.on_train_end()
    # A second warning would be an error.
    doctor.on_train_end()


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`num_samples` must be an integer >= 2, but got 1"):
        PosteriorDoctor(num_samples=1)
    with pytest.raises(ValueError, match="`tolerance` of PosteriorDoctor must be a finite number larger than 0"):
        PosteriorDoctor(tolerance=0)
