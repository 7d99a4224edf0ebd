"""Networks that work with standardized targets predict in units of the target, whatever their likelihood."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import zoo
from tfp_bnn.likelihoods import LIKELIHOODS
from zoo.architectures.moments import column_moments
from zoo.training.adaptation import adapted_config
from zoo.training.by_recipe import build
from zoo.training.planning import divergence
from zoo.training.user_data import dataset_from

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 3)).astype(np.float32)
# Far from 0, with noise that grows with the first column.
Y = (150.0 + 70.0 * X[:, :1] + 20.0 * np.exp(0.5 * X[:, :1]) * RNG.normal(size=(200, 1))).astype(np.float32)
TWO = np.concatenate([Y, 0.01 * X[:, 1:2] - 5.0], axis=1)
RECIPE = {
    "name": "mlp_flipout.tiny",
    "architecture": "mlp_flipout",
    "standardize_inputs": True,
    "standardize_targets": True,
    "optimizer": {"learning_rate": 3e-2},
    "batch_size": 40,
    "epochs": 30,
    "evaluation": {"num_samples": 10, "spread_seeds": []},
}
PER_EXAMPLE = [
    ({"name": "normal", "scale": "per_example"}, Y),
    ({"name": "normal", "scale": "per_example"}, TWO),
    ({"name": "laplace", "scale": "per_example"}, Y),
    ({"name": "student_t", "scale": "per_example"}, Y),
    ({"name": "mixture_normal", "num_components": 2}, Y),
    ("multivariate_normal", TWO),
]
LEARNED = [("laplace", Y), ({"name": "student_t", "df": "learned"}, Y)]


def recipe_of(likelihood, **changes):
    return zoo.load_recipe({**RECIPE, "model": {"hidden": [8], "likelihood": likelihood}, **changes})


@pytest.mark.parametrize(("likelihood", "y"), PER_EXAMPLE)
def test_the_outputs_are_those_of_the_network_in_units_of_the_target(likelihood, y):
    data = dataset_from((X, y))
    model = build(recipe_of(likelihood), data)
    train = data.train.y.astype(np.float64)
    known = LIKELIHOODS.get(likelihood)
    outputs = np.random.default_rng(1).normal(size=(5, model.output_shape[-1])).astype(np.float32)
    end = keras.Model(model.get_layer("logits").output, model.outputs[0])
    expected = known.in_target_units(outputs, train.mean(axis=0).tolist(), train.std(axis=0).tolist())
    np.testing.assert_allclose(end(outputs), expected, rtol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize(("likelihood", "y"), [*PER_EXAMPLE, *LEARNED])
def test_a_recipe_with_standardized_targets_is_trained_measured_saved_and_loaded(likelihood, y, tmp_path):
    run = zoo.train(recipe_of(likelihood), tmp_path / "model", data=(X, y), test_data=(X, y))
    predictive = run.model.posterior_predictive(X, num_samples=10)
    noise = np.sqrt(predictive.aleatoric())
    assert (np.abs(predictive.mean() - y).mean(axis=0) < 0.6 * y.std(axis=0)).all()
    assert (noise.mean(axis=0) < 1.5 * y.std(axis=0)).all()
    lower, upper = predictive.interval(0.9)
    assert (((lower <= y) & (y <= upper)).mean(axis=0) > 0.8).all()
    assert np.isfinite(list(run.metrics["test"].values())).all()
    loaded = zoo.load_artifact(run.path, trust=True)
    np.testing.assert_allclose(loaded.posterior_predictive(X, num_samples=10).mean(), predictive.mean(), rtol=1e-4)


def test_a_learned_scale_starts_at_that_of_the_targets():
    data = dataset_from((X, Y))
    for likelihood in ("laplace", {"name": "student_t", "df": 5.0}, "normal"):
        model = build(recipe_of(likelihood), data)
        found = model.likelihood.parameters(model.likelihood_weights)["scale"]
        np.testing.assert_allclose(found, data.train.y.std(), rtol=1e-4)
    told = build(recipe_of({"name": "laplace", "initial_scale": 3.0}), data)
    assert told.likelihood.initial_scale == 3.0
    # One column far from another does not make the scale larger.
    data = dataset_from((X, TWO))
    joint = {"name": "multivariate_normal", "scale_tril": "learned", "num_targets": 2}
    for recipe in (recipe_of(joint), recipe_of(None, model={"hidden": [8]})):
        found = build(recipe, data).likelihood.initial_scale
        assert found == pytest.approx(np.sqrt(data.train.y.var(axis=0).mean()), rel=1e-4)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_columns_of_small_units_are_standardized_like_others(policy):
    """Keras divides by at least 1e-7. Farads and metres have smaller columns."""
    mean, variance = np.array([3e-9, 5.0]), np.array([1e-18, 4.0])
    moments = {"input": (mean, variance), "target": (2 * mean, variance)}
    of_config = {
        f"{name}_{what}": tuple(values)
        for name, both in moments.items()
        for what, values in zip(("mean", "variance"), both, strict=True)
    }
    keras.config.set_dtype_policy(policy)
    try:
        model = zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=2, likelihood="normal", **of_config)
    finally:
        keras.config.set_dtype_policy("float32")
    inside = np.random.default_rng(3).integers(-8, 8, size=(5, 2)) / 8
    standardized = keras.Model(model.inputs[0], model.get_layer("standardize").output)
    np.testing.assert_allclose(standardized(mean + inside * np.sqrt(variance)), inside, rtol=1e-2, atol=1e-2)
    end = keras.Model(model.get_layer("logits").output, model.outputs[0])
    np.testing.assert_allclose(end(inside), 2 * mean + inside * np.sqrt(variance), rtol=1e-2)


def test_markers_of_missing_targets_are_no_data():
    """Neither in the standardization, nor in the initial noise, nor in what one prediction for all inputs has."""
    there = np.random.default_rng(2).random(size=TWO.shape) > 0.3
    marked, likelihood = np.where(there, TWO, np.float32(-999)), {"name": "normal", "missing": -999}
    data = dataset_from((X, marked), (X, marked))
    model = build(recipe_of(likelihood), data)
    config, known = model.architecture.config, [TWO[there[:, target], target] for target in range(2)]
    np.testing.assert_allclose(config.target_mean, [y.mean() for y in known], rtol=1e-5)
    np.testing.assert_allclose(config.target_variance, [y.var() for y in known], rtol=1e-4)
    scale = np.sqrt(np.mean([y.var() for y in known]))
    assert model.likelihood.initial_scale == pytest.approx(scale, rel=1e-4)
    entropies = [0.5 * np.log(2 * np.pi * np.e * y.var()) * len(y) / len(Y) for y in known]
    assert f"one prediction for all inputs has {sum(entropies):.3f}" in divergence(1e3, data, model.likelihood)
    adapted = adapted_config(model.architecture, data, X, marked, "new", "normal", False, False)
    assert adapted.target_variance == config.target_variance


def test_a_target_of_which_all_are_missing_is_not_scaled():
    known = LIKELIHOODS.get({"name": "normal", "missing": "nan"})
    y = np.array([[1.0, np.nan], [3.0, np.nan]])
    assert column_moments(y, known) == ((2.0, 0.0), (1.0, 1.0))


@pytest.mark.parametrize(
    ("likelihood", "y", "message"),
    [
        ("poisson", np.round(np.abs(Y)), "are counts, which are whole numbers and cannot be standardized"),
        ({"name": "negative_binomial", "dispersion": "per_example"}, np.round(np.abs(Y)), "are counts"),
        ({"name": "ordinal", "num_classes": 4}, np.arange(200) % 4, "are classes, which cannot be standardized"),
        (PER_EXAMPLE[0][0], 1e-12 * Y, r"deviation of \d.*e-11, .* at least 1e-06\. Give the targets a smaller unit"),
    ],
)
def test_targets_without_a_unit_or_of_too_large_a_unit_are_refused(likelihood, y, message):
    with pytest.raises(ValueError, match=message):
        zoo.train(recipe_of(likelihood), data=(X, y))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("likelihood", "y"),
    [
        ("poisson", RNG.poisson(np.exp(1.0 + 0.5 * X[:, 0]))),
        pytest.param("negative_binomial", RNG.poisson(np.exp(1.0 + 0.5 * X[:, 0])), marks=pytest.mark.thorough),
        ({"name": "ordinal", "num_classes": 4}, np.clip(np.round(X[:, 0] + 1.5), 0, 3).astype(int)),
    ],
)
def test_counts_and_ordered_classes_are_trained_by_a_recipe(likelihood, y, tmp_path):
    recipe = recipe_of(likelihood, standardize_targets=False, epochs=10)
    run = zoo.train(recipe, tmp_path / "model", data=(X, y), test_data=(X, y))
    predictive = run.model.posterior_predictive(X, num_samples=10)
    assert np.isfinite(list(run.metrics["test"].values())).all()
    assert predictive.log_prob(y).mean() > -3.0
    loaded = zoo.load_artifact(run.path, trust=True)
    np.testing.assert_allclose(loaded.posterior_predictive(X, num_samples=10).mean(), predictive.mean(), rtol=1e-4)
