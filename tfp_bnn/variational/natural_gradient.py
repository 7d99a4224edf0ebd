"""Natural-gradient variational inference: the variational online Newton method as a Keras optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.arguments import is_number
from tfp_bnn.core.checks import require
from tfp_bnn.core.layer_tree import index_in_optimizer
from tfp_bnn.layers.variational_weight import VariationalWeight
from tfp_bnn.posteriors import MeanFieldNormal
from tfp_bnn.variational.fused_adam import fused_adam
from tfp_bnn.variational.kl import named_layers
from tfp_bnn.variational.schedules import Schedule


@keras.saving.register_keras_serializable(package="tfp_bnn")
class NaturalGradient(keras.optimizers.Optimizer):
    """Trains the `mean_field_normal` posteriors of a variational model along the natural gradient of its loss.

    Pass it to `compile` like any Keras optimizer. With the loss L = nll + beta * kl / N, lambda = N / (beta * T) and
    the precision P = 1 / (lambda * scale^2) = h + delta, the curvature of the mean NLL and that of the prior, a step is

        P   <- P + rho * e + (rho * e)^2 / (2 P),   e = (dL/dscale) / scale
        g   <- momentum * g + (1 - momentum) * dL/dloc
        loc <- loc - learning_rate * g / (1 - momentum^t) / P

    This is the variational online Newton step. Because scale = 1 / sqrt(lambda (h + delta)), e is the estimate of the
    curvature minus h, and P is positive after every step. Neither h nor delta is stored: the posterior itself is the
    state, with one momentum for each mean. Any estimator serves (flipout gives less noisy curvature than one shared
    draw), any number of draws, and any prior: its mean, its scale for each weight and its KL are in dL. So is a scale
    that is learned (`empirical_bayes`). Unlike in Shen et al. the pull of the prior is part of the averaged g.

    The minimizer is that of L, whatever the optimizer, if `curvature_rate` decays to 0. At a constant rate the scales
    are biased by the noise of e, and at a low one they remember where they started. Scales start at the `initial_scale`
    of the posterior, which is 1 / sqrt(lambda (h0 + delta)) for an initial curvature h0.

    To explain less than the whole evidence there are two temperatures. `beta_schedule={"name": "constant", "beta":
    0.2}` of the model minimizes nll + 0.2 kl / N: the data count five times, the prior once. `temperature=0.2` gives
    the cold posterior, p(weights | data)^5, with the prior cooled too: weights without information stop at the prior
    scale times sqrt(0.2). `elbo` and `kl` in the history are always those at beta = 1 and T = 1.

    All other weights, such as deterministic biases, gains of normalization, scales of priors and likelihoods and
    `delta` posteriors, are trained by the companion optimizer.

    Args:
        learning_rate: Fraction of a Newton step for the means, a float or a schedule. Usual values are 0.01 to 0.3.
            Shen et al. have a rate of lr * (h0 + delta) here.
        curvature_rate: rho, the fraction of a Newton step for the precisions, a float in [0, 1] or a schedule; 1 - b2
            in Shen et al. The curvature forgets its start after a few times 1 / rho steps.
        momentum: Decay of the averaged gradient of the means, in [0, 1).
        temperature: T > 0 of the cold posterior; 1 is the Bayesian one.
        companion: Keras optimizer of all other weights: a name, a config or an object. With `use_ema`, their moving
            averages take their place when a training ends, as in Keras.
        name: Name of the optimizer.

    Raises:
        ValueError: If a value is out of range. When training starts: if a weight has a posterior with a spread other
            than `mean_field_normal`, or if none has it (the message names them). Before a step at which beta is 0.

    Example:
        >>> import keras, numpy as np, tfp_bnn
        >>> layer = tfp_bnn.layers.DenseFlipout(3, bias_posterior="mean_field_normal")
        >>> model = tfp_bnn.VariationalSequential([keras.Input((4,)), layer], seed=0)
        >>> model.compile(tfp_bnn.NaturalGradient(learning_rate=0.1, curvature_rate=0.01))
        >>> history = model.fit(np.eye(4), np.zeros(4), epochs=2, verbose=0)
        >>> sorted(history.history)
        ['beta', 'elbo', 'kl', 'loss', 'nll']

    References:
        Shen et al. 2024, Variational Learning is Effective for Large Deep Networks, https://arxiv.org/abs/2402.17641;
        Khan and Rue 2023, The Bayesian Learning Rule, https://arxiv.org/abs/2107.04562; Lin et al. 2020, Handling the
        Positive-Definite Constraint in the Bayesian Learning Rule, https://arxiv.org/abs/2002.10060
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.02,
        curvature_rate: float | Mapping[str, Any] | keras.optimizers.schedules.LearningRateSchedule = 0.002,
        momentum: float = 0.9,
        temperature: float = 1.0,
        companion: str | Mapping[str, Any] | keras.optimizers.Optimizer = "adam",
        name: str = "natural_gradient",
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name)
        if isinstance(curvature_rate, Mapping):
            curvature_rate = keras.optimizers.schedules.deserialize(dict(curvature_rate))
        if not callable(curvature_rate) and not (is_number(curvature_rate) and 0 <= curvature_rate <= 1):
            raise ValueError(
                f"`curvature_rate` must be a number in [0, 1] or a learning-rate schedule, but got {curvature_rate!r}."
            )
        if not is_number(momentum) or not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be a number in [0, 1), but got {momentum!r}.")
        if not is_number(temperature) or not 0 < temperature < float("inf"):
            raise ValueError(f"`temperature` must be a finite number > 0, but got {temperature!r}.")
        self.curvature_rate = curvature_rate
        self.momentum = float(momentum)
        self.temperature = float(temperature)
        self.companion = keras.optimizers.get(dict(companion) if isinstance(companion, Mapping) else companion)
        self._kl_weight: Callable[[], tf.Tensor] | None = None
        self._parts = _Parts()

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
        rate = self.curvature_rate
        return {
            "learning_rate": super().get_config()["learning_rate"],
            "curvature_rate": keras.saving.serialize_keras_object(rate) if callable(rate) else rate,
            "momentum": self.momentum,
            "temperature": self.temperature,
            "companion": keras.saving.serialize_keras_object(self.companion),
            "name": self.name,
        }

    @property
    def variables(self) -> list[keras.Variable]:
        """The step, the rate and the momenta, and the variables of the companion."""
        return [*super().variables, *self.companion.variables]

    def attach(self, model: Any, kl_weight: Callable[[], tf.Tensor]) -> None:
        """Checks a variational model that is about to be trained. `fit` and `train_on_batch` call it.

        Args:
            model: A variational model.
            kl_weight: Function that returns beta / N of the current step, a float32 scalar.

        Raises:
            ValueError: If the posteriors do not fit, or beta is 0 at the first step.
        """
        specs = {
            f"{name}/{weight} ({posterior!r})": posterior
            for name, layer in named_layers(model).items()
            for weight, (posterior, _) in layer.distribution_specs.items()
            if posterior.has_spread and layer.trainable
        }
        wrong = [name for name, posterior in specs.items() if not isinstance(posterior, MeanFieldNormal)]
        if wrong:
            raise ValueError(
                f"NaturalGradient trains posteriors 'mean_field_normal', but the model has {', '.join(wrong)}. Give "
                "these weights that posterior, or use another optimizer, such as Adam."
            )
        if not specs:
            raise ValueError(
                f"NaturalGradient trains posteriors 'mean_field_normal', but no trainable weight of the model "
                f"{model.name!r} has one. Use another optimizer, such as Adam."
            )
        step = tf.constant(model.num_steps)
        self.require_beta(model.beta_schedule(step), step, model.beta_schedule)
        self._kl_weight = kl_weight

    @staticmethod
    def require_beta(beta: tf.Tensor, step: tf.Tensor, schedule: Schedule) -> list[Any]:
        """Requires that beta is above 0, because a step divides by the weight of the KL.

        Args:
            beta: Annealing weight of the KL at a step, float32 scalar.
            step: The number of the step, counted from 0; integer scalar.
            schedule: Where beta comes from, for the message.

        Returns:
            The operations to depend on, as for `core.checks.require`.

        Raises:
            ValueError: As for `core.checks.require`.
        """
        return require(
            beta > 0,
            "NaturalGradient divides by the weight of the KL, but beta is",
            beta,
            "at step",
            step,
            f"of {schedule!r}. The weights are those before this step. Use a constant beta > 0, or a schedule that is "
            "above 0 at every step, or another optimizer, such as Adam.",
        )

    @property
    def kl_weight(self) -> float | None:
        """1 / lambda of the current step, beta * temperature / N; None before training."""
        return None if self._kl_weight is None else self.temperature * float(self._kl_weight())

    def curvature_rate_of(self, step: Any) -> tf.Tensor:
        """The curvature rate of a step, a float32 scalar; steps are counted from 0."""
        return tf.cast(self.curvature_rate(step) if callable(self.curvature_rate) else self.curvature_rate, tf.float32)

    def share_of_start(self) -> float:
        """The share that the initial curvature has in the current one: the product of 1 - rho over all steps."""
        steps = tf.convert_to_tensor(self.iterations)
        if not callable(self.curvature_rate):
            return float((1 - self.curvature_rate) ** int(steps))

        @tf.function(autograph=False)
        def rates() -> tf.Tensor:
            return tf.map_fn(self.curvature_rate_of, tf.range(steps), fn_output_signature=tf.float32)

        return float(np.prod(1 - rates().numpy().astype(np.float64)))

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the momenta of the means, and the variables of the companion.

        Args:
            variables: Trainable variables of a model.
        """
        if self.built:
            return
        super().build(list(variables))
        others = []
        for index, variable in enumerate(variables):
            weight: VariationalWeight | None = getattr(variable, "posterior_of", None)
            if weight is None or not isinstance(weight.posterior_spec, MeanFieldNormal):
                others.append(variable)
                continue
            of_posterior = weight.posterior_variables
            parts = weight.posterior_spec, of_posterior["untransformed_scale"], of_posterior.get("mask")
            is_mean = variable is of_posterior["loc"]
            self._parts.by_index[index] = (
                _Mean(*parts, self.add_variable_from_reference(variable, "momentum")) if is_mean else _Scale(*parts)
            )
        self.companion.build(others)

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        """Updates the scales, then the means with the new scales, then all other variables.

        Args:
            grads: Gradients of the loss.
            trainable_variables: The variables, one for each gradient.

        Raises:
            ValueError: If there are no variables, or no model was attached, or a variable is none of those that the
                optimizer was built with.
        """
        if trainable_variables is None or self._kl_weight is None:
            raise ValueError(
                "NaturalGradient needs the variational model that it trains: use `fit` or `train_on_batch` of a model "
                "that was compiled with it."
            )
        self.build(trainable_variables)
        of_kind: dict[type | None, list[Any]] = {_Scale: [], _Mean: [], None: []}
        for pair in zip(grads, trainable_variables, strict=True):
            part = self._part_of(pair[1])
            of_kind[None if part is None else type(part)].append(pair)
        # 1 / lambda
        kl_weight = self.temperature * self._kl_weight()
        step = tf.cast(self.iterations + 1, tf.float32)
        rate = tf.cast(self.learning_rate, tf.float32) / (kl_weight * (1 - self.momentum**step))
        self._parts.step = _Step(kl_weight, self.curvature_rate_of(self.iterations), rate)
        super().apply(*zip(*of_kind[_Scale], *of_kind[_Mean], strict=True))
        self._parts.step = None
        if of_kind[None]:
            with fused_adam(self.companion):
                self.companion.apply(*zip(*of_kind[None], strict=True))

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Ends a training as the companion does: with `use_ema`, its variables become their moving averages."""
        super().finalize_variable_values(var_list)
        self.companion.finalize_variable_values([variable for variable in var_list if self._part_of(variable) is None])

    def update_step(self, gradient: Any, variable: tf.Variable, learning_rate: Any) -> None:
        """Updates the variable of a scale, or the mean of a weight.

        Args:
            gradient: Gradient of the loss for the variable.
            variable: Variable to update.
            learning_rate: Not used: it is part of what `apply` has computed for all variables.
        """
        part, step = self._parts.by_index[index_in_optimizer(self, variable)], self._parts.step
        gradient = tf.convert_to_tensor(gradient)
        # Each replica of a distribution strategy has its own.
        key = id(part.untransformed_scale), variable.device
        if not isinstance(part, _Mean):
            scale = part.posterior.scale({"untransformed_scale": variable})
            # rho * e / P. The entropy in the loss of a cold posterior has the weight T * beta / N, not beta / N.
            change = step.curvature_rate / step.kl_weight * (gradient / tf.sigmoid(variable) * scale)
            change += step.curvature_rate * (1 / self.temperature - 1)
            if part.mask is not None:
                # A pruned weight has no gradient that could balance the temperature.
                change *= part.mask
            scale *= tf.math.rsqrt(1 + change + 0.5 * change**2)
            self.assign(variable, part.posterior.untransformed_scale(scale))
            step.new_scales[key] = scale
        else:
            scale = step.new_scales.get(key)
            if scale is None:
                scale = part.posterior.scale({"untransformed_scale": part.untransformed_scale})
            momentum = self.momentum * part.momentum + (1 - self.momentum) * gradient
            self.assign(part.momentum, momentum)
            self.assign_sub(variable, step.mean_rate * scale**2 * momentum)

    def _part_of(self, variable: Any) -> _Scale | None:
        """What a variable is of a posterior; None for one of the companion."""
        try:
            return self._parts.by_index.get(index_in_optimizer(self, variable))
        except KeyError:
            raise ValueError(
                f"NaturalGradient was built without the variable {getattr(variable, 'path', variable)!r}, as before a "
                "layer became trainable. Compile the model with a new NaturalGradient."
            ) from None


@dataclass(frozen=True)
class _Scale:
    """The variable of the scales of a weight tensor, its transformation, and the mask of pruned weights, if any."""

    posterior: MeanFieldNormal
    untransformed_scale: keras.Variable
    mask: keras.Variable | None


@dataclass(frozen=True)
class _Mean(_Scale):
    """The variable of its means, with their momenta."""

    momentum: keras.Variable


@dataclass(frozen=True)
class _Step:
    """What one step computes once for all weights.

    Attributes:
        kl_weight: 1 / lambda, float32 scalar.
        curvature_rate: Rate of the precisions, float32 scalar.
        mean_rate: Rate of the means times lambda, without the bias of the first momenta, float32 scalar.
        new_scales: Scales that the step has updated, for the means.
    """

    kl_weight: tf.Tensor
    curvature_rate: tf.Tensor
    mean_rate: tf.Tensor
    new_scales: dict[tuple[int, str], tf.Tensor] = field(default_factory=dict)


class _Parts:
    """The parts of posteriors by the index of their variable. Keras would count the variables in a dict as ours."""

    def __init__(self) -> None:
        self.by_index: dict[int, _Scale] = {}
        # While `apply` runs.
        self.step: Any = None
