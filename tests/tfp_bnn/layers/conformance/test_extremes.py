"""Outputs, KL and gradients stay finite at extreme parameters and inputs."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn.layers import DenseReparameterization
from tfp_bnn.posteriors import POSTERIORS
from tfp_bnn.priors import PRIORS

from .cases import LAYER_CASES, Case, by_cost, each_with_the_default, for_each_costly_case

# Untransformed scales, of which -100 is a scale of eps and 100 one of 100; and sizes of the locs.
EXTREMES = [(-100.0, 0.0), (-100.0, 1e4), (100.0, 0.0), (100.0, 1e4)]
PROPER = [name for name in PRIORS if not PRIORS[name].improper]


def assert_finite_everywhere(case, inputs, extremes, **arguments):
    """Outputs, KL and gradients at each extreme; plain reparameterization is the same in training and evaluation."""
    layer = case.build(**arguments)
    rng = np.random.default_rng(0)
    values = [variable.value for variable in layer.trainable_variables]
    for untransformed_scale, size in extremes:
        for variable in layer.trainable_variables:
            if variable.name.endswith("_loc"):
                variable.assign(size * rng.choice([-1.0, 1.0], size=variable.shape))
            elif variable.name.endswith("untransformed_scale") and "_prior_" not in variable.name:
                variable.assign(np.full(variable.shape, untransformed_scale))
        for training in (True,) if case.estimator == "reparameterization" else (True, False):
            message = f"{untransformed_scale=}, {size=}, {training=}, "
            with tf.GradientTape() as tape:
                outputs = tf.cast(layer(inputs, training=training), tf.float32)
                kl = layer.kl()
                # Away from 0, so outputs of 0 have a gradient too.
                loss = tf.reduce_mean((outputs - 1) ** 2) + kl
            assert np.isfinite(outputs).all(), message
            assert np.isfinite(kl), message
            for variable, gradient in zip(layer.trainable_variables, tape.gradient(loss, values), strict=True):
                assert np.isfinite(tf.convert_to_tensor(gradient)).all(), message + variable.name


@for_each_costly_case
def test_everything_stays_finite_at_extreme_parameters(case):
    assert_finite_everywhere(case, case.inputs(), EXTREMES)


@for_each_costly_case
def test_everything_stays_finite_at_extreme_parameters_and_inputs_of_zeros(case):
    inputs = tf.nest.map_structure(np.zeros_like, case.inputs())
    # Outputs of no variance at all, where a root has no gradient.
    bias = {"bias_posterior": None} if "bias" in case.layer.optional_weights else {}
    assert_finite_everywhere(case, inputs, [EXTREMES[0], EXTREMES[-1]], **bias)


# The product of two kernels of scale 100 is more than float16 holds.
@pytest.mark.parametrize(
    "case", by_cost(case for case in LAYER_CASES if not str(case).startswith(("Separable", "MultiHead"))), ids=str
)
def test_everything_stays_finite_at_extreme_scales_in_half_precision(case):
    assert_finite_everywhere(case, case.inputs(), [(-100.0, 0.0), (100.0, 0.0)], dtype="mixed_float16")


@pytest.mark.parametrize(("prior", "posterior"), each_with_the_default(PROPER, POSTERIORS))
def test_everything_stays_finite_under_every_prior(prior, posterior):
    case = Case(DenseReparameterization, posterior)
    assert_finite_everywhere(case, case.inputs(), EXTREMES, **case.of_all_weights("prior", prior))
