"""Whole units and filters are pruned, and a smaller dense network computes the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.compression import prune, shrink, sparsity
from tfp_bnn.layers import (
    Convolution2DFlipout,
    DenseFlipout,
    DenseReparameterization,
    FilterResponseNormalization,
    LSTMFlipout,
    MCDropout,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(6, 4, 4, 2)).astype(np.float32)
ROWS = RNG.normal(size=(6, 4)).astype(np.float32)


def randomized(model, seed=0):
    """The model with random values for all that it learns, also for what starts at 0 or 1."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if "scale" not in variable.name:
            variable.assign(rng.normal(size=variable.shape))
    return model


def convolutional():
    """Two convolutions whose outputs are added, after normalizations; a pooling, a flattening and two dense layers."""
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 2))
    x = Convolution2DFlipout(4, 3, padding="same", name="first")(image)
    x = keras.layers.BatchNormalization(name="batch")(x)
    x = keras.layers.Activation("sigmoid")(x)  # which is not 0 at 0
    y = Convolution2DFlipout(3, 3, padding="same", activation="silu", name="inside")(x)
    y = Convolution2DFlipout(4, 3, padding="same", name="second")(y)
    y = FilterResponseNormalization(name="response")(y)
    x = keras.layers.MaxPooling2D()(keras.layers.Add()([x, y]))
    x = MCDropout(0.1)(keras.layers.Flatten()(x))
    x = keras.layers.Concatenate()([x, DenseFlipout(2, name="beside")(x)])
    x = DenseFlipout(5, activation="tanh", bias_posterior="mean_field_normal", name="dense")(x)
    return randomized(tfp_bnn.VariationalModel(image, DenseFlipout(3, name="logits")(x), seed=0))


def dense(*units, layer=DenseFlipout, **arguments):
    keras.utils.set_random_seed(0)
    layers = [layer(n, activation="relu", name=f"layer{i}", **arguments) for i, n in enumerate(units)]
    layers.append(layer(3, name="logits", **arguments))
    return randomized(tfp_bnn.VariationalSequential([keras.Input((4,)), *layers], seed=0))


def shapes(model):
    return {layer.name: layer.variational_weights["kernel"].shape for layer in model.variational_layers}


def assert_same_outputs(pruned, small, inputs):
    """With the same weights: those of the mean, and then those of a draw of the larger network."""
    np.testing.assert_allclose(*(m.plug_in_predictive(inputs).mean() for m in (pruned, small)), rtol=1e-5, atol=1e-6)
    for layer in small.variational_layers:
        large = pruned.get_layer(layer.name).variational_weights
        for name, weight in layer.variational_weights.items():
            draw = large[name].posterior.sample(seed=(1, 2)).numpy()
            large[name].posterior_variables["loc"].assign(draw)
            for axis in range(max(0, draw.ndim - 2), draw.ndim):
                others = tuple(other for other in range(draw.ndim) if other != axis)
                draw = draw.take(np.flatnonzero(draw.any(axis=others)), axis=axis)
            weight.posterior_variables["loc"].assign(draw)
    np.testing.assert_allclose(*(m.plug_in_predictive(inputs).mean() for m in (pruned, small)), rtol=1e-5, atol=1e-6)


def test_a_smaller_network_has_the_same_outputs_and_the_same_kl():
    pruned = prune(convolutional(), 0.5, scope="layer", units=True)
    small = shrink(pruned)
    assert {name: shape[-1] for name, shape in shapes(small).items()} == {
        "first": 2,  # added to those of the second
        "inside": 1,
        "second": 2,
        "beside": 1,
        "dense": 3,
        "logits": 3,
    }
    assert float(small.kl()) == pytest.approx(float(pruned.kl()), rel=1e-5)
    assert set(sparsity(small).values()) == {0.0}
    assert not any(spec.pruned for layer in small.variational_layers for spec, _ in layer.distribution_specs.values())
    assert_same_outputs(pruned, small, IMAGES)


@pytest.mark.slow
def test_units_stay_without_effect_through_training():
    """Biases of pruned units move: their outgoing weights are what keeps them out."""
    model = prune(dense(6, 5), 0.5, units=True)
    model.compile(keras.optimizers.AdamW(0.1, weight_decay=0.1), run_eagerly=True)
    model.fit(ROWS, np.arange(6) % 3, verbose=0)
    smaller = shrink(model)
    assert {name: shape[-1] for name, shape in shapes(smaller).items()} != {"layer0": 6, "layer1": 5, "logits": 3}
    assert_same_outputs(model, smaller, ROWS)


@pytest.mark.parametrize("by", ["l1", "signal_to_noise", "kl"])
def test_units_of_the_least_worth_of_their_weights_are_pruned(by):
    from tfp_bnn.compression.importance import CRITERIA, name_of

    model = dense(6, 5)
    of_unit = np.sum if by == "kl" else np.mean
    worth = [
        of_unit(CRITERIA[name_of(by)](layer.variational_weights["kernel"]).astype(np.float64), axis=0)
        for layer in model.variational_layers[:2]
    ]
    least = np.argsort(np.concatenate(worth))[:4]
    pruned = prune(model, 4 / 11, by, units=True)
    gone = [~layer.variational_weights["kernel"].kept.any(axis=0) for layer in pruned.variational_layers[:2]]
    assert set(np.flatnonzero(np.concatenate(gone))) == set(least)


def test_every_layer_loses_the_same_share_and_only_the_named_ones_lose_any():
    sizes = shapes(shrink(prune(dense(6, 4), 0.5, "l1", scope="layer", units=True)))
    assert sizes == {"layer0": (4, 3), "layer1": (3, 2), "logits": (2, 3)}
    sizes = shapes(shrink(prune(dense(6, 4), 0.5, "l1", units=True, layers=["layer1"])))
    assert sizes == {"layer0": (4, 6), "layer1": (6, 2), "logits": (2, 3)}
    again = prune(
        prune(dense(6, 4), 0.5, "l1", units=True, layers=["layer1"]), 0.5, "kl", units=True, layers=["layer1"]
    )
    assert shapes(shrink(again)) == sizes
    weights = prune(dense(6, 4), 0.5, layers=["layer1"])
    assert sparsity(weights) == {"layer0": 0.0, "layer1": 0.5, "logits": 0.0}


def test_single_weights_can_leave_a_unit_without_an_effect_and_the_other_masks_stay():
    model = prune(dense(6, 5), 0.0)
    mask = model.get_layer("layer1").variational_weights["kernel"].posterior_variables["mask"]
    mask.assign(np.where(np.arange(6)[:, None] < 2, 0.0, mask))
    mask = model.get_layer("logits").variational_weights["kernel"].posterior_variables["mask"]
    mask.assign(np.eye(5, 3))
    smaller = shrink(model)
    assert shapes(smaller) == {"layer0": (4, 4), "layer1": (4, 3), "logits": (3, 3)}
    np.testing.assert_array_equal(smaller.get_layer("logits").variational_weights["kernel"].kept, np.eye(3) > 0)
    means = [m.plug_in_predictive(ROWS).mean() for m in (model, smaller)]
    np.testing.assert_allclose(*means, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("groups", ["inputs", "outputs"])
def test_units_that_the_data_do_not_need_are_those_below_a_worth(groups):
    """The scales of the units that stay do, whether a prior has one for each input or each output."""
    prior = {"name": "normal", "groups": groups, "empirical_bayes": True}
    model = dense(5, 5, kernel_prior=prior)
    needed = np.array([True, False, True, True, False])
    for layer, following in (("layer0", "layer1"), ("layer1", "logits")):
        weight = model.get_layer(layer).variational_weights["kernel"]
        weight.posterior_variables["loc"].assign(np.where(needed, weight.mean, 1e-3))
        shape = model.get_layer(following).variational_weights["kernel"].parameters()["prior_scale"].shape
        model.get_layer(following).variational_weights["kernel"].assign_parameters(
            {
                **model.get_layer(following).variational_weights["kernel"].parameters(),
                "prior_scale": np.arange(1.0, 1 + np.prod(shape)).reshape(shape),
            }
        )
    small = shrink(prune(model, below=1.0, by="signal_to_noise", units=True))
    assert shapes(small) == {"layer0": (4, 3), "layer1": (3, 3), "logits": (3, 3)}
    scales = small.get_layer("logits").variational_weights["kernel"].parameters()["prior_scale"].ravel()
    np.testing.assert_allclose(scales, [1, 3, 4] if groups == "inputs" else [1, 2, 3], rtol=1e-5)
    # A share of every layer is no way out of a bound.
    with pytest.raises(ValueError, match=r"less than 100000, would leave none of .*'layer0'\. Give a smaller `below`"):
        prune(model, below=1e5, units=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Give either `fraction`"),
        ({"fraction": 0.5, "below": 1.0}, "Give either `fraction`"),
        ({"below": float("nan")}, "`below` is the worth that is needed to stay, a number above 0, but got nan"),
        ({"below": -3.0}, "a number above 0, but got -3.0"),
    ],
)
def test_either_a_share_or_a_worth(arguments, message):
    with pytest.raises(ValueError, match=message):
        prune(dense(4), **arguments)


def test_learned_priors_and_points_shrink_too():
    prior = {"name": "normal", "empirical_bayes": True}
    model = dense(6, 5, layer=DenseReparameterization, kernel_prior=prior, kernel_posterior="delta")
    for layer in model.variational_layers:
        layer.variational_weights["kernel"].posterior_variables["loc"].assign(
            RNG.normal(size=layer.variational_weights["kernel"].shape)
        )
    smaller = shrink(prune(model, 0.5, "l1", units=True))
    assert float(smaller.kl()) > 0


# === Refusals ===


def test_what_cannot_shrink_is_said():
    with pytest.raises(ValueError, match=r"units of 'logits' cannot be pruned: they are outputs of the network"):
        prune(dense(4), 0.5, units=True, layers=["logits"])
    with pytest.raises(ValueError, match=r"Unknown layer with a distribution 'layer7'. Did you mean 'layer0'"):
        prune(dense(4), 0.5, layers=["layer7"])
    with pytest.raises(ValueError, match=r"'logits': they are outputs of the network"):
        prune(dense(), 0.5, units=True)
    steps = keras.Input((3, 4))
    x = DenseFlipout(4, name="before")(steps)
    x = LSTMFlipout(3, name="lstm")(x)
    x = DenseFlipout(4, activation="softmax", name="mixing")(x)
    model = tfp_bnn.VariationalModel(steps, DenseFlipout(2, name="logits")(x))
    with pytest.raises(ValueError, match=r"'before': 'lstm' \(LSTMFlipout\) needs all of its channels") as caught:
        prune(model, 0.5, units=True)
    assert "the activation of 'mixing' needs all of them" in str(caught.value)


def test_a_layer_with_nothing_left_is_refused():
    with pytest.raises(ValueError, match=r"would leave none of the layer 'layer0'"):
        prune(dense(4), 0.99, units=True)
    with pytest.raises(ValueError, match=r"Nothing would be left of 'layer0', 'logits'"):
        prune(dense(4), 0.99)
    model = prune(dense(4), 0.0)
    model.get_layer("logits").variational_weights["kernel"].posterior_variables["mask"].assign(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"No unit of 'layer0' has an effect"):
        shrink(model)


def test_a_layer_without_a_distribution_that_reads_units_is_named():
    model = tfp_bnn.VariationalSequential(
        [keras.Input((4,)), DenseFlipout(3, name="a"), keras.layers.Dense(3, name="plain"), DenseFlipout(2, name="b")]
    )
    with pytest.raises(ValueError, match=r"units of 'a' cannot be pruned: the weights of 'plain' have no distribution"):
        prune(model, 0.5, units=True, layers=["a"])


def test_code_is_no_graph():
    @keras.saving.register_keras_serializable(package="test_units")
    class Own(tfp_bnn.VariationalMixin, keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = DenseFlipout(3)

        def call(self, x, training=None):
            return self.dense(x, training=training)

    model = Own(seed=0)
    model(ROWS)
    for make in (lambda: prune(model, 0.5, units=True), lambda: shrink(model)):
        with pytest.raises(ValueError, match="`call` of Own is code"):
            make()
