"""What the layers should compute, in float64 and plain NumPy: operations, draws of the weights, estimators, moments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.special

from tfp_bnn.layers import VariationalLayer

from .cases import operation_of

Values = Mapping[str, np.ndarray]
"""A value for each weight of a layer, by name."""

Parameters = Mapping[str, Values]
"""The parameters of the distribution of each weight, by their role; of a deterministic weight its `loc` alone."""


def randomize(layer: VariationalLayer, seed: int = 0) -> Parameters:
    """Gives a built layer random parameters, so no two weights are equal, and returns them."""
    rng = np.random.default_rng(seed)
    draws = {
        "loc": lambda shape: rng.normal(size=shape),
        "scale": lambda shape: rng.uniform(0.2, 0.8, size=shape),
        "factor": lambda shape: rng.normal(scale=0.3, size=shape),
    }
    parameters = {}
    for name, weight in layer.variational_weights.items():
        present = weight.parameters()
        weight.assign_parameters({role: draws[role](v.shape) if role in draws else v for role, v in present.items()})
        parameters[name] = {role: v.astype(np.float64) for role, v in weight.parameters().items() if role in draws}
    bayesian = {id(variable) for weight in layer.variational_weights.values() for variable in weight.variables}
    for variable in layer.weights:
        if id(variable) not in bayesian:
            variable.assign(rng.normal(size=variable.shape))
            parameters[variable.name] = {"loc": np.asarray(variable, np.float64)}
    return parameters


# === Operations ===


def transform(layer: VariationalLayer, example: Any, weights: Values) -> np.ndarray:
    """Computes the output of the Keras twin for one example, before the activation.

    Args:
        layer: Layer that defines the geometry.
        example: Input of the layer, without the batch axis.
        weights: Values by name. A missing bias is zero.
    """
    operation = operation_of(type(layer))
    if operation == "Embedding":
        return weights["embeddings"][example]
    if operation == "HierarchicalDense":
        inputs, group = example
        kernel = weights["kernel"] + weights["group_kernel"][group]
        return inputs @ kernel + weights["bias"] + weights["group_bias"][group]
    inputs = np.asarray(example, np.float64)
    if operation == "Dense":
        return inputs @ weights["kernel"] + weights.get("bias", 0.0)
    if operation == "EinsumDense":
        return np.einsum("bc,cde->bed", inputs, weights["kernel"]) + weights.get("bias", 0.0)
    if operation == "MultiHeadAttention":
        return _attention(inputs, weights)
    if operation == "LSTM":
        return _lstm(inputs, **weights)
    if operation == "GRU":
        return _gru(inputs, **weights)
    if operation.endswith("Normalization"):
        outputs = _normalize(operation, layer, inputs) * weights["gamma"] + weights.get("beta", 0.0)
        return np.maximum(outputs, weights["tau"]) if "tau" in weights else outputs
    if layer.data_format == "channels_first":
        inputs = np.moveaxis(inputs, 0, -1)
    geometry = {"strides": layer.strides, "padding": layer.padding, "dilation": layer.dilation_rate}
    if operation == "DepthwiseConvolution2D":
        outputs = _convolve_depthwise(inputs, weights["kernel"], **geometry)
    elif operation == "SeparableConvolution2D":
        between = _convolve_depthwise(inputs, weights["depthwise_kernel"], **geometry)
        outputs = between @ weights["pointwise_kernel"][0, 0]
    elif operation.endswith("Transpose"):
        outputs = _convolve_transposed(inputs, weights["kernel"], **geometry, output_padding=layer.output_padding)
    else:
        outputs = _convolve(inputs, weights["kernel"], **geometry, groups=layer.groups)
    outputs = outputs + weights.get("bias", 0.0)
    return np.moveaxis(outputs, -1, 0) if layer.data_format == "channels_first" else outputs


def _convolve(
    inputs: np.ndarray,
    kernel: np.ndarray,
    strides: Sequence[int],
    padding: str,
    dilation: Sequence[int],
    groups: int = 1,
) -> np.ndarray:
    """Convolution of any rank of inputs `(..., channels)`: one term for each offset of the kernel."""
    rank = kernel.ndim - 2
    extents = [(taps - 1) * d + 1 for taps, d in zip(kernel.shape[:rank], dilation, strict=True)]
    sizes, pads = zip(*map(_size_and_pad, inputs.shape[:rank], extents, strides, [padding] * rank), strict=True)
    padded = np.pad(inputs, [*pads, (0, 0)])
    outputs = np.zeros((*sizes, kernel.shape[-1]))
    for offset in itertools.product(*map(range, kernel.shape[:rank])):
        window = tuple(
            slice(tap * d, tap * d + (size - 1) * stride + 1, stride)
            for tap, d, size, stride in zip(offset, dilation, sizes, strides, strict=True)
        )
        channels_of_groups = np.split(padded[window], groups, axis=-1)
        kernels_of_groups = np.split(kernel[offset], groups, axis=-1)
        outputs += np.concatenate([c @ k for c, k in zip(channels_of_groups, kernels_of_groups, strict=True)], axis=-1)
    return outputs


def _size_and_pad(size: int, extent: int, stride: int, padding: str) -> tuple[int, tuple[int, int]]:
    """The size of the outputs of a convolution, and the zeros before and after its inputs."""
    if padding == "causal":
        return math.ceil(size / stride), (extent - 1, 0)
    if padding == "valid":
        return (size - extent) // stride + 1, (0, 0)
    out = math.ceil(size / stride)
    total = max((out - 1) * stride + extent - size, 0)
    return out, (total // 2, total - total // 2)


def _convolve_depthwise(inputs: np.ndarray, kernel: np.ndarray, **geometry: Any) -> np.ndarray:
    rows, columns, channels, multiplier = kernel.shape
    return _convolve(inputs, kernel.reshape(rows, columns, 1, channels * multiplier), **geometry, groups=channels)


def _convolve_transposed(
    inputs: np.ndarray,
    kernel: np.ndarray,
    strides: Sequence[int],
    padding: str,
    dilation: Sequence[int],
    output_padding: Sequence[int] | None,
) -> np.ndarray:
    """The transpose of the convolution that takes the outputs' shape to that of the inputs."""
    rank = kernel.ndim - 2
    extents = [(taps - 1) * d + 1 for taps, d in zip(kernel.shape[:rank], dilation, strict=True)]
    more = (None,) * rank if output_padding is None else output_padding
    sizes = list(map(_transposed_size, inputs.shape[:rank], extents, strides, [padding] * rank, more))
    pads = [_size_and_pad(*geometry, padding)[1] for geometry in zip(sizes, extents, strides, strict=True)]
    padded = np.zeros((*(size + sum(pad) for size, pad in zip(sizes, pads, strict=True)), kernel.shape[rank]))
    for offset in itertools.product(*map(range, kernel.shape[:rank])):
        window = tuple(
            slice(tap * d, tap * d + (size - 1) * stride + 1, stride)
            for tap, d, size, stride in zip(offset, dilation, inputs.shape[:rank], strides, strict=True)
        )
        padded[window] += inputs @ kernel[offset].T
    return padded[tuple(slice(before, before + size) for (before, _), size in zip(pads, sizes, strict=True))]


def _lstm(
    sequence: np.ndarray, kernel: np.ndarray, recurrent_kernel: np.ndarray, bias: np.ndarray | float = 0.0
) -> np.ndarray:
    """The last state of `keras.layers.LSTM`; its gates are ordered input, forget, candidate, output."""
    h = c = np.zeros(recurrent_kernel.shape[0])
    for inputs in sequence:
        i, f, g, o = np.split(inputs @ kernel + h @ recurrent_kernel + bias, 4)
        c = scipy.special.expit(f) * c + scipy.special.expit(i) * np.tanh(g)
        h = scipy.special.expit(o) * np.tanh(c)
    return h


def _gru(
    sequence: np.ndarray,
    kernel: np.ndarray,
    recurrent_kernel: np.ndarray,
    bias: np.ndarray | float = 0.0,
    recurrent_bias: np.ndarray | float = 0.0,
) -> np.ndarray:
    """The last state of `keras.layers.GRU` with `reset_after`; its gates are ordered update, reset, candidate."""
    h = np.zeros(recurrent_kernel.shape[0])
    for inputs in sequence:
        of_inputs = np.split(inputs @ kernel + bias, 3)
        of_state = np.split(h @ recurrent_kernel + recurrent_bias, 3)
        z, r = (scipy.special.expit(of_inputs[i] + of_state[i]) for i in range(2))
        h = z * h + (1 - z) * np.tanh(of_inputs[2] + r * of_state[2])
    return h


def _attention(inputs: np.ndarray, weights: Values) -> np.ndarray:
    """Self-attention over positions `(positions, channels)`, with the gate."""

    def project(name: str) -> np.ndarray:
        return np.einsum("ta,anh->tnh", inputs, weights[f"{name}_kernel"]) + weights[f"{name}_bias"]

    query, key, value, gate = map(project, ("query", "key", "value", "gate"))
    scores = np.einsum("tnh,snh->nts", query, key) / np.sqrt(query.shape[-1])
    heads = np.einsum("nts,snh->tnh", scipy.special.softmax(scores, axis=-1), value) * scipy.special.expit(gate)
    return np.einsum("tnh,nho->to", heads, weights["output_kernel"]) + weights["output_bias"]


def _normalize(operation: str, layer: VariationalLayer, inputs: np.ndarray) -> np.ndarray:
    """One example of shape `(positions, channels)`, normalized."""
    if operation == "FilterResponseNormalization":
        return inputs / np.sqrt((inputs**2).mean(axis=0) + layer.epsilon)
    groups = inputs[..., None]
    axes = 1 if operation == "LayerNormalization" else (0, 2)
    if operation == "GroupNormalization":
        groups = inputs.reshape(len(inputs), layer.groups, -1)
    mean, variance = groups.mean(axis=axes, keepdims=True), groups.var(axis=axes, keepdims=True)
    return ((groups - mean) / np.sqrt(variance + layer.epsilon)).reshape(inputs.shape)


def _transposed_size(size: int, extent: int, stride: int, padding: str, more: int | None) -> int:
    if more is None:
        return size * stride + (max(extent - stride, 0) if padding == "valid" else 0)
    return (size - 1) * stride + extent + more - (2 * (extent // 2) if padding == "same" else 0)


# === Draws of the weights ===


def perturbations(parameters: Parameters, noise: Values) -> dict[str, np.ndarray]:
    """What the draw of each weight adds to its mean, given the standard normal noise by name."""
    return {name: _perturbation(name, p, noise) for name, p in parameters.items()}


def _perturbation(name: str, p: Values, noise: Values) -> np.ndarray:
    if "scale" not in p:
        return np.zeros_like(p["loc"])
    e = noise[name].astype(np.float64)
    if f"{name}_radius" in noise:
        return p["scale"] * e / np.sqrt((e**2).sum()) * noise[f"{name}_radius"]
    correlated = p["factor"] @ noise[f"{name}_factor"] if "factor" in p else 0.0
    return p["scale"] * e + correlated


def sample_noise(posterior: str, parameters: Parameters, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Fresh standard normal noise, by the names under which a posterior family asks for it."""
    noise = {}
    for name, p in parameters.items():
        noise[name] = rng.normal(size=p["loc"].shape)
        if "factor" in p:
            noise[f"{name}_factor"] = rng.normal(size=p["factor"].shape[-1])
        if posterior == "radial":
            noise[f"{name}_radius"] = rng.normal()
    return noise


# === Estimators ===


def expected_outputs(
    layer: VariationalLayer, inputs: Any, parameters: Parameters, noise: Values, training: bool
) -> np.ndarray:
    """The outputs before the activation, given all noise by name: those of the layer's estimator in training."""
    means = {name: p["loc"] for name, p in parameters.items()}
    examples = examples_of(inputs)
    if all("scale" not in p for p in parameters.values()):
        return np.stack([transform(layer, x, means) for x in examples])
    if training and layer.estimator.name == "local reparameterization":
        variances = {name: p["scale"] ** 2 for name, p in parameters.items() if "scale" in p}
        mean = np.stack([transform(layer, x, means) for x in examples])
        variance = np.stack([transform(layer, x.astype(np.float64) ** 2, variances) for x in examples])
        return mean + np.sqrt(variance) * noise["outputs"]
    steps = perturbations(parameters, noise)
    outputs = []
    for n, example in enumerate(examples):
        signs = {name: signs_on(layer, name, n, noise) if training else 1.0 for name in steps}
        weights = {name: means[name] + signs[name] * step for name, step in steps.items()}
        outputs.append(transform(layer, example, weights))
    return np.stack(outputs)


def signs_on(layer: VariationalLayer, name: str, n: int, noise: Values) -> np.ndarray | float:
    """The sign on each perturbation of a weight for the example n: s_i r_j with flipout; 1 with other estimators."""
    if name in layer.variational_weights and layer.estimator.name == "grouped flipout":
        return _signs_of_group(layer, name, n % layer.groups_of_noise, noise)
    if layer.estimator.name != "flipout" or name not in layer.variational_weights:
        return 1.0
    if name.endswith("bias"):
        signs = _signs("output", _kernel_before_the_bias(layer, name), n, noise)
        return signs.reshape(layer.variational_weights[name].shape)
    s, r = (_signs(side, name, n, noise) for side in ("input", "output"))
    operation = operation_of(type(layer))
    if operation == "DepthwiseConvolution2D" or name == "depthwise_kernel":
        return s[:, None] * r.reshape(len(s), -1)
    if operation.endswith("Transpose"):
        return np.outer(r, s)
    if operation == "EinsumDense":
        return np.einsum("c,ed->cde", s, r.reshape(2, 3))
    if operation == "MultiHeadAttention":
        return np.outer(s, r).reshape(layer.variational_weights[name].shape)
    # With groups a kernel sees only the input channels of its group.
    groups = getattr(layer, "groups", 1)
    blocks = [np.outer(a, b) for a, b in zip(np.split(s, groups), np.split(r, groups), strict=True)]
    return np.concatenate(blocks, axis=1)


def _signs_of_group(layer: VariationalLayer, name: str, group: int, noise: Values) -> np.ndarray | float:
    """The first pair is the perturbation and its opposite; each other pair has a pattern of signs of rank one."""
    pair, second = divmod(group, 2)
    opposite = -1.0 if second else 1.0
    if pair == 0:
        return opposite
    if name.endswith("bias"):
        return opposite * noise[f"{name}_signs"][pair - 1]
    of_weight = "" if name == "kernel" else f"{name}_"
    s, r = (noise[f"{of_weight}{side}_signs"][pair - 1].ravel() for side in ("input", "output"))
    return opposite * np.outer(s, r)


def _kernel_before_the_bias(layer: VariationalLayer, name: str) -> str:
    if operation_of(type(layer)) == "SeparableConvolution2D":
        return "pointwise_kernel"
    return name.removesuffix("bias") + "kernel"


def _signs(side: str, weight: str, n: int, noise: Values) -> np.ndarray:
    of_weight = "" if weight == "kernel" else f"{weight}_"
    return noise[f"{of_weight}{side}_signs"][n].ravel()


def examples_of(inputs: Any) -> list[Any]:
    """The inputs of each example."""
    return list(zip(*inputs, strict=True)) if isinstance(inputs, list) else list(inputs)


# === Moments ===


def moments(
    layer: VariationalLayer, inputs: Any, posterior: str, parameters: Parameters
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of every output of a linear layer: A mu and diag(A Sigma A^T), A its matrix for an example."""
    means = {name: p["loc"] for name, p in parameters.items()}
    mean = np.stack([transform(layer, x, means) for x in examples_of(inputs)])
    variance = np.zeros_like(mean)
    for n, example in enumerate(examples_of(inputs)):
        for name, p in parameters.items():
            if "scale" in p:
                root = jacobian(layer, example, parameters, name) @ _root_of_covariance(posterior, p)
                variance[n] += (root**2).sum(axis=1).reshape(mean[n].shape)
    return mean, variance


def jacobian(layer: VariationalLayer, example: Any, parameters: Parameters, name: str) -> np.ndarray:
    """The matrix that takes a weight, flattened, to the outputs of one example, flattened."""
    zeros = {other: np.zeros_like(p["loc"]) for other, p in parameters.items()}
    shape, size = zeros[name].shape, zeros[name].size
    columns = [transform(layer, example, {**zeros, name: unit.reshape(shape)}) for unit in np.eye(size)]
    return np.stack([column.ravel() for column in columns], axis=1)


def _root_of_covariance(posterior: str, p: Values) -> np.ndarray:
    size = p["loc"].size
    diagonal = np.diag(p["scale"].ravel())
    if posterior == "radial":
        return diagonal / np.sqrt(size)
    return np.hstack([diagonal, p["factor"].reshape(size, -1)]) if "factor" in p else diagonal
