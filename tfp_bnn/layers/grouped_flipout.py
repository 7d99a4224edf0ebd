"""Grouped flipout: the examples of a batch share a few draws of the weights instead of having one each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tfp_bnn.core.arguments import require_integer
from tfp_bnn.core.noise import NoiseSource
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.estimators import PLAIN_DRAW, Flipout, has_spread, name_prefix
from tfp_bnn.layers.operations import LinearOperation
from tfp_bnn.layers.variational_weight import VariationalWeight


class GroupedFlipout(Flipout):
    """Flipout with K draws for the batch, one for each group of examples, in antithetic pairs. Costs one operation.

    outputs_n = op(x_n, w_k) + b_k,   k = n mod K
    w_2j = mean + perturbation * s_j r_j^T,   w_2j+1 = mean - perturbation * s_j r_j^T,   and so for b

    The signs s_j, r_j are exactly +1 or -1, one for each index of the last two axes of a kernel, or of a bias; those of
    the first pair are all +1, as the perturbation is symmetric. Each example sees a draw from the correct distribution.
    Two draws of a pair have the covariance -variance, those of different pairs 0; as in flipout, they are uncorrelated
    and not independent.

    In a gradient, what is odd in the perturbation cancels between the groups of a pair, so its variance decreases as
    1 / batch. What is even is averaged over the pairs only, and levels off. Neighbours are in different groups, so
    groups do not follow the classes of sorted rows. A batch of any size will do, also one smaller than K: where K does
    not divide it, the last groups have one example less.

    Args:
        num_groups: K, an integer of at least 2.

    References:
        Wen et al. 2018, Flipout, https://arxiv.org/abs/1803.04386, of which this is the case of few sign patterns
        Hammersley and Morton 1956, A new Monte Carlo technique: antithetic variates
    """

    name = "grouped flipout"

    def __init__(self, num_groups: int) -> None:
        self.num_groups = require_integer("groups_of_noise", num_groups, least=2)

    @property
    def description(self) -> str:
        """The name and the number of groups."""
        return f"{self.name}, {self.num_groups} groups"

    def __call__(
        self,
        operation: LinearOperation,
        inputs: tf.Tensor,
        kernel: VariationalWeight,
        bias: VariationalWeight | tf.Tensor | None,
        noise: NoiseSource,
    ) -> tf.Tensor:
        """Applies the operation to each group of examples, with its own draw."""
        if not has_spread(kernel, bias):
            return PLAIN_DRAW(operation, inputs, kernel, bias, noise)
        kernels = self._draws(kernel, noise, f"{name_prefix(kernel)}input_signs", f"{name_prefix(kernel)}output_signs")
        outputs = [operation(rows, draw) for rows, draw in zip(self._split(inputs), kernels, strict=True)]
        if isinstance(bias, VariationalWeight):
            biases = self._draws(bias, noise, f"{bias.name}_signs")
            outputs = [operation.add_bias(rows, of_group) for rows, of_group in zip(outputs, biases, strict=True)]
        elif bias is not None:
            outputs = [operation.add_bias(rows, bias) for rows in outputs]
        return _merge(outputs, keras.ops.shape(inputs)[0])

    def _draws(self, weight: VariationalWeight, noise: NoiseSource, *names: str) -> list[tf.Tensor]:
        """One draw for each group: `names` are those of the signs, one for each of the last axes of the weight."""
        mean, perturbation = weight.mean, weight.perturbation(noise)
        steps = [perturbation]
        if num_patterns := (self.num_groups - 1) // 2:
            rank = len(weight.shape)
            for axis, name in enumerate(names, start=rank - len(names)):
                shape = [num_patterns, *(size if i == axis else 1 for i, size in enumerate(weight.shape))]
                perturbation = perturbation * noise.signs(name, shape)
            steps += tf.unstack(perturbation)
        return [draw for step in steps for draw in (mean + step, mean - step)][: self.num_groups]

    def _split(self, inputs: tf.Tensor) -> list[tf.Tensor]:
        """The rows of each group; rows of zeros fill the groups up to the same size."""
        num_rows, *sizes = keras.ops.shape(inputs)
        # Where K divides the batch, neither this nor its gradient copies anything.
        filled = tf.pad(inputs, [[0, -num_rows % self.num_groups], *[[0, 0]] * len(sizes)])
        return tf.unstack(tf.reshape(filled, [-1, self.num_groups, *sizes]), self.num_groups, axis=1)


def _merge(outputs: list[tf.Tensor], num_rows: int | tf.Tensor) -> tf.Tensor:
    """The outputs of all groups in the order of the inputs, without those of rows that filled the groups up."""
    _, *sizes = keras.ops.shape(outputs[0])
    filled = tf.reshape(tf.stack(outputs, axis=1), [-1, *sizes])
    # The gradient of `filled[:num_rows]` would copy it.
    return tf.slice(filled, [0] * len(filled.shape), [num_rows, *sizes])


class FlipoutConvolution(VariationalLayer):
    """A convolution that is trained with flipout, or with grouped flipout if `groups_of_noise` is given. Abstract."""

    estimator = Flipout()
    own_arguments: ClassVar[Mapping[str, Any]] = {"groups_of_noise": None, **VariationalLayer.own_arguments}

    def __init__(self, *args: Any, groups_of_noise: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups_of_noise = groups_of_noise
        if groups_of_noise is not None:
            self.estimator = GroupedFlipout(groups_of_noise)
            self.groups_of_noise = self.estimator.num_groups

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "groups_of_noise": self.groups_of_noise}
