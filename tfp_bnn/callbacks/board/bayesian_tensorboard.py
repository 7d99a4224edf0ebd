"""`BayesianTensorBoard`: a TensorBoard log of the training of a Bayesian network."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras

from tfp_bnn.callbacks.board.tags import EVALUATION, ROOT, TRAIN, VALIDATION
from tfp_bnn.callbacks.measuring import check_rows, require_bayesian, require_predictive
from tfp_bnn.callbacks.rows import Rows, take_rows
from tfp_bnn.core.arguments import require_integer
from tfp_bnn.inference import members_of
from tfp_bnn.models.predictive_model import PredictiveModel

if TYPE_CHECKING:
    from tfp_bnn.callbacks.board.recorder import Recorder
    from tfp_bnn.callbacks.board.sinks import Sink


class BayesianTensorBoard(keras.callbacks.Callback):
    """Callback that logs the ELBO and its parts, the KL of each layer, calibration and uncertainty for TensorBoard.

    Each epoch it writes the logs of `fit` and of its validation; the KL, the signal-to-noise
    ratio and the share of active weights of each layer; and scores of the first `max_examples` rows of
    `validation_data` and `ood_data` under Monte Carlo prediction, with margins of 2 Monte Carlo standard errors. Every
    `every` epochs, and after the last one, it adds histograms, figures and precision-recall curves. A text page
    describes the model and lists all tags, hyperparameters allow runs to be compared, and the custom-scalars dashboard
    is already arranged.

    TensorBoard shows the runs `<log_dir>/train` and `<log_dir>/validation`. The step is the number of finished epochs.
    It continues if a run is resumed with `initial_epoch`, or if the same callback is used in another `fit` of the same
    model. Any other run in the same folder replaces the existing log from its first epoch on. With `evaluate(...,
    callbacks=[...])` outside `fit`, everything is written to the run `<log_dir>/evaluation`. `write(model)` does the
    same for every posterior of `tfp_bnn.inference`, also for those that `fit` does not find.

    Training stays bit-for-bit identical. If the log cannot be opened, the callback raises before the first step. Any
    later failure causes one warning and never stops training.

    Args:
        log_dir: Log folder of this training. Start `tensorboard --logdir` with it, or with its parent to compare
            several.
        validation_data: Rows to measure, `(x, y)` of arrays, or a `tf.data.Dataset` or `keras.utils.PyDataset` of
            batches. With None, only the logs of `fit` and the posterior are written.
        ood_data: Inputs, or `(x, y)`, from another distribution. Their uncertainty is logged, and how well it separates
            them from the validation rows.
        num_samples: Number of draws of the weights. Default: 10.
        every: Number of epochs between sets of histograms and figures. Default: 10.
        max_examples: Maximum number of rows to measure. Default: 1000.
        seed: Seed of the draws, the same in all epochs to keep curves comparable. Default: 0.
        class_names: One name per class, for figures and curves.
        recipe: Description of the training for the text page, as Markdown or a mapping.
        hparams: Additional hyperparameters, numbers or strings by name. Nested mappings are flattened.
        sinks: Experiment trackers that get the numbers, figures, texts and hyperparameters too, such as
            `tfp_bnn.callbacks.MlflowSink` and `WandbSink`, or your own with the methods of `Sink`. One that fails warns
            and gets nothing more.

    Raises:
        ImportError: If the package `tensorboard` is not installed.
        ValueError: If a number is out of range; when training begins, if the data do not match the model.
        TypeError: When training begins, if the model is not Bayesian.
        OSError: When training begins, if the folder cannot be written.

    Example:
        >>> import keras, numpy as np, pathlib, tempfile, tfp_bnn
        >>> x, y = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
        >>> model = tfp_bnn.VariationalSequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(2)], seed=0)
        >>> model.compile("adam")
        >>> with tempfile.TemporaryDirectory() as log_dir:
        ...     board = tfp_bnn.callbacks.BayesianTensorBoard(log_dir, validation_data=(x, y))
        ...     history = model.fit(x, y, verbose=0, callbacks=[board])
        ...     sorted(path.name for path in pathlib.Path(log_dir).iterdir() if path.is_dir())
        ['train', 'validation']
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        validation_data: Any = None,
        ood_data: Any = None,
        num_samples: int = 10,
        every: int = 10,
        max_examples: int = 1000,
        seed: int = 0,
        class_names: Sequence[str] | None = None,
        recipe: str | Mapping[str, Any] | None = None,
        hparams: Mapping[str, Any] | None = None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        super().__init__()
        _recorder_class()
        self._log_dir = os.fspath(log_dir)
        self._data = {"validation_data": validation_data, "ood_data": ood_data}
        self._num_samples = require_integer("num_samples", num_samples, 1)
        self._every = require_integer("every", every, 1)
        self._max_examples = require_integer("max_examples", max_examples, 1)
        self._seed = require_integer("seed", seed, 0)
        self._class_names = None if class_names is None else [str(name) for name in class_names]
        self._recipe = recipe
        self._hparams = dict(hparams or {})
        self._sinks = list(sinks)
        self._rows: dict[str, Rows] | None = None
        self._recorder: Recorder | None = None
        self._training = self._described = False
        self._trained: Any = None
        self._offset = self._last_step = self._drawn_step = 0

    def set_model(self, model: Any) -> None:
        """Sets the model, at the beginning of `fit` and `evaluate`."""
        super().set_model(model)
        self._training = False

    def on_train_begin(self, logs: Any = None) -> None:
        """Opens the log; raises before the first step if that is not possible."""
        recorder = self._begin(require_bayesian(self.model, type(self).__name__))
        if self._trained is None or self._trained() is not self.model:
            self._trained, self._offset, self._last_step = weakref.ref(self.model), 0, 0
        self._training = True
        self._drawn_step = self._last_step
        for run in (ROOT, TRAIN, *([VALIDATION] if self._rows else [])):
            recorder.open(run)
        self._described = False
        if self.model.built:
            self._describe(recorder)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Makes the steps of another `fit` of the same model follow the previous ones."""
        if epoch + 1 + self._offset <= self._last_step:
            self._offset = self._last_step - epoch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs an epoch."""
        recorder = self._recorder
        if recorder is None:
            return
        if not self._described:
            self._describe(recorder)
        step = self._last_step = epoch + 1 + self._offset
        numbers = dict(logs or {})
        of_validation = {name.removeprefix("val_"): numbers.pop(name) for name in [*numbers] if name.startswith("val_")}
        recorder.attempt("the numbers of training", recorder.write_numbers, TRAIN, numbers, step)
        recorder.attempt("the numbers of validation", recorder.write_numbers, VALIDATION, of_validation, step)
        recorder.attempt("the posterior", recorder.write_posterior, TRAIN, step)
        recorder.attempt("the curvature", recorder.write_curvature, TRAIN, step)
        recorder.attempt("the measured scores", recorder.write_scores, VALIDATION, step)
        is_last = epoch + 1 == (self.params or {}).get("epochs") or self.model.stop_training
        if (epoch + 1) % self._every == 0 or is_last:
            recorder.draw(TRAIN, VALIDATION, step)
            self._drawn_step = step
        recorder.attempt("the log", recorder.flush)

    def on_train_end(self, logs: Any = None) -> None:
        """Draws the figures of the last epoch, if not yet drawn, and closes the log."""
        recorder = self._recorder
        if recorder is None:
            return
        if self._drawn_step < self._last_step:
            recorder.draw(TRAIN, VALIDATION, self._last_step)
        recorder.attempt("the end of the training", recorder.write_success)
        recorder.close()
        self._recorder, self._training = None, False

    def on_test_begin(self, logs: Any = None) -> None:
        """Opens the log of an evaluation outside `fit`."""
        if not self._training:
            self._begin(require_bayesian(self.model, type(self).__name__)).open(EVALUATION)

    def on_test_end(self, logs: Any = None) -> None:
        """Logs an evaluation outside `fit`."""
        if self._training or self._recorder is None:
            return
        self._write_evaluation(self._recorder, dict(logs or {}))

    def write(self, model: PredictiveModel) -> None:
        """Logs a posterior, however it was found, to the run `<log_dir>/evaluation`.

        Scores, calibration and uncertainty of the rows are those of `fit`. The KL is logged where there is one, else
        the page `about/inference` says that it and the ELBO are not defined, and why. Markov chains have their R-hat
        and effective sample size under `diagnostics/`.

        Args:
            model: Model that `fit` has trained, or the result of a function of `tfp_bnn.inference`.

        Raises:
            TypeError: If the model has no posterior.
            ValueError: If the data do not match the model.
            OSError: If the folder cannot be written.
        """
        recorder = self._begin(require_predictive(model, type(self).__name__))
        recorder.open(EVALUATION)
        self._write_evaluation(recorder, {})

    def _write_evaluation(self, recorder: Recorder, numbers: Mapping[str, Any]) -> None:
        step = self._last_step
        recorder.attempt("the layout", recorder.write_layout, EVALUATION, step)
        recorder.attempt("the inference method", recorder.write_inference, EVALUATION, step)
        recorder.attempt("the numbers of the evaluation", recorder.write_numbers, EVALUATION, numbers, step)
        recorder.attempt("the posterior", recorder.write_posterior, EVALUATION, step)
        recorder.attempt("the measured scores", recorder.write_scores, EVALUATION, step)
        recorder.attempt("the diagnostics", recorder.write_diagnostics, EVALUATION, step)
        recorder.draw(EVALUATION, EVALUATION, step)
        recorder.close()
        self._recorder = None

    def _describe(self, recorder: Recorder) -> None:
        """Describes the model, once it is built."""
        recorder.attempt("the description of the run", recorder.write_description, self._recipe, self._hparams)
        recorder.attempt("the log", recorder.flush)
        self._described = True

    def _begin(self, model: PredictiveModel) -> Recorder:
        """Checks the model and the data; raises if they cannot be measured."""
        if self._recorder is not None:
            self._recorder.close()
        if self._rows is None:
            self._rows = {
                name: take_rows(data, self._max_examples, name, targets=name == "validation_data")
                for name, data in self._data.items()
                if data is not None
            }
        for name, rows in self._rows.items():
            check_rows(model, rows, name)
        _check_class_names(model, self._class_names)
        self._recorder = _recorder_class()(
            self._log_dir, model, self._rows, self._num_samples, self._seed, self._class_names, self._sinks
        )
        return self._recorder


def _check_class_names(model: PredictiveModel, names: Sequence[str] | None) -> None:
    outputs = getattr(members_of(model)[0], "outputs", None)
    if names is None or not outputs:
        return
    if model.likelihood.heads:
        raise ValueError("`class_names` are those of one output, but the model has several. Leave them out.")
    classes = model.likelihood.num_classes(outputs[0].shape[-1])
    if classes is None:
        return
    if len(names) != classes or len(set(names)) != classes:
        raise ValueError(f"`class_names` must hold {classes} different names, one for each class, but got {names}.")


def _recorder_class() -> type[Recorder]:
    """Imports the recorder on demand, because the package `tensorboard` may be missing."""
    try:
        from tfp_bnn.callbacks.board.recorder import Recorder
    except ImportError as error:
        raise ImportError(
            "BayesianTensorBoard writes its files with the package `tensorboard`, which cannot be imported: "
            f"{error}. Install it: pip install tensorboard"
        ) from error
    return Recorder
