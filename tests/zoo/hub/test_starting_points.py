"""Models to go on from: pretrained weights, a new head, features."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
import zoo
from tfp_bnn.likelihoods import LIKELIHOODS
from tfp_bnn.models.weight_record import weight_distributions
from tfp_bnn.priors import PRIORS

NAME = "mlp_flipout.diabetes"
X = zoo.load_dataset("diabetes").test.x[:3]


@pytest.mark.parametrize("spelled", ["", "by name", "as objects"])
def test_pretrained_without_changes_is_the_pretrained_model(spelled):
    known = zoo.load_model(NAME)
    config = known.architecture.config
    objects = {"likelihood": LIKELIHOODS.get(config.likelihood), "kernel_prior": PRIORS.get(config.kernel_prior)}
    # Its recipe started the noise at the standard deviation of its targets.
    same = {"": {}, "by name": {"likelihood": "normal"}, "as objects": objects}[spelled]
    model = zoo.create_model(NAME, pretrained=True, seed=7, **same)
    expected = known.posterior_predictive(X, 3)
    np.testing.assert_allclose(model.posterior_predictive(X, 3).mean(), expected.mean(), rtol=1e-5)
    np.testing.assert_array_equal(model.posterior_predictive(X, 3).aleatoric(), expected.aleatoric())
    assert model.card["config"]["name"] == NAME
    assert model.num_examples == known.num_examples
    assert model.inputs_expected == known.inputs_expected
    assert model.architecture == known.architecture
    assert model.seed == 7


def test_a_new_head_is_fresh_and_the_body_is_the_pretrained_one():
    model = zoo.create_model(NAME, pretrained=True, num_outputs=3, likelihood="categorical")
    found, known = weight_distributions(model), weight_distributions(zoo.load_model(NAME))
    for key in known:
        if key.startswith("dense1/") and "prior" not in key:
            np.testing.assert_allclose(found[key], known[key], rtol=1e-5)
    assert found["logits/kernel/loc"].shape == (50, 3)
    assert model.class_names is None
    # Its targets have no units.
    assert model.posterior_predictive(X, 2).mean().shape == (3, 3)


def test_features_are_what_the_last_layer_takes():
    full = zoo.load_model(NAME)
    features = zoo.create_model(NAME, pretrained=True, features_only=True)
    drawn = features.posterior_predictive(X, 4).samples
    assert drawn.shape == (4, 3, 50)
    head = full.variational_layers[-1]
    # The plug-in prediction of the whole network is its last layer on the plug-in features.
    outputs = features.plug_in_predictive(X).mean() @ np.asarray(head.kernel) + np.asarray(head.bias)
    scale = np.sqrt(full.architecture.config.target_variance)
    expected = outputs * scale + full.architecture.config.target_mean
    np.testing.assert_allclose(full.plug_in_predictive(X).mean(), expected, rtol=1e-4)
    new = tfp_bnn.VariationalModel(features.input, tfp_bnn.layers.DenseFlipout(2)(features.output))
    new.compile(keras.optimizers.Adam())
    assert np.isfinite(new.fit(X, np.array([0, 1, 0]), verbose=0).history["loss"]).all()


def test_features_of_groups_leave_the_group_out():
    model = zoo.create_model("hierarchical_mlp", input_shape=(3,), num_outputs=2, num_groups=2, features_only=True)
    width = zoo.create_model("hierarchical_mlp", input_shape=(3,), num_outputs=2, num_groups=2).layers[-1]
    assert model.output_shape[1:] == tuple(width.input[0].shape[1:])


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("mlp_flipout", {}, "5 pretrained models: name one of mlp_flipout.diabetes, "),
        ("lstm_flipout", {}, "no pretrained model"),
        ("mlp_flipout.diabetis", {}, "Did you mean 'mlp_flipout.diabetes'"),
        (NAME, {"hidden": (3,)}, r"do not fit.*dense1/kernel has the shape \(10, 50\).*Only the last layer can be new"),
        (NAME, {"widths": (3,)}, "widths"),
        (NAME, {"way": "vbll"}, "its own inference method"),
    ],
)
def test_what_does_not_fit_is_refused(name, arguments, says):
    with pytest.raises(ValueError, match=says):
        zoo.create_model(name, pretrained=True, **arguments)


def test_a_pretrained_name_without_pretrained_says_both_ways():
    with pytest.raises(ValueError, match=r"Pass pretrained=True for its weights.*create_model\('mlp_flipout'"):
        zoo.create_model(NAME)


def test_cards_and_datasets_print_short():
    model = zoo.load_model(NAME)
    assert repr(model.card).startswith(f"<Card of {NAME!r}: rmse 55.16, ")
    assert str(model.card) == model.card._repr_markdown_() == model.card["text"]
    data = zoo.load_dataset("diabetes")
    assert repr(data) == "<Dataset 'diabetes', regression: 282 train, 71 validation, 89 test rows; inputs (10,)>"
    assert repr(data.test) == "<Split of 89 rows: x (89, 10) float32, y (89, 1) float32>"


@pytest.mark.slow
def test_a_pretrained_point_is_a_starting_point_too():
    name = "resnet20_flipout.cifar10_map"
    found, known = (
        weight_distributions(model) for model in (zoo.create_model(name, pretrained=True), zoo.load_model(name))
    )
    assert found.keys() == known.keys()
    for key, value in known.items():
        np.testing.assert_array_equal(found[key], value)
