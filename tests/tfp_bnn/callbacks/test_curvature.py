"""What the callbacks show of a natural gradient: the curvature, the rates, and that the scales have not converged."""

from __future__ import annotations

import re
import warnings

import keras
import numpy as np
import pytest
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

import tfp_bnn
from tfp_bnn.callbacks import BayesianTensorBoard, PosteriorDoctor, PosteriorWarning
from tfp_bnn.callbacks.board.tags import TAGS
from tfp_bnn.callbacks.curvature import layer_curvatures
from tfp_bnn.layers import DenseReparameterization

X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
Y = np.arange(20) % 2
BETA, TEMPERATURE, PRIOR_SCALE = 0.5, 0.2, 0.8
SCHEDULE = keras.optimizers.schedules.CosineDecay


def network(optimizer, prior=None, posterior="mean_field_normal"):
    prior = prior or {"name": "normal", "scale": PRIOR_SCALE}
    hidden = DenseReparameterization(4, name="hidden", kernel_prior=prior, kernel_posterior=posterior)
    layers = [keras.Input((3,)), hidden, DenseReparameterization(2, name="logits")]
    schedule = {"name": "constant", "beta": BETA}
    model = tfp_bnn.VariationalSequential(layers, beta_schedule=schedule, seed=0)
    model.compile(optimizer, run_eagerly=True)
    return model


def fit(model, epochs=2, callbacks=()):
    return model.fit(X, Y, batch_size=10, epochs=epochs, verbose=0, callbacks=list(callbacks))


def findings(model, epochs=2):
    doctor = PosteriorDoctor()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PosteriorWarning)
        fit(model, epochs, [doctor])
    return [finding for finding in doctor.findings if finding.kind == "unconverged_curvature"]


@pytest.mark.parametrize(("prior", "deviation"), [("normal", PRIOR_SCALE), ("laplace", PRIOR_SCALE * 2**0.5)])
def test_the_curvature_is_what_the_precision_has_above_that_of_the_prior(prior, deviation):
    """scale^2 = 1 / (lambda (h + delta)), delta = beta / (N prior_scale^2), and 0 for a scale beyond the prior's."""
    model = network(tfp_bnn.NaturalGradient(temperature=TEMPERATURE), {"name": prior, "scale": PRIOR_SCALE})
    assert layer_curvatures(model) == {}
    fit(model, epochs=1)
    weight = model.variational_layers[0].variational_weights["kernel"]
    scale = np.full((3, 4), 0.1)
    scale[0, 0] = 5.0
    weight.assign_parameters({"loc": np.zeros((3, 4)), "scale": scale})
    found = layer_curvatures(model)["hidden"]
    delta = BETA / 20 / deviation**2
    h = np.maximum(BETA * TEMPERATURE / 20 / scale.ravel() ** 2 - delta, 0.0)
    np.testing.assert_allclose(found.of_prior, np.full(12, delta), rtol=1e-5)
    np.testing.assert_allclose(found.of_data, h, rtol=1e-4)
    assert found.determined == pytest.approx(11 * h[1] / (h[1] + delta), rel=1e-5)
    assert found.median_ratio == pytest.approx(h[1] / delta, rel=1e-4)


def test_the_scale_of_an_informed_prior_counts_weight_by_weight():
    model = network(tfp_bnn.NaturalGradient(), "informed")
    weight = model.variational_layers[0].variational_weights["kernel"]
    scales = np.linspace(0.2, 2.0, 12).reshape(3, 4)
    start = {"loc": np.zeros((3, 4)), "scale": np.full((3, 4), 0.1)}
    weight.assign_parameters({**start, "prior_loc": np.zeros((3, 4)), "prior_scale": scales})
    fit(model, epochs=1)
    np.testing.assert_allclose(layer_curvatures(model)["hidden"].of_prior, BETA / 20 / scales.ravel() ** 2, rtol=1e-5)


def test_pruned_weights_have_no_curvature():
    model = tfp_bnn.compression.prune(network("adam"), 0.5, scope="layer")
    model.compile(tfp_bnn.NaturalGradient(), run_eagerly=True)
    fit(model, epochs=1)
    weight = model.variational_layers[0].variational_weights["kernel"]
    found = layer_curvatures(model)["hidden"]
    delta = BETA / 20 / PRIOR_SCALE**2
    np.testing.assert_allclose(found.of_prior, np.full(6, delta), rtol=1e-5)
    precision = BETA / 20 / weight.variance.numpy()[weight.kept]
    np.testing.assert_allclose(found.of_data, np.maximum(precision - delta, 0), rtol=1e-4)


def test_frozen_scales_and_other_optimizers_have_no_curvature():
    model = network(tfp_bnn.NaturalGradient(), posterior={"name": "mean_field_normal", "trainable": "loc"})
    fit(model, epochs=1)
    assert list(layer_curvatures(model)) == ["logits"]
    model = network("adam")
    fit(model, epochs=1)
    assert layer_curvatures(model) == {}


# === PosteriorDoctor ===


def test_scales_that_remember_their_start_are_told_at_the_end():
    """0.9^4 of the curvature, after 4 steps."""
    (finding,) = findings(network(tfp_bnn.NaturalGradient(curvature_rate=0.1)))
    assert (finding.where, finding.epoch) == ("", 2)
    numbers = r"after 4 steps, 66% of the .* determine (\d+) of 20 weights.* h / delta of ([\d.e+]+)\. .* 0.75"
    determined, ratio = re.search(numbers, finding.message).groups()
    assert 15 <= int(determined) <= 20
    # The start: the scale of 0.05 is 1 / 16 of the prior's, or 1 / 20.
    assert 100 < float(ratio) < 400


def test_a_schedule_counts_step_by_step():
    """The cosine from 0.9: rates 0.9, 0.77, 0.45, 0.13, so 1 % is left; from 0.4 it is 24 %."""
    rates = 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4))
    for start, told in ((0.9, False), (0.4, True)):
        model = network(tfp_bnn.NaturalGradient(curvature_rate=SCHEDULE(start, 4)))
        assert bool(findings(model)) is told
        assert model.optimizer.share_of_start() == pytest.approx(np.prod(1 - start * rates), rel=1e-5)


def test_nothing_is_told_of_other_optimizers():
    assert findings(network("adam"), epochs=1) == []


# === BayesianTensorBoard ===


def test_the_board_shows_curvature_and_rates(tmp_path, read_run):
    model = network(tfp_bnn.NaturalGradient(SCHEDULE(0.1, 8), SCHEDULE(0.2, 8), temperature=TEMPERATURE))
    fit(model, callbacks=[BayesianTensorBoard(tmp_path)])
    train = read_run(tmp_path, "train")
    for name, layer in layer_curvatures(model).items():
        assert train.last(f"curvature/{name}/determined") == pytest.approx(layer.determined, rel=1e-5)
        assert train.last(f"curvature/{name}/h_to_delta") == pytest.approx(layer.median_ratio, rel=1e-5)
    rates = {"temperature": BETA * TEMPERATURE, "learning_rate": 0.05, "curvature_rate": 0.1}
    for name, value in rates.items():
        assert train.last(f"natural_gradient/{name}") == pytest.approx(value, rel=1e-5)
    # No tag that the table does not list.
    families = {tag.pattern for tag in TAGS if tag.pattern.startswith(("curvature/", "natural_gradient/"))}
    found = {re.sub("hidden|logits", "<layer>", tag) for tag in train.values}
    assert {tag for tag in found if tag.startswith(("curvature/", "natural_gradient/"))} == families
    layout = Layout.FromString(read_run(tmp_path)["custom_scalars__config__"][0].item())
    assert "weights that the data determine" in {chart.title for chart in layout.category[-1].chart}
