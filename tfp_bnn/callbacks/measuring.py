"""What callbacks measure of a Bayesian model, in one way for all of them, and once for all of them.

Nothing here disturbs training: predictions have a stream of noise of their own, and a KL without a closed form is
estimated from noise that is the same each time.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfp_bnn import metrics
from tfp_bnn.callbacks.rows import Rows, digest_of
from tfp_bnn.core.noise import Noise, noise_scope
from tfp_bnn.likelihoods import Bernoulli
from tfp_bnn.models.data_checks import check_examples, check_inputs
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.predictive import PosteriorPredictive, for_each_class, score, standard_errors
from tfp_bnn.variational.kl import named_layers

_KL_SEED = (0, 0)
# One forward pass for each draw, with the usual number of rows.
_BATCH_SIZE = 1000
# The measurements of the weights that a model has now, so that several callbacks share them.
_measurements: weakref.WeakKeyDictionary[Any, tuple[str, dict[tuple[Any, ...], Measurement]]] = (
    weakref.WeakKeyDictionary()
)


@dataclass(frozen=True, eq=False)
class Measurement:
    """Predictions for some rows under Monte Carlo draws of the weights, and what follows from them.

    Attributes:
        predictive: the predictions.
        rows: that were predicted.
    """

    predictive: PosteriorPredictive
    rows: Rows

    @property
    def has_classes(self) -> bool:
        """Whether a target is one class of several; not for regression, nor for several yes-or-no labels at once."""
        return self.predictive.likelihood.task == "classification" and not self._has_several_labels

    @cached_property
    def scores(self) -> dict[str, float]:
        """Those of `tfp_bnn.predictive.score`; for several labels at once `nll`, `entropy`, `mutual_information`."""
        if self.rows.y is None:
            return score(self.predictive)
        if self._has_several_labels:
            nll = float(-self.predictive.log_prob(self.rows.y).mean(dtype=np.float64))
            return {"nll": nll, **score(self.predictive)}
        return score(self.predictive, self.targets)

    @cached_property
    def standard_errors(self) -> dict[str, float]:
        """The Monte Carlo standard errors of the scores, by a jackknife over the draws; none of a single draw."""
        if self._has_several_labels:
            return {}
        return standard_errors(self.predictive, None if self.rows.y is None else self.targets)

    @cached_property
    def targets(self) -> npt.NDArray[Any]:
        """Classification: labels `(n,)`, integers; of soft labels the most probable class. Else as the means."""
        y = np.asarray(self.rows.y)
        if self.predictive.likelihood.task == "regression":
            return y.reshape(self.predictive.mean().shape)
        if y.ndim == 2:
            y = y[:, 0] if y.shape[1] == 1 else y.argmax(axis=1)
        return np.rint(y).astype(np.int64)

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """Of each class, averaged over the draws, `(n, classes)`; two classes for one logit."""
        return for_each_class(self.predictive.mean())

    @cached_property
    def sample_probabilities(self) -> npt.NDArray[np.float32]:
        """Of each class under each draw, `(S, n, classes)`; two classes for one logit."""
        return for_each_class(self.predictive.samples)

    @cached_property
    def uncertainties(self) -> dict[str, npt.NDArray[np.float64]]:
        """Of each row, higher where less certain: `predictive_entropy` and `mutual_information`, or `epistemic_std`."""
        if self.predictive.likelihood.task == "classification":
            entropy, information = self.predictive.entropy(), self.predictive.epistemic()
            return {
                "predictive_entropy": entropy.astype(np.float64),
                "mutual_information": information.astype(np.float64),
            }
        return {"epistemic_std": np.sqrt(self.predictive.epistemic().sum(axis=-1, dtype=np.float64))}

    @property
    def _has_several_labels(self) -> bool:
        return isinstance(self.predictive.likelihood, Bernoulli) and self.predictive.mean().shape[-1] > 1


def measure(model: VariationalMixin, rows: Rows, num_samples: int, seed: int) -> Measurement:
    """Predicts rows as `posterior_predictive` does; what was measured since the weights last changed is given again.

    Args:
        model: built.
        rows: to predict.
        num_samples: draws of the weights.
        seed: of the draws.
    """
    weights = digest_of(model.weights)  # type: ignore[attr-defined]
    of_weights, measured = _measurements.get(model, ("", {}))
    if of_weights != weights:
        measured = {}
        _measurements[model] = (weights, measured)
    key = (rows.digest, num_samples, seed, repr(model.calibration))
    if key not in measured:
        predictive = model.posterior_predictive(rows.x, num_samples=num_samples, seed=seed, batch_size=_BATCH_SIZE)
        measured[key] = Measurement(predictive, rows)
    return measured[key]


def check_rows(model: VariationalMixin, rows: Rows, name: str) -> None:
    """Refuses rows that a model cannot be measured on. ValueError names the argument."""
    shape, outputs = model._known_input_shape(), getattr(model, "outputs", None)
    try:
        if rows.y is None:
            check_inputs(rows.x, shape, name)
        else:
            check_examples(rows.x, rows.y, model.likelihood, shape, outputs[0].shape[-1] if outputs else None)
    except ValueError as error:
        raise ValueError(f"`{name}` of the callback cannot be measured: {error}") from error


def require_bayesian(model: Any, callback: str) -> VariationalMixin:
    """The model; TypeError when it is none of ours."""
    if not isinstance(model, VariationalMixin):
        raise TypeError(
            f"{callback} is for Bayesian models, but got a {type(model).__name__}. Build it as "
            "tfp_bnn.VariationalModel(inputs, outputs), or mix in tfp_bnn.VariationalMixin."
        )
    return model


class KlTerms:
    """Gives the terms of `model.kl_by_layer()` in nats, without a change of any counter of noise; compiled once.

    Args:
        model: whose layers stay the same; built when the terms are first asked for.
    """

    def __init__(self, model: VariationalMixin) -> None:
        def compute() -> dict[str, tf.Tensor]:
            with noise_scope(model._noise_of_layers(Noise(tf.constant(_KL_SEED, tf.int64)))):
                return model.kl_by_layer()

        self._compute = tf.function(compute, autograph=False)

    def __call__(self) -> dict[str, float]:
        """The terms of now."""
        return {name: float(kl) for name, kl in self._compute().items()}


@dataclass(frozen=True, eq=False)
class LayerPosterior:
    """The posteriors of the Bayesian weights of a layer, side by side; those without a spread are left out.

    Attributes:
        mean: of each weight, float32, of shape `(weights,)`.
        scale: the standard deviation of each weight.
    """

    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]

    @cached_property
    def signal_to_noise(self) -> npt.NDArray[np.floating[Any]]:
        """|mean| / scale of each weight."""
        return np.abs(self.mean) / self.scale


def layer_posteriors(model: VariationalMixin) -> dict[str, LayerPosterior]:
    """The posteriors of all Bayesian layers that have a spread, by the names of `model.kl_by_layer()`."""
    found = {}
    for name, layer in named_layers(model).items():
        weights = [weight for weight in layer.variational_weights.values() if weight.posterior_spec.has_spread]
        if weights:
            found[name] = LayerPosterior(
                np.concatenate([np.ravel(weight.mean.numpy()) for weight in weights]),
                np.concatenate([np.ravel(np.sqrt(weight.variance.numpy())) for weight in weights]),
            )
    return found


def learned_prior_scales(model: VariationalMixin) -> dict[str, float]:
    """The prior scales that are learned or inferred: by `layer/weight`, or by the name under which they are shared."""
    scales = {}
    for name, layer in named_layers(model).items():
        for weight in layer.variational_weights.values():
            learned = weight.prior_parameters().get("scale")
            if learned is not None and np.ndim(learned) == 0:
                scales[f"{name}/{weight.name}"] = float(learned)
    for name, shared in model.shared_priors.items():
        scales[name] = float(shared.parameters()["scale"])
    return scales


def out_of_distribution_aurocs(inside: Measurement, outside: Measurement) -> Mapping[str, float]:
    """How well each uncertainty tells the rows of `outside` from those of `inside`: areas under ROC curves."""
    return {
        name: metrics.out_of_distribution_auroc(values, outside.uncertainties[name])
        for name, values in inside.uncertainties.items()
    }
