"""The base class of likelihoods, with defaults derived from the distribution."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.registry import SpecRegistry
from tfp_bnn.likelihoods import scoring
from tfp_bnn.likelihoods.examples import Examples
from tfp_bnn.likelihoods.marginals import Marginals
from tfp_bnn.likelihoods.normal_outputs import NormalOutputs
from tfp_bnn.likelihoods.positions import AXIS_OF_ROWS, mean_over_positions, over_positions
from tfp_bnn.likelihoods.probing import check_distribution, probed
from tfp_bnn.likelihoods.targets import check_shape, check_support, checked_support, like_outputs

Weights = Mapping[str, Any]
TargetKind = Literal["class", "labels", "number", "heads"]

_MOST_OUTPUTS_PER_TARGET = 8


class Likelihood(NormalOutputs, Examples):
    """p(y | outputs): how a target is distributed, given the raw outputs of a network.

    A subclass defines `distribution`, and `get_config` if its constructor has arguments. Everything else has a default
    derived from the distribution. Register the class before a model uses it::

        @tfp_bnn.likelihoods.LIKELIHOODS.register("geometric")
        class Geometric(tfp_bnn.likelihoods.Likelihood):
            def distribution(self, outputs, weights):
                return tfd.Independent(tfd.Geometric(logits=outputs), reinterpreted_batch_ndims=1)

    The targets of this base class are real or whole numbers; those of `ClassLikelihood` are classes. The uncertainty
    about numbers is decomposed by the law of total variance, Var[y] = E[Var[y | w]] + Var[E[y | w]], and that about
    classes by the entropy of the prediction. `outputs` has the shape `(..., batch, channels)`; a leading axis of Monte
    Carlo samples is allowed. Arrays of predictions have the targets on the last axis, even a single one.

    Outputs of a network with positions, such as pixels or time steps, `(batch, *positions, channels)`, need nothing
    else: to `distribution`, `log_prob` and `targets` each position is a row. The methods for all draws take `(S, batch,
    *positions, channels)`, and their results have the positions after the batch. `log_likelihood` is the sum over the
    positions of an example.

    Args:
        missing: What marks a missing target: `"nan"`, or a number such as -1; None if all targets are there. A
            constructor with other arguments can pass it on, and `get_config` add that of this class.

    Attributes:
        task: `"regression"` for numbers, `"classification"` for classes and labels.
        calibrator: Name of the calibration that `tfp_bnn.calibrate` fits; None if there is none.
        why_no_calibrator: The reason why there is none, as the end of a sentence in an error message.
        output_activation: Name of the Keras activation that turns the outputs into `mean`, such as `"softmax"`. It is
            not part of the network. None if there is none.
        least_scale: Least noise that outputs for it describe, in units of the target; 0 if there is no bound.
    """

    task: Literal["classification", "regression"] = "regression"
    calibrator: str | None = None
    why_no_calibrator: str = "it does not say how a number would widen its distribution"
    output_activation: str | None = None
    least_scale: float = 0.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        mean = cls.__dict__.get("mean")
        # Older subclasses define `mean(outputs)`, without the weights.
        if mean is not None and "weights" not in inspect.signature(mean).parameters:

            @functools.wraps(mean)
            def with_weights(self: Likelihood, outputs: tf.Tensor, weights: Weights | None = None) -> tf.Tensor:
                return mean(self, outputs)

            cls.mean = with_weights  # type: ignore[method-assign]
        if mean is not None:
            cls.mean = mean_over_positions(cls.mean)  # type: ignore[method-assign]
        for name in AXIS_OF_ROWS.keys() & cls.__dict__.keys():
            setattr(cls, name, over_positions(cls.__dict__[name], name))

    # === What a likelihood defines ===

    def distribution(self, outputs: tf.Tensor, weights: Weights) -> tfd.Distribution:
        """p(y | outputs): batch shape `(..., batch)`, event shape `()` for one target or `(targets,)`.

        Args:
            outputs: Raw outputs of the network, `(..., batch, channels)`, float32.
            weights: Learned parameters of the likelihood, by role; see `add_weights`. Each has its own shape, or `(S,
                1, *own)` for outputs `(S, batch, channels)` of an ensemble whose members each learned their own.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `distribution(outputs, weights)`.")

    def add_weights(self, add_weight: Callable[..., keras.Variable]) -> dict[str, keras.Variable]:
        """Creates the variables that the likelihood learns, by role; none by default.

        Args:
            add_weight: Function that creates a variable of the model: `add_weight(name=..., shape=...,
                initializer=...)`.
        """
        return {}

    def parameters(self, weights: Weights) -> dict[str, np.ndarray]:
        """The learned parameters in natural units, by role, float32; by default the values of the variables."""
        return {role: np.asarray(weight, np.float32) for role, weight in weights.items()}

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the variables to values in natural units, by role; the inverse of `parameters`."""
        for role, weight in weights.items():
            weight.assign(values[role])

    def rescaled(self, scale: float) -> Likelihood:
        """The likelihood to start training with if the targets have a standard deviation of about `scale`.

        By default this is the likelihood itself.
        """
        return self

    def in_target_units(self, outputs: Any, mean: Sequence[float], scale: Sequence[float]) -> Any:
        """The raw outputs that describe the targets mean + scale * z, given those that describe z.

        A network can work with standardized targets that way. By default, one output per target is taken for its
        location, and scaled and shifted; a learned scale is in units of the target already.

        Args:
            outputs: Raw outputs `(..., channels)`: an array or tensor, or a symbolic tensor of Keras.
            mean: One number for each target.
            scale: One number > 0 for each target.

        Raises:
            ValueError: If the targets have no unit, or the likelihood does not say which outputs have.
        """
        if self.has_probabilities:
            raise ValueError(
                f"The targets of the likelihood {self!r} are classes, which cannot be standardized. Leave out "
                "`standardize_targets`."
            )
        if outputs.shape[-1] != len(mean):
            raise ValueError(
                f"The likelihood {self!r} has {outputs.shape[-1]} outputs for {len(mean)} target(s), and does not say "
                "which of them have the unit of a target, so the targets cannot be standardized. Leave out "
                "`standardize_targets`, or override `in_target_units`."
            )
        return outputs * np.asarray(scale, np.float32) + np.asarray(mean, np.float32)

    # === Shapes ===

    def num_targets(self, num_outputs: int) -> int:
        """The number of targets per example for a network with `num_outputs` outputs."""
        return self._probe(num_outputs).event_shape.num_elements() or 1

    def num_outputs_for(self, y: npt.NDArray[Any], num_classes: int | None = None) -> int:
        """The number of outputs a network needs for targets like these.

        Args:
            y: Targets of shape `(n,)` or `(n, targets)`.
            num_classes: Number of classes, if the labels do not show it.

        Raises:
            ValueError: If no number up to 8 per target fits.
        """
        targets = y.reshape(len(y), -1).shape[1]
        for number in range(1, _MOST_OUTPUTS_PER_TARGET * targets + 1):
            try:
                if self.num_targets(number) == targets:
                    return number
            except ValueError:
                continue
        raise ValueError(
            f"No number of outputs up to {_MOST_OUTPUTS_PER_TARGET * targets} fits the likelihood {self!r} and "
            f"{targets} target(s) for each example. Override `num_outputs_for`."
        )

    def num_classes(self, num_outputs: int) -> int | None:
        """The number of class or label names that describe the probabilities; None for numbers."""
        return None

    @property
    def has_probabilities(self) -> bool:
        """Whether `mean` returns probabilities of classes or labels rather than means."""
        return self.task == "classification"

    def target_kind(self, num_outputs: int | None) -> TargetKind:
        """The kind of a target: `"class"` (one of several), `"labels"` (several yes-or-no answers) or `"number"`."""
        return "class" if self.has_probabilities else "number"

    def check_outputs(self, num_outputs: int) -> None:
        """Refuses networks whose outputs do not fit.

        Raises:
            ValueError: If `distribution` fails for `num_outputs` outputs, or returns one with the wrong batch or event
                shape. The message names the likelihood, what it returned and what was expected.
        """
        self._probe(num_outputs)

    # === Targets ===

    def targets(self, y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Converts `y` to the shape and dtype of the distribution's events, one per row of `outputs`.

        Args:
            y: Targets of shape `(batch, targets)`, or `(batch,)` for one target.
            outputs: Raw outputs of shape `(..., batch, channels)`.

        Raises:
            ValueError: If the shape of `y` does not fit.
        """
        probe = self._probe(outputs.shape[-1])
        rows = checked_support(like_outputs(y, probe.event_shape.num_elements() or 1), probe, repr(self))
        rows = tf.cast(rows, probe.dtype)
        return rows[:, 0] if probe.event_shape.rank == 0 else rows

    def check_targets(self, y: np.ndarray, num_outputs: int) -> None:
        """Refuses targets that cannot have come from this likelihood, before the first step.

        Args:
            y: Array of targets.
            num_outputs: Size of the last axis of the outputs.

        Raises:
            ValueError: If the shape is wrong, or values are outside the support, as far as it is known. The message
                says what was passed, what was expected and how to fix it.
        """
        probe = self._probe(num_outputs)
        check_shape(y, probe.event_shape.num_elements() or 1)
        check_support(y, probe, repr(self))

    def target_array(self, y: Any, num_outputs: int) -> npt.NDArray[Any]:
        """Targets in the form that metrics take: numbers and labels `(n, targets)`, classes as integers `(n,)`."""
        array = np.asarray(y)
        number = self.num_targets(num_outputs)
        check_shape(array, number)
        return array.reshape(len(array), number)

    def log_prob(self, y: tf.Tensor, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Log p(y | outputs), in nats, float32.

        Args:
            y: Targets, `(batch,)` or `(batch, targets)`.
            outputs: Raw outputs, `(..., batch, channels)`.
            weights: Learned parameters of the likelihood, by role; see `distribution`.

        Returns:
            A tensor of shape `(..., batch)`: every leading axis of `outputs` sees the same targets.
        """
        outputs = tf.cast(outputs, tf.float32)
        # Targets come first, because they are checked against the outputs.
        targets = self.targets(y, outputs)
        distribution = self.distribution(outputs, weights)
        check_distribution(self, distribution, outputs.shape[:-1], outputs.shape[-1])
        return tf.cast(distribution.log_prob(targets), tf.float32)

    # === One prediction for each draw of the weights ===

    @mean_over_positions
    def mean(self, outputs: tf.Tensor, weights: Weights | None = None) -> tf.Tensor:
        """The predictions that metrics receive: means `(..., batch, targets)` or probabilities `(..., batch, classes)`.

        Args:
            outputs: Raw outputs, `(..., batch, channels)`.
            weights: Learned parameters of the likelihood, by role; None if it learns nothing.

        Returns:
            A float32 tensor.
        """
        return Marginals(self.distribution(tf.cast(outputs, tf.float32), weights or {})).mean()

    # === The predictive: the equal mixture over the first axis of `outputs`, (S, batch, channels) ===

    @over_positions
    def quantiles(self, outputs: tf.Tensor, weights: Weights, levels: Sequence[float]) -> np.ndarray:
        """Quantiles of the predictive mixture, noise included, `(levels, batch, targets)`, in units of the target.

        For whole numbers, a quantile is the smallest number whose cumulative probability reaches the level, so
        intervals cover at least as much as they claim. See `tfp_bnn.likelihoods.marginals` for how they are computed.
        For classes, these are quantiles of the probabilities over the draws of the weights, `(levels, batch, classes)`.
        """
        parts = [marginals.quantiles(levels) for _, marginals in self._marginals(outputs, weights)]
        return np.concatenate(parts, axis=1)

    @over_positions
    def graph_quantiles(self, outputs: tf.Tensor, weights: Weights, levels: Sequence[float]) -> tf.Tensor:
        """`quantiles` by TensorFlow operations alone; see `Marginals.graph_quantiles` for when there are any."""
        return Marginals(self.distribution(tf.cast(outputs, tf.float32), weights)).graph_quantiles(levels)

    @over_positions
    def entropy(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Entropy of the predictive mixture, in nats: numbers `(batch, targets)`, classes and labels `(batch,)`.

        For numbers this is a Monte Carlo estimate; see `Marginals.entropy`.
        """
        return Marginals(self.distribution(tf.cast(outputs, tf.float32), weights)).entropy()

    @over_positions
    def aleatoric(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """The uncertainty that knowing the weights would not remove.

        Numbers: the expected variance in squared units of the target, `(batch, targets)`. Classes and labels: the
        expected entropy in nats, `(batch,)`.
        """
        variance = Marginals(self.distribution(tf.cast(outputs, tf.float32), weights)).variance()
        return tf.reduce_mean(variance, axis=0)

    @over_positions
    def epistemic(self, outputs: tf.Tensor, weights: Weights) -> tf.Tensor:
        """The uncertainty that comes from not knowing the weights.

        Numbers: the variance of the mean over the draws in squared units of the target, `(batch, targets)`. Classes and
        labels: the mutual information of target and weights in nats, `(batch,)`.
        """
        return tf.math.reduce_variance(self.mean(outputs, weights), axis=0)

    @over_positions
    def sample(self, outputs: tf.Tensor, weights: Weights, num_draws: int, seed: int) -> np.ndarray:
        """Draws targets from the mixture; draw k comes from component k modulo S in every row.

        The shape is `(num_draws, batch, targets)` for numbers and labels, and `(num_draws, batch)` for classes. Equal
        seeds give equal targets.
        """
        each = -(-num_draws // outputs.shape[0])
        distribution = self.distribution(tf.cast(outputs, tf.float32), weights)
        drawn = Marginals(distribution).sample(each, seed).numpy()
        return drawn.reshape(-1, *drawn.shape[2:])[:num_draws]

    @over_positions
    def levels(self, outputs: tf.Tensor, weights: Weights, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P(Y < y) and P(Y <= y) under each component, both `(S, batch, targets)`; they differ where P(Y = y) > 0.

        They are NaN for missing targets.

        Raises:
            ValueError: For classes and labels, which have no order.
        """
        rows, observed = self.observed_rows(y, (), outputs.shape[-1])
        targets = self.target_array(rows, outputs.shape[-1])
        parts = [marginals.levels(targets[part]) for part, marginals in self._marginals(outputs, weights)]
        below, at_most = (np.concatenate(of_parts, axis=1) for of_parts in zip(*parts, strict=True))
        if observed is None:
            return below, at_most
        there = observed.reshape(len(observed), -1)
        return np.where(there, below, np.nan), np.where(there, at_most, np.nan)

    # === Scores ===

    def score_names(self, num_outputs: int | None) -> tuple[str, ...]:
        """The names of `scores`, in order; for None, those known without the number of outputs."""
        return scoring.SCORE_NAMES[self.target_kind(num_outputs)]

    def scores(self, predictive: Any, y: Any = None) -> dict[str, float]:
        """The scores of a `PosteriorPredictive`; without targets, only those of uncertainty. See `predictive.score`."""
        return scoring.SCORES[self.target_kind(predictive.num_outputs)](self, predictive, y)

    def scores_without_each_draw(
        self, outputs: np.ndarray, weights: Weights, y: Any = None, weights_by_draw: frozenset[str] = frozenset()
    ) -> list[dict[str, float]]:
        """The scores of the mixture over all components but one, for each of them.

        Args:
            outputs: Raw outputs of shape `(S, n, channels)`, S >= 2.
            weights: Learned parameters of the likelihood, and those added by a calibration.
            y: Targets, or None.
            weights_by_draw: Roles of the weights that differ between draws; these have the shape `(S, 1, *own)`.
        """
        scores_without = scoring.WITHOUT_EACH_DRAW[self.target_kind(outputs.shape[-1])]
        return list(scores_without(self, outputs, weights, weights_by_draw, y))

    def outputs_of(self, outputs: np.ndarray, weights: Weights, draws: Sequence[int]) -> np.ndarray | None:
        """The raw outputs of some draws, if a calibration made them depend on the others; else None."""
        return None

    def chance_nll(self, num_outputs: int) -> float | None:
        """The NLL of giving all answers the same probability, in nats; None if there is no such prediction."""
        return None

    def training_metrics(self, num_outputs: int) -> list[Any]:
        """The Keras metrics to compile a model with."""
        return ["mae"]

    def keras_metric(self, given: Any, num_outputs: int) -> Any:
        """The Keras metric for what was given to `compile`; by default unchanged, and Keras chooses by shape."""
        return given

    # === Internals ===

    def _probe(self, num_outputs: int) -> tfd.Distribution:
        return probed(self, num_outputs)


LIKELIHOODS: SpecRegistry[Likelihood] = SpecRegistry("likelihood")
