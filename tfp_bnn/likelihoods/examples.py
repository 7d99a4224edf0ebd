"""From rows to examples: positions, missing targets and weights, the same for every likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_number
from tfp_bnn.core.layer_tree import mask_of, set_mask
from tfp_bnn.core.registry import Spec
from tfp_bnn.likelihoods.marginals import NUM_DRAWS, Marginals, each_target
from tfp_bnn.likelihoods.normal_outputs import variance_of
from tfp_bnn.likelihoods.positions import Shape, fold_outputs, fold_targets, fold_weights
from tfp_bnn.likelihoods.targets import checked

# Rows of a mixture that are processed at once.
_ROWS_AT_ONCE = 1024
_NONE_LEFT = (
    "No target is left: all targets of {} are missing (missing={!r}), or masked by Keras. Remove examples without any "
    "target, or check how missing targets are marked."
)
_JOINT = (
    "The targets of the likelihood {!r} are not independent given the outputs, so one of them cannot be missing or "
    "have a weight on its own. Mark all targets of a row as missing, give a weight for each example or position, or "
    "use a likelihood of independent targets."
)


class Examples(Spec):
    """A likelihood of rows, applied to examples. Abstract: a base of `Likelihood`, which describes the rows.

    Args:
        missing: What marks a missing target: `"nan"`, or a number such as -1. The default, None, means that all targets
            are there. A missing target contributes 0 to the log-likelihood, and metrics and scores skip it. A class
            given as a one-hot row is missing if the whole row is.

    Attributes:
        heads: The likelihoods of the outputs by name, for a network with several; empty for a single output.
    """

    heads: Mapping[str, Any] = MappingProxyType({})
    missing: float | str | None = None
    distribution: Callable[..., tfd.Distribution]
    log_prob: Callable[..., tf.Tensor]
    expected_log_prob: Callable[..., tf.Tensor]
    mean: Callable[..., tf.Tensor]
    targets: Callable[..., tf.Tensor]
    check_targets: Callable[..., None]
    chance_nll: Callable[..., float | None]
    num_targets: Callable[..., int]
    target_kind: Callable[..., Any]
    _probe: Callable[..., tfd.Distribution]

    def __init__(self, missing: float | str | None = None) -> None:
        if is_number(missing) and math.isnan(missing):
            missing = "nan"
        if missing not in (None, "nan") and not (is_number(missing) and math.isfinite(missing)):
            raise ValueError(f"`missing` of a likelihood must be None, 'nan' or a finite number, but got {missing!r}.")
        self.missing = missing

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor; `missing` only if it is set."""
        return {} if self.missing is None else {"missing": self.missing}

    # === Heads ===

    def by_head(self, values: Any, what: str, partly: bool = False) -> dict[str, Any]:
        """What belongs to each output, such as its targets, by the name of the head.

        Args:
            values: Values for the outputs, in the structure of the outputs.
            what: What the values are, for messages.
            partly: Whether heads may be left out.

        Returns:
            For a single output, its values under an empty name.
        """
        return {"": values}

    def weights_by_head(self, weights: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """The learned parameters of the likelihood of each output, by the name of the head."""
        return {"": weights}

    # === Missing targets ===

    def is_missing(self, y: Any) -> Any:
        """Which values of `y` mark a missing target: booleans with the shape of `y`, an array or a tensor as `y` is."""
        values = y if isinstance(y, np.ndarray) else tf.cast(y, tf.float32)
        # Only NaN differs from itself.
        return values != values if self.missing == "nan" else values == self.missing

    def has_targets(self, y: np.ndarray) -> bool:
        """Whether a target is left that is not missing."""
        return self.missing is None or not np.all(self.is_missing(y))

    def without_missing(self, y: Any) -> Any:
        """`y` with 0 in place of missing targets, for a check that the others are finite."""
        if self.missing is None:
            return y
        if isinstance(y, np.ndarray):
            return np.where(self.is_missing(y), np.zeros_like(y), y)
        return tf.where(self.is_missing(y), tf.zeros_like(y), y)

    def observed_rows(
        self, y: np.ndarray, positions: Shape, channels: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
        """Targets as rows, with an observed target in place of each missing one, and which of them were observed.

        Args:
            y: Array of targets, `(n, *positions)` or `(n, *positions, columns)`.
            positions: Sizes of the axes of the positions.
            channels: Size of the last axis of the outputs.

        Returns:
            The rows; and booleans `(rows,)`, or `(rows, targets)` for several independent targets, or None if no target
            can be missing.

        Raises:
            ValueError: If the positions do not fit, or no target is left.
        """
        rows = fold_targets(y, positions)
        if self.missing is None:
            return rows, None
        observed = ~self.is_missing(rows)
        if not observed.any():
            raise ValueError(_NONE_LEFT.format(f"`y`, of shape {y.shape},", self.missing))
        if rows.ndim == 1 or self._has_single_targets(channels):
            filled = np.where(observed, rows, rows[observed][0])
            return filled, observed[:, 0] if observed.shape[1:] == (1,) else observed
        together = observed.any(axis=1)
        if self.target_kind(channels) != "class" and (together != observed.all(axis=1)).any():
            raise ValueError(_JOINT.format(self))
        return np.where(together[:, np.newaxis], rows, rows[together][:1]), together

    # === Examples ===

    def log_likelihood(
        self,
        y: Any,
        outputs: tf.Tensor,
        weights: Mapping[str, Any],
        sample_weight: Any = None,
        *,
        draws: bool = False,
        by_position: bool = False,
        may_be_empty: bool = False,
    ) -> tf.Tensor:
        """Log p(y | outputs) of each example in nats, float32: the sum over its positions and targets, not their mean.

        Missing targets, and positions that Keras has masked, contribute 0. If the outputs have a variance, see
        `set_variance`, it is the expectation over normal outputs.

        Args:
            y: Targets: `(batch, *positions)` for a class or one target at each position, `(batch, *positions,
                targets)`, or one-hot.
            outputs: Raw outputs, `(batch, *positions, channels)`.
            weights: Learned parameters of the likelihood, by role.
            sample_weight: Factors of the terms: `(batch,)`, `(batch, *positions)` or `(batch, *positions, targets)`.
            draws: Whether `outputs` has an axis of draws before the others.
            by_position: Whether to return the terms of the positions instead of their sum.
            may_be_empty: Whether all targets may be missing: those of one head among several.

        Returns:
            A tensor `(batch,)`; `(S, batch)` with `draws`; followed by the positions with `by_position`.

        Raises:
            ValueError: If positions, targets or weights do not fit the outputs.
        """
        _, *positions, channels = outputs.shape[draws:]
        example_weight, row_weight = fold_weights(sample_weight, positions, self.num_targets(channels))
        rows, observed = self._observed_rows(y, outputs, positions, may_be_empty)
        factors = [factor for factor in (observed, row_weight) if factor is not None]
        of_targets = any(factor.shape.rank == 2 for factor in factors)
        variance = variance_of(outputs)
        if variance is not None:
            terms = self._expected_log_prob(rows, outputs, variance, weights, bool(positions or of_targets))
        else:
            log_prob = self._log_prob_of_each if of_targets else self.log_prob
            terms = log_prob(rows, fold_outputs(outputs, draws), weights)
        for factor in factors:
            fitting = factor if factor.shape.rank == 1 + of_targets else factor[:, tf.newaxis]
            # A product with 0 would keep a NaN.
            terms = tf.where(fitting, terms, 0.0) if factor.dtype == tf.bool else terms * fitting
        if of_targets:
            terms = tf.reduce_sum(terms, axis=-1)
        if positions:
            terms = tf.reshape(terms, tf.shape(outputs)[:-1])
        if example_weight is not None:
            terms *= tf.reshape(example_weight, [-1, *[1] * len(positions)])
        if by_position or not positions:
            return terms
        return tf.reduce_sum(terms, axis=list(range(1 + draws, 1 + draws + len(positions))))

    def check_examples(self, y: Any, output_shape: Any) -> None:
        """Refuses targets that cannot have come from this likelihood, before the first step.

        Args:
            y: Array of targets.
            output_shape: Shape of the outputs of one example, `(*positions, channels)`.

        Raises:
            ValueError: As `check_targets`, for the targets that are not missing; if the positions do not fit; or if no
                target is left.
        """
        *positions, channels = output_shape
        rows, _ = self.observed_rows(y, positions, channels)
        try:
            self.check_targets(rows, channels)
        except ValueError as error:
            if not positions:
                raise
            raise ValueError(
                f"{error} (Each position is a row here: the targets have the shape {y.shape}, and the outputs the "
                f"shape {('batch', *output_shape)}.)"
            ) from error

    def metric_rows(
        self, y: Any, outputs: Any, weights: Mapping[str, Any], sample_weight: Any, may_be_empty: bool = False
    ) -> tuple[Any, Any, Any]:
        """What Keras metrics receive: targets, probabilities or means, and weights, with a row for each position.

        Missing targets are masked, as Keras masks padding. If one of several targets can be missing or has a weight of
        its own, each target is a row.

        Args:
            y: Targets, as in `log_likelihood`.
            outputs: Raw outputs, `(batch, *positions, channels)`.
            weights: Learned parameters of the likelihood, by role.
            sample_weight: Weights, as in `log_likelihood`.
            may_be_empty: As in `log_likelihood`.
        """
        _, *positions, channels = outputs.shape
        means = self.mean(fold_outputs(outputs), weights)
        example_weight, weight = fold_weights(sample_weight, positions, self.num_targets(channels))
        rows, observed = self._observed_rows(y, outputs, positions, may_be_empty)
        if example_weight is not None:
            at_each = tf.reshape(example_weight, [-1, *[1] * len(positions)])
            weight = tf.reshape(tf.broadcast_to(at_each, tf.shape(outputs)[:-1]), [-1])
        if any(factor is not None and factor.shape.rank == 2 for factor in (observed, weight)):
            number = means.shape[-1]
            rows, means = tf.reshape(rows, [-1, 1]), tf.reshape(means, [-1, 1])
            observed, weight = (_of_each_target(factor, number) for factor in (observed, weight))
        if observed is not None:
            set_mask(means, observed)
            # Metrics that do not know masks can be given as `weighted_metrics`.
            counted = tf.cast(observed, tf.float32)
            weight = counted if weight is None else counted * weight
        return rows, means, weight

    def chance_nll_of_example(self, output_shape: Any) -> float | None:
        """The NLL of giving all answers the same probability at all positions, in nats; None if there is no such.

        Args:
            output_shape: Shape of the outputs of one example, `(*positions, channels)`, with known sizes.
        """
        *positions, channels = output_shape
        at_each = self.chance_nll(channels)
        return None if at_each is None else at_each * math.prod(positions)

    def has_whole_targets(self, num_outputs: int) -> bool:
        """Whether the targets of a network with so many outputs are whole numbers, such as counts."""
        return bool(self._judged_whole(num_outputs))

    # === Internals ===

    def _marginals(self, outputs: Any, weights: Mapping[str, Any]) -> Iterator[tuple[slice, Marginals]]:
        """The marginal distributions of outputs `(S, rows, channels)`, a few rows at a time."""
        outputs = tf.cast(outputs, tf.float32)
        whole_numbers = self._judged_whole(outputs.shape[-1])
        for start in range(0, outputs.shape[1], _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            yield part, Marginals(self.distribution(outputs[:, part], weights), whole_numbers)

    def _judged_whole(self, num_outputs: int) -> bool | None:
        return Marginals(self._probe(num_outputs)).judged_whole_numbers(NUM_DRAWS)

    def _observed_rows(
        self, y: Any, outputs: tf.Tensor, positions: Shape, may_be_empty: bool
    ) -> tuple[Any, tf.Tensor | None]:
        """`observed_rows` within a step; positions that Keras has masked are missing too."""
        rows, channels = fold_targets(y, positions), outputs.shape[-1]
        mask = mask_of(outputs)
        is_masked = bool(positions) and mask is not None and len(mask.shape) == 1 + len(positions)
        if self.missing is None and not is_masked:
            return rows, None
        rows = tf.convert_to_tensor(rows)
        rows = tf.cast(rows, tf.int32) if rows.dtype == tf.bool else rows
        observed = tf.ones_like(rows, tf.bool) if self.missing is None else ~self.is_missing(rows)
        if is_masked:
            observed &= tf.reshape(mask, [-1, *[1] * (rows.shape.rank - 1)])
        one_hot = rows.shape.rank == 2 and rows.shape[-1] != 1 and self.target_kind(channels) == "class"
        if rows.shape.rank == 2 and not self._has_single_targets(channels):
            together = tf.reduce_any(observed, axis=-1, keepdims=True)
            if not one_hot:
                alike = tf.reduce_all(observed == together)
                together = checked(together, alike, _JOINT.format(self))
            observed = together
        # Any observed number is in the support, whatever the likelihood.
        filler = tf.reduce_max(tf.where(observed, rows, rows.dtype.min))
        # One replica of several may have no rows, or none with a target.
        if may_be_empty or tf.distribute.get_strategy().num_replicas_in_sync > 1:
            # Of numbers, counts, labels and classes alike, 1 is one.
            filler = tf.where(tf.reduce_any(observed), filler, tf.ones_like(filler))
        else:
            observed = checked(observed, tf.reduce_any(observed), _NONE_LEFT.format("a batch", self.missing))
        rows = tf.where(observed, rows, tf.one_hot(0, rows.shape[-1], dtype=rows.dtype) if one_hot else filler)
        return rows, observed[:, 0] if observed.shape[1:] == (1,) else observed

    def _has_single_targets(self, channels: int) -> bool:
        """Whether each column of the targets is a target of its own, independent of the others."""
        return self.target_kind(channels) != "class" and each_target(self._probe(channels)) is not None

    def _expected_log_prob(
        self, y: Any, mean: tf.Tensor, variance: tf.Tensor, weights: Mapping[str, Any], in_parts: bool
    ) -> tf.Tensor:
        if in_parts:
            raise ValueError(
                "The expectation over normal outputs is that of whole rows: outputs with positions, and single targets "
                "that are missing or have weights of their own, are not supported."
            )
        return self.expected_log_prob(y, tf.cast(mean, tf.float32), variance, weights)

    def _log_prob_of_each(self, y: Any, outputs: tf.Tensor, weights: Mapping[str, Any]) -> tf.Tensor:
        """Log p of each target, `(..., rows, targets)`."""
        outputs = tf.cast(outputs, tf.float32)
        targets = self.targets(y, outputs)
        distribution = each_target(self.distribution(outputs, weights))
        if distribution is None:
            raise ValueError(_JOINT.format(self))
        return tf.cast(distribution.log_prob(targets), tf.float32)


def _of_each_target(factor: tf.Tensor | None, number: int) -> tf.Tensor | None:
    """`(rows,)` or `(rows, targets)` -> `(rows * targets,)`."""
    if factor is None:
        return None
    factor = factor if factor.shape.rank == 2 else factor[:, tf.newaxis]
    return tf.reshape(tf.broadcast_to(factor, [tf.shape(factor)[0], number]), [-1])
