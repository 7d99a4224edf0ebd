"""Recipes with `optimizer: {name: natural_gradient}`: what they build, what they refuse, and that a run is resumed."""

from __future__ import annotations

import numpy as np
import pytest

import tfp_bnn
import zoo
from tfp_bnn.models.training_state import training_state
from zoo.evaluation.verification import Status
from zoo.hub.reading import read_artifact
from zoo.recipes import change_recipe, load_recipe, recipe_text
from zoo.training.by_recipe import build

NATURAL = {"name": "natural_gradient", "learning_rate": 0.05, "natural_gradient": {"curvature_rate": 0.01}}


def test_a_recipe_builds_the_optimizer_with_a_decaying_companion(tiny):
    own = {"curvature_rate": 0.05, "momentum": 0.5, "temperature": 0.2, "companion_learning_rate": 0.25}
    recipe = load_recipe({**tiny.recipe, "optimizer": {**NATURAL, "natural_gradient": own}})
    assert load_recipe(change_recipe(recipe, {}).model_dump(mode="json")) == recipe
    optimizer = build(recipe, zoo.load_dataset("iris")).optimizer
    assert isinstance(optimizer, tfp_bnn.NaturalGradient)
    found = (optimizer.curvature_rate, optimizer.momentum, optimizer.temperature)
    assert found == (0.05, 0.5, 0.2)
    assert float(optimizer.learning_rate) == pytest.approx(0.05)
    assert float(optimizer.companion.learning_rate) == pytest.approx(0.25)
    # 3 steps in each of 2 epochs.
    optimizer.companion.build([])
    optimizer.companion.iterations.assign(3)
    assert float(optimizer.companion.learning_rate) == pytest.approx(0.125)


def test_an_initial_precision_is_that_of_the_first_scales(tiny):
    """P = 1 / (lambda scale^2), with lambda = N / (beta T)."""
    how = {**NATURAL, "natural_gradient": {"initial_precision": 0.5, "temperature": 0.2}}
    network = build(load_recipe({**tiny.recipe, "optimizer": how, "beta": 0.3}), zoo.load_dataset("iris"))
    (scale,) = {float(s) for s in network.variational_layers[0].kernel_posterior.stddev().numpy().ravel()}
    assert 0.3 * 0.2 / (96 * scale**2) == pytest.approx(0.5, rel=1e-5)


def test_a_learning_rate_rises_before_it_decays(tiny):
    how = {"name": "sgd", "learning_rate": 0.4, "learning_rate_warmup": 1 / 3}
    optimizer = build(load_recipe({**tiny.recipe, "optimizer": how}), zoo.load_dataset("iris")).optimizer
    rates = [float(optimizer._learning_rate(step)) for step in range(7)]
    # 3 steps in each of 2 epochs: two of them rise, four decay along half a cosine.
    np.testing.assert_allclose(rates, [0, 0.2, 0.4, 0.341421, 0.2, 0.058579, 0], atol=1e-6)
    with pytest.raises(ValueError, match="learning_rate_warmup is for decay: cosine only"):
        load_recipe({**tiny.recipe, "optimizer": {**how, "decay": None}})


def test_sgd_has_a_momentum(tiny):
    recipe = load_recipe({**tiny.recipe, "optimizer": {"name": "sgd", "momentum": 0.9}})
    optimizer = build(recipe, zoo.load_dataset("iris")).optimizer
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, True)
    assert "momentum" not in recipe_text(load_recipe(tiny.recipe))


def test_recipes_of_other_optimizers_are_written_as_before(tiny):
    """Runs that began before there was a natural gradient have the same settings, and can be resumed."""
    text = recipe_text(load_recipe(tiny.recipe))
    assert "natural_gradient" not in text
    assert "warmup" not in text.replace("\nwarmup", "")


def test_the_inference_natural_gradient_is_short_for_the_optimizer_without_warm_up(tiny):
    without = {key: value for key, value in tiny.recipe.items() if key != "warmup"}
    short = load_recipe({**without, "inference": "natural_gradient", "optimizer": {"decay": None}})
    long = load_recipe({**without, "optimizer": {"name": "natural_gradient", "learning_rate": 0.02, "decay": None}})
    assert short == long
    assert (short.inference, short.warmup, short.optimizer.natural_gradient.momentum) == ("variational", 0.0, 0.9)
    assert load_recipe(without).warmup == 0.2


@pytest.mark.parametrize("estimator", ["reparameterization", "flipout", "grouped"])
def test_every_estimator_of_an_architecture_can_be_trained(steps_run_eagerly, estimator):
    """Convolutions and dense layers; of the scales, none stays where it was."""
    model = {"estimator": estimator, "groups_of_noise": 2, "pixel_max": 16.0, "resize": [12, 12]}
    recipe = load_recipe(
        {
            "name": "lenet5_flipout.tiny",
            "architecture": "lenet5_flipout",
            "dataset": "digits",
            "model": {**model, "widths": [2, 2, 4, 4], "kernel_prior": {"name": "normal", "empirical_bayes": True}},
            "inference": "natural_gradient",
        }
    )
    data = zoo.load_dataset("digits")
    network = build(recipe, data)
    weights = [layer.variational_weights["kernel"] for layer in network.variational_layers]
    before = [weight.parameters() for weight in weights]
    network.fit(data.train.x[:8], data.train.y[:8], batch_size=8, verbose=0)
    for old, weight in zip(before, weights, strict=True):
        new = weight.parameters()
        assert (old["scale"] != new["scale"]).all()
        assert old["prior_scale"] != new["prior_scale"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"inference": "natural_gradient", "optimizer": {"name": "adam"}},
            "the optimizer is 'adam'. Set optimizer",
        ),
        ({"optimizer": {"name": "adam", "momentum": 0.9}}, "momentum is for name: sgd only"),
        (
            {
                "optimizer": {**NATURAL, "natural_gradient": {"initial_precision": 0.1}},
                "model": {"hidden": [4], "initial_scale": 0.1},
            },
            "initial_precision and model.initial_scale are two of one thing",
        ),
        ({"warmup": 0.5}, "Set warmup: 0 and a beta above 0"),
        ({"beta": 0.0}, "Set warmup: 0 and a beta above 0"),
        ({"inference": "map"}, "inference: map has no posterior for optimizer: natural_gradient"),
        ({"optimizer": {**NATURAL, "clipnorm": 1.0}}, "clipped gradients have the wrong curvature"),
        ({"optimizer": {**NATURAL, "name": "sgd"}}, "natural_gradient is for name: natural_gradient only"),
        ({"optimizer": {**NATURAL, "natural_gradient": {"momentum": 1.0}}}, "optimizer.natural_gradient.momentum"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(tiny, changes, message):
    with pytest.raises(ValueError, match=message):
        load_recipe({**tiny.recipe, "optimizer": NATURAL, **changes})


@pytest.mark.slow
def test_the_artifact_is_an_ordinary_posterior_and_its_card_names_the_temperature(tiny, tmp_path):
    how = {**NATURAL, "natural_gradient": {"temperature": 0.2}}
    run = zoo.train({**tiny.recipe, "optimizer": how}, tmp_path / "out")
    assert run.metrics["num_samples"] == 2
    line = "- trained along the natural gradient, curvature rate 0.002; a cold posterior, of temperature 0.2"
    assert line in read_artifact(run.path)["card"].splitlines()
    assert {check.status for check in zoo.verify(run.path, full=True)} == {Status.PASSED}


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 4])
def test_a_run_that_was_killed_is_resumed_to_the_same_bits(tiny, folder, tmp_path, step):
    """Within the first epoch of three steps, and within the second; the scale of the prior is learned by Adam."""
    changes = {"optimizer": NATURAL}
    expected, history = tiny.go(tmp_path / "uninterrupted", **changes)
    with pytest.raises(tiny.Killed):
        tiny.go(folder, [tiny.At("on_train_batch_end", step, tiny.die)], **changes)
    resumed, history_of_resumed = tiny.go(folder, resume=True, **changes)
    assert repr(history_of_resumed) == repr(history)
    state, found = training_state(expected), training_state(resumed)
    assert list(found) == list(state)
    assert [name for name in state if found[name].tobytes() != state[name].tobytes()] == []
    assert np.isfinite(history["val_nll"]).all()
