"""Training a network from the posterior of another, and choosing by the data how far it may leave it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfp_bnn.arguments import is_integer, require_positive
from tfp_bnn.predictive import PosteriorPredictive
from tfp_bnn.registry import unknown_name_message
from tfp_bnn.training_state import restore_training_state, training_state
from tfp_bnn.transfer.informed_priors import transfer_posterior
from tfp_bnn.variational_mixin import VariationalMixin

INFLATES = (1.0, 3.0, 10.0, 30.0, 100.0)
HEAD_SCALES = (1.0, 0.3, 3.0)
_SELECTION_SAMPLES = 20
# Between two looks of Keras at the step that it is in.
_STEPS_AT_ONCE = 50


@dataclass(frozen=True)
class Candidate:
    """A setting that was tried.

    Attributes:
        inflate: factor of the standard deviations of the posterior that becomes the prior.
        head_scale: standard deviation of the prior of new layers; None where there are none.
        nll: predictive NLL of the rows that were held out in turn, nats per example.
    """

    inflate: float
    head_scale: float | None
    nll: float


@dataclass
class Tuner:
    """Trains one target network again and again, each time from the posterior of a source.

    Each `fit` starts from the same weights, whatever was trained before, and follows the same steps, so that fits
    differ in the data and in the settings only.

    Args:
        source: a trained model, which stays as it is.
        target: a built model, not compiled; its layers match those of the source, but for new ones, whose prior is
            `informed` too where there is to be a `head_scale`.
        new_layers: names of the layers of the target that the source has nothing for.
        freeze: names of layers of the target whose posterior is not trained.
        steps: of the optimizer in a fit.
        batch_size: rows in a step; all rows where there are fewer.
        learning_rate: of Adam, at the start; it falls to 0 along a cosine.
        seed: of the order of the rows.

    Raises:
        ValueError: for a number out of range, an unknown layer, or models that do not match.
        TypeError: for models that are not Bayesian.
    """

    source: VariationalMixin
    target: VariationalMixin
    new_layers: Sequence[str] = ()
    freeze: Sequence[str] = ()
    steps: int = 300
    batch_size: int = 32
    learning_rate: float = 2e-3
    seed: int = 0
    _start: dict[str, npt.NDArray[Any]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Checks the arguments, freezes layers and compiles the target."""
        for name in ("steps", "batch_size"):
            value = getattr(self, name)
            if not is_integer(value) or value < 1:
                raise ValueError(f"`{name}` must be an integer >= 1, but got {value!r}.")
        require_positive("a Tuner", "learning_rate", self.learning_rate)
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
        metrics = ["accuracy"] if self.target.likelihood.task == "classification" else ["mae"]
        at_once = min(_STEPS_AT_ONCE, self.steps)
        model.compile(keras.optimizers.Adam(decay), metrics=metrics, steps_per_execution=at_once)
        self.target.num_examples = 1
        self._start = training_state(self.target)

    def fit(
        self, x: npt.NDArray[Any], y: npt.NDArray[Any], inflate: float | None, head_scale: float | None = None
    ) -> dict[str, float]:
        """Trains the target from its start.

        Args:
            x: inputs `(n, ...)`.
            y: targets, one for each.
            inflate: as in `transfer_posterior`.
            head_scale: standard deviation of the prior of new layers; None leaves it as it is.

        Returns:
            The numbers of the training: `loss`, `nll`, `kl`, `elbo`, means over all steps.
        """
        restore_training_state(self.target, self._start)
        transfer_posterior(self.source, self.target, inflate, self.new_layers)
        if head_scale is not None:
            self._set_head_scale(head_scale)
        rows = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=self.seed).repeat()
        batches = rows.batch(min(self.batch_size, len(x)), drop_remainder=True)
        model: Any = self.target
        history = model.fit(batches, epochs=1, steps_per_epoch=self.steps, num_examples=len(x), verbose=0)
        return {name: values[-1] for name, values in history.history.items()}

    def _set_head_scale(self, scale: float) -> None:
        for layer in self.target.variational_layers:
            if layer.name in self.new_layers:
                for weight in layer.variational_weights.values():
                    prior_scale = np.full(weight.shape, scale, np.float32)
                    weight.assign_natural({**weight.natural(), "prior_scale": prior_scale})


def choose_inflate(
    tuner: Tuner,
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    inflates: Sequence[float] = INFLATES,
    head_scales: Sequence[float] = HEAD_SCALES,
    folds: int = 3,
    seed: int = 0,
) -> list[Candidate]:
    """Tries settings of an informed prior by cross-validation on training data alone, the best first.

    The rows are dealt out into folds, alike in their targets. For each setting the target is trained on all folds but
    one and judged on that one, by the NLL of the posterior predictive (20 draws), in turn. The factor is chosen with
    the prior of new layers at the first of the scales; then the scale is chosen at the best factor.

    The ELBO would choose otherwise, and worse: it is dominated by the KL of tens of thousands of weights that the few
    rows say nothing about, and so prefers a prior that the posterior need not leave, whatever the predictions.

    Args:
        tuner: trains; its target ends with the weights of the last fit.
        x: inputs `(n, ...)`, n >= 2.
        y: targets, one for each.
        inflates: factors to try, all > 0.
        head_scales: scales to try for the prior of new layers, all > 0; without effect where there are none.
        folds: at least 2; at most n are made.
        seed: of the dealing.

    Returns:
        All candidates that were tried, by their NLL; `[0]` is the choice.

    Raises:
        ValueError: for fewer than 2 rows or folds, or a factor or a scale that is not positive.
    """
    if len(x) < 2 or folds < 2:
        raise ValueError(f"Cross-validation needs at least 2 rows and 2 folds, but got {len(x)} rows, folds={folds}.")
    for name, values in (("inflates", inflates), ("head_scales", head_scales)):
        for value in values:
            require_positive("choose_inflate", name, value)
    splits = list(_folds(y, min(folds, len(x)), seed))

    def tried(inflate: float, head_scale: float | None) -> Candidate:
        total = 0.0
        for held_out in splits:
            tuner.fit(x[~held_out], y[~held_out], inflate, head_scale)
            predictive = tuner.target.posterior_predictive(x[held_out], _SELECTION_SAMPLES, seed)
            total -= float(_log_prob(predictive, y[held_out]).sum(dtype=np.float64))
        return Candidate(float(inflate), head_scale, total / len(x))

    first, *others = head_scales if tuner.new_layers else [None]
    candidates = [tried(inflate, first) for inflate in inflates]
    best = min(candidates, key=_nll)
    candidates += [tried(best.inflate, scale) for scale in others]
    return sorted(candidates, key=_nll)


def _nll(candidate: Candidate) -> float:
    return candidate.nll


def _log_prob(predictive: PosteriorPredictive, y: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(predictive.log_prob(y))


def _folds(y: npt.NDArray[Any], folds: int, seed: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Which rows are held out, fold by fold; sorted by their targets, rows go to the folds in turn."""
    shuffled = np.random.default_rng(seed).permutation(len(y))
    in_order = shuffled[np.argsort(np.asarray(y)[shuffled].reshape(len(y), -1)[:, 0], kind="stable")]
    fold_of = np.empty(len(y), np.int64)
    fold_of[in_order] = np.arange(len(y)) % folds
    for fold in range(folds):
        yield fold_of == fold
