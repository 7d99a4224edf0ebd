"""Inputs, groups and priors that the hierarchical dense layer refuses."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_bnn.layers import HierarchicalDenseReparameterization

from .hierarchical import NUM_GROUPS, UNITS, inputs_of, make, model_of


@pytest.fixture(autouse=True)
def _global_seed():
    keras.utils.set_random_seed(0)


UNKNOWN = [(4, "4"), (-1, "-1"), (2.5, "2.5"), (np.nan, "nan"), (1e9, "1e+09")]


@pytest.mark.parametrize(("group", "text"), UNKNOWN)
def test_an_unknown_group_is_refused(group, text):
    layer = make(name="dense")
    groups = np.array([0, group, 3])
    x = np.zeros((3, 2), "float32")
    message = re.escape(f"The group id {text} is unknown to the layer dense, which has num_groups=4 groups, 0 to 3.")
    with pytest.raises(ValueError, match=message):
        layer([x, groups])


@pytest.mark.parametrize(
    "group", [4, *(pytest.param(group, marks=pytest.mark.slow) for group, _ in UNKNOWN if group != 4)]
)
@pytest.mark.slow
def test_a_compiled_call_refuses_an_unknown_group_and_xla_makes_it_nan(group):
    layer = make(name="dense")
    groups, x = np.array([0, group, 3]), np.zeros((3, 2), "float32")
    compiled = tf.function(lambda x, g: layer([x, g], training=True), autograph=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[The group id\] \[.*\] \[is unknown .* num_groups=4"):
        compiled(tf.constant(x), tf.constant(groups))
    outputs = tf.function(lambda x, g: layer([x, g]), jit_compile=True, autograph=False)(
        tf.constant(x), tf.constant(groups)
    )
    np.testing.assert_array_equal(np.isnan(outputs).all(axis=1), [False, True, False])


@pytest.mark.slow
def test_a_model_refuses_an_unknown_group():
    model = model_of(HierarchicalDenseReparameterization(UNITS, NUM_GROUPS, name="dense"))
    model.compile("adam")
    good, bad = inputs_of(), inputs_of(groups=np.array([0, 1, 2, 3, 4, 0]))
    y = np.zeros(6, "int32")
    model.fit(good, y, verbose=0)
    before = model.network.layers[-1].kernel.numpy()
    message = "The group id 4 is unknown to the layer dense, which has num_groups=4"
    for refuses in (
        lambda: model.fit(bad, y, verbose=0),
        lambda: model.evaluate(bad, y, verbose=0),
        lambda: model.posterior_predictive(bad, num_samples=2),
        lambda: model(bad),
    ):
        with pytest.raises(ValueError, match=message):
            refuses()
    np.testing.assert_array_equal(model.network.layers[-1].kernel, before)


@pytest.mark.parametrize("num_groups", [0, -2, 2.0, True, None, "4"])
def test_the_number_of_groups_must_be_a_positive_integer(num_groups):
    with pytest.raises(ValueError, match=f"`num_groups` must be an integer >= 1, but got {num_groups!r}"):
        HierarchicalDenseReparameterization(3, num_groups)


X = np.zeros((4, 2), "float32")
IDS = np.zeros(4, "int32")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (X, r"expects 2 input\(s\), but it received 1"),
        ([X, IDS, IDS], r"expects 2 input\(s\), but it received 3"),
        ([X[None], IDS], "expected ndim=2, found ndim=3"),
        ([X[:, 0], IDS], "expected ndim=2, found ndim=1"),
        ([X, X], r"group ids of shape \(batch,\) or \(batch, 1\), but got .*4, 2"),
        ([X, IDS[:3]], r"group ids of shape .*, but got .*3"),
        ([X, IDS > 0], "Group ids must be whole numbers, but the layer 'dense' got bool"),
        ([X[:, :1], IDS], "expected axis -1 of input shape to have value 2"),
    ],
    ids=["one", "three", "rank 3", "rank 1", "two ids", "rows", "bool", "width"],
)
def test_inputs_of_another_shape_are_refused(inputs, message):
    for layer in (make(name="dense"), HierarchicalDenseReparameterization(UNITS, NUM_GROUPS, name="dense")):
        if layer.built or "axis -1" not in message:
            with pytest.raises(ValueError, match=message):
                layer(inputs)


@pytest.mark.parametrize("shape", [(None, 2), [(None, 2)], [(None, 2), (None, 2)], [(None, 3, 2), (None,)]])
def test_build_needs_two_shapes(shape):
    with pytest.raises(ValueError, match=r"takes \[x, group_id\]"):
        HierarchicalDenseReparameterization(UNITS, NUM_GROUPS).build(shape)


def test_impossible_priors_of_the_groups_are_refused():
    with pytest.raises(TypeError, match=r"group_prior=Flat\(\) is improper"):
        HierarchicalDenseReparameterization(UNITS, NUM_GROUPS, group_prior="flat")
    with pytest.raises(ValueError, match=r"Unknown prior 'norml'\. Did you mean 'normal'"):
        HierarchicalDenseReparameterization(UNITS, NUM_GROUPS, group_prior="norml")
    with pytest.raises(ValueError, match="does not support `lora_rank`"):
        HierarchicalDenseReparameterization(UNITS, NUM_GROUPS, lora_rank=2)


@pytest.mark.parametrize("name", ["bias_prior", "bias_posterior"])
def test_a_distribution_of_a_bias_that_is_left_out_is_refused(name):
    with pytest.raises(ValueError, match=f"Got {name}='unheard_of' with use_bias=False. Remove one of them"):
        HierarchicalDenseReparameterization(UNITS, NUM_GROUPS, use_bias=False, **{name: "unheard_of"})
