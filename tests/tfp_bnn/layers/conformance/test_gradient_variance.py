"""How the variance of the gradient falls with the batch: what an estimator is chosen for."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn.core.noise import Noise, noise_scope

from .cases import GROUPED, LAYER_CASES, by_cost
from .reference import randomize

BATCHES = (1, 4, 16, 64)
NUM_DRAWS = 600
# Of layers that are linear in their weights. Elsewhere the noise that flipout shares leaves a floor.
LINEAR = [
    case for case in (*LAYER_CASES, *GROUPED) if case.operation.is_linear and case.posterior == "mean_field_normal"
]


@pytest.fixture(scope="module", params=by_cost(LINEAR), ids=str)
def gradients(request):
    """A case, and for each size of the batch 600 gradients of a loss with respect to all posterior means.

    The loss is the mean over the batch of half the squared outputs, its examples all the same, so all of the
    variance is that of the draws of the weights. The gradient is linear in the outputs.
    """
    case = request.param
    layer = case.build()
    randomize(layer)
    example = case.inputs(batch=1)
    means = [variable.value for variable in layer.trainable_variables if variable.name.endswith("_loc")]

    @tf.function(reduce_retracing=True, autograph=False)
    def draw(inputs):
        root = Noise(tf.constant([3, 0]))

        def once(index):
            with noise_scope({id(layer): root.fold_in(index)}), tf.GradientTape() as tape:
                outputs = layer(inputs, training=True)
                loss = tf.reduce_sum(outputs**2) / (2 * tf.cast(tf.shape(outputs)[0], tf.float32))
            found = tape.gradient(loss, means)
            return tf.concat([tf.reshape(tf.convert_to_tensor(gradient), [-1]) for gradient in found], axis=0)

        return tf.map_fn(once, tf.range(NUM_DRAWS), fn_output_signature=tf.float32)

    signature = tf.nest.map_structure(lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), example)
    compiled = draw.get_concrete_function(signature)
    repeated = [
        tf.nest.map_structure(lambda array, batch=batch: tf.constant(np.repeat(array, batch, axis=0)), example)
        for batch in BATCHES
    ]
    return case, [compiled(*tf.nest.flatten(inputs)).numpy() for inputs in repeated]


@pytest.mark.statistical
def test_the_variance_of_the_gradient_falls_like_one_over_batch_or_levels_off(gradients):
    """600 draws for each of four sizes of the batch; false-failure rate far below 1e-6 over all cases.

    Flipout and local reparameterization: the draws of two examples are uncorrelated, so the slope of the log
    variance in the log batch is -1 exactly. No estimate of it has a standard error above 0.12 / (log(4) * sqrt(5)) =
    0.04, for the kurtosis of a flipout gradient is 9 at the most: the bound of 0.25 is more than six standard errors.
    Reparameterization: the draw is common to the batch, whose size does not matter, here with the same draws exactly.
    Grouped flipout: a gradient that is linear in the outputs cancels in every pair of groups, so where the examples
    are all the same and the groups of one size, none of the noise is left.
    """
    case, draws = gradients
    if case.groups_of_noise:
        assert draws[0].var(axis=0).sum() > 0.1
        for of_batch in draws[1:]:
            np.testing.assert_allclose(of_batch, np.broadcast_to(of_batch[:1], of_batch.shape), rtol=1e-3, atol=1e-3)
        return
    if case.estimator == "reparameterization":
        assert draws[0].var(axis=0).sum() > 0.1
        for of_batch in draws[1:]:
            np.testing.assert_allclose(of_batch, draws[0], rtol=1e-3, atol=1e-3)
        return
    variances = [of_batch.var(axis=0, dtype=np.float64).sum() for of_batch in draws]
    slope = np.polyfit(np.log(BATCHES), np.log(variances), deg=1)[0]
    assert -1.25 < slope < -0.75
    assert variances[-1] < variances[0] / 40
