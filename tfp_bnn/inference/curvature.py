"""The curvature of the log-likelihood in the weights: matrices of three structures, in their eigenbasis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfp_bnn.core.compiled import compiled
from tfp_bnn.core.noise import NoNoise, noise_scope
from tfp_bnn.inference.function_of_weights import FunctionOfWeights

Floats = npt.NDArray[np.float64]

MOST_WEIGHTS_FULL = 4096
"""The largest number of weights with a full covariance, whose eigenvectors take 8 d^2 bytes and of the order of d^3
operations."""

NUMBERS_AT_ONCE = 2**24
"""The largest size of an array of gradients, rows times weights."""

# Rounding of float32 relative to the largest eigenvalue.
_ROUNDING = 1e-4
# Rounding of float64 in products of eigenvectors.
_ORTHONORMAL = 1e-8


@dataclass(frozen=True)
class Rows:
    """What the curvature needs to know of a batch.

    Attributes:
        x: Inputs as tensors.
        factors: Tensors `(batch, outputs)` whose outer products, added up, are the curvature in the outputs.
        sample_weight: Weights of the rows, which are in the factors; None if all are 1.
        observed: Which targets are not missing, `(batch,)` or `(batch, targets)`, in the factors too; None if all are.
    """

    x: Any
    factors: list[tf.Tensor]
    sample_weight: Any = None
    observed: Any = None

    def weights(self) -> Floats:
        """The weight of each row, `(batch,)`, float64; the mean over targets. That of a missing target is 0."""
        number = len(self.factors[0])
        weight = np.ones((number, 1))
        for factor in (self.sample_weight, self.observed):
            if factor is not None:
                weight = weight * np.asarray(factor, np.float64).reshape(number, -1)
        return weight.mean(axis=1)


class Eigen:
    """A symmetric positive semidefinite matrix Q diag(eigenvalues) Q' over a vector of d weights. Abstract.

    Attributes:
        eigenvalues: Eigenvalues, `(d,)`, float64, none below 0.
    """

    eigenvalues: Floats

    def from_eigenbasis(self, vector: tf.Tensor) -> tf.Tensor:
        """Q v for a vector `(d,)`, float32."""
        raise NotImplementedError

    def to_eigenbasis(self, rows: Any) -> Any:
        """Q' r for each row r of an array `(n, d)`."""
        raise NotImplementedError

    def arrays(self) -> dict[str, Floats]:
        """What determines the matrix, float64, by name."""
        raise NotImplementedError

    @classmethod
    def shapes(cls, network: FunctionOfWeights) -> dict[str, tuple[int, ...]]:
        """The shapes of `arrays` for the weights of a network."""
        raise NotImplementedError

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> Eigen:
        """The inverse of `arrays`."""
        raise NotImplementedError


class Full(Eigen):
    """A matrix without structure.

    Args:
        eigenvalues: Eigenvalues, `(d,)`.
        vectors: Eigenvectors as columns, `(d, d)`.
    """

    def __init__(self, eigenvalues: Floats, vectors: Floats) -> None:
        self.eigenvalues = eigenvalues
        self._vectors = vectors
        self._vectors32 = tf.constant(vectors, tf.float32)

    @classmethod
    def of(cls, matrix: Floats) -> Full:
        """Decomposes a symmetric matrix, `(d, d)`."""
        eigenvalues, vectors = np.linalg.eigh(matrix)
        return cls(np.maximum(eigenvalues, 0.0), vectors)

    def arrays(self) -> dict[str, Floats]:
        """Eigenvalues and eigenvectors."""
        return {"eigenvalues": self.eigenvalues, "eigenvectors": self._vectors}

    @classmethod
    def shapes(cls, network: FunctionOfWeights) -> dict[str, tuple[int, ...]]:
        """The shapes of `arrays`. ValueError if there are more than `MOST_WEIGHTS_FULL` weights."""
        require_few_weights(network.num_weights)
        return {"eigenvalues": (network.num_weights,), "eigenvectors": (network.num_weights,) * 2}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> Full:
        """The inverse of `arrays`. ValueError for eigenvalues below 0, or vectors that are not orthonormal."""
        vectors = arrays["eigenvectors"]
        _require_eigenvalues(arrays["eigenvalues"])
        if np.abs(vectors.T @ vectors - np.eye(len(vectors))).max() > _ORTHONORMAL:
            raise ValueError("The array 'eigenvectors' has columns that are not orthonormal.")
        return cls(arrays["eigenvalues"], vectors)

    def from_eigenbasis(self, vector: tf.Tensor) -> tf.Tensor:
        """Q v for a vector `(d,)`, float32."""
        return tf.linalg.matvec(self._vectors32, vector)

    def to_eigenbasis(self, rows: Any) -> Any:
        """Q' r for each row r of an array `(n, d)`."""
        return rows @ self._vectors


class Diagonal(Eigen):
    """A diagonal matrix.

    Args:
        diagonal: Its diagonal, `(d,)`.
    """

    def __init__(self, diagonal: Floats) -> None:
        self.eigenvalues = diagonal

    def arrays(self) -> dict[str, Floats]:
        """The diagonal."""
        return {"eigenvalues": self.eigenvalues}

    @classmethod
    def shapes(cls, network: FunctionOfWeights) -> dict[str, tuple[int, ...]]:
        """The shapes of `arrays`."""
        return {"eigenvalues": (network.num_weights,)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> Diagonal:
        """The inverse of `arrays`. ValueError for values below 0."""
        _require_eigenvalues(arrays["eigenvalues"])
        return cls(arrays["eigenvalues"])

    def from_eigenbasis(self, vector: tf.Tensor) -> tf.Tensor:
        """The vector itself."""
        return vector

    def to_eigenbasis(self, rows: Any) -> Any:
        """The rows themselves."""
        return rows


class Kronecker(Eigen):
    """The Kronecker product of a matrix over the inputs and one over the outputs of a dense layer.

    Args:
        of_inputs: Matrix of `(inputs, inputs)`; of the inputs and 1 if there is a bias.
        of_outputs: Matrix of `(outputs, outputs)`.
    """

    def __init__(self, of_inputs: Full, of_outputs: Full) -> None:
        self._inputs, self._outputs = of_inputs, of_outputs
        self._shape = (len(of_inputs.eigenvalues), len(of_outputs.eigenvalues))
        self.eigenvalues = np.outer(of_inputs.eigenvalues, of_outputs.eigenvalues).reshape(-1)

    def arrays(self) -> dict[str, Floats]:
        """Eigenvalues and eigenvectors of both matrices."""
        parts = {"inputs": self._inputs, "outputs": self._outputs}
        return {f"{part}/{name}": array for part, matrix in parts.items() for name, array in matrix.arrays().items()}

    @classmethod
    def shapes(cls, network: FunctionOfWeights) -> dict[str, tuple[int, ...]]:
        """The shapes of `arrays`, for the kernel of a dense layer and perhaps its bias."""
        outputs = next(iter(network.variables.values())).shape[-1]
        sides = {"inputs": network.num_weights // outputs, "outputs": outputs}
        return {
            f"{part}/{name}": shape
            for part, side in sides.items()
            for name, shape in (("eigenvalues", (side,)), ("eigenvectors", (side, side)))
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> Kronecker:
        """The inverse of `arrays`. ValueError as in `Full.from_arrays`."""
        return cls(
            *(
                Full.from_arrays({name: arrays[f"{part}/{name}"] for name in ("eigenvalues", "eigenvectors")})
                for part in ("inputs", "outputs")
            )
        )

    def from_eigenbasis(self, vector: tf.Tensor) -> tf.Tensor:
        """Q v for a vector `(d,)`, float32."""
        inputs, outputs = self._inputs._vectors32, self._outputs._vectors32
        return tf.reshape(inputs @ tf.reshape(vector, self._shape) @ tf.transpose(outputs), [-1])

    def to_eigenbasis(self, rows: Any) -> Any:
        """Q' r for each row r of an array `(n, d)`."""
        matrices = rows.reshape(-1, *self._shape)
        return (self._inputs._vectors.T @ matrices @ self._outputs._vectors).reshape(len(rows), -1)


# === In the outputs ===


def factors_in_outputs(kind: str, likelihood: Any, weights: Any) -> Callable[..., tuple[float, list[tf.Tensor]]]:
    """A function that returns the log-likelihood of a batch, and the factors of its curvature in the outputs.

    Args:
        kind: `"ggn"` for the Hessian of -log p in the outputs; `"empirical_fisher"` for the outer product of its
            gradient. A row of weight w counts as w rows.
        likelihood: Likelihood of the targets.
        weights: Learned parameters of the likelihood.

    Returns:
        A function of targets, raw outputs `(batch, outputs)` and factors of the terms, or None, that returns nats and
        tensors as in `Rows`. It raises a ValueError if the Hessian is not positive semidefinite.
    """
    is_fisher = kind == "empirical_fisher"

    def derivatives(y: Any, outputs: tf.Tensor, sample_weight: Any) -> tuple[tf.Tensor, tf.Tensor]:
        log_likelihood = likelihood.log_likelihood(y, outputs, weights, sample_weight)
        # The outer product of the gradient has the square of its factor.
        factor = sample_weight
        if is_fisher and sample_weight is not None:
            factor = tf.sqrt(tf.cast(sample_weight, tf.float32))
        with tf.GradientTape() as outer:
            outer.watch(outputs)
            with tf.GradientTape() as inner:
                inner.watch(outputs)
                terms = likelihood.log_likelihood(y, outputs, weights, factor)
            gradient = inner.gradient(terms, outputs)
        found = gradient if is_fisher else -outer.batch_jacobian(gradient, outputs)
        return tf.reduce_sum(log_likelihood), found

    compiled_derivatives = compiled(derivatives)

    def factors(y: Any, outputs: tf.Tensor, sample_weight: Any) -> tuple[float, list[tf.Tensor]]:
        log_likelihood, found = compiled_derivatives(tf.convert_to_tensor(y), outputs, sample_weight)
        if is_fisher:
            return float(log_likelihood), [found]
        eigenvalues, vectors = np.linalg.eigh(found.numpy().astype(np.float64))
        if eigenvalues.min() < -_ROUNDING * max(1.0, np.abs(eigenvalues).max()):
            raise ValueError(
                f"-log p(y | outputs) of the likelihood {likelihood!r} is not convex in the outputs: its Hessian has "
                f"the eigenvalue {eigenvalues.min():.3g}, so it is no precision. Use curvature='empirical_fisher'."
            )
        scaled = vectors * np.sqrt(np.maximum(eigenvalues, 0.0))[:, np.newaxis]
        return float(log_likelihood), [tf.constant(scaled[:, :, k], tf.float32) for k in range(scaled.shape[-1])]

    return factors


# === In the weights ===


def full(network: FunctionOfWeights, rows: Iterable[Rows], scale: Floats) -> Full:
    """The whole matrix, sum_n J_n' F_n F_n' J_n, for weights in units of `scale`.

    Raises:
        ValueError: If there are more than `MOST_WEIGHTS_FULL` weights.
    """
    require_few_weights(network.num_weights)
    matrix = np.zeros((network.num_weights,) * 2)
    for products in _products(network, rows, scale):
        matrix += products.T @ products
    return Full.of(matrix)


def diagonal(network: FunctionOfWeights, rows: Iterable[Rows], scale: Floats) -> Diagonal:
    """The diagonal of the matrix, for weights in units of `scale`."""
    total = np.zeros(network.num_weights)
    for products in _products(network, rows, scale):
        total += np.square(products).sum(axis=0)
    return Diagonal(total)


def kronecker(network: FunctionOfWeights, rows: Iterable[Rows], scale: Floats) -> Kronecker:
    """(1 / N sum_n a_n a_n') x (sum_n F_n F_n') for the inputs a_n of a last dense layer, with a 1 for the bias.

    It is the whole matrix if all rows have the same F F', as in regression with one noise. A row of weight w counts as
    w rows, and one without a target as none.

    Raises:
        ValueError: If the weights are not those of a dense layer whose outputs are those of the network, or their prior
            scales differ.
    """
    features, has_bias = _inputs_of_dense(network)
    if np.ptp(scale) > _ROUNDING * scale.max():
        raise ValueError(
            "A Kronecker product needs one prior scale for all weights, but those of kernel and bias, or of single "
            "weights, differ. Use structure='full', or a number or 'marginal_likelihood' as `prior_precision`."
        )
    of_inputs: Any = 0.0
    of_outputs: Any = 0.0
    number = 0.0
    for batch in rows:
        inputs = np.asarray(features(batch.x), np.float64)
        if has_bias:
            inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
        row_weights = batch.weights()
        of_inputs += inputs.T @ (inputs * row_weights[:, np.newaxis])
        of_outputs += sum(factor.T @ factor for factor in (np.asarray(f, np.float64) for f in batch.factors))
        number += row_weights.sum()
    return Kronecker(Full.of(of_inputs * scale[0] ** 2 / (number or 1.0)), Full.of(of_outputs))


STRUCTURES: dict[str, Callable[..., Eigen]] = {"full": full, "kronecker": kronecker, "diagonal": diagonal}
"""Functions that compute a curvature, by the name of its structure."""

EIGEN: dict[str, type[Eigen]] = {"full": Full, "kronecker": Kronecker, "diagonal": Diagonal}
"""The classes of curvatures, by the name of their structure."""


def require_few_weights(number: int) -> None:
    """Refuses a full covariance of more than `MOST_WEIGHTS_FULL` weights. The ValueError counts them."""
    if number > MOST_WEIGHTS_FULL:
        raise ValueError(
            f"A full covariance of {number:,} weights would have {number**2:,} entries; at most "
            f"{MOST_WEIGHTS_FULL:,} weights are allowed. Use structure='kronecker' for a last dense layer, or "
            "structure='diagonal'."
        )


def _require_eigenvalues(values: Floats) -> None:
    if (values < 0).any():
        raise ValueError("The array 'eigenvalues' has values below 0, so it is of no curvature.")


def _products(network: FunctionOfWeights, rows: Iterable[Rows], scale: Floats) -> Iterator[Floats]:
    """J_n' f_n for each row n and each of its factors f_n, in units of `scale`: arrays `(batch, d)`."""
    _, product = network.compiled_at(network.values())
    step = max(1, NUMBERS_AT_ONCE // network.num_weights)
    for batch in rows:
        for factor in batch.factors:
            for start in range(0, len(factor), step):
                part = keras.tree.map_structure(lambda array, at=start: array[at : at + step], (batch.x, factor))
                yield np.asarray(product(*part), np.float64) * scale


def _inputs_of_dense(network: FunctionOfWeights) -> tuple[Any, bool]:
    """A function that returns the inputs of the one dense layer, and whether its bias is among the weights."""
    model: Any = network.model
    graph: Any = getattr(model, "network", None)
    name, *others = {key.split("/")[0] for key in network.variables}
    layer = None if others or graph is None else graph.get_layer(name)
    if (
        not isinstance(layer, keras.layers.Dense)
        or f"{name}/kernel" not in network.variables
        or layer.output is not graph.outputs[0]
        or layer.activation is not keras.activations.linear
        or len(layer.input.shape) != 2
    ):
        raise ValueError(
            f"A Kronecker product is over the kernel of one dense layer, without activation, whose outputs `(batch, "
            f"outputs)` are those of the network, but the weights are {', '.join(network.variables)}. Use "
            "structure='full' or 'diagonal'."
        )
    inputs = keras.Model(graph.inputs, layer.input)

    def features(x: Any) -> tf.Tensor:
        with noise_scope(model._noise_of_layers(NoNoise())):
            return inputs(x, training=False)

    return compiled(features), f"{name}/bias" in network.variables
