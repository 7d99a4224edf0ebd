"""The interface of every model with a posterior, however it was found: predictions from its draws."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfp_bnn.core.checks import invalid_arguments_as_value_errors
from tfp_bnn.core.draws import Draws
from tfp_bnn.core.expected_inputs import ExpectedInputs, UnlikelyInputsWarning
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.predictive.calibrators import CALIBRATIONS, Calibration, check_fits
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive


class PredictiveModel:
    """A likelihood and draws of functions, which give a posterior predictive. Abstract.

    `VariationalMixin` and `Ensemble` implement it. Scores, reports, calibration and artifacts need nothing else.

    Attributes:
        name: Name of the model.
        likelihood: Distribution of a target given the raw outputs.
        inputs_expected: What the inputs of training looked like, or None. Predictions for inputs that are far from it
            warn with `UnlikelyInputsWarning`. It is not saved in `.keras` files; models of the zoo have it.
    """

    name: str
    likelihood: Likelihood
    inputs_expected: ExpectedInputs | None = None
    _calibration: Calibration | None = None

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

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of `posterior_predictive`, or None. Set it to a name, a config, an object or None.

        It is part of the config of a model, not of its weights. `fit` and `train_on_batch` set it to None, because it
        belongs to the posterior it was fitted to.
        """
        return self._calibration

    @calibration.setter
    def calibration(self, value: str | Mapping[str, Any] | Calibration | None) -> None:
        calibration = None if value is None else CALIBRATIONS.get(value)
        if calibration is not None:
            check_fits(calibration, self.likelihood)
        self._calibration = calibration

    def posterior_predictive(
        self,
        x: Any,
        num_samples: int = 100,
        seed: int = 0,
        batch_size: int = 512,
        max_bytes: int = 2**30,
        calibrated: bool = True,
    ) -> PosteriorPredictive:
        """The predictive distribution p(y | x, data), averaged over draws of the posterior.

        Draw s is one function: the same weights for every x. It depends on (seed, s, layer) only, so the result does
        not depend on `batch_size`.

        Args:
            x: Array of inputs, `(n, ...)`; a list, tuple or dict of arrays if the model has several inputs.
            num_samples: S, the number of draws. If there are fewer, as in an ensemble or a point estimate, all are
                used; the `num_samples` of the result is their number.
            seed: Integer. Equal seeds give equal draws.
            batch_size: Number of rows per forward pass.
            max_bytes: Memory limit for the raw outputs of all draws, S x n x outputs x 4 bytes. Above it, only the
                moments are kept, and only the draws of one batch are in memory.
            calibrated: Whether to apply `model.calibration`, if there is one.

        Returns:
            A `PosteriorPredictive` of n predictions.

        Raises:
            ValueError: If inputs are empty, have the wrong shape or NaN, if `num_samples` or `batch_size` is below 1,
                or if the seed is not an integer.
        """
        draws = self.draws(seed)
        self._check_inputs(x)
        self._warn_of_unlikely(x)
        with invalid_arguments_as_value_errors():
            return PosteriorPredictive.from_draws(
                draws,
                x,
                self.likelihood,
                num_samples,
                batch_size=batch_size,
                max_bytes=max_bytes,
                calibration=self.calibration if calibrated else None,
            )

    def plug_in_predictive(self, x: Any, batch_size: int = 512) -> PosteriorPredictive:
        """The prediction with every weight at its posterior mean: fast, and blind to the uncertainty of the weights.

        Never calibrated: `model.calibration` was fitted to the Monte Carlo predictive.

        Args:
            x: Array of inputs, `(n, ...)`.
            batch_size: Number of rows per forward pass.

        Returns:
            A `PosteriorPredictive` of one draw; for an ensemble, of one draw per member.
        """
        draws = self.plug_in_draws()
        self._check_inputs(x)
        self._warn_of_unlikely(x)
        with invalid_arguments_as_value_errors():
            return PosteriorPredictive.from_draws(
                draws, x, self.likelihood, draws.num_draws or 1, batch_size=batch_size
            )

    def _warn_of_unlikely(self, x: Any) -> None:
        """Warns of inputs that are far from those of training."""
        complaint = None if self.inputs_expected is None else self.inputs_expected.complaint(x)
        if complaint is not None:
            warnings.warn(
                f"The inputs of {self.name!r} are not like those that it was trained on: {complaint}. Its predictions "
                "may be wrong and confident.",
                UnlikelyInputsWarning,
                stacklevel=3,
            )

    def _check_inputs(self, x: Any) -> None:
        """Raises a ValueError for inputs that do not fit the model."""
        raise NotImplementedError

    def _check_examples(self, x: Any, y: Any) -> None:
        """Raises a ValueError for inputs and targets that do not fit the model."""
        raise NotImplementedError
