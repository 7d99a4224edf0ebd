"""Every input of an exported model has a name of its own, which the file can have."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
from tfp_bnn.export.input_signature import input_specs
from tfp_bnn.export.saved_model import served_functions
from tfp_bnn.layers import DenseFlipout


def network(*names):
    inputs = [keras.Input((2,), name=name) for name in names]
    merged = keras.layers.Concatenate()(inputs) if len(inputs) > 1 else inputs[0]
    return tfp_bnn.VariationalModel(inputs if len(inputs) > 1 else inputs[0], DenseFlipout(2)(merged), seed=0)


def spec(name=None, size=2):
    return tf.TensorSpec((None, size), "float32", name=name)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, None, None), ["x", "x_1", "x_2"]),
        ((None, "x"), ["x_1", "x"]),
        (("x_1", None, None), ["x_1", "x", "x_2"]),
        (("X", None), ["X", "x_1"]),
    ],
)
def test_inputs_without_a_name_get_one_that_no_other_has(given, expected):
    assert [spec.name for spec in input_specs(network(*given))] == expected


class Net(tfp_bnn.VariationalMixin, keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.top = DenseFlipout(2)

    def call(self, inputs):
        return self.top(keras.ops.concatenate(keras.tree.flatten(inputs), axis=-1))


@pytest.mark.parametrize(
    ("structure", "names"),
    [
        ({"right": 3, "left": 2}, ["left", "right"]),
        ([3, 2], ["x", "x_1"]),
        ((3, 2), ["x", "x_1"]),
        ({"right": [3, 2]}, ["x", "x_1"]),
    ],
)
def test_a_subclass_with_several_inputs_knows_them_after_its_first_call(structure, names):
    model = Net(seed=0)
    x = keras.tree.map_structure(lambda size: np.ones((4, size), np.float32), structure)
    model(x)
    specs = input_specs(model)
    assert [spec.name for spec in keras.tree.flatten(specs)] == names
    assert keras.tree.map_structure(lambda spec: tuple(spec.shape), specs) == keras.tree.map_structure(
        lambda size: (None, size), structure
    )
    served, _ = served_functions(model, num_samples=2)
    np.testing.assert_allclose(
        served["serving_default"](x)["mean"], model.posterior_predictive(x, 2).mean(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("config", [None, {}, {"input_shape": ()}, {"input_shape": [(2, 3), None]}])
def test_a_subclass_that_does_not_know_its_inputs_says_how_to_give_them(config, monkeypatch):
    model = Net(seed=0)
    model(np.ones((4, 2), np.float32))
    monkeypatch.setattr(model, "get_build_config", lambda: config)
    with pytest.raises(ValueError, match=r"does not know the shape of its inputs\. Pass input_signature="):
        input_specs(model)


# ONNX has any name.
@pytest.mark.parametrize(
    ("names", "formats", "message"),
    [
        (("x", "x"), ("tf_saved_model", "litert", "onnx"), "inputs of the names 'x' and 'x', which would be the same"),
        (("X", "x"), ("tf_saved_model", "litert"), "inputs of the names 'X' and 'x', which would be the same"),
        (("x.y", "x_y"), ("tf_saved_model", "litert"), "inputs of the names 'x.y' and 'x_y', which would be the same"),
        (("1", "arg_1"), ("tf_saved_model", "litert"), "inputs of the names '1' and 'arg_1', which would be the same"),
        (("Seed",), ("tf_saved_model",), "name 'Seed', which the signatures of the file have already"),
        (("sepal length",), ("tf_saved_model", "litert"), "name 'sepal length'. Expected .* ASCII"),
        (("größe",), ("tf_saved_model", "litert"), "name 'größe'. Expected"),
        (("_x",), ("tf_saved_model", "litert"), "name '_x'. Expected"),
        (("class",), ("tf_saved_model", "litert"), "name 'class'. Expected .* no word of Python"),
        (("self",), ("tf_saved_model", "litert"), "name 'self'. Expected .* no word of Python"),
    ],
)
def test_a_name_that_the_file_cannot_have_is_refused_with_the_way_to_another(names, formats, message, tmp_path):
    model = network(*[None] * len(names))
    signature = [[spec(name) for name in names] if len(names) > 1 else spec(names[0])]
    for format in formats:
        if format == "onnx":
            pytest.importorskip("tf2onnx", reason="needs tf2onnx: pip install 'tfp_bnn[onnx]'")
        with pytest.raises(ValueError, match=rf"{message}.*keras\.Input\(shape, name='features'\).*`input_signature`"):
            model.export(tmp_path / "model", format=format, num_samples=2, input_signature=signature, verbose=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_onnx_has_any_name_and_others_have_that_of_the_signature(exporting_to, tmp_path):
    model, x = network("sepal length"), np.ones((3, 2), np.float32)
    expected = model.posterior_predictive(x, 2).mean()
    answer = exporting_to("onnx")(model, num_samples=2)({"sepal length": x})
    np.testing.assert_allclose(answer["mean"], expected, rtol=1e-4, atol=1e-4)
    model.export(tmp_path / "served", num_samples=2, input_signature=[spec("sepal_length")], verbose=False)
    signature = tf.saved_model.load(tmp_path / "served").signatures["serving_default"]
    np.testing.assert_allclose(signature(sepal_length=tf.constant(x))["mean"], expected, rtol=1e-4, atol=1e-4)
