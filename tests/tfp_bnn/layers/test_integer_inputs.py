"""Integers, such as raw pixels, are as good as the numbers that they are."""

from __future__ import annotations

import numpy as np
import pytest

from tfp_bnn.layers import Convolution1DFlipout, DenseFlipout, DenseLocalReparameterization, LSTMFlipout


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: DenseFlipout(3, seed=0, name="layer"), (2, 5)),
        (lambda: DenseLocalReparameterization(3, seed=0, name="layer"), (2, 5)),
        (lambda: Convolution1DFlipout(3, 2, seed=0, name="layer"), (2, 5, 1)),
        (lambda: LSTMFlipout(3, seed=0, name="layer"), (2, 5, 1)),
    ],
)
def test_integers_give_what_floats_give(layer, shape, training):
    x = np.arange(np.prod(shape)).reshape(shape)
    of_integers, of_floats = layer(), layer()
    of_integers.build(shape)
    of_floats.build(shape)
    of_floats.set_weights(of_integers.get_weights())
    outputs = of_integers(x, training=training)
    assert outputs.dtype == "float32"
    np.testing.assert_array_equal(outputs, of_floats(x.astype(np.float32), training=training))


def test_a_bayesian_bias_that_is_not_used_is_refused_by_position_too():
    with pytest.raises(ValueError, match=r"Got bias_posterior=.* with use_bias=False"):
        DenseFlipout(3, None, False, bias_posterior="mean_field_normal")
