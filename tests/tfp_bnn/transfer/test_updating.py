"""Data that arrive in parts: the posterior of one part is the prior of the next."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import DenseLocalReparameterization
from tfp_bnn.models.weight_record import assign_weight_distributions, weight_distributions
from tfp_bnn.transfer import update

RNG = np.random.default_rng(0)
NOISE, PRIOR_SCALE = 0.5, 1.0
TRUTH = np.array([1.0, -2.0, 0.5])
PARTS = [RNG.normal(size=(rows, 3)).astype(np.float32) for rows in (60, 50)]
TARGETS = [(x @ TRUTH + NOISE * RNG.normal(size=len(x))).astype(np.float32)[:, None] for x in PARTS]
STEPS = 1000


def linear(**arguments):
    """A linear model without a bias, whose noise is known: with a normal prior it has a posterior in closed form."""
    layer = DenseLocalReparameterization(
        1,
        use_bias=False,
        name="linear",
        kernel_prior={"name": "normal", "scale": PRIOR_SCALE},
        kernel_posterior={"name": "mean_field_normal", "initial_scale": 0.1},
    )
    likelihood = {"name": "normal", "scale": NOISE}
    return tfp_bnn.VariationalSequential([keras.Input((3,)), layer], likelihood=likelihood, seed=0, **arguments)


def posterior(model):
    arrays = weight_distributions(model)
    return arrays["linear/kernel/loc"][:, 0].astype(float), arrays["linear/kernel/scale"][:, 0].astype(float)


def everything(model):
    return [np.array(variable.numpy()) for variable in [*model.variables, *model.noise_variables.values()]]


def many_steps(x, y):
    """As arguments of `fit`: full batches, all in one epoch and in few executions."""
    batches = tf.data.Dataset.from_tensors((x, y)).repeat(STEPS)
    return {"x": batches, "num_examples": len(x), "steps_per_epoch": STEPS, "verbose": 0}


def optimizer():
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.03, STEPS))


@pytest.fixture(scope="module")
def before():
    """As if it had been trained on other data."""
    model = linear(num_examples=7)
    arrays = {
        "linear/kernel/loc": np.array([[0.5], [-1.0], [0.0]], np.float32),
        "linear/kernel/scale": np.array([[0.2], [0.3], [0.4]], np.float32),
    }
    assign_weight_distributions(model, arrays)
    model.num_examples = 1000
    return model


@pytest.mark.slow
def test_parts_one_after_the_other_approximate_all_at_once():
    """Against the exact mean-field posteriors, of which there is one for the parts and one for all data together.

    The precision of a weight is that of its prior plus sum(x^2) / noise^2: the same for both. The means differ by the
    correlations that the first posterior leaves out. What is left is the noise of the steps, a tenth of a standard
    deviation; a prior that was lost, or one too many, would change the scales by more than a fifth.
    """
    model = linear()
    model.compile(optimizer(), steps_per_execution=STEPS // 10)
    model.fit(**many_steps(PARTS[0], TARGETS[0]))
    precision, mean = np.full(3, PRIOR_SCALE**-2), np.zeros(3)
    for index, (x, y) in enumerate(zip(PARTS, TARGETS, strict=True)):
        if index:
            model = update(model, **many_steps(x, y), optimizer=optimizer())
            assert model.num_examples == len(x)
        x, y = x.astype(float), y[:, 0].astype(float)
        full = np.diag(precision) + x.T @ x / NOISE**2
        mean = np.linalg.solve(full, precision * mean + x.T @ y / NOISE**2)
        precision = np.diag(full).copy()
        found_mean, found_scale = posterior(model)
        np.testing.assert_allclose(found_mean, mean, atol=0.2 * precision.max() ** -0.5)
        np.testing.assert_allclose(found_scale, precision**-0.5, rtol=0.08)
    x, y = np.concatenate(PARTS).astype(float), np.concatenate(TARGETS)[:, 0].astype(float)
    joint = np.eye(3) / PRIOR_SCALE**2 + x.T @ x / NOISE**2
    joint_mean, joint_scale = np.linalg.solve(joint, x.T @ y / NOISE**2), np.diag(joint) ** -0.5
    np.testing.assert_allclose(found_scale, joint_scale, rtol=0.08)
    np.testing.assert_allclose(found_mean, joint_mean, atol=0.3 * joint_scale.min())
    # The last part alone says less.
    last = np.eye(3) / PRIOR_SCALE**2 + PARTS[-1].T @ PARTS[-1] / NOISE**2
    assert (np.diag(last) ** -0.5 > 1.2 * found_scale).all()


@pytest.mark.slow
def test_the_posterior_so_far_is_the_prior(before):
    untouched = everything(before)
    updated = update(before, PARTS[0], TARGETS[0], inflate=2.0, epochs=2, batch_size=20, verbose=0, metrics=["mae"])
    weight = updated.layers[0].variational_weights["kernel"]
    mean, scale = posterior(before)
    np.testing.assert_array_equal(np.asarray(weight.prior.mean())[:, 0], mean.astype(np.float32))
    np.testing.assert_allclose(np.asarray(weight.prior.stddev())[:, 0], 2.0 * scale, rtol=1e-6)
    assert (posterior(updated)[0] != mean).all()
    assert updated.num_examples == 60
    assert before.num_examples == 1000
    for one, other in zip(untouched, everything(before), strict=True):
        np.testing.assert_array_equal(one, other)
    assert updated.compiled
    assert not before.compiled
    again = update(updated, PARTS[1], TARGETS[1], epochs=1, verbose=0)
    assert again.num_examples == 50
    prior = again.layers[0].variational_weights["kernel"].prior
    np.testing.assert_array_equal(np.asarray(prior.mean())[:, 0], posterior(updated)[0].astype(np.float32))
    np.testing.assert_allclose(np.asarray(prior.stddev())[:, 0], posterior(updated)[1], rtol=1e-6)


def test_the_number_of_examples_of_the_data_before_is_not_that_of_the_part(before):
    part = tf.data.Dataset.from_tensor_slices((PARTS[0], TARGETS[0])).filter(lambda *_: True).batch(10)
    with pytest.raises(ValueError, match="N, the number of training examples, cannot be counted"):
        update(before, part, verbose=0)


def test_what_cannot_be_a_prior_is_refused(before):
    with pytest.raises(ValueError, match="`inflate` of informed_prior must be a finite number larger than 0"):
        update(before, PARTS[0], TARGETS[0], inflate=0.0)
    with pytest.raises(ValueError, match="`mix` must lie between 0 and 1"):
        update(before, PARTS[0], TARGETS[0], mix=1.0)
    with pytest.raises(TypeError, match="Expected a Bayesian model"):
        update(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), PARTS[0], TARGETS[0])
    with pytest.raises(ValueError, match="Targets of shape"):
        update(before, PARTS[0], np.zeros((60, 2)))


@pytest.mark.slow
def test_parts_come_in_any_form_that_fit_takes():
    class Part(keras.utils.PyDataset):
        num_examples = 50

        def __init__(self):
            super().__init__()

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return PARTS[1], TARGETS[1]

    model = linear(num_examples=60)
    pipeline = tf.data.Dataset.from_tensor_slices((PARTS[1], TARGETS[1])).batch(50)
    forms = [(PARTS[1], TARGETS[1]), (PARTS[1].tolist(), TARGETS[1].tolist()), (pipeline,), (Part(),)]
    posteriors = [posterior(update(model, *form, shuffle=False, batch_size=None, verbose=0)) for form in forms]
    for found in posteriors[2:]:
        np.testing.assert_allclose(found, posteriors[2], rtol=1e-5)
    np.testing.assert_allclose(posteriors[0], posteriors[1], rtol=1e-5)
