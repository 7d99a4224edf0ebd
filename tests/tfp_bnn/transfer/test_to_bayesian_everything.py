"""`to_bayesian` leaves nothing deterministic in silence: recurrent nets, attention, wrappers, normalizations."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.core.noise import NoNoise
from tfp_bnn.transfer import to_bayesian, to_deterministic

from .deterministic import L, images, mlp, randomized

SEQUENCES = {
    "bidirectional lstm": lambda i: L.Bidirectional(L.LSTM(5, name="cell"), name="body")(i),
    "bidirectional gru": lambda i: L.Bidirectional(L.GRU(5, name="cell"), merge_mode="sum", name="body")(i),
    "gru": lambda i: L.GRU(5, name="body")(i),
    "gru, reset before": lambda i: L.GRU(5, reset_after=False, name="body")(i),
    "attention": lambda i: L.Flatten()(L.MultiHeadAttention(2, 4, value_dim=3, name="body")(i, i)),
    "gated attention": lambda i: L.Flatten()(L.MultiHeadAttention(2, 4, use_gate=True, name="body")(i, i)),
    "time distributed": lambda i: L.Flatten()(L.TimeDistributed(L.Dense(8, name="inside"), name="body")(i)),
    "einsum": lambda i: L.Flatten()(L.EinsumDense("abc,cd->abd", (6, 8), bias_axes="d", name="body")(i)),
    "layer normalization": lambda i: L.Flatten()(L.LayerNormalization(name="body")(i)),
    "group normalization": lambda i: L.Flatten()(L.GroupNormalization(3, name="body")(i)),
    "transposed": lambda i: L.Flatten()(L.Conv1DTranspose(2, 3, strides=2, name="body")(i)),
}
# How many weights of the first layer become Bayesian: all but the biases and offsets.
BAYESIAN = {
    "bidirectional lstm": 2 * (3 + 5) * 20,
    "bidirectional gru": 2 * (3 + 5) * 15,
    "gru": (3 + 5) * 15,
    "gru, reset before": (3 + 5) * 15,
    "attention": 3 * (8 + 8 + 6) + 6 * 3,
    "gated attention": 3 * 8 * 4 + 8 * 3,
    "time distributed": 3 * 8,
    "einsum": 3 * 8,
    "layer normalization": 3,
    "group normalization": 3,
    "transposed": 3 * 2 * 3,
}


def net_of(name):
    i = keras.Input((6, 3))
    return randomized(keras.Model(i, L.Dense(1, name="head")(SEQUENCES[name](i)), name="net"))


@pytest.mark.parametrize("name", SEQUENCES)
def test_it_becomes_bayesian_and_computes_the_same_and_goes_back(name, capsys):
    net, x = net_of(name), images(6, 3)
    model = to_bayesian(net, likelihood="normal", strict=True)
    head = net.get_layer("head").kernel.shape[0]
    assert sum(w.size for layer in model.variational_layers for w in layer.variational_weights.values()) == (
        BAYESIAN[name] + head
    )
    assert capsys.readouterr().out.endswith("Layers with weights that stay deterministic: none.\n")
    np.testing.assert_allclose(model.call_with_noise(x, NoNoise()), net(x), atol=1e-5)
    assert model.posterior_predictive(x, num_samples=2).samples.std(axis=0).min() > 0
    back = to_deterministic(model)
    assert type(back.get_layer("body")) is type(net.get_layer("body"))
    for ours, theirs in zip(back.weights, net.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bidirectional gru", "gated attention", "time distributed"])
def test_what_was_converted_survives_a_file(name, tmp_path):
    model, x = to_bayesian(net_of(name), likelihood="normal", seed=3), images(6, 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    samples = [each.posterior_predictive(x, num_samples=2).samples for each in (model, loaded)]
    np.testing.assert_array_equal(*samples)


def partly():
    i = keras.Input((6, 3))
    h = L.BatchNormalization(name="batch")(i)
    h = L.TimeDistributed(L.BatchNormalization(name="inner"), name="steps")(h)
    h = L.LSTM(5, dropout=0.2, name="dropped")(h)
    return keras.Model(i, L.Dense(1, name="head")(h), name="net")


def test_it_prints_what_becomes_bayesian_and_what_stays_deterministic_and_why(capsys):
    net = partly()
    to_bayesian(net, likelihood="normal")
    assert capsys.readouterr().out == (
        f"5 of {net.count_params()} weights become Bayesian, in the layers head (Dense).\n"
        "Layers with weights that stay deterministic: batch (BatchNormalization), steps (TimeDistributed around inner "
        "(BatchNormalization)), dropped (LSTM with dropout: put an MCDropout before or after it instead).\n"
    )
    to_bayesian(net, likelihood="normal", verbose=False)
    assert capsys.readouterr().out == ""


def test_strict_refuses_to_leave_a_layer_deterministic_by_name():
    with pytest.raises(
        ValueError, match=r"strict=True.*'net'.*batch \(BatchNormalization\).*dropped \(LSTM with dropout"
    ):
        to_bayesian(partly(), likelihood="normal", strict=True)
    # What the user leaves out is left out on purpose.
    assert len(to_bayesian(mlp(), ["head"], strict=True).variational_layers) == 1


def test_layers_in_a_wrapper_keep_their_flag_and_regularizers():
    net = net_of("bidirectional lstm")
    net.get_layer("body").backward_layer.trainable = False
    model = to_bayesian(net, likelihood="normal")
    wrapper = model.get_layer("body")
    assert wrapper.forward_layer.trainable
    assert not wrapper.backward_layer.trainable
    assert isinstance(wrapper.forward_layer, tfp_bnn.layers.LSTMFlipout)
