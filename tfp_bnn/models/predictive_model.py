"""What every model with a posterior can do, however the posterior was found: predict from its draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfp_bnn.core.arguments import is_integer
from tfp_bnn.core.checks import invalid_arguments_as_value_errors
from tfp_bnn.core.draws import Draws
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.predictive.calibrators import CALIBRATIONS, Calibration, check_fits
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive


class PredictiveModel:
    """A likelihood and draws of functions, hence a posterior predictive. Abstract.

    `VariationalMixin` is one, and so is an `Ensemble`: scores, reports, calibration and artifacts ask for no more.

    Attributes:
        name: Name of the model.
        likelihood: How a target is distributed given the raw outputs.
    """

    name: str
    likelihood: Likelihood
    _calibration: Calibration | None = None

    def draws(self, seed: int = 0) -> Draws:
        """The draws of the posterior.

        Args:
            seed: An integer; equal seeds give equal draws. Without effect where all draws are known.

        Raises:
            ValueError: For a seed that is not an integer.
        """
        raise NotImplementedError

    def plug_in_draws(self) -> Draws:
        """The draws of the plug-in prediction: every weight at its posterior mean."""
        raise NotImplementedError

    def kl_by_layer(self) -> dict[str, tf.Tensor]:
        """KL(posterior || prior) in nats by layer; empty where the posterior has no density."""
        raise NotImplementedError

    @property
    def calibration(self) -> Calibration | None:
        """How `posterior_predictive` is calibrated, or None. Set it to a name, a config, an object or None.

        It is a part of the config of a model, not of its weights. `fit` and `train_on_batch` set it to None, because
        it belongs to the posterior that it was fitted to.
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
            x: Inputs of shape `(n, ...)`, an array; a list, tuple or dict of them where the model has several inputs.
            num_samples: S, the number of draws. Where there are fewer, as in an ensemble or a point estimate, all are
                used, and the `num_samples` of the result says how many.
            seed: An integer; equal seeds give equal draws.
            batch_size: Rows in one forward pass.
            max_bytes: Memory for the raw outputs of all draws, S x n x outputs; above it only the moments are kept,
                and the draws of one batch at a time.
            calibrated: Whether `model.calibration` is applied, where there is one.

        Returns:
            A `PosteriorPredictive` of n predictions.

        Raises:
            ValueError: For empty inputs, another input shape, NaN, `num_samples` or `batch_size` below 1, or a seed
                that is not an integer.
        """
        draws = self.draws(checked_seed(seed))
        self._check_inputs(x)
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
            x: Inputs of shape `(n, ...)`, an array.
            batch_size: Rows in one forward pass.

        Returns:
            A `PosteriorPredictive` of one draw; of an ensemble, of one draw for each member.
        """
        draws = self.plug_in_draws()
        self._check_inputs(x)
        with invalid_arguments_as_value_errors():
            return PosteriorPredictive.from_draws(
                draws, x, self.likelihood, draws.num_draws or 1, batch_size=batch_size
            )

    def _check_inputs(self, x: Any) -> None:
        """Refuses inputs that the model does not take, with a ValueError."""
        raise NotImplementedError

    def _check_examples(self, x: Any, y: Any) -> None:
        """Refuses inputs and targets that do not fit the model, with a ValueError."""
        raise NotImplementedError


def checked_seed(seed: Any) -> int:
    """The seed. ValueError for anything but an integer."""
    if not is_integer(seed):
        raise ValueError(f"`seed` must be an integer, but got {seed!r}. Equal seeds give equal draws.")
    return int(seed)
