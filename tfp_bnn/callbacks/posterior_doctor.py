"""`PosteriorDoctor`: warns when a posterior goes wrong, and says how to fix it."""

from __future__ import annotations

import json
import math
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from tfp_bnn.callbacks.curvature import layer_curvatures
from tfp_bnn.callbacks.measuring import (
    KlTerms,
    LayerPosterior,
    check_rows,
    diagnose,
    layer_posteriors,
    learned_prior_scales,
    measure,
    prior_scales,
    require_bayesian,
    require_predictive,
)
from tfp_bnn.callbacks.rows import Rows, take_rows
from tfp_bnn.core.arguments import require_integer, require_positive
from tfp_bnn.models.data_checks import example_shape
from tfp_bnn.models.predictive_model import PredictiveModel
from tfp_bnn.models.preparation import natural_gradient_of
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.variational.kl import named_layers

# A layer that has learned something exceeds this in a few weights: the lowest pretrained posterior has 0.03.
_COLLAPSED_NATS = 0.01
_COLLAPSED_ACTIVE = 0.001
_DELTA_RATIO = 100.0
_DELTA_SCALE = 0.002
_DOMINANCE = 10.0
# Of the NLL of a prediction that is the same for all inputs.
_UNFITTED = 0.5
# The floor of a learned prior scale is 0.001.
_SCALE_BOUND = 0.002
# Less than 3 times 1 / curvature_rate steps.
_REMEMBERED = 0.05
_LARGEST_RHAT = 1.05
_LEAST_ESS = 100
_LONGER = "Sample longer (num_samples), with a longer burn_in or thin, or begin at a trained model (start='model')."


# Kind, place and message.
_Symptom = tuple[str, str, str]


class PosteriorWarning(UserWarning):
    """Warning about a posterior that has gone wrong."""


@dataclass(frozen=True)
class Finding:
    """A problem with a posterior.

    Attributes:
        kind: `"collapsed"`, `"near_delta"`, `"kl_dominated"`, `"prior_scale_at_bound"`, `"unconverged_curvature"`,
            `"too_few_samples"` or `"not_converged"`.
        where: The layer, the prior, the score, `"rhat"` or `"ess"`; empty for the whole model.
        epoch: Epoch, counted from 1, in which it was found; 0 if it was not in a training.
        message: What was found, with its numbers, and how to fix it.
    """

    kind: str
    where: str
    epoch: int
    message: str


class PosteriorDoctor(keras.callbacks.Callback):
    """Callback that checks the posterior after each epoch and warns once about each problem.

    It finds:

    - `collapsed`: a layer whose KL is below 0.01 nats per weight, with less than 0.1 % of its weights larger than their
      standard deviation. Its posterior is the prior: it only passes on noise.
    - `near_delta`: a layer whose median of |mean| / scale is above 100, or whose median scale is below 0.002 prior
      scales. Its draws are all the same, and it adds no epistemic uncertainty.
    - `kl_dominated`: beta * kl / N is more than 10 times the NLL, while the NLL of a classifier is above half of what
      the same prediction for all inputs would cost, log(classes): the loss is about the prior instead of the data.
    - `prior_scale_at_bound`: a learned prior scale below 0.002, next to its floor of 0.001; with `groups`, all of a
      weight.
    - `unconverged_curvature`: at the end of a training by `NaturalGradient`, more than 5 % of the curvature is still
      that of the initial scales.
    - `too_few_samples`: at the end of training, the Monte Carlo standard error of the predictive NLL or of the accuracy
      on the validation rows is above `tolerance`.

    All but the last two must hold for `patience` consecutive epochs, counted over all calls of `fit` of a model. Each
    raises one `PosteriorWarning` per layer of a model and is kept in `findings`. Training stays bit-for-bit identical
    and is never stopped.

    `examine(model)` checks a trained posterior, however it was found. For Markov chains it also finds `not_converged`:
    an R-hat of the predictions for the first 100 validation rows above 1.05, or an effective sample size below 100.

    Args:
        validation_data: Rows to measure at the end, `(x, y)` of arrays, or a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches; None skips the check of the number of samples.
        num_samples: Number of draws of the weights, the same as for reported scores; at least 2. Default: 10.
        tolerance: Largest standard error without a warning: nats for the NLL, a share for the accuracy. Default: 0.02.
        patience: Number of consecutive epochs for which a problem must persist. Default: 3.
        max_examples: Maximum number of rows to measure. Default: 1000.
        seed: Seed of the draws. Default: 0.

    Attributes:
        findings: List of `Finding`, of all models that the doctor has seen.

    Raises:
        ValueError: If a number is out of range; when training begins, if the data do not match the model.
        TypeError: When training begins, if the model is not Bayesian.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> x, y = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
        >>> model = tfp_bnn.VariationalSequential([keras.Input((2,)), tfp_bnn.layers.DenseFlipout(2)], seed=0)
        >>> model.compile("adam")
        >>> doctor = tfp_bnn.callbacks.PosteriorDoctor()
        >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[doctor])
        >>> doctor.findings
        []
    """

    def __init__(
        self,
        validation_data: Any = None,
        num_samples: int = 10,
        tolerance: float = 0.02,
        patience: int = 3,
        max_examples: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.findings: list[Finding] = []
        self._data = validation_data
        self._num_samples = require_integer("num_samples", num_samples, 2)
        self._tolerance = require_positive("PosteriorDoctor", "tolerance", tolerance)
        self._patience = require_integer("patience", patience, 1)
        self._max_examples = require_integer("max_examples", max_examples, 1)
        self._seed = require_integer("seed", seed, 0)
        self._rows: Rows | None = None
        # By the name of the examination, which finds them or fails.
        self._epochs_on_end: dict[str, dict[tuple[str, str], int]] = {}
        self._counted: weakref.ref[Any] | None = None
        self._epoch = 0
        self._failed: set[str] = set()
        # Kind and place of what was said of the model in training.
        self._told: set[tuple[str, str]] = set()

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks model and data, before the first step."""
        model = require_bayesian(self.model, type(self).__name__)
        self._take_rows(model)
        if self._counted is None or self._counted() is not model:
            self._counted = weakref.ref(model)
            self._epochs_on_end, self._failed, self._told = {}, set(), set()
        self._kl_terms = KlTerms(model)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Checks the posterior."""
        self._epoch = epoch + 1
        for examine, of in (
            (self._examine_layers, self.model),
            (self._examine_loss, logs or {}),
            (_examine_scales, self.model),
        ):
            found = self._attempt(examine, of, " Training continues.")
            # What it found before may last on.
            if found is not None:
                self._tell_once(self._lasting(examine.__name__, found))

    def on_train_end(self, logs: Any = None) -> None:
        """Checks the curvature of a natural gradient, and the Monte Carlo error of the scores."""
        for examine in (_examine_curvature, self._examine_samples):
            self._tell_once(self._attempt(examine, self.model) or [])

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Findings, and for how many epochs problems have lasted, as an array, to continue in another process."""
        lasting = [[name, *key, number] for name, of in self._epochs_on_end.items() for key, number in of.items()]
        findings = [asdict(finding) for finding in self.findings]
        state = json.dumps({"lasting": lasting, "told": sorted(self._told), "findings": findings})
        return {"state": np.frombuffer(state.encode(), np.uint8)}

    def restore_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes up the result of `state_arrays`, for the model that is set."""
        if not arrays:
            return
        state = json.loads(arrays["state"].tobytes())
        self._counted, self._epochs_on_end = weakref.ref(self.model), {}
        for name, kind, where, number in state["lasting"]:
            self._epochs_on_end.setdefault(name, {})[kind, where] = number
        self.findings[:] = [Finding(**finding) for finding in state["findings"]]
        # Earlier versions stored the findings alone.
        told = state.get("told", [(finding.kind, finding.where) for finding in self.findings])
        self._told = {(kind, where) for kind, where in told}

    def examine(self, model: PredictiveModel) -> list[Finding]:
        """Checks a posterior that is not in training, and warns of each problem, in each call.

        What does not exist for its inference method is not checked: posteriors beside their networks, such as those of
        Laplace, SWAG and Markov chains, have no KL by layer.

        Args:
            model: Model that `fit` has trained, or the result of a function of `tfp_bnn.inference`.

        Returns:
            What was found now.

        Raises:
            TypeError: If the model has no posterior.
            ValueError: If the data do not match the model.
        """
        require_predictive(model, type(self).__name__)
        self._take_rows(model)
        known, self._epoch, self._failed = len(self.findings), 0, set()
        examinations: list[Callable[[Any], Iterator[_Symptom]]] = [self._examine_samples, self._diagnose]
        if isinstance(model, VariationalMixin):
            self._kl_terms = KlTerms(model)
            examinations += [self._examine_layers, _examine_scales]
        for examination in examinations:
            for symptom in self._attempt(examination, model) or ():
                self._tell(*symptom)
        return self.findings[known:]

    def _take_rows(self, model: PredictiveModel) -> None:
        if self._data is not None:
            if self._rows is None:
                self._rows = take_rows(self._data, self._max_examples, "validation_data")
            check_rows(model, self._rows, "validation_data")

    def _attempt(
        self, examine: Callable[[Any], Iterator[_Symptom]], of: Any, comfort: str = ""
    ) -> list[_Symptom] | None:
        """Returns what an examination found; None if it failed, with a warning for the first time."""
        try:
            with np.errstate(all="ignore"):
                return list(examine(of))
        except Exception as error:
            if examine.__name__ not in self._failed:
                self._failed.add(examine.__name__)
                reason = f"{type(error).__name__}: {error}.{comfort}"
                warnings.warn(f"PosteriorDoctor could not examine the model: {reason}", stacklevel=3)
            return None

    def _lasting(self, examination: str, found: list[_Symptom]) -> list[_Symptom]:
        """Returns the symptoms that lasted for `patience` consecutive epochs in which they were looked for."""
        before = self._epochs_on_end.get(examination, {})
        counts = {(kind, where): before.get((kind, where), 0) + 1 for kind, where, _ in found}
        self._epochs_on_end[examination] = counts
        return [symptom for symptom in found if counts[symptom[:2]] >= self._patience]

    def _diagnose(self, model: PredictiveModel) -> Iterator[_Symptom]:
        numbers = {} if self._rows is None else diagnose(model, self._rows)
        rhat, ess = numbers.get("rhat", 1.0), numbers.get("ess", math.inf)
        if rhat > _LARGEST_RHAT:
            yield (
                "not_converged",
                "rhat",
                f"The chains disagree: the largest R-hat of the predictions is {rhat:.4g}, above {_LARGEST_RHAT:g}, so "
                f"they are not yet draws of one posterior. {_LONGER}",
            )
        if ess < _LEAST_ESS:
            yield (
                "not_converged",
                "ess",
                f"The chains are short: for some prediction they are worth {ess:.0f} independent draws, fewer than "
                f"{_LEAST_ESS}. {_LONGER}",
            )

    def _examine_samples(self, model: PredictiveModel) -> Iterator[_Symptom]:
        if self._rows is None:
            return
        measured, draws = measure(model, self._rows, self._num_samples, self._seed), model.draws()
        taken, most = measured.predictive.num_samples, draws.num_draws
        for score, title in (("nll", "predictive NLL"), ("accuracy", "accuracy")):
            error = measured.standard_errors.get(score, 0.0)
            if error > self._tolerance:
                enough = math.ceil(taken * (error / self._tolerance) ** 2)
                fix = f"Report it with num_samples={enough} or more."
                if most is not None and most < enough:
                    fix = f"Report it with num_samples={most}, all draws that there are."
                    if getattr(draws, "sampled", False):
                        fix = f"{enough} would do, but there are no more than {most}. {_LONGER}"
                yield (
                    "too_few_samples",
                    score,
                    f"The {title} of {len(self._rows)} rows, {measured.scores[score]:.4f}, has a Monte Carlo standard "
                    f"error of {error:.4f} with {taken} weight draws, above the tolerance of {self._tolerance:g}: "
                    f"smaller differences are noise. {fix}",
                )

    def _examine_layers(self, model: VariationalMixin) -> Iterator[_Symptom]:
        kl, posteriors, layers = self._kl_terms(), layer_posteriors(model), named_layers(model)
        for name, posterior in posteriors.items():
            yield from _examine_layer(name, posterior, kl[name], _prior_scale(layers[name]))

    def _examine_loss(self, logs: Mapping[str, Any]) -> Iterator[_Symptom]:
        nll, kl, beta = (float(logs.get(name, math.nan)) for name in ("nll", "kl", "beta"))
        model = self.model
        shape = example_shape(model)
        if shape is None or None in keras.tree.flatten(shape):
            return
        constant = model.likelihood.chance_nll_of_example(shape)
        if constant is None or not model.num_examples:
            return
        term = beta * kl / model.num_examples
        if term > _DOMINANCE * nll and nll > _UNFITTED * constant:
            yield (
                "kl_dominated",
                "",
                f"The KL dominates the loss: beta * kl / N = {beta:.3g} * {kl:.4g} / {model.num_examples} = {term:.3g} "
                f"nats per example, {term / nll:.0f} times the NLL of {nll:.3g}, which is still near the "
                f"{constant:.3g} of guessing: the network is drawn to the prior before it fits the data. Warm beta up "
                "(beta_schedule={'name': 'linear_warmup', 'steps': ...}), use fewer weights, a prior whose scale is "
                "learned (empirical_bayes=True) or smaller, or more data.",
            )

    def _tell_once(self, symptoms: list[_Symptom]) -> None:
        for kind, where, message in symptoms:
            if (kind, where) not in self._told:
                self._told.add((kind, where))
                self._tell(kind, where, message)

    def _tell(self, kind: str, where: str, message: str) -> None:
        self.findings.append(Finding(kind, where, self._epoch, message))
        warnings.warn(message, PosteriorWarning, stacklevel=3)


def _examine_layer(name: str, posterior: LayerPosterior, kl: float, prior_scale: float) -> Iterator[_Symptom]:
    count = posterior.mean.size
    ratio, scale = float(np.median(posterior.signal_to_noise)), float(np.median(posterior.scale))
    active = float(np.mean(posterior.signal_to_noise > 1))
    if kl / count < _COLLAPSED_NATS and active < _COLLAPSED_ACTIVE:
        yield (
            "collapsed",
            name,
            f"The posterior of the layer {name!r} has collapsed to its prior: KL {kl / count:.2g} nats per weight, "
            f"median |mean| / scale {ratio:.2g}, and {active:.2%} of its {count:,} weights larger than their standard "
            "deviation: the layer passes noise on, and nothing that it learned. Warm beta up (beta_schedule="
            "{'name': 'linear_warmup', 'steps': ...}), start with a smaller initial_scale of the posterior, use fewer "
            "units, a smaller prior scale, or more data.",
        )
    elif ratio > _DELTA_RATIO or scale < _DELTA_SCALE * prior_scale:
        of_prior = "" if math.isnan(prior_scale) else f", {scale / prior_scale:.2g} of the prior's"
        yield (
            "near_delta",
            name,
            f"The posterior of the layer {name!r} is nearly a point: median scale {scale:.2g}{of_prior}, median |mean| "
            f"/ scale {ratio:.3g}. All draws of its weights are nearly equal: it adds no epistemic uncertainty. Raise "
            "beta (1 is the ELBO), start with a larger initial_scale of the posterior (0.05), let the scales be "
            "trained (trainable='both'), or train for longer.",
        )


def _examine_curvature(model: Any) -> Iterator[_Symptom]:
    optimizer, layers = natural_gradient_of(model), layer_curvatures(model).values()
    if optimizer is None or not layers:
        return
    share, steps = optimizer.share_of_start(), int(optimizer.iterations)
    if share > _REMEMBERED:
        determined = sum(layer.determined for layer in layers)
        ratio = np.median(np.concatenate([layer.of_data / layer.of_prior for layer in layers]))
        yield (
            "unconverged_curvature",
            "",
            f"The scales remember where they started: after {steps:,} steps, {share:.0%} of the curvature is still "
            "that of the initial scales, and acts as a temperature that nobody chose. The data seem to determine "
            f"{determined:,.0f} of {sum(layer.of_data.size for layer in layers):,} weights, the sum of h / (h + "
            f"delta), with a median h / delta of {ratio:.3g}. Train for longer, raise curvature_rate (3 / steps is "
            f"{3 / max(steps, 3):.2g}), or name a temperature, as in NaturalGradient(temperature=0.2).",
        )


def _examine_scales(model: VariationalMixin) -> Iterator[_Symptom]:
    for name, scales in learned_prior_scales(model).items():
        # Groups at the floor are what priors with groups are for, as long as some are not.
        scale = float(scales.max())
        if scale < _SCALE_BOUND:
            yield (
                "prior_scale_at_bound",
                name,
                f"The {'' if scales.size == 1 else 'largest '}learned prior scale {name!r} is {scale:.2g}, next to its "
                "floor of 0.001: prior and posterior shrink to 0 together, and the weights with them. Fix the scale "
                "(empirical_bayes=False), infer it with a hyperprior, share it between layers (shared='all'), or warm "
                "beta up.",
            )


def _prior_scale(layer: Any) -> float:
    """Returns the median prior standard deviation over the kept weights of a layer; the scale if it has no variance."""
    return float(np.median(np.concatenate([prior_scales(weight) for weight in layer.variational_weights.values()])))
