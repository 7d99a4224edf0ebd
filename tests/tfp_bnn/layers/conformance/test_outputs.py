"""The outputs of every case: exactly, with noise that is known, and in distribution, with noise of their own."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfp_bnn.core.noise import Noise, noise_scope
from tfp_bnn.layers import VariationalLayer

from .cases import CASES, FALSE_FAILURE_RATE, Case, by_cost, for_each_case, one_at_a_time
from .reference import (
    Parameters,
    examples_of,
    expected_outputs,
    jacobian,
    moments,
    perturbations,
    randomize,
    sample_noise,
    transform,
)

NUM_DRAWS = 2000
NUM_DRAWS_IF_NOT_NORMAL = 4000
# Of the tests below, each of which has its equal share of the rate for each case.
STATISTICAL_TESTS = 4
# Seeds.
TRAINING, EVALUATION = 1, 2
SHARE = FALSE_FAILURE_RATE / (STATISTICAL_TESTS * len(CASES))


# === Exactly ===


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@for_each_case
def test_outputs_equal_the_formula_of_the_estimator(case, training, injected_noise):
    layer = case.build()
    parameters = randomize(layer)
    inputs = case.inputs()
    with noise_scope({id(layer): injected_noise}):
        outputs = layer(inputs, training=training)
    # Every weight and sign has noise of its own.
    assert set(injected_noise.drawn) == names_of_noise(case, set(layer.variational_weights), training)
    expected = expected_outputs(layer, inputs, parameters, injected_noise.drawn, training)
    assert outputs.shape == expected.shape
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def names_of_noise(case, weights, training):
    """The name of every noise that the estimator needs."""
    if case.posterior == "delta":
        return set()
    if training and case.estimator == "local reparameterization":
        return {"outputs"}
    extra = {"low_rank_normal": ("factor",), "radial": ("radius",)}.get(case.posterior, ())
    of_a_draw = weights | {f"{name}_{part}" for name in weights for part in extra}
    if not training or case.estimator == "reparameterization":
        return of_a_draw
    biases = {name for name in weights if name.endswith("bias")}
    signs = {
        f"{'' if name == 'kernel' else f'{name}_'}{side}_signs"
        for name in weights - biases
        for side in ("input", "output")
    }
    return of_a_draw | signs | ({f"{name}_signs" for name in biases} if case.groups_of_noise else set())


@pytest.mark.parametrize("case", one_at_a_time(case for case in CASES if case.posterior == "delta"), ids=str)
def test_every_draw_of_a_delta_posterior_is_the_mean(case):
    layer = case.build()
    parameters, inputs = randomize(layer), case.inputs()
    mean = at_the_means(layer, inputs, parameters)
    for call, training in itertools.product((layer, tf.function(layer, autograph=False)), (True, False)):
        np.testing.assert_allclose(call(inputs, training=training), mean, rtol=1e-5, atol=1e-5)


# === In distribution ===


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A case with random parameters; its outputs at their means; those of independent draws, `(draws, batch, ...)`."""

    case: Case
    layer: VariationalLayer
    parameters: Parameters
    inputs: Any
    mean: np.ndarray
    training: np.ndarray
    evaluation: np.ndarray


@pytest.fixture(scope="module", params=by_cost(case for case in CASES if case.posterior != "delta"), ids=str)
def drawn(request, draw_outputs) -> Drawn:
    """2,000 draws in each mode, or 4,000 where the outputs are not normal; made once for all tests of a case."""
    case = request.param
    layer = case.build()
    parameters, inputs = randomize(layer), case.inputs()
    num_draws = NUM_DRAWS if case.has_normal_outputs else NUM_DRAWS_IF_NOT_NORMAL
    training = draw_outputs(layer, inputs, num_draws, training=True, seed=TRAINING)
    # Plain reparameterization is the same in both modes, as the tests above show with noise that is known.
    is_plain = case.estimator == "reparameterization"
    evaluation = training if is_plain else draw_outputs(layer, inputs, num_draws, training=False, seed=EVALUATION)
    mean = at_the_means(layer, inputs, parameters)
    return Drawn(case, layer, parameters, inputs, mean, training, evaluation)


def test_compiled_draws_are_the_eager_ones(drawn):
    for training, draws in ((True, drawn.training), (False, drawn.evaluation)):
        seed = TRAINING if draws is drawn.training else EVALUATION
        noise = Noise(tf.constant([seed, 0])).fold_in(0)
        with noise_scope({id(drawn.layer): noise}):
            eager = drawn.layer(drawn.inputs, training=training)
        np.testing.assert_allclose(draws[0], eager, rtol=1e-5, atol=1e-5)


@pytest.mark.statistical
def test_mean_and_variance_of_the_outputs(drawn, assert_moments):
    """2,000 draws against the closed form, or 4,000 against draws in NumPy; false-failure rate 1e-6 over all cases.

    Normal outputs: normal and chi-square quantiles, exact. Others, those of the radial posterior and of products of
    kernels, against as many draws made in NumPy from the definition: see `assert_same_moments`.
    """
    modes = [drawn.training] if drawn.evaluation is drawn.training else [drawn.training, drawn.evaluation]
    if drawn.case.has_normal_outputs:
        mean, variance = moments(drawn.layer, drawn.inputs, drawn.case.posterior, drawn.parameters)
        for draws in modes:
            assert_moments(draws, mean, variance, SHARE / len(modes))
        return
    copies = draws_of_the_definition(drawn, NUM_DRAWS_IF_NOT_NORMAL)
    for draws in modes:
        assert_same_moments(draws, copies, drawn.mean, SHARE / len(modes))


@pytest.mark.statistical
def test_outputs_are_normal(drawn):
    """2,000 draws; false-failure rate 1e-6 over all cases: Kolmogorov-Smirnov for each output.

    So is the noise, end to end, for each output is linear in it.
    """
    if not drawn.case.has_normal_outputs:
        pytest.skip("the outputs of this case are not normal")
    mean, variance = moments(drawn.layer, drawn.inputs, drawn.case.posterior, drawn.parameters)
    for draws in (drawn.training, drawn.evaluation):
        standardized = ((draws - mean) / np.sqrt(variance)).reshape(len(draws), -1)
        for column in standardized.T:
            assert scipy.stats.kstest(column, "norm").pvalue > SHARE / (2 * standardized.shape[1])


@pytest.mark.statistical
def test_draws_do_not_follow_from_each_other(drawn):
    """2,000 draws or more; false-failure rate 1e-6 over all cases, by Hoeffding's inequality.

    Each deviation from the mean is symmetric about 0, so the sign of the product of two in a row is a fair coin.
    """
    if not drawn.case.operation.is_linear:
        pytest.skip("the outputs of this case are not symmetric about their mean")
    for draws in (drawn.training, drawn.evaluation):
        deviations = draws.astype(np.float64) - drawn.mean
        assert_sum_of_fair_signs(deviations[1:] * deviations[:-1], SHARE / 2)


@pytest.mark.statistical
def test_equal_examples_have_the_draws_that_the_estimator_says(drawn):
    """2,000 draws; false-failure rate 1e-6 over all cases, by Hoeffding's inequality.

    Plain reparameterization, and evaluation: one draw for the batch. Flipout and local reparameterization: of the
    deviations of two equal examples, the sign of the product is a fair coin, r_1 r_2 or that of independent noise.
    Grouped flipout: the two are a pair, of opposite deviations.
    """
    np.testing.assert_array_equal(drawn.evaluation[:, 0], drawn.evaluation[:, 1])
    if drawn.case.estimator == "reparameterization":
        assert drawn.evaluation is drawn.training
        return
    assert (drawn.training[:, 0] != drawn.training[:, 1]).mean() > 0.4
    if drawn.case.operation.is_linear:
        deviations = drawn.training.astype(np.float64) - drawn.mean
        if drawn.case.groups_of_noise:
            np.testing.assert_allclose(deviations[:, 0], -deviations[:, 1], atol=1e-4)
            return
        assert_sum_of_fair_signs(deviations[:, 0] * deviations[:, 1], SHARE)


def at_the_means(layer: VariationalLayer, inputs: Any, parameters: Parameters) -> np.ndarray:
    """Outputs `(batch, ...)` with every weight at its posterior mean."""
    means = {name: p["loc"] for name, p in parameters.items()}
    return np.stack([transform(layer, x, means) for x in examples_of(inputs)])


def draws_of_the_definition(drawn: Drawn, num_draws: int) -> np.ndarray:
    """Outputs `(draws, batch, ...)` under plain draws of the weights, made in NumPy."""
    rng = np.random.default_rng(5)
    parameters = drawn.parameters
    steps = [perturbations(parameters, sample_noise(drawn.case.posterior, parameters, rng)) for _ in range(num_draws)]
    weights = [{name: p["loc"] + step[name] for name, p in parameters.items()} for step in steps]
    # The first two are equal.
    examples = examples_of(drawn.inputs)[1:]
    if drawn.case.operation.is_linear:
        stacked = {name: np.stack([w[name].ravel() for w in weights]) for name in parameters}
        outputs = [
            sum(stacked[name] @ jacobian(drawn.layer, x, parameters, name).T for name in parameters) for x in examples
        ]
    else:
        outputs = [[transform(drawn.layer, x, w) for w in weights] for x in examples]
    return np.stack([outputs[0], *outputs], axis=1).reshape(num_draws, *drawn.mean.shape)


def assert_same_moments(draws: np.ndarray, copies: np.ndarray, center: np.ndarray, false_failure_rate: float) -> None:
    """Fails by chance at the given rate when draws and copies have the same distribution, whatever it is.

    The differences of the two, and those of their squared deviations from a fixed center, are symmetric about 0: their
    signs are fair coins.
    """
    for power in (1, 2):
        differences = (draws - center).astype(np.float64) ** power - (copies - center) ** power
        assert_sum_of_fair_signs(differences, false_failure_rate / 2)


def assert_sum_of_fair_signs(terms: np.ndarray, false_failure_rate: float) -> None:
    """Hoeffding's inequality for sums, along the first axis, of terms whose signs are fair and independent coins."""
    bound = np.sqrt(2 * np.log(2 * terms[0].size / false_failure_rate) * (terms**2).sum(axis=0))
    np.testing.assert_array_less(np.abs(terms.sum(axis=0)), bound)
