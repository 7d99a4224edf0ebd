"""Where a variational posterior stands: its ELBO, and whether its scales are those of the optimum of the ELBO."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfp_bnn.core.noise import Noise, noise_scope
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.posteriors import MeanFieldNormal


@dataclass(frozen=True)
class ElboNumbers:
    """The ELBO of a posterior at beta 1, and what its scales say of it.

    Attributes:
        elbo: ELBO in nats per example, -(nll + KL / N).
        nll: Expected negative log-likelihood under the posterior, in nats per example.
        temperature_of_scales: T, see `elbo_numbers`; None if no scale of a `mean_field_normal` posterior is trained.
    """

    elbo: float
    nll: float
    temperature_of_scales: float | None


def elbo_numbers(
    model: VariationalMixin,
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    batch_size: int = 500,
    seed: int = 0,
    frozen: Collection[str] = (),
) -> ElboNumbers:
    """Estimates the ELBO of a posterior, and the temperature of which its scales are the best.

    Let c be a common factor of the n posterior scales s that are trained, without those of pruned weights. At the
    optimum of the ELBO, c = 1 is the best factor: the entropy, which grows by n log c, and the log joint balance. At
    another posterior they balance at the temperature

        T = 1/n d/dlog c E_q[-log p(y, w)] = 1 + N/n sum_i s_i d(nll + KL / N)/ds_i   (at c = 1)

    T is 1 at the optimum of the ELBO, whatever found it, and T at that of a cold posterior of temperature T. It is
    below 1 if the scales are narrower than the curvature of the loss asks for: since training was stopped short of the
    optimum, or a beta below 1 or a temperature cooled it. It says nothing of the means.

    Each batch has its own draw of all weights, which `seed` determines. No counter of noise changes.

    Args:
        model: A built model that has been trained on N examples.
        x: Inputs, at best all training examples, or the first of them.
        y: Targets.
        batch_size: Number of examples under one draw.
        seed: Seed of the draws.
        frozen: Names of layers that count as frozen besides those that are: a loaded model has no frozen layers.

    Raises:
        ValueError: If the model does not know N.
    """
    number = model.num_examples
    if number is None:
        raise ValueError(f"The model {model.name!r} does not know its number of training examples. Train it first.")
    scales = _Scales(model, frozen)
    noise, sums, rows = Noise(tf.constant((seed, 0), tf.int64)), np.zeros(3), 0
    for index, start in enumerate(range(0, len(x), batch_size)):
        part = slice(start, start + batch_size)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in scales.variables])
            with noise_scope(model._noise_of_layers(noise.fold_in(index))):
                outputs = model(x[part], training=False)
                kl = model.kl()
            nll = -tf.reduce_mean(model.likelihood.log_likelihood(y[part], outputs, model.likelihood_weights))
            loss = nll + kl / number
        slope = scales.slope(tape.gradient(loss, [variable.value for variable in scales.variables]))
        sums += len(x[part]) * np.array([float(nll), float(loss), slope])
        rows += len(x[part])
    nll, loss, slope = (sums / rows).tolist()
    temperature = 1 + number * slope / scales.number if scales.number else None
    return ElboNumbers(-loss, nll, temperature)


class _Scales:
    """The variables of all scales that are trained, and the slope of a loss along a common factor of them.

    Not those of frozen layers, nor of pruned weights, which no loss depends on.
    """

    def __init__(self, model: VariationalMixin, frozen: Collection[str]) -> None:
        weights = [
            weight
            for layer in model.variational_layers
            if layer.name not in frozen
            for weight in layer.variational_weights.values()
            if isinstance(weight.posterior_spec, MeanFieldNormal)
            and weight.posterior_variables["untransformed_scale"].trainable
        ]
        self._posteriors: list[Any] = [weight.posterior_spec for weight in weights]
        self._kept = [weight.kept for weight in weights]
        self.variables: list[keras.Variable] = [weight.posterior_variables["untransformed_scale"] for weight in weights]
        self.number = sum(int(kept.sum()) for kept in self._kept)

    def slope(self, gradients: list[Any]) -> float:
        """The derivative of a loss with respect to the logarithm of the factor, from its gradients."""
        slope = 0.0
        for posterior, variable, kept, gradient in zip(
            self._posteriors, self.variables, self._kept, gradients, strict=True
        ):
            untransformed = tf.convert_to_tensor(variable)
            with tf.GradientTape() as tape:
                tape.watch(untransformed)
                scale = posterior.scale({"untransformed_scale": untransformed})
            # One element of the scale depends on one of the variable.
            derivative = tape.gradient(scale, untransformed)
            terms = tf.cast(gradient / derivative * scale, tf.float64)
            slope += float(tf.reduce_sum(terms[kept]))
        return slope
