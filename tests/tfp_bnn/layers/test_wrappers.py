"""Bayesian layers within `TimeDistributed` and `Bidirectional`, and layers that are used several times."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.noise import Noise, NoNoise, noise_scope
from tfp_bnn.layers import DenseFlipout, DenseLocalReparameterization, GRUFlipout, LSTMFlipout
from tfp_bnn.models.weight_record import weight_distributions

L = keras.layers
STEPS, FEATURES = 4, 3


def inputs_of(batch=5, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, STEPS, FEATURES)).astype(np.float32)


def wrapped(kind):
    if kind == "time":
        return L.TimeDistributed(DenseFlipout(2, name="dense"), name="wrapper")
    cls = LSTMFlipout if kind == "lstm" else GRUFlipout
    return L.Bidirectional(cls(2, return_sequences=True, name="cell"), name="wrapper")


def model_of(kind):
    x = keras.Input((STEPS, FEATURES))
    h = L.Flatten()(wrapped(kind)(x))
    return tfp_bnn.VariationalModel(x, DenseFlipout(1, name="head")(h), likelihood="normal", seed=0)


INNER = {"time": ["dense"], "lstm": ["forward_cell", "backward_cell"], "gru": ["forward_cell", "backward_cell"]}


@pytest.mark.parametrize("kind", ["time", "lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_the_layers_within_a_wrapper_are_counted_trained_saved_and_loaded(kind, tmp_path):
    model = model_of(kind)
    assert [layer.name for layer in model.variational_layers] == [*INNER[kind], "head"]
    assert list(model.kl_by_layer()) == [*INNER[kind], "head"]
    assert {f"{name}/kernel/scale" for name in INNER[kind]} <= set(weight_distributions(model))
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    before = [np.asarray(variable) for variable in model.trainable_variables]
    logs = model.fit(inputs_of(), np.zeros((5, 1)), verbose=0).history
    kls = [float(layer.kl()) for layer in model.variational_layers]
    assert float(model.kl()) == pytest.approx(sum(kls), rel=1e-6)
    assert logs["kl"][0] == pytest.approx(sum(kls), rel=0.05)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert (np.asarray(variable) != old).any(), variable.path
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    samples = [net.posterior_predictive(inputs_of(), num_samples=2).samples for net in (model, loaded)]
    np.testing.assert_array_equal(*samples)
    assert (samples[0][0] != samples[0][1]).all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("steps", [STEPS, None])
def test_all_steps_of_time_distributed_share_the_draw_of_the_weights(steps, training):
    x = keras.Input((steps, FEATURES))
    net = tfp_bnn.VariationalModel(x, wrapped("time")(x), likelihood="normal", seed=0)
    same = np.repeat(inputs_of()[:, :1], STEPS, axis=1)
    first, second = (np.asarray(net(same, training=training)) for _ in range(2))
    np.testing.assert_allclose(first, np.repeat(first[:, :1], STEPS, axis=1), atol=1e-6)
    assert np.abs(first - second).max() > 1e-3


def test_time_distributed_is_the_layer_itself_on_sequences():
    layer = DenseFlipout(2)
    wrapper = L.TimeDistributed(layer)
    wrapper.build((None, STEPS, FEATURES))
    for training in (False, True):
        outputs = []
        for each in (wrapper, layer):
            with noise_scope({id(layer): Noise(tf.constant([3, 0]))}):
                outputs.append(each.call(inputs_of(), training=training))
        np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)


@pytest.mark.parametrize("cls", [LSTMFlipout, GRUFlipout])
def test_two_directions_have_weights_and_draws_of_their_own(cls):
    wrapper = L.Bidirectional(cls(2, seed=3, name="cell"))
    wrapper.build((None, STEPS, FEATURES))
    forward, backward = wrapper.forward_layer, wrapper.backward_layer
    assert (np.asarray(forward.kernel) != np.asarray(backward.kernel)).all()
    # With equal weights, a sequence and its mirror image give the two directions the same outputs, but for the draws.
    backward.set_weights(forward.get_weights())
    x = inputs_of()
    with noise_scope({id(layer): NoNoise() for layer in (forward, backward)}):
        of_x, of_mirrored = np.asarray(wrapper(x)), np.asarray(wrapper(x[:, ::-1]))
        np.testing.assert_allclose(of_x[:, :2], of_mirrored[:, 2:], atol=1e-6)
    drawn = np.asarray(wrapper(inputs_of()))
    assert np.abs(drawn[:, :2] - forward(x)).max() > 1e-3
    both = [np.asarray(layer._noise(False).normal("kernel", (100,))) for layer in (forward, backward)]
    assert len({array.tobytes() for array in both}) == 2


def test_a_local_reparameterization_used_twice_draws_for_each_use(injected_noise):
    layer = DenseLocalReparameterization(2)
    layer.build((None, FEATURES))
    first, second = inputs_of()[:, 0], inputs_of(seed=1)[:, 0]
    with noise_scope({id(layer): injected_noise}):
        outputs = [np.asarray(layer(x, training=True)) for x in (first, second)]
    assert set(injected_noise.drawn) == {"outputs", "outputs#2"}
    for x, found, name in zip((first, second), outputs, injected_noise.drawn, strict=True):
        scale = np.sqrt(x**2 @ np.asarray(layer.kernel_posterior.variance()))
        expected = x @ np.asarray(layer.kernel_posterior.mean()) + scale * injected_noise.drawn[name]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.statistical
def test_the_uses_of_a_local_reparameterization_are_uncorrelated_and_those_of_flipout_as_their_weights_say():
    """10,000 examples, each with its own draw; false-failure rate 1e-6: the normal limit of a correlation.

    The second use has orthogonal inputs, the third the opposite ones. Flipout has one draw for all uses: correlations 0
    and -1, exactly those of the weights. Local reparameterization draws each use: 0 and, approximately, 0.
    """
    x = keras.Input((2,))
    first = np.tile(np.array([[1.0, 0.0]], np.float32), (10_000, 1))
    found = {}
    for cls in (DenseFlipout, DenseLocalReparameterization):
        layer = cls(1, use_bias=False)
        outputs = L.Concatenate()([layer(x), layer(keras.ops.flip(x, axis=1)), layer(-x)])
        model = tfp_bnn.VariationalModel(x, outputs, likelihood="normal", seed=0)
        found[cls] = np.corrcoef(np.asarray(model(first, training=True)).T)[0]
    bound = scipy.stats.norm.isf(1e-6 / 6) / np.sqrt(10_000)
    np.testing.assert_allclose(found[DenseFlipout], [1.0, 0.0, -1.0], atol=bound)
    np.testing.assert_allclose(found[DenseLocalReparameterization], [1.0, 0.0, 0.0], atol=bound)
