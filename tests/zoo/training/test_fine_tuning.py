"""Fine-tuning: what the posterior of one model does for the next."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

import tfp_bnn
import zoo
from tfp_bnn.models.weight_record import weight_distributions

from .fine_tuning_parts import DIABETES, KEEP, LENET, MLP, QUICK, prior_specs


def everything(model):
    return [np.array(variable.numpy()) for variable in [*model.variables, *model.noise_variables.values()]]


def test_the_body_gets_the_inflated_posterior_and_the_head_a_prior_of_its_own(fine_tuned):
    known = weight_distributions(zoo.load_model(MLP))
    found = weight_distributions(fine_tuned.model)
    for layer in ("dense1", "dense2"):
        np.testing.assert_array_equal(found[f"{layer}/kernel/prior_loc"], known[f"{layer}/kernel/loc"])
        np.testing.assert_allclose(
            found[f"{layer}/kernel/prior_scale"], 10.0 * known[f"{layer}/kernel/scale"], rtol=1e-6
        )
    np.testing.assert_array_equal(found["logits/kernel/prior_loc"], np.zeros((64, 10)))
    np.testing.assert_array_equal(found["logits/kernel/prior_scale"], np.full((64, 10), 0.5, np.float32))
    assert {spec.mix for spec in prior_specs(fine_tuned.model)} == {0.0}
    # Frozen, against learned.
    np.testing.assert_array_equal(found["dense1/kernel/loc"], known["dense1/kernel/loc"])
    np.testing.assert_array_equal(found["dense1/bias"], known["dense1/bias"])
    np.testing.assert_allclose(found["dense1/kernel/scale"], known["dense1/kernel/scale"], rtol=1e-6)
    assert (found["dense2/kernel/loc"] != known["dense2/kernel/loc"]).mean() > 0.9
    assert (fine_tuned.inflate, fine_tuned.head_scale, fine_tuned.candidates) == (10.0, 0.5, [])
    assert fine_tuned.model.num_examples == 1149
    assert fine_tuned.metrics["test"]["accuracy"] > 0.15


@pytest.mark.slow
def test_the_source_stays_as_it_is(few):
    source = zoo.load_model(MLP)
    source.calibration = "temperature"
    before = everything(source)
    done = zoo.fine_tune(source, few, **KEEP)
    tuned = done.model
    for one, other in zip(before, everything(source), strict=True):
        np.testing.assert_array_equal(one, other)
    assert source.calibration is not None
    assert tuned.calibration is None
    assert not source.compiled
    assert {id(v) for v in tuned.variables}.isdisjoint(id(v) for v in source.variables)
    # A head that is kept is informed like the body.
    known, found = weight_distributions(source), weight_distributions(tuned)
    for layer in ("dense1", "dense2", "logits"):
        np.testing.assert_array_equal(found[f"{layer}/kernel/prior_loc"], known[f"{layer}/kernel/loc"])
        assert (found[f"{layer}/kernel/loc"] != known[f"{layer}/kernel/loc"]).mean() > 0.5
    assert (done.inflate, done.head_scale) == (2.0, None)
    assert tuned.architecture.config.num_outputs == 10


def test_another_prior_changes_the_prior_and_keeps_the_start(source, few, untrained):
    known = weight_distributions(source)
    prior = tfp_bnn.priors.Laplace(0.3)
    for wanted in (prior, {"name": "laplace", "scale": 0.3}):
        done = zoo.fine_tune(source, few, prior=wanted, head="keep")
        assert prior_specs(done.model) == {prior}
        for name, value in weight_distributions(done.model).items():
            np.testing.assert_allclose(value, known[name], rtol=1e-5)
    assert (done.inflate, done.head_scale, done.candidates) == (None, None, [])
    assert untrained == [30, 30]
    # Several thousand weights, and not one of the old head's.
    new = zoo.fine_tune(source, few, prior="normal").model
    assert (weight_distributions(new)["logits/kernel/loc"] != known["logits/kernel/loc"]).all()


def test_the_default_prior_is_that_of_the_source_and_is_learned_again(few, untrained):
    source = zoo.load_model(LENET)
    done = zoo.fine_tune(source, few, prior="default", steps=5)
    assert prior_specs(done.model) == prior_specs(source)
    assert (done.inflate, done.head_scale) == (None, None)
    # Empirical Bayes begins where it began for the source.
    start = source.variational_layers[0].variational_weights["kernel"].prior_spec.scale
    assert weight_distributions(done.model)["dense1/kernel/prior_scale"] == pytest.approx(start, rel=1e-5)
    assert weight_distributions(source)["dense1/kernel/prior_scale"] != pytest.approx(start, rel=1e-2)


@pytest.mark.parametrize(
    ("labels", "classes"), [([0, 1, 2, 3, 4], 5), ([0, 0], 2), ([0, 11], 12), (np.eye(7), 7), ([[2], [3]], 4)]
)
def test_a_new_head_has_as_many_outputs_as_the_labels_need(source, few, untrained, labels, classes):
    done = zoo.fine_tune(source, (few[0][: len(labels)], np.array(labels)), **QUICK)
    assert done.model.output_shape == (None, classes)


@pytest.mark.slow
def test_images_of_another_size_are_resized_and_rescaled_within_the_model(digits):
    x, y = digits.train.x[:12], digits.train.y[:12]
    # As large as those of MNIST, with as many levels.
    large = np.pad(np.kron(x, np.ones((1, 3, 3, 1))), [(0, 0), (2, 2), (2, 2), (0, 0)])
    large = (large * 255 / 16).astype(np.uint8)
    done = zoo.fine_tune(LENET, (large, y), adapt_inputs=True, **QUICK)
    config = done.model.architecture.config
    assert (config.input_shape, config.resize, config.pixel_max) == ((28, 28, 1), (28, 28), 255.0)
    predicted = done.model.posterior_predictive(large, num_samples=4).mean()
    assert predicted.shape == (12, 10)
    np.testing.assert_allclose(predicted.sum(axis=1), 1.0, rtol=1e-5)
    assert done.model.network.get_layer("rescale").scale == pytest.approx(1 / 255)


def test_what_fits_already_is_not_adapted(few, untrained):
    darker = few[0] * 15 / 16
    assert zoo.fine_tune(LENET, (darker, few[1]), adapt_inputs=True, **QUICK).model.architecture.config.pixel_max == 16
    brighter = few[0] / 16
    assert zoo.fine_tune(LENET, (brighter, few[1]), adapt_inputs=True, **QUICK).model.architecture.config.pixel_max == 1


def test_a_regression_is_kept_with_its_units_or_gets_those_of_new_targets(untrained):
    # Files may have long names, and their models are named after them.
    data = dataclasses.replace(zoo.load_dataset("diabetes"), name="Flats, " * 20)
    source = zoo.load_model(DIABETES)
    done = zoo.fine_tune(source, data, measure=False, **KEEP)
    assert re.fullmatch("mlp_flipout.(flats_){10}tuned", done.recipe.name)
    kept = done.model
    assert kept.architecture.config.target_mean == source.architecture.config.target_mean
    learned = weight_distributions(source)["likelihood/scale"]
    np.testing.assert_allclose(weight_distributions(kept)["likelihood/scale"], learned, rtol=1e-6)
    two = np.concatenate([data.train.y / 100, 7 - data.train.y], axis=1)
    config = zoo.fine_tune(source, (data.train.x, two), **QUICK).model.architecture.config
    assert config.num_outputs == 2
    np.testing.assert_allclose(config.target_mean, two.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(config.target_variance, two.var(axis=0), rtol=1e-5)
    assert config.likelihood["initial_scale"] == pytest.approx(np.sqrt(two.var(axis=0).mean()), rel=1e-5)
    assert config.input_mean == source.architecture.config.input_mean


@pytest.mark.slow
def test_a_regression_learns_and_is_measured():
    done = zoo.fine_tune(DIABETES, zoo.load_dataset("diabetes"), **KEEP)
    assert done.metrics["test"]["rmse"] < 70
    assert done.metrics["training_seeds"] == [0]


def test_groups_are_informed_too(untrained):
    rows = zoo.load_dataset("rotated_moons").train
    source = zoo.load_model("hierarchical_mlp.rotated_moons")
    done = zoo.fine_tune(source, (rows.x, rows.y), **KEEP)
    known, found = weight_distributions(source), weight_distributions(done.model)
    for name in [name for name in known if name.endswith("/loc")]:
        np.testing.assert_array_equal(found[name.replace("/loc", "/prior_loc")], known[name])
