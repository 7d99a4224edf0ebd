"""The posterior predictive: what a Bayesian network says about inputs, averaged over draws of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_bnn.core.arguments import is_integer
from tfp_bnn.core.noise import Noise, NoNoise
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.predictive.calibrators import Calibration, check_fits

# Apart from the streams of training and evaluation, which fold in 0 and 1.
_PREDICTION = 2
# The entropy of a mixture of S normals takes S x S numbers a row.
_NUMBERS_AT_ONCE = 2**22


class PosteriorPredictive:
    """Predictions for n inputs, each a mixture over S draws of the weights.

    Probabilities are averaged, never logits. Arrays are float32; entropies and log-probabilities are in nats.

    Args:
        likelihood: how a target is distributed given the outputs.
        weights: what the likelihood has learned, by role, and what a calibration added.
        outputs: raw outputs of shape `(S, n, outputs)`, or None when they did not fit into memory.
        moments: `mean`, `entropy`, `aleatoric`, `epistemic`, where `outputs` is None.
        shape: of the outputs, `(S, n, outputs)`.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        weights: Mapping[str, np.ndarray],
        outputs: np.ndarray | None,
        moments: Mapping[str, np.ndarray],
        shape: tuple[int, ...],
    ) -> None:
        self.likelihood = likelihood
        self._weights = dict(weights)
        self._outputs = outputs
        self._moments = dict(moments)
        self._shape = shape

    @property
    def num_samples(self) -> int:
        """S, the number of weight draws."""
        return self._shape[0]

    @property
    def num_outputs(self) -> int:
        """The number of raw outputs of the network, the size of their last axis."""
        return self._shape[-1]

    @property
    def target_kind(self) -> str:
        """What a target is: `"class"`, `"labels"` or `"number"`."""
        return self.likelihood.target_kind(self.num_outputs)

    def __len__(self) -> int:
        return self._shape[1]

    @property
    def samples(self) -> np.ndarray:
        """Probabilities, or means, under each draw of the weights: `(S, n, classes)` or `(S, n, targets)`.

        Raises:
            ValueError: when the draws did not fit into memory; the message gives their size.
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

        Numbers: of the predictive distribution of the target, noise included; of whole numbers, the smallest whose
        probability of not being exceeded is at least the level. Classes and labels: of the probabilities over the
        weight draws.

        Args:
            levels: one or more numbers in [0, 1], for example `[0.05, 0.95]`.

        Returns:
            `(levels, n, classes)` or `(levels, n, targets)`; without the first axis for a single number.

        Raises:
            ValueError: for a level outside [0, 1], or when the draws did not fit into memory.
        """
        asked = np.atleast_1d(np.asarray(levels, float))
        if not ((asked >= 0) & (asked <= 1)).all():
            raise ValueError(f"The levels of quantiles must lie in [0, 1], but got {levels!r}.")
        found = self.likelihood.quantiles(self._required_outputs("quantiles"), self._weights, list(asked))
        return found[0] if np.ndim(levels) == 0 else found

    def interval(self, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """The central interval, `(lower, upper)`: the quantiles at (1 - level) / 2 and (1 + level) / 2.

        Args:
            level: A number in [0, 1]; 0.9 by default.

        Returns:
            Two arrays of shape `(n, targets)`. An interval of whole numbers covers `level` or more. Classes and labels:
            of the probabilities over the weight draws, `(n, classes)`.

        Raises:
            ValueError: For a level outside [0, 1], or when the draws did not fit into memory.
        """
        tail = round((1.0 - level) / 2.0, 12)
        lower, upper = self.quantiles([tail, 1.0 - tail])
        return lower, upper

    def sample(self, num_draws: int, seed: int = 0) -> np.ndarray:
        """Targets drawn from the predictive, noise included.

        Draw k is under weight draw k modulo S for all inputs, so each is one function with its noise.

        Args:
            num_draws: The number of targets for each input.
            seed: An integer; equal seeds give equal targets.

        Returns:
            Numbers and labels `(num_draws, n, targets)`; classes, as integers, `(num_draws, n)`.

        Raises:
            ValueError: For a bad argument, or when the draws did not fit into memory.
        """
        _check_at_least_1("num_draws", num_draws)
        _check_seed(seed)
        return self.likelihood.sample(self._required_outputs("sample"), self._weights, num_draws, seed)

    def pit(self, y: Any, seed: int = 0) -> np.ndarray:
        """The probability integral transform of each target, uniform on [0, 1] where the predictive is right.

        P(Y <= y) for real numbers; where y has a probability p, as whole numbers do, P(Y < y) + u p with u uniform on
        [0, 1]. Values that pile up at both ends show a predictive that is too sure; in the middle, one not sure enough.

        Args:
            y: Targets of shape `(n, targets)`, or `(n,)` for one target.
            seed: An integer, for u.

        Returns:
            float64 of shape `(n, targets)`.

        Raises:
            ValueError: For classes and labels, which have no order; for targets that do not fit; when the draws did
                not fit into memory.

        References:
            Czado, Gneiting & Held 2009, Predictive Model Assessment for Count Data,
            https://doi.org/10.1111/j.1541-0420.2009.01191.x
        """
        _check_seed(seed)
        targets = self._checked_targets(y)
        levels = self.likelihood.levels(self._required_outputs("pit"), self._weights, targets)
        below, at_most = (level.mean(axis=0, dtype=np.float64) for level in levels)
        u = np.random.default_rng(seed).uniform(size=below.shape)
        return np.clip(below + u * (at_most - below), 0.0, 1.0)

    def distribution(self) -> tfd.Distribution:
        """The predictive as a mixture of S equally likely components, with batch shape `(n,)`.

        Raises:
            ValueError: when the draws did not fit into memory.
        """
        outputs = tf.convert_to_tensor(np.moveaxis(self._required_outputs("distribution"), 0, 1))
        components = self.likelihood.distribution(outputs, self._weights)
        return tfd.MixtureSameFamily(tfd.Categorical(logits=tf.zeros(self.num_samples)), components)

    def log_prob(self, y: Any) -> np.ndarray:
        """Log p(y | x, data) of each example, in nats, of shape `(n,)`.

        The log of the likelihood averaged over the draws. Its negated mean is the predictive NLL.

        Args:
            y: targets, as for training.

        Raises:
            ValueError: for targets of a wrong shape or range, or when the draws did not fit into memory.
        """
        targets = self._checked_targets(y)
        by_draw = [
            self.likelihood.log_prob(targets, outputs, self._weights) for outputs in self._required_outputs("log_prob")
        ]
        return (tf.reduce_logsumexp(tf.stack(by_draw), axis=0) - np.log(self.num_samples)).numpy().astype(np.float32)

    def calibrated_by(self, calibration: Calibration) -> PosteriorPredictive:
        """These predictions, calibrated: those with and those without a calibration from one run of the network.

        Args:
            calibration: an object of `tfp_bnn.calibration` that fits the likelihood.

        Returns:
            New predictions of the same draws.

        Raises:
            ValueError: when the draws did not fit into memory, or the calibration is for other likelihoods.
        """
        check_fits(calibration, self.likelihood)
        outputs, weights = calibration.apply(self._required_outputs("calibrated_by"), self._weights, self.likelihood)
        return PosteriorPredictive(self.likelihood, weights, outputs, {}, self._shape)

    def scores_without_each_draw(self, y: Any = None) -> list[dict[str, float]]:
        """The scores of the mixture over all draws but one, for each draw; see `standard_errors`.

        Args:
            y: Targets; None for the scores of uncertainty only.

        Raises:
            ValueError: When the draws did not fit into memory, or the targets do not fit.
        """
        targets = None if y is None else self._checked_targets(y)
        outputs = self._required_outputs("scores_without_each_draw")
        return self.likelihood.scores_without_each_draw(outputs, self._weights, targets)

    def _checked_targets(self, y: Any) -> np.ndarray:
        targets = np.asarray(y)
        if targets.shape[:1] != (len(self),):
            raise ValueError(
                f"The targets have the shape {targets.shape}, but there are {len(self)} predictions. Expected one "
                "target for each."
            )
        self.likelihood.check_targets(targets, self._shape[-1])
        return targets

    def _moment(self, name: str) -> np.ndarray:
        if name not in self._moments:
            self._moments[name] = _moment(name, self.likelihood, self._required_outputs(name), self._weights)
        return self._moments[name]

    def _required_outputs(self, what: str) -> np.ndarray:
        if self._outputs is None:
            raise ValueError(
                f"`{what}` needs all {self.num_samples} draws of {len(self)} predictions, of shape {self._shape}, "
                f"{_bytes(self._shape) / 2**20:.0f} MiB, which is above `max_bytes`; only the moments were kept. "
                "Predict fewer inputs at a time, or raise `max_bytes`."
            )
        return self._outputs


def predict_distribution(
    model: Any,
    x: Any,
    num_samples: int,
    seed: int | None,
    batch_size: int,
    max_bytes: int,
    calibration: Calibration | None = None,
) -> PosteriorPredictive:
    """Runs a model under `num_samples` draws of all its weights; see `VariationalMixin.posterior_predictive`.

    Args:
        model: a model with `likelihood`, `likelihood_weights` and `call_with_noise`.
        x: inputs of shape `(n, ...)`; a list, tuple or dict of them where the model has several.
        num_samples: S.
        seed: of the draws; None for the posterior mean of every weight.
        batch_size: rows in one forward pass.
        max_bytes: cap on the memory of the draws.
        calibration: of the predictions, or None.

    Returns:
        The predictions.
    """
    for name, value in (("num_samples", num_samples), ("batch_size", batch_size)):
        if not is_integer(value) or value < 1:
            raise ValueError(f"`{name}` must be an integer >= 1, but got {value!r}.")
    x = keras.tree.map_structure(np.asarray, x)
    number = len(keras.tree.flatten(x)[0])
    learned = {role: np.asarray(variable) for role, variable in model.likelihood_weights.items()}
    weights: dict[str, Any] = learned
    forward = _forward(model, plug_in=seed is None)
    root = tf.constant([0 if seed is None else seed, 0], tf.int64)
    shape: tuple[int, ...] = ()
    kept: list[np.ndarray] = []
    moments: dict[str, list[np.ndarray]] = {"mean": [], "entropy": [], "aleatoric": [], "epistemic": []}
    for start in range(0, number, batch_size):
        rows = slice(start, start + batch_size)
        batch = keras.tree.map_structure(lambda array, rows=rows: tf.convert_to_tensor(array[rows]), x)
        outputs = np.stack(
            [np.asarray(forward(batch, root, tf.constant(sample)), np.float32) for sample in range(num_samples)]
        )
        shape = (num_samples, number, *outputs.shape[2:])
        if calibration is not None:
            outputs, weights = calibration.apply(outputs, learned, model.likelihood)
        if _bytes(shape) <= max_bytes:
            kept.append(outputs)
            continue
        for name, values in moments.items():
            values.append(_moment(name, model.likelihood, outputs, weights))
    if kept:
        return PosteriorPredictive(model.likelihood, weights, np.concatenate(kept, axis=1), {}, shape)
    return PosteriorPredictive(
        model.likelihood, weights, None, {name: np.concatenate(values) for name, values in moments.items()}, shape
    )


def _forward(model: Any, plug_in: bool) -> Any:
    """The compiled forward pass of a model under one draw, made once for each model and mode."""
    functions = model.__dict__.setdefault("_predictive_functions", {})
    if plug_in not in functions:

        @tf.function(reduce_retracing=True, autograph=False)
        def forward(x: tf.Tensor, root: tf.Tensor, sample: tf.Tensor) -> tf.Tensor:
            noise = NoNoise() if plug_in else Noise(root).fold_in(_PREDICTION).fold_in(sample)
            return model.call_with_noise(x, noise)

        functions[plug_in] = forward
    return functions[plug_in]


def forget_compiled(model: Any) -> None:
    """Makes the next prediction compile its forward pass afresh: the layers of the model have changed."""
    model.__dict__.pop("_predictive_functions", None)


def _moment(name: str, likelihood: Likelihood, outputs: np.ndarray, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """A moment of the mixture, a few rows at a time: the entropy of a mixture takes S x S numbers a row."""
    parts = []
    rows_at_once = max(1, _NUMBERS_AT_ONCE // outputs.shape[0] ** 2)
    for start in range(0, outputs.shape[1], rows_at_once):
        rows = tf.convert_to_tensor(outputs[:, start : start + rows_at_once])
        if name == "mean":
            parts.append(tf.reduce_mean(likelihood.mean(rows, weights), axis=0).numpy())
        else:
            parts.append(getattr(likelihood, name)(rows, weights).numpy())
    return np.concatenate(parts)


def _check_at_least_1(name: str, value: object) -> None:
    if not is_integer(value) or value < 1:
        raise ValueError(f"`{name}` must be an integer >= 1, but got {value!r}.")


def _check_seed(seed: object) -> None:
    if not is_integer(seed):
        raise ValueError(f"`seed` must be an integer, but got {seed!r}.")


def _bytes(shape: tuple[int, ...]) -> int:
    return 4 * int(np.prod(shape, dtype=np.int64))
