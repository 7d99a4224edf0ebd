"""The interface of every model with a posterior, however it was found: predictions from its draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfp_bnn.core.checks import invalid_arguments_as_value_errors
from tfp_bnn.core.draws import Draws
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.predictive.calibrators import CALIBRATIONS, Calibration, check_fits
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive


class PredictiveModel:
    """A likelihood and draws of functions, which give a posterior predictive. Abstract.

    `VariationalMixin` and `Ensemble` implement it. Scores, reports, calibration and artifacts need nothing else.

    Attributes:
        name: Name of the model.
        likelihood: Distribution of a target given the raw outputs.
    """

    name: str
    likelihood: Likelihood
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
            ValueError: If weights of the model are NaN or infinite, if inputs are empty, have the wrong shape or NaN,
                if `num_samples` or `batch_size` is below 1, or if the seed is not an integer.
        """
        draws = self.draws(seed)
        self._check_inputs(x)
        self._check_weights()
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
        self._check_weights()
        with invalid_arguments_as_value_errors():
            return PosteriorPredictive.from_draws(
                draws, x, self.likelihood, draws.num_draws or 1, batch_size=batch_size
            )

    def _check_inputs(self, x: Any) -> None:
        """Raises a ValueError for inputs that do not fit the model."""
        raise NotImplementedError

    def _check_examples(self, x: Any, y: Any) -> None:
        """Raises a ValueError for inputs and targets that do not fit the model."""
        raise NotImplementedError

    def _check_weights(self) -> None:
        """Raises a ValueError for weights that are NaN or infinite."""
        raise NotImplementedError
