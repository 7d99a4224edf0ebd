"""The weights of a model as one typed object: names are made and read in one place, and weights are counted once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.models.weight_record import (
    Role,
    WeightRecord,
    assign_weight_distributions,
    count_weights,
    layers_by_name,
    weight_distributions,
)
from tfp_bnn.posteriors import MeanFieldNormal

SHARED = {"name": "normal", "scale": 0.4, "hyperprior": "half_cauchy", "shared": "body"}


def make_model() -> Any:
    inputs = keras.Input((3,))
    h = tfp_bnn.layers.DenseFlipout(4, kernel_prior=SHARED, name="body")(inputs)
    h = keras.layers.Dense(4, name="plain")(h)
    own = {"name": "laplace", "empirical_bayes": True}
    outputs = tfp_bnn.layers.DenseReparameterization(
        2, kernel_posterior={"name": "low_rank_normal", "rank": 1}, kernel_prior=own, name="head"
    )(h)
    return tfp_bnn.VariationalModel(inputs, outputs, likelihood="normal", seed=0)


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


class ThreeParameters(MeanFieldNormal):
    """A posterior of three numbers a weight."""

    def add_weights(
        self, add_weight: Callable[..., keras.Variable], name: str, loc: keras.Variable
    ) -> dict[str, keras.Variable]:
        skew = add_weight(name=f"{name}_skew", shape=loc.shape, initializer="zeros")
        return {**super().add_weights(add_weight, name, loc), "skew": skew}

    def parameters(self, weights: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
        return {**super().parameters(weights), "skew": np.asarray(weights["skew"])}


def test_every_array_has_a_typed_place_and_a_name(model):
    record = WeightRecord.of(model)
    assert {entry.name: entry.role for entry in record} == {
        "body/kernel/loc": Role.POSTERIOR,
        "body/kernel/scale": Role.POSTERIOR,
        "body/bias": Role.VALUE,
        "plain/kernel": Role.VALUE,
        "plain/bias": Role.VALUE,
        "head/kernel/loc": Role.POSTERIOR,
        "head/kernel/scale": Role.POSTERIOR,
        "head/kernel/factor": Role.POSTERIOR,
        "head/kernel/prior_scale": Role.PRIOR,
        "head/bias": Role.VALUE,
        "prior/body/scale": Role.SHARED_PRIOR,
        "prior/body/scale_spread": Role.SHARED_PRIOR,
        "likelihood/scale": Role.LIKELIHOOD,
    }
    assert set(record.posteriors()) == {("body", "kernel"), ("head", "kernel")}


def test_names_are_read_back_as_they_were_made(model):
    record = WeightRecord.of(model)
    read = WeightRecord.from_arrays(record.arrays())
    assert len(read) == len(record)
    for entry, expected in zip(read, record, strict=True):
        assert (entry.role, entry.owner, entry.weight, entry.parameter) == (
            expected.role,
            expected.owner,
            expected.weight,
            expected.parameter,
        )


def test_layers_may_have_the_names_of_other_places():
    names = ("prior", "likelihood", "layer:prior")
    layers = [tfp_bnn.layers.DenseFlipout(1, kernel_prior={**SHARED, "shared": "kernel"}, name=name) for name in names]
    model = tfp_bnn.VariationalSequential([keras.Input((1,)), *layers], likelihood="normal", seed=0)
    arrays = weight_distributions(model)
    assert {"layer:prior/kernel/scale", "prior/kernel/scale", "layer:likelihood/bias", "likelihood/scale"} < set(arrays)
    changed = {name: array + np.float32(1.0) for name, array in arrays.items()}
    assign_weight_distributions(model, changed)
    for name, value in weight_distributions(model).items():
        np.testing.assert_allclose(value, changed[name], rtol=2e-6)


def test_a_weight_counts_once_whatever_its_distribution_has_of_parameters(model):
    assert WeightRecord.of(model).num_weights == count_weights(model) == (3 * 4 + 4) + (4 * 4 + 4) + (4 * 2 + 2)
    layer = tfp_bnn.layers.DenseReparameterization(2)
    layer._specs["kernel"] = (ThreeParameters(), layer._specs["kernel"][1])
    other = tfp_bnn.VariationalSequential([keras.Input((3,)), layer])
    assert "skew" in layer.variational_weights["kernel"].posterior_parameters()
    assert WeightRecord.of(other).num_weights == count_weights(other) == 3 * 2 + 2


def test_a_record_is_put_into_another_model_of_the_same_architecture(model):
    other = make_model()
    WeightRecord.of(model).assign_to(other)
    for name, value in weight_distributions(model).items():
        np.testing.assert_allclose(weight_distributions(other)[name], value, rtol=2e-6)


@keras.saving.register_keras_serializable("test_weight_record")
class Scaled(keras.layers.Layer):
    """A layer with weights besides those of the layer within it: one without a name, and two of one name."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.inner = keras.layers.Dense(3, name="inner")

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}

    def build(self, input_shape: Any) -> None:
        self.gain = self.add_weight(name="gain", shape=(3,), initializer="ones")
        self.power = self.add_weight(shape=(3,), initializer="ones")
        self.shift = self.add_weight(name="gain", shape=(3,), initializer="zeros")
        self.inner.build(input_shape)
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        return self.gain * self.inner(x) ** self.power + self.shift


def test_weights_beside_those_of_layers_within_are_recorded_counted_and_copied():
    layers = [keras.Input((2,)), Scaled("scaled"), tfp_bnn.layers.DenseFlipout(1, name="head")]
    model = tfp_bnn.VariationalSequential(layers, likelihood="normal", seed=0)
    values = {"gain": [5.0, 6.0, 7.0], "power": [2.0, 2.0, 3.0], "shift": [8.0, 9.0, 8.0]}
    for name, value in values.items():
        getattr(model.layers[0], name).assign(value)
    assert WeightRecord.of(model).num_weights == count_weights(model) == 9 + 9 + 4
    assert layers_by_name(model).keys() == {"scaled", "inner", "head"}
    assert {"scaled/gain", "scaled/variable", "scaled/gain_1"} <= weight_distributions(model).keys()
    ways = [tfp_bnn.inference.map_estimate, tfp_bnn.transfer.informed_prior]
    for copy in (tfp_bnn.compression.prune(model, 0.5), *(way(model) for way in ways)):
        for name, value in values.items():
            np.testing.assert_array_equal(getattr(copy.layers[0], name), value)


class WithToken(VariationalMixin, keras.Model):
    """A model with a weight besides those of its layers."""

    def build(self, input_shape: Any) -> None:
        self.token = self.add_weight(name="token", shape=input_shape[1:])
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        return x + self.token


def test_a_weight_of_the_model_itself_is_recorded():
    model = WithToken(likelihood={"name": "normal", "initial_scale": 1.0}, num_examples=3)
    model.build((None, 2))
    assert set(weight_distributions(model)) == {"model/token", "likelihood/scale"}


@pytest.mark.parametrize("name", ["kernel", "a/b/c/d", "a//loc", "/bias", "layer:/bias"])
def test_what_is_no_name_of_a_weight_is_refused(name):
    with pytest.raises(ValueError, match=r"is not the name of a weight\. Expected <layer>/<variable>"):
        WeightRecord.from_arrays({name: np.zeros(1, np.float32)})


def test_nothing_is_changed_unless_everything_fits(model):
    before = weight_distributions(model)
    for name, value in (("head/kernel/scale", -1.0), ("body/bias", np.nan), ("likelihood/scale", 0.0)):
        with pytest.raises(ValueError, match=r"infinite, beyond .* or not a valid scale"):
            assign_weight_distributions(model, {**before, name: np.full_like(before[name], value)})
    with pytest.raises(ValueError, match="missing \\['body/bias'\\], unexpected \\['body/bais'\\]"):
        assign_weight_distributions(model, {"body/bais" if n == "body/bias" else n: a for n, a in before.items()})
    for name, value in weight_distributions(model).items():
        np.testing.assert_array_equal(value, before[name])


def test_two_layers_of_one_name_are_refused():
    inner = keras.Sequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(2, name="same")])
    outer = tfp_bnn.VariationalSequential([keras.Input((2,)), inner, tfp_bnn.layers.DenseFlipout(2, name="same")])
    with pytest.raises(ValueError, match="Two layers are named 'same'"):
        WeightRecord.of(outer)
