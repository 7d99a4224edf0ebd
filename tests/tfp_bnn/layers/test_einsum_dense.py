"""Flipout of dense layers over any axes: each draw is one of the weights."""

from __future__ import annotations

import numpy as np
import pytest

from tfp_bnn.layers import EinsumDenseFlipout


@pytest.mark.parametrize(
    ("equation", "output_shape", "bias_axes", "shared"),
    [
        ("abc,cd->abd", (3, 4), "b", 2),
        ("abc,cde->abde", (3, 2, 4), "e", 2),
        ("abc,cde->abde", (3, 2, 4), "d", 3),
    ],
)
def test_one_entry_of_a_bias_has_one_sign_for_each_example(equation, output_shape, bias_axes, shared):
    """Outputs of other signs that share an entry are of no draw of the bias."""
    layer = EinsumDenseFlipout(
        equation,
        output_shape,
        bias_axes=bias_axes,
        kernel_posterior="delta",
        bias_posterior={"name": "mean_field_normal", "initial_scale": 1.0},
        seed=0,
    )
    outputs = np.asarray(layer(np.zeros((200, 3, 5), np.float32), training=True))
    first = np.take(outputs, [0], axis=shared)
    np.testing.assert_array_equal(outputs, np.broadcast_to(first, outputs.shape))
    # Half of the examples have either sign: 7 standard deviations, fails by chance below 1e-11.
    signs = np.sign(first.reshape(200, -1)[:, 0])
    assert abs(signs.sum()) < 7 * np.sqrt(200)
