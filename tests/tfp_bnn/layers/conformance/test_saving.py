"""Configs and files bring back every case: its arguments, its parameters and the state of its noise."""

from __future__ import annotations

import inspect

import keras
import numpy as np

from tfp_bnn.posteriors import POSTERIORS
from tfp_bnn.priors import PRIORS

from .cases import for_each_costly_case
from .reference import randomize

LEARNED = {"name": "normal", "scale": 0.5, "empirical_bayes": True}
# Arguments of Keras' own that its configs leave out: values to start from, and what our layers refuse.
NOT_CONFIGURATION = ("weights", "flash_attention", "lora_rank", "lora_alpha", "quantization_config")


@for_each_costly_case
def test_config_round_trip(case):
    posterior = {"name": case.posterior, **({} if case.posterior == "delta" else {"initial_scale": 0.01})}
    prior = {"name": "scale_mixture", "scale_1": 0.7}
    layer = case.make(
        **case.of_all_weights("prior", prior),
        **case.of_all_weights("posterior", posterior),
        activity_regularizer="l2",
        seed=11,
        kl_weight=0.25,
        dtype="mixed_bfloat16",
        name="mine",
    )
    config = layer.get_config()
    assert set(inspect.signature(case.layer).parameters) - {"kwargs", *NOT_CONFIGURATION} <= set(config)
    for copy in (
        case.layer.from_config(config),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer), safe_mode=True),
        keras.layers.deserialize(keras.layers.serialize(layer)),
    ):
        assert type(copy) is case.layer
        assert copy.get_config() == config
        assert (copy.name, copy.seed, copy.kl_weight) == ("mine", 11, 0.25)
        copy.build(case.input_shape)
        assert list(copy.variational_weights) == list(case.build().variational_weights)
        for weight in copy.variational_weights.values():
            assert weight.prior_spec == PRIORS.get(prior)
            assert weight.posterior_spec == POSTERIORS.get(posterior)


@for_each_costly_case
def test_weights_and_noise_survive_a_file(case, tmp_path):
    def network():
        return case.model(case.make(**case.of_all_weights("prior", LEARNED), seed=3, name="layer"))

    model, inputs = network(), case.inputs()
    layer = model.get_layer("layer")
    randomize(layer)
    for training in (True, True, False):
        layer(inputs, training=training)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    of_weights = network()
    of_weights.load_weights(tmp_path / "model.weights.h5")
    copies = [loaded.get_layer("layer") for loaded in (keras.saving.load_model(tmp_path / "model.keras"), of_weights)]
    assert len(layer.variables) >= 2 * len(layer.variational_weights)
    for copy in copies:
        assert [variable.name for variable in copy.variables] == [variable.name for variable in layer.variables]
        for ours, theirs in zip(layer.variables, copy.variables, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for name, weight in layer.variational_weights.items():
            read = copy.variational_weights[name]
            assert (read.posterior_spec, read.prior_spec) == (weight.posterior_spec, weight.prior_spec)
    for training in (True, False, True):
        outputs = layer(inputs, training=training)
        for copy in copies:
            np.testing.assert_array_equal(copy(inputs, training=training), outputs)
