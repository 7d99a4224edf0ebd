"""The joint likelihood by itself: its log-probability against SciPy, its heads, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from tfp_bnn.likelihoods import LIKELIHOODS, Joint, Likelihood
from tfp_bnn.likelihoods.joint import named_after_outputs

RNG = np.random.default_rng(0)
ROWS = 6
# A class for each image, a mask for each pixel, a number with a learned scale.
OUTPUTS = {
    "class": RNG.normal(size=(ROWS, 3)).astype(np.float32),
    "mask": RNG.normal(size=(ROWS, 2, 2, 1)).astype(np.float32),
    "value": RNG.normal(size=(ROWS, 2)).astype(np.float32),
}
Y = {
    "class": RNG.integers(3, size=ROWS),
    "mask": RNG.integers(2, size=(ROWS, 2, 2)),
    "value": RNG.normal(size=(ROWS, 2)),
}
HEADS = {"class": "categorical", "mask": "bernoulli", "value": {"name": "normal", "initial_scale": 0.7}}


def terms():
    """The log-likelihood of each head and example, by SciPy."""
    sign = 2 * Y["mask"] - 1
    return {
        "class": scipy.special.log_softmax(OUTPUTS["class"], axis=1)[np.arange(ROWS), Y["class"]],
        "mask": scipy.special.log_expit(sign * OUTPUTS["mask"][..., 0]).sum(axis=(1, 2)),
        "value": scipy.stats.norm.logpdf(Y["value"], OUTPUTS["value"], 0.7).sum(axis=1),
    }


@pytest.mark.parametrize("weights", [{}, {"mask": 0.25, "value": 3.0}])
def test_the_log_likelihood_is_the_weighted_sum_of_the_heads(weights, add_weight):
    joint = Joint(HEADS, weights)
    expected = sum(weights.get(name, 1.0) * term for name, term in terms().items())
    found = joint.log_likelihood(Y, OUTPUTS, joint.add_weights(add_weight))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_sample_weights_are_for_all_heads_or_for_each(add_weight):
    joint = Joint(HEADS)
    variables = joint.add_weights(add_weight)
    of_rows = np.arange(1.0, ROWS + 1)
    at_each = np.ones((ROWS, 2, 2)) * of_rows[:, None, None]
    found = joint.log_likelihood(Y, OUTPUTS, variables, of_rows)
    np.testing.assert_allclose(found, of_rows * sum(terms().values()), rtol=1e-5)
    found = joint.log_likelihood(Y, OUTPUTS, variables, {"mask": at_each})
    np.testing.assert_allclose(found, terms()["class"] + of_rows * terms()["mask"] + terms()["value"], rtol=1e-5)
    with pytest.raises(ValueError, match=r"`sample_weight`: .* unexpected \['other'\]"):
        joint.log_likelihood(Y, OUTPUTS, variables, {"other": of_rows})


def test_lists_are_in_the_order_of_the_heads(add_weight):
    joint = Joint([*HEADS.values()], [1.0, 1.0, 2.0])
    assert joint.heads.keys() == {"0", "1", "2"}
    found = joint.log_likelihood([*Y.values()], [*OUTPUTS.values()], joint.add_weights(add_weight))
    np.testing.assert_allclose(found, terms()["class"] + terms()["mask"] + 2 * terms()["value"], rtol=1e-5)


def test_two_heads_of_one_kind_learn_their_own_scales(add_weight):
    normal = {"name": "normal", "scale": "learned"}
    joint = Joint({"a": {**normal, "initial_scale": 0.5}, "b": {**normal, "initial_scale": 2.0}})
    variables = joint.add_weights(add_weight)
    assert len({variable.name for variable in variables.values()}) == 2
    np.testing.assert_allclose([*joint.parameters(variables).values()], [0.5, 2.0], rtol=1e-6)
    joint.assign_parameters(variables, {"a.scale": np.float32(3.0), "b.scale": np.float32(0.25)})
    outputs = {"a": np.zeros((1, 1), np.float32), "b": np.zeros((1, 1), np.float32)}
    found = joint.log_likelihood({"a": np.ones(1), "b": np.ones(1)}, outputs, variables)
    expected = scipy.stats.norm.logpdf(1.0, 0.0, 3.0) + scipy.stats.norm.logpdf(1.0, 0.0, 0.25)
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_a_head_may_lack_all_targets_of_a_batch(add_weight):
    joint = Joint({**HEADS, "value": {"name": "normal", "initial_scale": 0.7, "missing": "nan"}})
    variables = joint.add_weights(add_weight)
    y = {**Y, "value": np.full((ROWS, 2), np.nan)}
    with tf.GradientTape() as tape:
        found = joint.log_likelihood(y, OUTPUTS, variables)
    np.testing.assert_allclose(found, terms()["class"] + terms()["mask"], rtol=1e-5)
    (gradient,) = tape.gradient(found, [variable.value for variable in variables.values()])
    assert float(gradient) == 0.0
    shapes = {name: output.shape[1:] for name, output in OUTPUTS.items()}
    joint.check_examples(y, shapes)
    (_, _, weights) = joint.metric_rows(y, OUTPUTS, variables, None)
    assert weights["class"] is None
    assert np.all(weights["value"] == 0.0)
    only = Joint({"value": {"name": "normal", "missing": "nan"}})
    with pytest.raises(ValueError, match="The head 'value': No target is left"):
        only.check_examples({"value": y["value"]}, {"value": (2,)})


def test_the_nll_of_guessing_is_that_of_all_heads():
    shapes = {"class": (3,), "mask": (2, 2, 1)}
    joint = Joint({"class": "categorical", "mask": "bernoulli"}, {"mask": 0.5})
    np.testing.assert_allclose(joint.chance_nll_of_example(shapes), np.log(3) + 0.5 * 4 * np.log(2))
    with_numbers = Joint(HEADS)
    assert with_numbers.chance_nll_of_example({**shapes, "value": (2,)}) is None


# === What it is made of ===


def test_it_is_made_of_heads_alone_of_a_mapping_or_of_a_config():
    joint = Joint(HEADS, {"value": 0.5})
    assert LIKELIHOODS.get({"name": "joint", "heads": HEADS, "weights": {"value": 0.5}}) == joint
    assert LIKELIHOODS.get(HEADS) == Joint(HEADS) == LIKELIHOODS.get({"name": "joint", "heads": HEADS})
    assert LIKELIHOODS.get(("categorical", "normal")) == Joint(["categorical", "normal"])
    assert joint.weights == {"class": 1.0, "mask": 1.0, "value": 0.5}
    assert all(isinstance(head, Likelihood) for head in joint.heads.values())


def test_heads_of_a_list_of_outputs_are_named_and_ordered_like_the_outputs():
    unnamed = named_after_outputs(Joint(["categorical", "normal"], {"1": 0.5}), ["class", "value"])
    assert unnamed == Joint({"class": "categorical", "value": "normal"}, {"value": 0.5})
    swapped = named_after_outputs(Joint({"value": "normal", "class": "categorical"}), ["class", "value"])
    assert list(swapped.heads) == ["class", "value"]
    assert named_after_outputs(LIKELIHOODS.get("normal"), ["value"]) == LIKELIHOODS.get("normal")
    # A layer that makes both outputs has one name.
    assert list(named_after_outputs(Joint(["normal", "normal"]), ["value", "value"]).heads) == ["0", "1"]
    with pytest.raises(ValueError, match=r"heads \['a'\], but the outputs of the model are \['b'\]"):
        named_after_outputs(Joint({"a": "normal"}), ["b"])


@pytest.mark.parametrize(
    ("heads", "weights", "message"),
    [
        ({}, None, "at least one head"),
        ({"a/b": "normal"}, None, "without '/' and '.', but got 'a/b'"),
        ({1: "normal"}, None, "must be a text"),
        ({"a": {"b": "normal"}}, None, "The head 'a' is a joint likelihood itself"),
        ({"a": "gaussian"}, None, "Unknown likelihood 'gaussian'"),
        ({"a": "normal"}, {"b": 1.0}, r"unexpected \['b'\]"),
        ({"a": "normal"}, {"a": 0.0}, "The weight of the head 'a' must be a number > 0, but got 0.0"),
        ({"a": "normal"}, {"a": True}, "must be a number > 0"),
    ],
)
def test_invalid_heads_and_weights_are_refused(heads, weights, message):
    with pytest.raises(ValueError, match=message):
        Joint(heads, weights)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"class": 1}, r"the keys \['class'\]: missing \['mask', 'value'\]"),
        ({**Y, "more": 1}, r"unexpected \['more'\]"),
        ({**Y, "mask": None}, r"missing \['mask'\]"),
        ([1, 2], "a list of 2"),
        (Y["value"], r"one array or tensor of shape \(6, 2\)"),
    ],
)
def test_values_for_other_heads_are_refused(values, message):
    with pytest.raises(ValueError, match=r"`y`: the likelihood has the heads .*" + message):
        Joint(HEADS).by_head(values, "`y`")


def test_what_only_one_output_has_is_refused():
    joint = Joint(HEADS)
    for ask in (
        lambda: joint.num_targets(3),
        lambda: joint.num_outputs_for(Y["value"]),
        lambda: joint.mean(OUTPUTS["class"]),
        lambda: joint.check_outputs(3),
        lambda: joint.in_target_units(OUTPUTS["class"], [0.0], [1.0]),
        lambda: joint.training_metrics(3),
        lambda: joint.log_prob(Y["class"], OUTPUTS["class"], {}),
    ):
        with pytest.raises(ValueError, match=r"Ask one of them, as in likelihood.heads\['class'\]"):
            ask()
    with pytest.raises(ValueError, match="different positions"):
        joint.log_likelihood(Y, OUTPUTS, {}, by_position=True)
