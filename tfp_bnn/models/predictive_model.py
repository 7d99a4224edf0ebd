"""The interface of every model with a posterior, however it was found: predictions from its draws."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from tfp_bnn.core.batches import batches_of, checked_inputs
from tfp_bnn.core.checks import invalid_arguments_as_value_errors
from tfp_bnn.core.draws import Draws
from tfp_bnn.core.expected_inputs import ExpectedInputs, UnlikelyInputsWarning
from tfp_bnn.core.names import Names
from tfp_bnn.export import PORTABLE_FORMATS, export_portable, export_saved_model, export_with_keras
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.predictive.calibrators import CALIBRATIONS, Calibration, check_fits
from tfp_bnn.predictive.conformal import CONFORMALS, Conformal, check_conformal_fits
from tfp_bnn.predictive.joint_predictive import JointPredictive, predictive_from_draws
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive


class PredictiveModel:
    """A likelihood and draws of functions, which give a posterior predictive. Abstract.

    `VariationalMixin` and `Ensemble` implement it. Scores, reports, calibration and artifacts need nothing else.

    Attributes:
        name: Name of the model.
        likelihood: Distribution of a target given the raw outputs.
        inputs_expected: What the inputs of training looked like, or None. Predictions for inputs that are far from it
            warn with `UnlikelyInputsWarning`. Models of the zoo have it.
        class_names: One name per class or label, for the tables and figures of predictions, or None. Models of the zoo
            have them.
        target_units: One unit per target that is a number, for the same, or None. Another number of them is refused by
            the first prediction.
    """

    name: str
    likelihood: Likelihood
    inputs_expected: ExpectedInputs | None = None
    class_names = Names("setosa")
    target_units = Names("mmHg")
    _calibration: Calibration | None = None
    _conformal: Conformal | None = None

    def draws(self, seed: int = 0) -> Draws:
        """The draws of the posterior.

        Args:
            seed: Integer. Equal seeds give equal draws. It has no effect if the draws are fixed.

        Raises:
            ValueError: If the seed is not an integer.
        """
        raise NotImplementedError

    def plug_in_draws(self) -> Draws:
        """The draws of the plug-in prediction: every weight at its posterior mean."""
        raise NotImplementedError

    def kl_by_layer(self) -> dict[str, tf.Tensor]:
        """KL(posterior || prior) in nats by layer; empty if the posterior has no density."""
        raise NotImplementedError

    def diagnostics(self, x: Any) -> dict[str, float]:
        """What the inference method itself says of its posterior, finite numbers by name; empty if nothing.

        Such as `rhat` and `ess` of Markov chains, the worst R-hat and the smallest effective sample size of the
        predictions for some inputs.

        Args:
            x: Inputs as arrays.
        """
        return {}

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of `posterior_predictive`, or None. Set it to a name, a config, an object or None.

        It is part of the config of a model, not of its weights. `fit` and `train_on_batch` set it to None, because it
        belongs to the posterior it was fitted to; those of a member set that of its ensemble to None as well. Another
        calibration sets `conformal` to None, which was fitted to the predictions of the old one.
        """
        return self._calibration

    @calibration.setter
    def calibration(self, value: str | Mapping[str, Any] | Calibration | None) -> None:
        calibration = None if value is None else CALIBRATIONS.get(value)
        if calibration is not None:
            check_fits(calibration, self.likelihood)
        if self._conformal is not None and calibration != self._calibration:
            warnings.warn(
                f"The model had a conformal prediction, {self._conformal!r}, fitted to predictions with another "
                "calibration: model.conformal is None now. Fit it after the calibration, with tfp_bnn.conformalize.",
                stacklevel=2,
            )
            self._conformal = None
        self._calibration = calibration

    @property
    def conformal(self) -> Conformal | None:
        """The conformal prediction of the model, or None. Set it to a config, an object or None.

        `tfp_bnn.conformalize` fits and sets it. `model.conformal.predict(predictive)` returns sets or intervals of a
        `posterior_predictive` with its `num_samples` and `seed`. It is kept, and dropped by training, as `calibration`.
        """
        return self._conformal

    @conformal.setter
    def conformal(self, value: Mapping[str, Any] | Conformal | None) -> None:
        conformal = None if value is None else CONFORMALS.get(value)
        if conformal is not None:
            check_conformal_fits(conformal, self.likelihood)
        self._conformal = conformal

    def posterior_predictive(
        self,
        x: Any,
        num_samples: int = 100,
        seed: int = 0,
        batch_size: int | None = None,
        max_bytes: int = 2**30,
        calibrated: bool = True,
    ) -> PosteriorPredictive:
        """The predictive distribution p(y | x, data), averaged over draws of the posterior.

        Draw s is one function: the same weights for every x. It depends on (seed, s, layer) only, so the result does
        not depend on `batch_size`.

        Args:
            x: Inputs, in every form that `fit` takes: an array `(n, ...)`, or a list, tuple or dict of arrays if the
                model has several inputs; pandas frames, nested lists and sparse matrices; or a `tf.data.Dataset`, a
                `keras.utils.PyDataset` or a generator of batches, whose targets are ignored.
            num_samples: S, the number of draws. If there are fewer, as in an ensemble or a point estimate, all are
                used; the `num_samples` of the result is their number.
            seed: Integer. Equal seeds give equal draws.
            batch_size: Number of rows per forward pass. Default: by memory; see `PosteriorPredictive.from_draws`.
            max_bytes: Memory limit for the raw outputs of all draws, S x n x outputs x 4 bytes. Above it, only the
                moments are kept, and the outputs of a few rows are in memory: at most half the limit, or 64 MiB if that
                is more, or one row. The entropy of numbers then runs the draws again when it is first asked for.
            calibrated: Whether to apply `model.calibration`, if there is one.

        Returns:
            A `PosteriorPredictive` of n predictions; for several outputs a `JointPredictive`, which holds one for
            each.

        Raises:
            ValueError: If weights of the model are NaN or infinite, if inputs are empty, have the wrong shape or NaN,
                if `num_samples` or `batch_size` is below 1, or if the seed is not an integer.
        """
        draws = self.draws(seed)
        self._check_weights()
        x = checked_inputs(x, self._check_of_inputs(x))
        with invalid_arguments_as_value_errors():
            return self._with_names(
                predictive_from_draws(
                    draws,
                    x,
                    self.likelihood,
                    num_samples,
                    batch_size=batch_size,
                    max_bytes=max_bytes,
                    calibration=self.calibration if calibrated else None,
                )
            )

    def predict_mean(self, x: Any, num_samples: int = 100, seed: int = 0, batch_size: int | None = None) -> Any:
        """The mean of the posterior predictive: what `predict` of an ordinary model returns, for a Bayesian one.

        The same as `posterior_predictive(x, num_samples, seed, batch_size).mean()`, which also knows how uncertain it
        is. `predict` returns the raw outputs under one draw of the weights instead.

        Args:
            x: Inputs, as in `posterior_predictive`; so are the other arguments and the errors.
            num_samples: S, the number of draws to average over.
            seed: Integer. Equal seeds give equal draws.
            batch_size: Number of rows per forward pass.

        Returns:
            Probabilities `(n, classes)`, or means `(n, targets)` in units of the target, float32; for several outputs,
            a dict of them. Calibrated, if the model is.

        Example:
            >>> import keras, numpy as np, tfp_bnn
            >>> model = tfp_bnn.VariationalSequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(3)], seed=0)
            >>> model.predict_mean(np.zeros((4, 2))).sum(axis=1).round(3)
            array([1., 1., 1., 1.], dtype=float32)
        """
        predictive = self.posterior_predictive(x, num_samples, seed, batch_size)
        if isinstance(predictive, JointPredictive):
            return {name: of_head.mean() for name, of_head in predictive.items()}
        return predictive.mean()

    def plug_in_predictive(self, x: Any, batch_size: int | None = None) -> PosteriorPredictive:
        """The prediction with every weight at its posterior mean: fast, and blind to the uncertainty of the weights.

        Never calibrated: `model.calibration` was fitted to the Monte Carlo predictive.

        Args:
            x: Inputs, as in `posterior_predictive`.
            batch_size: Number of rows per forward pass. Default: by memory; see `PosteriorPredictive.from_draws`.

        Returns:
            As `posterior_predictive`, of one draw; for an ensemble, of one draw per member.
        """
        draws = self.plug_in_draws()
        self._check_weights()
        x = checked_inputs(x, self._check_of_inputs(x))
        with invalid_arguments_as_value_errors():
            return self._with_names(
                predictive_from_draws(draws, x, self.likelihood, draws.num_draws or 1, batch_size=batch_size)
            )

    def stream_predictive(
        self,
        x: Any,
        y: Any = None,
        num_samples: int = 100,
        seed: int = 0,
        batch_size: int = 512,
        calibrated: bool = True,
    ) -> Iterator[tuple[PosteriorPredictive, Any]]:
        """The predictive distributions of one batch after another, for data that do not fit into memory.

        Every batch sees the same draws, so these are the predictions of `posterior_predictive` for these rows.

        Args:
            x: Inputs, as in `posterior_predictive`. A `tf.data.Dataset`, a `PyDataset` or a generator is read one batch
                at a time, as the predictions are taken.
            y: Targets of arrays, or None. Those of a stream are in its batches, whose sample weights are left out.
            num_samples: As in `posterior_predictive`.
            seed: As in `posterior_predictive`.
            batch_size: Number of rows per forward pass, and of rows per batch of arrays.
            calibrated: As in `posterior_predictive`.

        Yields:
            The predictive of each batch, as `posterior_predictive`, and its targets, or None if there are none.
            `tfp_bnn.predictive.score` takes these pairs.

        Raises:
            ValueError: As in `posterior_predictive`; for a batch that does not fit, when it is read.

        Example:
            >>> import keras, tensorflow as tf, tfp_bnn
            >>> model = tfp_bnn.VariationalSequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(3)], seed=0)
            >>> dataset = tf.data.Dataset.from_tensor_slices(tf.zeros((10, 2))).batch(4)
            >>> [len(predictive) for predictive, _ in model.stream_predictive(dataset, num_samples=5)]
            [4, 4, 2]
        """
        calibration = self.calibration if calibrated else None
        draws = self.draws(seed)
        self._check_weights()
        check = self._check_of_inputs(x)
        for inputs, targets, _ in batches_of(x, y, batch_size):
            check(inputs)
            with invalid_arguments_as_value_errors():
                predictive = predictive_from_draws(
                    draws, inputs, self.likelihood, num_samples, batch_size=batch_size, calibration=calibration
                )
            yield self._with_names(predictive), targets

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        *,
        num_samples: int = 100,
        seed: int = 0,
        calibrated: bool = True,
        level: float = 0.9,
        plug_in: bool = False,
        int8_from: Any = None,
        **kwargs: Any,
    ) -> None:
        """Exports the predictive to a file that other programs answer from, without this library.

        Equal inputs get equal answers: those of `posterior_predictive(x, num_samples, seed)`, to rounding, whatever
        the batch. They are `mean`, `entropy`, `aleatoric`, `epistemic`, and the ends of the central interval, `lower`
        and `upper`, as in `PosteriorPredictive`; with the batch on the first axis. For several outputs, the names are
        those of the heads: `class/mean`. Inputs are not checked: a row with NaN or infinity is answered with NaN.

        - `"tf_saved_model"`: a folder, which answers in any process that has TensorFlow. The weights are drawn at each
          request, and the file has its size whatever S is. It has several signatures: `serving_default`; `predict`, the
          same with another input, the `seed`, an int64 scalar; `draws`, which has the input `seed` too, with `samples`,
          the predictions of each draw, `(batch, S, ...)`; and `mean`, that of the plug-in prediction, never calibrated.
          The function `serve` returns the mean alone. Not for Markov chains.
        - `"onnx"` and `"litert"`: one file. The S draws are in it, so it grows with S: one copy of the random weights
          for each. With `plug_in=True`, `mean` alone, of the plug-in prediction, never calibrated.
        - Another format of `keras.Model.export`, such as `"openvino"`: `mean` alone, of the plug-in prediction, never
          calibrated. `num_samples`, `seed`, `calibrated`, `level` and `plug_in` have no effect on it.

        What a likelihood cannot compute by TensorFlow operations alone is left out, and so is what a format has no
        operations for; the text that is printed says so. That is the entropy of numbers other than those of 'normal',
        and the interval of numbers other than those of 'normal' and 'laplace'.

        Args:
            filepath: Folder or file to write to. An earlier export is replaced.
            format: Name of the format, as above.
            verbose: Whether to print the signatures, or the size of the file; 0 is False. Default: None, which is True.
            input_signature: Shapes and dtypes of the inputs, as in `keras.Model.export`; None for those of the model.
            num_samples: S, the number of draws; all, if there are fewer. It is part of the file.
            seed: Integer, the seed of the draws.
            calibrated: Whether to apply `model.calibration`, if there is one.
            level: Probability of the interval. Default: 0.9.
            plug_in: Whether to write the plug-in prediction, for `"onnx"` and `"litert"`: one pass, no uncertainty of
                the weights.
            int8_from: Inputs like those to come, a hundred rows or more, for a plug-in prediction in `"litert"` with
                weights and activations of eight bits, whose ranges they determine. It has no NaN. Default: 32 bits.
            **kwargs: Arguments of `keras.Model.export` for a format other than `"tf_saved_model"`.

        Raises:
            ValueError: If the model is not built, has weights that are NaN or infinite, or cannot be exported because a
                layer or the likelihood only runs in Python or has no operations in the format; if an argument is out of
                range, or the draws would take more than 512 MiB in the file; or if the path cannot be written to.
                Nothing is written then.
            ImportError: If a package for the format is missing; the message has the line that installs it.
        """
        arguments: dict[str, Any] = {
            "num_samples": num_samples,
            "seed": seed,
            "calibrated": calibrated,
            "level": level,
            "input_signature": input_signature,
            "verbose": verbose is None or bool(verbose),
        }
        if format == "tf_saved_model":
            if plug_in or int8_from is not None:
                raise ValueError(
                    "`plug_in` and `int8_from` are for format='onnx' and 'litert'. A SavedModel has the plug-in mean "
                    "as its signature `mean`."
                )
            export_saved_model(self, filepath, **arguments, **kwargs)
        elif format in PORTABLE_FORMATS:
            export_portable(self, filepath, format, plug_in=plug_in, int8_from=int8_from, **arguments, **kwargs)
        elif int8_from is not None:
            raise ValueError(f"`int8_from` is for format='litert', but got format={format!r}.")
        else:
            export_with_keras(self, filepath, format, input_signature, arguments["verbose"], **kwargs)

    def _with_names(self, predictive: Any) -> Any:
        if isinstance(predictive, PosteriorPredictive):
            predictive.class_names, predictive.target_units = self.class_names, self.target_units
        return predictive

    def _check_of_inputs(self, x: Any) -> Callable[[Any], None]:
        """A function that refuses arrays of inputs that do not fit, and warns of those that are unlike training."""
        names = getattr(x, "columns", None)

        def check(arrays: Any) -> None:
            self._check_inputs(arrays)
            expected = self.inputs_expected
            complaint = None if expected is None else expected.complaint(arrays, names)
            if complaint is not None:
                warnings.warn(
                    f"The inputs of {self.name!r} are not like those that it was trained on: {complaint}. Its "
                    "predictions may be wrong and confident.",
                    UnlikelyInputsWarning,
                    stacklevel=4,
                )

        return check

    def _check_inputs(self, x: Any) -> None:
        """Raises a ValueError for inputs that do not fit the model."""
        raise NotImplementedError

    def _check_examples(self, x: Any, y: Any) -> None:
        """Raises a ValueError for inputs and targets that do not fit the model."""
        raise NotImplementedError

    def _check_weights(self) -> None:
        """Raises a ValueError for weights that are NaN or infinite."""
        raise NotImplementedError
