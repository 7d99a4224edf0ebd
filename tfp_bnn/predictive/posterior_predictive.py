"""The posterior predictive: the predictions of a Bayesian model, averaged over draws of its function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import require_integer
from tfp_bnn.core.draws import Draws
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.likelihoods.scoring import resampled_scores
from tfp_bnn.likelihoods.targets import check_numbers
from tfp_bnn.predictive.calibrators import Calibration, check_fits
from tfp_bnn.predictive.drawing import DrawnOutputs, averaged, draw_outputs, message_of_no_draws, moment
from tfp_bnn.predictive.shown import ShownPredictive


class PosteriorPredictive(ShownPredictive):
    """Predictions for n inputs, each a mixture over S draws of the weights.

    If the outputs have positions, such as pixels or time steps, every array of predictions has them after the axis of
    the n inputs: `(n, *positions, classes)` where `(n, classes)` is written.

    Probabilities are averaged, never logits. Arrays are float32; entropies and log-probabilities are in nats.

    Args:
        likelihood: Distribution of a target given the outputs.
        weights: Learned parameters of the likelihood by role, and those added by a calibration.
        outputs: Raw outputs of shape `(S, n, *positions, outputs)`, or None if they did not fit into memory.
        moments: Arrays by name, such as `mean`, if `outputs` is None.
        shape: Shape of the outputs, `(S, n, *positions, outputs)`.
        weights_by_draw: Roles of the weights that differ between draws; these have the shape `(S, 1, *own)`.
        exhaustive: Whether these are all the draws there are. No Monte Carlo error is estimated then.
        moment_again: Function that computes a moment that `moments` lacks, by its name, if `outputs` is None.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        weights: Mapping[str, np.ndarray],
        outputs: np.ndarray | None,
        moments: Mapping[str, np.ndarray],
        shape: tuple[int, ...],
        weights_by_draw: frozenset[str] = frozenset(),
        exhaustive: bool = False,
        moment_again: Callable[[str], np.ndarray] | None = None,
    ) -> None:
        self.likelihood = likelihood
        self.exhaustive = exhaustive
        self._weights = dict(weights)
        self._outputs = outputs
        self._moments = dict(moments)
        self._shape = shape
        self._weights_by_draw = weights_by_draw
        self._moment_again = moment_again

    @classmethod
    def from_draws(
        cls,
        draws: Draws,
        x: Any,
        likelihood: Likelihood,
        num_samples: int = 100,
        *,
        batch_size: int | None = None,
        max_bytes: int = 2**30,
        calibration: Calibration | None = None,
    ) -> PosteriorPredictive:
        """Makes the predictive of any posterior that can be drawn from. Every predictive is made this way.

        Args:
            draws: Draws of the function; see `tfp_bnn.core.draws.Draws`. Wrap a list of functions in `FiniteDraws`.
            x: Inputs: an array `(n, ...)`, a list, tuple or dict of arrays if the functions take several, or a stream
                of batches; see `tfp_bnn.core.batches`.
            likelihood: Distribution of a target given the raw outputs.
            num_samples: Number of draws. If there are fewer, all are used; the `num_samples` of the result is their
                number.
            batch_size: Number of rows per call of a function. Default: as many as make the largest array between two
                layers 64 MiB, from 512 to 8,192; 512 where its size is not known, as of models without a graph.
            max_bytes: Memory limit for the raw outputs of all draws, S x n x outputs x 4 bytes. Above it, only the
                moments are kept, and the outputs of a few rows are in memory: at most half the limit, or 64 MiB if that
                is more, or one row. The entropy of numbers then runs the draws again when it is first asked for.
            calibration: Calibration of the predictions, or None.

        Returns:
            A `PosteriorPredictive` of n predictions.

        Raises:
            ValueError: If `x` is empty, `num_samples` or `batch_size` is below 1, the calibration does not fit the
                likelihood, or the likelihood is joint.

        Example:
            >>> import numpy as np, tfp_bnn
            >>> from tfp_bnn.core.draws import FiniteDraws
            >>> draws = FiniteDraws([lambda x: x, lambda x: 3.0 * x])
            >>> normal = tfp_bnn.likelihoods.Normal(scale=1.0)
            >>> predictive = tfp_bnn.PosteriorPredictive.from_draws(draws, np.ones((1, 1)), normal)
            >>> predictive.num_samples, predictive.mean()[0, 0], predictive.epistemic()[0, 0]
            (2, np.float32(2.0), np.float32(1.0))
        """
        if likelihood.heads:
            raise ValueError(
                f"The likelihood has the heads {list(likelihood.heads)}, and a PosteriorPredictive is that of one. Use "
                "tfp_bnn.predictive.JointPredictive.from_draws."
            )
        if calibration is not None:
            check_fits(calibration, likelihood)
        drawn = draw_outputs(draws, x, likelihood, num_samples, batch_size, max_bytes, calibration)
        return cls.of_drawn(likelihood, drawn[""])

    @classmethod
    def of_drawn(cls, likelihood: Likelihood, drawn: DrawnOutputs) -> PosteriorPredictive:
        """Makes the predictive of outputs that were drawn."""
        return cls(
            likelihood,
            drawn.weights,
            drawn.outputs,
            drawn.moments,
            drawn.shape,
            weights_by_draw=drawn.weights_by_draw,
            exhaustive=drawn.exhaustive,
            moment_again=drawn.moment_again,
        )

    @property
    def num_samples(self) -> int:
        """S, the number of draws."""
        return self._shape[0]

    @property
    def num_outputs(self) -> int:
        """The number of raw outputs of the network: the size of their last axis."""
        return self._shape[-1]

    @property
    def positions(self) -> tuple[int, ...]:
        """The sizes of the axes between the inputs and the outputs, such as height and width; usually empty."""
        return self._shape[2:-1]

    @property
    def target_kind(self) -> str:
        """The kind of a target: `"class"`, `"labels"` or `"number"`."""
        return self.likelihood.target_kind(self.num_outputs)

    def __len__(self) -> int:
        return self._shape[1]

    @property
    def has_draws(self) -> bool:
        """Whether the draws are in memory; if not, there are moments only."""
        return self._outputs is not None

    @property
    def samples(self) -> np.ndarray:
        """Probabilities or means under each draw of the weights: `(S, n, classes)` or `(S, n, targets)`.

        Raises:
            ValueError: If the draws did not fit into memory. The message gives their size.
        """
        return self.likelihood.mean(self._required_outputs("samples"), self._weights).numpy()

    def mean(self) -> np.ndarray:
        """Predictive probabilities of shape `(n, classes)`, or predictive means of shape `(n, targets)`."""
        return self._moment("mean")

    def entropy(self) -> np.ndarray:
        """Entropy of the predictive, in nats: classes and labels `(n,)`, numbers `(n, targets)`.

        Targets that are not independent given the weights have one joint entropy, `(n, 1)`.
        """
        return self._moment("entropy")

    def aleatoric(self) -> np.ndarray:
        """The uncertainty that knowing the weights would not remove.

        Classes and labels: expected entropy, in nats, `(n,)`. Numbers: expected variance, in squared units of the
        target, `(n, targets)`.
        """
        return self._moment("aleatoric")

    def epistemic(self) -> np.ndarray:
        """The uncertainty that comes from not knowing the weights.

        Classes and labels: mutual information of target and weights, in nats, `(n,)`. Numbers: variance of the mean, in
        squared units of the target, `(n, targets)`.
        """
        return self._moment("epistemic")

    def quantiles(self, levels: float | Sequence[float]) -> np.ndarray:
        """Quantiles, with the levels along the first axis.

        For numbers, these are quantiles of the predictive distribution of the target, noise included; for whole
        numbers, the smallest number whose cumulative probability reaches the level. For classes and labels, they are
        quantiles of the probabilities over the weight draws.

        Args:
            levels: One or more numbers in [0, 1], such as `[0.05, 0.95]`.

        Returns:
            `(levels, n, classes)` or `(levels, n, targets)`; without the first axis for a single number.

        Raises:
            ValueError: If a level is outside [0, 1], or the draws did not fit into memory.
        """
        asked = np.atleast_1d(np.asarray(levels, float))
        if not ((asked >= 0) & (asked <= 1)).all():
            raise ValueError(f"The levels of quantiles must lie in [0, 1], but got {levels!r}.")
        found = self.likelihood.quantiles(self._required_outputs("quantiles"), self._weights, list(asked))
        return found[0] if np.ndim(levels) == 0 else found

    def interval(self, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """The central interval, `(lower, upper)`: the quantiles at (1 - level) / 2 and (1 + level) / 2.

        Args:
            level: Number in [0, 1]. Default: 0.9.

        Returns:
            Two arrays of shape `(n, targets)`. An interval of whole numbers covers at least `level`. For classes and
            labels, the interval of the probabilities over the weight draws, `(n, classes)`.

        Raises:
            ValueError: If a level is outside [0, 1], or the draws did not fit into memory.
        """
        tail = round((1.0 - level) / 2.0, 12)
        lower, upper = self.quantiles([tail, 1.0 - tail])
        return lower, upper

    def sample(self, num_draws: int, seed: int = 0) -> np.ndarray:
        """Draws targets from the predictive, noise included.

        Draw k uses weight draw k modulo S for all inputs, so it is one function plus noise.

        Args:
            num_draws: Number of targets per input.
            seed: Integer. Equal seeds give equal targets.

        Returns:
            Numbers and labels `(num_draws, n, targets)`, or classes as integers `(num_draws, n)`.

        Raises:
            ValueError: If an argument is invalid, or the draws did not fit into memory.
        """
        require_integer("num_draws", num_draws, 1)
        seed = require_integer("seed", seed)
        return self.likelihood.sample(self._required_outputs("sample"), self._weights, num_draws, seed)

    def pit(self, y: Any, seed: int = 0) -> np.ndarray:
        """The probability integral transform of each target: uniform on [0, 1] if the predictive is correct.

        It is P(Y <= y) for real numbers. If y has a probability p, as whole numbers do, it is P(Y < y) + u p with u
        uniform on [0, 1]. Values that pile up at both ends show an overconfident predictive; values in the middle, an
        underconfident one.

        Args:
            y: Targets of shape `(n, targets)`, or `(n,)` for one target.
            seed: Integer seed of u.

        Returns:
            An array of shape `(n, targets)`, float64; NaN where a target is missing.

        Raises:
            ValueError: If the targets are classes or labels, which have no order, or do not fit, or if the draws did
                not fit into memory.

        References:
            Czado, Gneiting & Held 2009, Predictive Model Assessment for Count Data,
            https://doi.org/10.1111/j.1541-0420.2009.01191.x
        """
        seed = require_integer("seed", seed)
        targets = self._checked_targets(y)
        levels = self.likelihood.levels(self._required_outputs("pit"), self._weights, targets)
        below, at_most = (level.mean(axis=0, dtype=np.float64) for level in levels)
        u = np.random.default_rng(seed).uniform(size=below.shape)
        return np.clip(below + u * (at_most - below), 0.0, 1.0)

    def distribution(self) -> tfd.Distribution:
        """The predictive as a mixture of S equally likely components, with batch shape `(n, *positions)`.

        Raises:
            ValueError: If the draws did not fit into memory.
        """
        outputs = tf.convert_to_tensor(np.moveaxis(self._required_outputs("distribution"), 0, -2))
        # The draws are on the last axis but one here.
        weights = {
            role: np.swapaxes(value, 0, 1) if role in self._weights_by_draw else value
            for role, value in self._weights.items()
        }
        components = self.likelihood.distribution(outputs, weights)
        return tfd.MixtureSameFamily(tfd.Categorical(logits=tf.zeros(self.num_samples)), components)

    def log_prob(self, y: Any, by_position: bool = False) -> np.ndarray:
        """Log p(y | x, data) of each example, in nats, of shape `(n,)`.

        This is the log of the likelihood averaged over the draws. The predictive NLL is its negative mean over
        examples. All targets of an example are one event: the likelihood of a draw is the product over its positions
        and targets. Missing targets are left out of it.

        Args:
            y: Targets, as for training.
            by_position: Whether each position is an event of its own: the shape is then `(n, *positions)`.

        Raises:
            ValueError: If targets have a wrong shape or range, or the draws did not fit into memory.
        """
        targets = self._checked_targets(y)
        outputs = self._required_outputs("log_prob")
        by_draw = self.likelihood.log_likelihood(targets, outputs, self._weights, draws=True, by_position=by_position)
        return averaged(by_draw)

    def log_likelihood(self, y: Any) -> np.ndarray:
        """Log p(y | x, w_s) of each example under each draw of the weights, in nats, `(S, n)`, float32.

        Other than for `log_prob`, all targets may be missing.

        Args:
            y: Targets, as for training.

        Raises:
            ValueError: As for `log_prob`.
        """
        outputs, targets = self._required_outputs("log_likelihood"), np.asarray(y)
        if self.likelihood.has_targets(targets):
            targets = self._checked_targets(targets)
        return self.likelihood.log_likelihood(targets, outputs, self._weights, draws=True, may_be_empty=True).numpy()

    def calibrated_by(self, calibration: Calibration) -> PosteriorPredictive:
        """These predictions with a calibration applied. The network is not run again.

        Args:
            calibration: Calibration object that fits the likelihood.

        Returns:
            New predictions from the same draws.

        Raises:
            ValueError: If the draws did not fit into memory, or the calibration does not fit the likelihood.
        """
        check_fits(calibration, self.likelihood)
        outputs, weights = calibration.apply(self._required_outputs("calibrated_by"), self._weights, self.likelihood)
        return self._of_outputs(outputs, weights)

    def scores_without_each_draw(self, y: Any = None) -> list[dict[str, float]]:
        """The scores of the mixture with each draw left out in turn; see `standard_errors`.

        Args:
            y: Targets; None for scores of uncertainty only.

        Raises:
            ValueError: If the draws did not fit into memory, or the targets do not fit.
        """
        targets = None if y is None else self._checked_targets(y)
        outputs = self._required_outputs("scores_without_each_draw")
        return self.likelihood.scores_without_each_draw(outputs, self._weights, targets, self._weights_by_draw)

    def resampled_scores(self, y: Any, draws: np.ndarray) -> dict[str, np.ndarray]:
        """The scores that move in steps, of R mixtures over the draws with the numbers `(R, K)`: arrays `(R,)`.

        See `standard_errors`. The errors are those of `scores_without_each_draw`.
        """
        targets, outputs = self._checked_targets(y), self._required_outputs("resampled_scores")
        return resampled_scores(self.likelihood, outputs, self._weights, self._weights_by_draw, targets, draws)

    def _first(self, count: int) -> PosteriorPredictive:
        return self._of_outputs(self._required_outputs("plot")[:, :count], self._weights)

    def _of_outputs(self, outputs: Any, weights: Any) -> PosteriorPredictive:
        own = self._weights_by_draw, self.exhaustive
        found = PosteriorPredictive(self.likelihood, weights, outputs, {}, tuple(outputs.shape), *own)
        found.class_names, found.target_units = self.class_names, self.target_units
        return found

    def _checked_targets(self, y: Any) -> np.ndarray:
        targets = np.asarray(y)
        if targets.shape[:1] != (len(self),):
            raise ValueError(
                f"The targets have the shape {targets.shape}, but there are {len(self)} predictions. Expected one "
                "target for each."
            )
        check_numbers(targets, self.likelihood.without_missing)
        self.likelihood.check_examples(targets, self._shape[2:])
        return targets

    def _moment(self, name: str) -> np.ndarray:
        if name not in self._moments:
            if self._moment_again is not None:
                self._moments[name] = self._moment_again(name)
            else:
                self._moments[name] = moment(name, self.likelihood, self._required_outputs(name), self._weights)
        # A copy: whoever scales a prediction in place would change all later ones.
        return self._moments[name].copy()

    def _required_outputs(self, what: str) -> np.ndarray:
        if self._outputs is None:
            raise ValueError(message_of_no_draws(what, self._shape))
        return self._outputs
