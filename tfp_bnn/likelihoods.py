"""Likelihoods: one object says how the data are distributed given the outputs of a network.

It gives the training NLL, what metrics receive, the predictive distribution and the decomposition of its uncertainty.
All functions take `outputs`, the raw outputs of a network (logits, or means), and `weights`, what the likelihood itself
has learned. All log-probabilities and entropies are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.arguments import is_number
from tfp_bnn.registry import Spec, SpecRegistry

Weights = Mapping[str, Any]


class Likelihood(Spec):
    """p(y | outputs). Abstract.

    `outputs` has the shape `(..., batch, channels)`: a leading axis of Monte Carlo samples is welcome.
    """

    task: Literal["classification", "regression"]

    def add_weights(self, add_weight: Callable[..., keras.Variable]) -> dict[str, keras.Variable]:
        """Makes the variables that the likelihood learns, by their role. None by default."""
        return {}

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        """p(y | outputs) with batch shape `(..., batch)`."""
        raise NotImplementedError

    def targets(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """`y` in the shape and dtype of the distribution's events.

        Raises:
            ValueError: when the shape of `y` does not fit `outputs`, which have no sample axis here.
        """
        raise NotImplementedError

    def log_prob(self, y: tf.Tensor, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Log p(y | outputs), in nats, of shape `(batch,)`, float32."""
        outputs = tf.cast(outputs, tf.float32)
        return self.distribution(outputs, weights).log_prob(self.targets(y, outputs))

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        """What metrics receive: probabilities or means, never logits."""
        raise NotImplementedError

    def check_targets(self, y: np.ndarray, num_outputs: int) -> None:
        """Refuses targets that cannot have come from this likelihood.

        Args:
            y: the targets, an array.
            num_outputs: size of the last axis of the outputs.

        Raises:
            ValueError: says what came, what was expected and how to mend it.
        """
        raise NotImplementedError

    def entropy(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Entropy of the predictive, the mixture over the first axis of `outputs`, in nats."""
        raise NotImplementedError

    def aleatoric(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """The part of the uncertainty that knowing the weights would not remove."""
        raise NotImplementedError

    def epistemic(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """The part of the uncertainty that comes from not knowing the weights."""
        raise NotImplementedError

    def quantiles(self, outputs: tf.Tensor, weights: Weights, levels: Sequence[float]) -> np.ndarray:
        """Quantiles, with the levels along the first axis: of the probabilities over the weight draws by default."""
        return np.quantile(self.mean(outputs).numpy(), levels, axis=0).astype(np.float32)

    def natural(self, weights: Weights) -> dict[str, np.ndarray]:
        """What was learned, in natural units, float32; empty when nothing is."""
        return {}

    def assign_natural(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """The inverse of `natural`."""


LIKELIHOODS: SpecRegistry[Likelihood] = SpecRegistry("likelihood")

_TOO_FEW_CLASSES = (
    "The likelihood 'categorical' needs the logits of at least 2 classes, but the model has {} output. Use "
    "likelihood='bernoulli' for one logit."
)


class _Discrete(Likelihood):
    """The information-theoretic decomposition, shared by the discrete likelihoods.

    predictive entropy (total) = expected entropy (aleatoric) + mutual information of y and the weights (epistemic)

    References:
        Houlsby et al. 2011, https://arxiv.org/abs/1112.5745; Depeweg et al. 2018, https://arxiv.org/abs/1710.07283
    """

    task = "classification"

    def entropy(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Entropy of the averaged probabilities, in nats, of shape `(batch,)`."""
        return self._entropy(tf.reduce_mean(self.mean(outputs), axis=0))

    def aleatoric(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Expected entropy, in nats, of shape `(batch,)`."""
        return tf.reduce_mean(self._entropy(self.mean(outputs)), axis=0)

    def epistemic(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Mutual information of the label and the weights, in nats, of shape `(batch,)`."""
        return tf.maximum(self.entropy(outputs, weights) - self.aleatoric(outputs, weights), 0.0)

    def _entropy(self, probabilities: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError


@LIKELIHOODS.register("categorical")
class Categorical(_Discrete):
    """y ~ Categorical(softmax(outputs)), outputs being the logits of at least two classes.

    Labels are integers of shape `(batch,)` or `(batch, 1)`, or one-hot (or soft) of shape `(batch, classes)`.
    """

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        return tfd.Categorical(logits=outputs)

    def targets(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        classes = outputs.shape[-1]
        if classes < 2:
            raise ValueError(_TOO_FEW_CLASSES.format(classes))
        _check_rank_is_known(y)
        if len(y.shape) == 2 and y.shape[-1] == classes:
            rows = tf.cast(y, tf.float32)
            sums_to_one = tf.abs(tf.reduce_sum(rows, axis=-1) - 1.0) < 1e-3
            message = (
                "One-hot (or soft) labels must be >= 0 and sum to 1 in each row, but a batch has rows that do not."
            )
            return _checked(rows, tf.reduce_all(rows >= 0) & tf.reduce_all(sums_to_one), message)
        if len(y.shape) == 2 and y.shape[-1] == 1:
            y = y[:, 0]
        if len(y.shape) != 1:
            raise ValueError(self._shape_message(tuple(y.shape), classes))
        y = tf.convert_to_tensor(y)
        labels = tf.cast(y, tf.int32)
        message = tf.strings.format(
            f"Labels out of range: expected integers from 0 to {classes - 1}, because the model has {classes} outputs, "
            "but a batch has labels from {} to {}. Number the classes from 0, or build the model with more "
            "outputs.",
            (tf.reduce_min(labels), tf.reduce_max(labels)),
        )
        whole = tf.reduce_all(tf.cast(labels, y.dtype) == y)
        in_range = tf.reduce_all((labels >= 0) & (labels < classes))
        return tf.one_hot(_checked(labels, in_range & whole, message), classes)

    def log_prob(self, y: tf.Tensor, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        # The cross-entropy also takes soft labels, and its gradient is one fused kernel.
        outputs = tf.cast(outputs, tf.float32)
        return -tf.nn.softmax_cross_entropy_with_logits(self.targets(y, outputs), outputs)

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        """Class probabilities, float32."""
        return tf.nn.softmax(tf.cast(outputs, tf.float32))

    def check_targets(self, y: np.ndarray, num_outputs: int) -> None:
        if num_outputs < 2:
            raise ValueError(_TOO_FEW_CLASSES.format(num_outputs))
        if y.ndim == 2 and y.shape[1] == num_outputs:
            if (y < 0).any() or not np.allclose(y.sum(axis=1), 1.0, atol=1e-3):
                raise ValueError(
                    "One-hot (or soft) labels must be >= 0 and sum to 1 in each row, but rows sum to "
                    f"{y.sum(axis=1).min():.4g} to {y.sum(axis=1).max():.4g} and the least value is {y.min():.4g}. "
                    "Pass integer labels of shape (batch,), or normalize the rows."
                )
            return
        if y.ndim > 2 or (y.ndim == 2 and y.shape[1] != 1):
            raise ValueError(self._shape_message(y.shape, num_outputs))
        wrong = (y < 0) | (y >= num_outputs) | (y != np.floor(y))
        if wrong.any():
            row = int(np.argmax(wrong.reshape(-1)))
            raise ValueError(
                f"Labels out of range: expected integers from 0 to {num_outputs - 1}, because the model has "
                f"{num_outputs} outputs, but {int(wrong.sum())} of {wrong.size} labels are not; the first is "
                f"{y.reshape(-1)[row]} in row {row}. Number the classes from 0, or build the model with more outputs."
            )

    def _shape_message(self, shape: Sequence[int | None], classes: int) -> str:
        return (
            f"Labels of shape {tuple(shape)} do not fit a model with {classes} outputs: expected integers of shape "
            f"(batch,), or one-hot labels of shape (batch, {classes})."
        )

    def _entropy(self, probabilities: tf.Tensor) -> tf.Tensor:
        return -tf.reduce_sum(tf.math.xlogy(probabilities, probabilities), axis=-1)


@LIKELIHOODS.register("bernoulli")
class Bernoulli(_Discrete):
    """y_i ~ Bernoulli(sigmoid(outputs_i)), independent given the weights; targets in [0, 1].

    Targets have the shape `(batch,)` for one output, or that of the outputs. Entropies are sums over the outputs.
    """

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        return tfd.Independent(tfd.Bernoulli(logits=outputs, dtype=tf.float32), reinterpreted_batch_ndims=1)

    def targets(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        targets = _like_outputs(y, outputs.shape[-1])
        message = "Labels out of range: the likelihood 'bernoulli' expects values in [0, 1], but a batch has others."
        return _checked(targets, tf.reduce_all((targets >= 0) & (targets <= 1)), message)

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        """Probabilities of 1, float32."""
        return tf.sigmoid(tf.cast(outputs, tf.float32))

    def check_targets(self, y: np.ndarray, num_outputs: int) -> None:
        _check_shape(y, num_outputs)
        if (y < 0).any() or (y > 1).any():
            raise ValueError(
                "Labels out of range: the likelihood 'bernoulli' expects values in [0, 1], but got values from "
                f"{y.min()} to {y.max()}. Encode the two classes as 0 and 1, or use likelihood='categorical' for more "
                "than two."
            )

    def _entropy(self, probabilities: tf.Tensor) -> tf.Tensor:
        complement = 1.0 - probabilities
        terms = tf.math.xlogy(probabilities, probabilities) + tf.math.xlogy(complement, complement)
        return -tf.reduce_sum(terms, axis=-1)


_SCALE_FLOOR = 1e-6
_HERMITE_NODES = 16


@LIKELIHOODS.register("normal")
class Normal(Likelihood):
    """y ~ N(mean, scale^2), independent per output given the weights.

    Targets have the shape `(batch,)` for one output, or `(batch, outputs)`. Uncertainty is decomposed by the law of
    total variance, per output and in squared units of the target: aleatoric = E[scale^2], epistemic = Var[mean] over
    the weight draws. The predictive entropy is that of the mixture, per output, by Gauss-Hermite quadrature around each
    component: exact to 3e-4 nats where the draws have one scale, to 0.005 where scales differ by a factor of 2, and
    rough where they differ by an order of magnitude.

    Args:
        scale: a number > 0 (known noise, in units of the target), `"learned"` (one scale for all examples, fitted with
            the weights), or `"per_example"` (the network has two outputs for each target, `[means, untransformed
            scales]`, scale = 1e-6 + softplus(.)).
        initial_scale: where a learned scale starts, in units of the target.
    """

    task = "regression"

    def __init__(self, scale: float | str = "learned", initial_scale: float = 1.0) -> None:
        if scale not in ("learned", "per_example") and not _is_positive(scale):
            raise ValueError(
                "`scale` of the likelihood 'normal' must be a number > 0, 'learned' or 'per_example', but got "
                f"{scale!r}."
            )
        if not _is_positive(initial_scale):
            raise ValueError(
                f"`initial_scale` of the likelihood 'normal' must be a finite number > 0, but got {initial_scale!r}."
            )
        self.scale = scale if isinstance(scale, str) else float(scale)
        self.initial_scale = float(initial_scale)

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale, "initial_scale": self.initial_scale}

    def add_weights(self, add_weight: Callable[..., keras.Variable]) -> dict[str, keras.Variable]:
        if self.scale != "learned":
            return {}
        start = keras.initializers.Constant(math.log(self.initial_scale))
        return {"log_scale": add_weight(name="likelihood_log_scale", shape=(), initializer=start)}

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        return tfd.Independent(tfd.Normal(*self._parameters(outputs, weights)), reinterpreted_batch_ndims=1)

    def targets(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return _like_outputs(y, self._num_targets(outputs.shape[-1]))

    def mean(self, outputs: tf.Tensor) -> tf.Tensor:
        """Means in units of the target, float32."""
        outputs = tf.cast(outputs, tf.float32)
        return outputs[..., : self._num_targets(outputs.shape[-1])]

    def check_targets(self, y: np.ndarray, num_outputs: int) -> None:
        _check_shape(y, self._num_targets(num_outputs))

    def entropy(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Entropy of the predictive mixture, in nats, of shape `(batch, targets)`."""
        loc, scale = self._parameters(tf.cast(outputs, tf.float32), weights)
        nodes, node_weights = np.polynomial.hermite_e.hermegauss(_HERMITE_NODES)
        total = tf.zeros(loc.shape[1:])
        for node, weight in zip(nodes, node_weights / node_weights.sum(), strict=True):
            points = (loc + scale * np.float32(node))[:, None]
            log_density = tf.reduce_logsumexp(tfd.Normal(loc, scale).log_prob(points), axis=1) - math.log(loc.shape[0])
            total -= np.float32(weight) * tf.reduce_mean(log_density, axis=0)
        return total

    def aleatoric(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """E[scale^2], squared units of the target, of shape `(batch, targets)`."""
        loc, scale = self._parameters(tf.cast(outputs, tf.float32), weights)
        return tf.reduce_mean(tf.broadcast_to(scale**2, loc.shape), axis=0)

    def epistemic(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Var[mean] over the weight draws, squared units of the target, of shape `(batch, targets)`."""
        return tf.math.reduce_variance(self.mean(outputs), axis=0)

    def quantiles(self, outputs: tf.Tensor, weights: Weights, levels: Sequence[float]) -> np.ndarray:
        """Quantiles of the predictive mixture, noise included, in units of the target: `(levels, batch, targets)`."""
        loc, scale = self._parameters(tf.cast(outputs, tf.float32), weights)
        components = tfd.Normal(loc, scale)
        lowest = tf.reduce_min(loc - 10.0 * scale, axis=0)
        highest = tf.reduce_max(loc + 10.0 * scale, axis=0)
        found = []
        for level in levels:
            if level in (0, 1):
                found.append(np.full(lowest.shape, -np.inf if level == 0 else np.inf, np.float32))
                continue
            low, high = lowest, highest
            # 40 halvings of the bracket are below the resolution of float32.
            for _ in range(40):
                middle = (low + high) / 2
                below = tf.reduce_mean(components.cdf(middle), axis=0) < level
                low, high = tf.where(below, middle, low), tf.where(below, high, middle)
            found.append(((low + high) / 2).numpy())
        return np.stack(found)

    def natural(self, weights: Weights) -> dict[str, np.ndarray]:
        return {"scale": np.exp(np.asarray(weights["log_scale"]))} if weights else {}

    def assign_natural(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        if weights:
            scale = float(values["scale"])
            if not _is_positive(scale):
                raise ValueError(f"The learned scale of the likelihood must be finite and > 0, but got {scale}.")
            weights["log_scale"].assign(math.log(scale))

    def _num_targets(self, num_outputs: int) -> int:
        if self.scale != "per_example":
            return num_outputs
        if num_outputs % 2:
            raise ValueError(
                "The likelihood 'normal' with scale='per_example' needs two outputs for each target, [means, "
                f"untransformed scales], but the model has {num_outputs}. Build it with an even number of outputs."
            )
        return num_outputs // 2

    def _parameters(self, outputs: tf.Tensor, weights: Weights) -> tuple[tf.Tensor, tf.Tensor]:
        loc = self.mean(outputs)
        if self.scale == "per_example":
            scale = _SCALE_FLOOR + tf.nn.softplus(outputs[..., loc.shape[-1] :])
        elif self.scale == "learned":
            scale = tf.exp(tf.convert_to_tensor(weights["log_scale"]))
        else:
            scale = tf.constant(self.scale, tf.float32)
        # Of a calibrated predictive; never in training.
        return loc, scale * weights["widening"] if "widening" in weights else scale


def _checked(targets: tf.Tensor, condition: tf.Tensor, message: str | tf.Tensor) -> tf.Tensor:
    """The targets, once the condition was found to hold; a ValueError cannot leave a compiled step."""
    check = tf.debugging.Assert(condition, [message])
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(targets)


def _like_outputs(y: tf.Tensor, num_targets: int) -> tf.Tensor:
    """`(batch,)` -> `(batch, 1)`; otherwise the shapes must be equal, or broadcasting would train on nonsense."""
    _check_rank_is_known(y)
    if len(y.shape) == 1 and num_targets == 1:
        y = y[:, None]
    if len(y.shape) != 2 or y.shape[-1] != num_targets:
        raise ValueError(_targets_message(tuple(y.shape), num_targets))
    return tf.cast(y, tf.float32)


def _check_rank_is_known(y: tf.Tensor) -> None:
    """Keras relaxes a compiled step to targets of any rank once it has seen two of them."""
    if getattr(y.shape, "rank", 0) is None:
        raise ValueError(
            "The number of axes of the targets is not known. Either the pipeline does not say it (`tf.ensure_shape` "
            "does), or earlier batches had another one: give all targets the same number of axes, or compile the "
            "model again in between."
        )


def _check_shape(y: np.ndarray, num_targets: int) -> None:
    if not (y.ndim == 1 and num_targets == 1) and not (y.ndim == 2 and y.shape[1] == num_targets):
        raise ValueError(_targets_message(y.shape, num_targets))


def _targets_message(shape: Sequence[int | None], num_targets: int) -> str:
    alternative = " or (batch,)" if num_targets == 1 else ""
    return (
        f"Targets of shape {tuple(shape)} do not fit a model with {num_targets} target(s): expected the shape (batch, "
        f"{num_targets}){alternative}. Reshape the targets, or build the model with another number of outputs."
    )


def _is_positive(value: object) -> bool:
    return is_number(value) and 0 < value < math.inf
