"""Objectives of training: what is made of the log-likelihoods and the KL of several weight draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_bnn.core.checks import require
from tfp_bnn.core.registry import Spec, SpecRegistry
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.variational.elbo import mean_over_rows


@dataclass(frozen=True)
class StepTerms:
    """The terms of one training step, float32.

    Attributes:
        log_prob: Log-likelihoods of the examples, in nats, of shape `(batch,)`, for each draw.
        log_ratio: log q(w) - log p(w) in nats, a scalar for each draw; empty unless the objective `weighs_draws`.
        nll: Negative log-likelihood, mean over examples and draws, in nats per example; scalar.
        weighted_kl: beta * KL / N, mean over draws, in nats per example; scalar.
        beta: Annealing weight of the KL; scalar.
        num_examples: N; scalar.
    """

    log_prob: Sequence[tf.Tensor]
    log_ratio: Sequence[tf.Tensor]
    nll: tf.Tensor
    weighted_kl: tf.Tensor
    beta: tf.Tensor
    num_examples: tf.Tensor


class Objective(Spec):
    """What training minimizes, as a function of the draws of a step. Abstract."""

    weighs_draws = False
    """Whether each draw needs its log q(w) - log p(w), and the log-likelihood of all N examples in one batch."""

    def __call__(self, step: StepTerms) -> list[tf.Tensor]:
        """Returns scalars whose sum is the loss without regularizers, in nats per example."""
        raise NotImplementedError

    def check(self, layers: Sequence[VariationalLayer]) -> None:
        """Raises a ValueError that names the layers that a model cannot have. By default every layer is fine."""


OBJECTIVES: SpecRegistry[Objective] = SpecRegistry("objective")


@OBJECTIVES.register("elbo")
class Elbo(Objective):
    """The evidence lower bound, a lower bound of log p(D) for any number of draws K.

        loss = mean_n mean_k -log p(y_n | x_n, w_k) + beta KL(q || p) / N

    More draws leave what is bounded as it is, and lower the variance of the gradient.
    """

    def __call__(self, step: StepTerms) -> list[tf.Tensor]:
        """Returns the negative log-likelihood and the weighted KL."""
        return [step.nll, step.weighted_kl]


@OBJECTIVES.register("pac_m")
class PacM(Objective):
    """The multi-sample loss PAC^m of Morningstar, Alemi & Dillon, with m = K, the number of draws.

        loss = mean_n -log (1/K) sum_k p(y_n | x_n, w_k) + beta KL(q || p) / N

    The data term is the negative log-likelihood of the predictive from K draws, with which the model is used, and not
    that of a single draw. Additive over examples, so batches give unbiased gradients, and every layer is allowed.

    It is not a bound of the evidence: minus the loss is at least the ELBO per example, by Jensen's inequality, and can
    exceed log p(D) / N. The guarantees of the paper, of the PAC kind, are about the log-likelihood of new data. The
    minimum is not the Bayesian posterior, and can predict better where the model is misspecified. With K = 1 it is the
    ELBO. A `sample_weight` is a power of the likelihood under each draw.

    References:
        Morningstar, Alemi & Dillon 2022, https://arxiv.org/abs/2010.09629
    """

    def __call__(self, step: StepTerms) -> list[tf.Tensor]:
        """Returns the negative log-likelihood of the mixture of the draws, and the weighted KL."""
        return [-mean_over_rows(_log_mean_exp(step.log_prob)), step.weighted_kl]


@OBJECTIVES.register("importance_weighted")
class ImportanceWeighted(Objective):
    """The importance-weighted bound of Burda et al. over the weights, a lower bound of log p(D) that rises with K.

        loss = -(1/N) log (1/K) sum_k p(D | w_k) (p(w_k) / q(w_k))^beta,   w_k ~ q

    At beta 1 the expectation of -N times the loss lies between the ELBO (K = 1) and the evidence log p(D), which it
    reaches as K grows. This needs the log-likelihood of all N examples under the same draw:

    - Each batch must have all N examples, on one device. From a part of the data, the logarithm of the mean would be
      biased upwards, and not a bound.
    - Every example must see the same weights: layers of the kind Reparameterization, not Flipout or
      LocalReparameterization, unless all their posteriors are points.
    - The density of a draw must be known accurately: posteriors `mean_field_normal` and `delta`, no hyperprior. A point
      and a learned prior scale are parameters here, and what is bounded is log p(D, point).

    For small networks: the log-ratios of many weights differ so much that one draw has all the weight. More draws
    give a tighter bound but noisier gradients for each parameter of q (Rainforth et al. 2018). At K > 1 the maximum is
    the best proposal for importance sampling, which is wider than the posterior.

    References:
        Burda, Grosse & Salakhutdinov 2016, https://arxiv.org/abs/1509.00519; Rainforth et al. 2018,
        https://arxiv.org/abs/1802.04537
    """

    weighs_draws = True

    def __call__(self, step: StepTerms) -> list[tf.Tensor]:
        """Returns minus the bound, divided by N."""
        rows = tf.shape(step.log_prob[0])[0]
        complete = tf.equal(tf.cast(rows, tf.float32), step.num_examples)
        operations = require(
            complete,
            "The objective 'importance_weighted' needs all N examples in each batch, on one device, but a batch had",
            rows,
            "of",
            step.num_examples,
            "examples. Set batch_size to N, or use the objective 'elbo' or 'pac_m'.",
        )
        with tf.control_dependencies(operations):
            log_weights = [
                tf.reduce_sum(log_prob) - step.beta * ratio
                for log_prob, ratio in zip(step.log_prob, step.log_ratio, strict=True)
            ]
            return [-_log_mean_exp(log_weights) / step.num_examples]

    def check(self, layers: Sequence[VariationalLayer]) -> None:
        """Refuses layers whose draws have no density that is known, or are not one for the whole batch.

        Raises:
            ValueError: The message names the layers, and why.
        """
        reasons = [f"{layer.name} ({reason})" for layer in layers for reason in _without_one_density(layer)]
        if reasons:
            raise ValueError(
                "The objective 'importance_weighted' needs one draw of the weights for the whole batch, with a known "
                f"density. These layers have none: {', '.join(reasons)}. Use Reparameterization layers with the "
                "posterior 'mean_field_normal', or the objective 'elbo' or 'pac_m'."
            )


def _without_one_density(layer: VariationalLayer) -> Iterator[str]:
    if layer.is_random and not layer.estimator.shares_draw:
        yield f"{layer.estimator.name} estimator"
    for name, (posterior, prior) in layer.distribution_specs.items():
        if posterior.has_spread and not posterior.symmetric_and_independent:
            yield f"{name}_posterior={posterior!r}"
        if prior.hyperprior is not None:
            yield f"{name}_prior={prior!r}"


def _log_mean_exp(values: Sequence[tf.Tensor]) -> tf.Tensor:
    return tfp.math.reduce_logmeanexp(tf.stack(values), axis=0)
