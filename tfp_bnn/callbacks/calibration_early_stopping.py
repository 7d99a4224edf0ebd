"""`CalibrationEarlyStopping`: early stopping on a score of the posterior predictive."""

from __future__ import annotations

from typing import Any

import keras

from tfp_bnn.callbacks.measuring import check_rows, measure, require_bayesian
from tfp_bnn.callbacks.rows import Rows, take_rows
from tfp_bnn.core.arguments import require_integer

_SCORES = ("nll", "ece", "brier")


class CalibrationEarlyStopping(keras.callbacks.EarlyStopping):
    """Stops training when a score of the Monte Carlo prediction stops improving, and restores the best weights.

    `val_nll` and `val_loss` of `fit` use a single weight draw. Predictions use the average over draws, the posterior
    predictive, which may be best in another epoch. Its score is added to the logs of the epoch as `val_mc_nll`,
    `val_mc_ece` or `val_mc_brier`, for the history and for the callbacks after this one.

    Take care when stopping on `"ece"` alone: a model that has learned nothing is calibrated too.

    Args:
        validation_data: Rows to measure, `(x, y)` of arrays, or a `tf.data.Dataset` or `keras.utils.PyDataset` of
            batches.
        monitor: `"nll"` (nats per example), `"ece"` or `"brier"`, the last two for classes and labels only.
        patience: Number of epochs without improvement after which training stops.
        min_delta: Smallest change that counts as an improvement, in the unit of the score.
        restore_best_weights: Whether to restore the weights of the best epoch at the end.
        num_samples: Number of Monte Carlo draws of the weights.
        max_examples: Maximum number of rows to measure.
        seed: Seed of the draws, the same in all epochs.
        start_from_epoch: First epoch, counted from 0, that can be the best or count towards patience.
        verbose: 1 to print when training stops and which weights are restored.

    Raises:
        ValueError: If the score is unknown or a number out of range; when training begins, if the data do not match the
            model.
        TypeError: When training begins, if the model is not Bayesian.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> x, y = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
        >>> model = tfp_bnn.VariationalSequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(2)], seed=0)
        >>> model.compile("adam")
        >>> stopping = tfp_bnn.callbacks.CalibrationEarlyStopping((x, y), patience=2)
        >>> history = model.fit(x, y, epochs=3, verbose=0, callbacks=[stopping])
        >>> "val_mc_nll" in history.history
        True
    """

    def __init__(
        self,
        validation_data: Any,
        monitor: str = "nll",
        patience: int = 5,
        min_delta: float = 0.0,
        restore_best_weights: bool = True,
        num_samples: int = 10,
        max_examples: int = 1000,
        seed: int = 0,
        start_from_epoch: int = 0,
        verbose: int = 0,
    ) -> None:
        if monitor not in _SCORES:
            raise ValueError(f"`monitor` must be one of {', '.join(map(repr, _SCORES))}, but got {monitor!r}.")
        super().__init__(
            f"val_mc_{monitor}",
            min_delta=min_delta,
            patience=require_integer("patience", patience, 1),
            verbose=verbose,
            mode="min",
            restore_best_weights=restore_best_weights,
            start_from_epoch=require_integer("start_from_epoch", start_from_epoch, 0),
        )
        self._score = monitor
        self._data = validation_data
        self._num_samples = require_integer("num_samples", num_samples, 1)
        self._max_examples = require_integer("max_examples", max_examples, 1)
        self._seed = require_integer("seed", seed, 0)
        self._rows: Rows | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks model and data, before the first step."""
        super().on_train_begin(logs)
        model = require_bayesian(self.model, type(self).__name__)
        outputs = getattr(model, "outputs", None)
        if self._score not in model.likelihood.score_names(outputs[0].shape[-1] if outputs else None):
            raise ValueError(
                f"monitor={self._score!r} is for classification, but the model has the likelihood "
                f"{model.likelihood!r}. Use monitor='nll'."
            )
        if self._rows is None:
            self._rows = take_rows(self._data, self._max_examples, "validation_data")
        check_rows(model, self._rows, "validation_data")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures the model, adds the score to the logs, and stops training when patience runs out."""
        logs = {} if logs is None else logs
        if self._rows is not None:
            logs[self.monitor] = measure(self.model, self._rows, self._num_samples, self._seed).scores[self._score]
        super().on_epoch_end(epoch, logs)
