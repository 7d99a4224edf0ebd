"""Training a network from the posterior of another, and choosing the width of the prior from the data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfp_bnn.core.arguments import require_integer, require_positive
from tfp_bnn.core.checks import is_of_step
from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.models.training_state import restore_training_state, training_state
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.priors import Informed
from tfp_bnn.transfer.informed_priors import transfer_posterior

INFLATES = (1.0, 10.0, 100.0)
HEAD_SCALES = (1.0, 3.0)
_SELECTION_SAMPLES = 20


@dataclass(frozen=True)
class Candidate:
    """A setting that was evaluated.

    Attributes:
        inflate: Factor of the standard deviations of the posterior that becomes the prior.
        head_scale: Standard deviation of the prior of new layers; None if there are none.
        nll: Predictive NLL of the held-out rows of all folds, in nats per example; infinite if a fit diverged.
    """

    inflate: float
    head_scale: float | None
    nll: float


@dataclass
class Tuner:
    """Trains one target network repeatedly, each time from the posterior of a source.

    Each `fit` starts from the same weights, whatever was trained before, and follows the same steps. Fits therefore
    only differ in the data and the settings.

    Args:
        source: Trained model. It is not changed.
        target: Built model, not compiled. Its layers match those of the source, except for new ones. With a
            `head_scale`, the prior of new layers must be `informed` too.
        new_layers: Names of the layers of the target that have no counterpart in the source.
        freeze: Names of layers of the target whose posterior is not trained.
        steps: Number of optimizer steps per fit.
        batch_size: Number of rows per step; all rows if there are fewer.
        learning_rate: Initial learning rate of Adam. It decays to 0 along a cosine.
        seed: Seed of the order of the rows, >= 0.
        steps_per_execution: Steps per call of the compiled function, as in `compile`; more are faster.

    Raises:
        ValueError: If a number is out of range, a layer is unknown, a new layer is frozen, all layers are frozen, or
            the models do not match.
        TypeError: If a model is not Bayesian.
    """

    source: VariationalMixin
    target: VariationalMixin
    new_layers: Sequence[str] = ()
    freeze: Sequence[str] = ()
    steps: int = 300
    batch_size: int = 16
    learning_rate: float = 4e-3
    seed: int = 0
    steps_per_execution: int = 50
    _start: dict[str, npt.NDArray[Any]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Checks the arguments, freezes layers and compiles the target."""
        for name, least in (("steps", 1), ("batch_size", 1), ("seed", 0), ("steps_per_execution", 1)):
            require_integer(name, getattr(self, name), least)
        require_positive("a Tuner", "learning_rate", self.learning_rate)
        # A single name would be a sequence of letters.
        self.new_layers, self.freeze = (
            [names] if isinstance(names, str) else list(names) for names in (self.new_layers, self.freeze)
        )
        layers = {layer.name: layer for layer in self.target.stochastic_layers}
        for name in self.freeze:
            if name not in layers:
                raise ValueError(unknown_name_message("layer to freeze", name, sorted(layers)))
            if name in self.new_layers:
                raise ValueError(f"The layer {name!r} is new: frozen, it would never learn. Freeze others.")
        transfer_posterior(self.source, self.target, None, self.new_layers)
        for name in self.freeze:
            layers[name].trainable = False
        decay = keras.optimizers.schedules.CosineDecay(self.learning_rate, self.steps)
        model: Any = self.target
        if not model.trainable_variables:
            raise ValueError(f"All layers are frozen, {sorted(self.freeze)}: nothing would learn. Freeze fewer.")
        metrics = self.target.likelihood.training_metrics(model.output_shape[-1])
        at_once = min(self.steps_per_execution, self.steps)
        model.compile(keras.optimizers.Adam(decay), metrics=metrics, steps_per_execution=at_once)
        self.target.num_examples = 1
        self._start = training_state(self.target)

    def fit(
        self, x: npt.NDArray[Any], y: npt.NDArray[Any], inflate: float | None, head_scale: float | None = None
    ) -> dict[str, float]:
        """Trains the target from its initial weights.

        Args:
            x: Inputs of shape `(n, ...)`.
            y: Targets, one per input.
            inflate: As in `transfer_posterior`.
            head_scale: Standard deviation of the prior of new layers. Default: None, unchanged.

        Returns:
            Means over all steps of `loss`, `nll`, `kl`, `elbo` and the metrics.

        Raises:
            ValueError: If `inflate <= 0` or `head_scale <= 0`; `head_scale` is given but the prior of a new layer is
                not `informed`; there are no rows; or the number of targets differs.
        """
        _check_rows(x, y, 1)
        self.begin(inflate, head_scale)
        model: Any = self.target
        rows = tf.constant(self.rows_of_steps(len(x)))
        examples = [tf.convert_to_tensor(part) for part in (x, y)]
        steps = tf.data.Dataset.range(len(rows))
        batches = steps.map(lambda step: tuple(tf.gather(part, rows[step]) for part in examples))
        history = model.fit(
            batches, epochs=1, steps_per_epoch=self.steps, num_examples=len(x), shuffle=False, verbose=0
        )
        return {name: values[-1] for name, values in history.history.items()}

    def begin(self, inflate: float | None, head_scale: float | None = None) -> None:
        """Resets the target to its initial weights with these priors, ready for the first step.

        Args:
            inflate: As in `transfer_posterior`.
            head_scale: Standard deviation of the prior of new layers; None does not change it.

        Raises:
            ValueError: If `inflate <= 0` or `head_scale <= 0`, or a `head_scale` is given but the prior of a new layer
                is not `informed`.
        """
        if head_scale is not None:
            head_scale = require_positive("a Tuner", "head_scale", head_scale)
        restore_training_state(self.target, self._start)
        transfer_posterior(self.source, self.target, inflate, self.new_layers)
        if head_scale is not None:
            self._set_head_scale(head_scale)

    def rows_of_steps(self, num_rows: int) -> npt.NDArray[np.int64]:
        """Returns the rows of each step. Each pass over the rows has a different order.

        NumPy determines the order, because that of `tf.data.Dataset.shuffle` also depends on the global seed. There are
        as many batches as steps, because Keras would fill up its last execution of several steps.

        Args:
            num_rows: Number of rows to train on.

        Returns:
            Indices of rows, int64 of shape `(steps, batch)`.
        """
        size = min(self.batch_size, num_rows)
        rng = np.random.default_rng(self.seed)
        passes = -(-self.steps * size // num_rows)
        rows = np.concatenate([rng.permutation(num_rows) for _ in range(passes)])[: self.steps * size]
        return rows.reshape(self.steps, size)

    def _set_head_scale(self, scale: float) -> None:
        for layer in self.target.variational_layers:
            if layer.name in self.new_layers:
                for weight in layer.variational_weights.values():
                    if not isinstance(weight.prior_spec, Informed):
                        raise ValueError(
                            f"{layer.name}/{weight.name} has the prior {weight.prior_spec!r}, but `head_scale` is that "
                            "of the prior 'informed'. Give it to the new layer, or pass head_scale=None."
                        )
                    prior = {**weight.prior_parameters(), "scale": np.full(weight.shape, scale, np.float32)}
                    weight.assign(weight.posterior_parameters(), prior)


def choose_inflate(
    tuner: Tuner,
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    inflates: Sequence[float] = INFLATES,
    head_scales: Sequence[float] = HEAD_SCALES,
    folds: int = 3,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Candidate]:
    """Compares settings of an informed prior by cross-validation on training data alone, and returns the best first.

    The rows are split into folds with similar targets. For each setting and fold, the target is trained on the other
    folds and evaluated on that fold by the NLL of the posterior predictive (20 draws). The factor is chosen with the
    prior of new layers at the first scale. The scale is then chosen at the best factor.

    The ELBO is not suitable for this choice. A short fit does not reach its maximum, and with few rows it is dominated
    by the KL of weights that the rows say nothing about: it prefers the prior that the posterior does not have to
    leave.

    Args:
        tuner: Tuner to train with. Its target ends with the weights of the last fit.
        x: Inputs `(n, ...)`, n >= 2.
        y: Targets, one per input.
        inflates: Factors to try, at least one, all > 0.
        head_scales: Scales to try for the prior of new layers, at least one, all > 0. No effect without new layers.
        folds: Number of folds, at least 2; at most n are used. Default: 3.
        seed: Seed of the split into folds and of the draws, >= 0. Default: 0.
        progress: Function that is told after each fit how many are done, and how many there are in all.

    Returns:
        All candidates, sorted by NLL; `[0]` is the choice.

    Raises:
        ValueError: If there are fewer than 2 rows or folds, or no candidates, or a factor or scale is not positive; or
            if the fits of all candidates diverge.
    """
    _check_rows(x, y, 2)
    require_integer("folds", folds, 2)
    for name, values in (("inflates", inflates), ("head_scales", head_scales)):
        if not len(values):
            raise ValueError(f"`{name}` is empty. Expected at least one number to try.")
        for value in values:
            require_positive("choose_inflate", name, value)
    splits = list(_folds(y, min(folds, len(x)), seed))
    first, *others = head_scales if tuner.new_layers else [None]
    fits, done = len(splits) * (len(inflates) + len(others)), itertools.count(1)

    diverged: list[ValueError] = []

    def tried(inflate: float, head_scale: float | None) -> Candidate:
        total = 0.0
        for held_out in splits:
            try:
                tuner.fit(x[~held_out], y[~held_out], inflate, head_scale)
            except ValueError as error:
                if not is_of_step(error):
                    raise
                diverged.append(error)
                total = math.inf
            else:
                predictive = tuner.target.posterior_predictive(x[held_out], _SELECTION_SAMPLES, seed)
                total -= float(np.sum(predictive.log_prob(y[held_out]), dtype=np.float64))
            progress(next(done), fits)
        return Candidate(float(inflate), None if head_scale is None else float(head_scale), total / len(x))

    candidates = [tried(inflate, first) for inflate in inflates]
    best = min(candidates, key=_nll)
    candidates += [tried(best.inflate, scale) for scale in others]
    ranked = sorted(candidates, key=_nll)
    if diverged and math.isinf(_nll(ranked[0])):
        raise diverged[0]
    return ranked


def _nll(candidate: Candidate) -> float:
    return candidate.nll if math.isfinite(candidate.nll) else math.inf


def _check_rows(x: npt.NDArray[Any], y: npt.NDArray[Any], least: int) -> None:
    if len(x) != len(y) or len(x) < least:
        what = "Cross-validation" if least > 1 else "Training"
        raise ValueError(
            f"{what} needs at least {least} row(s), and a target for each, but got {len(x)} rows and {len(y)} targets."
        )


def _folds(y: npt.NDArray[Any], folds: int, seed: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Yields the mask of held-out rows per fold. Rows, sorted by their targets, go to the folds in turn."""
    # scikit-learn's StratifiedKFold refuses one-hot labels and real targets, and deals labels out in another order: the
    # published numbers (docs/informed_priors.md) would change.
    shuffled = np.random.default_rng(seed).permutation(len(y))
    # By the first column, then by the others: this sorts one-hot labels too.
    in_order = shuffled[np.lexsort(np.asarray(y)[shuffled].reshape(len(y), -1).T[::-1])]
    fold_of = np.empty(len(y), np.int64)
    fold_of[in_order] = np.arange(len(y)) % folds
    for fold in range(folds):
        yield fold_of == fold
