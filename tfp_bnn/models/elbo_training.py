"""Training and evaluation on the ELBO: what a variational model changes in the Keras trainer."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.arguments import require_integer
from tfp_bnn.core.batches import as_arrays
from tfp_bnn.core.checks import (
    assert_finite,
    assert_gradients_finite,
    assert_weights,
    invalid_arguments_as_value_errors,
)
from tfp_bnn.core.layer_tree import recurrent_states
from tfp_bnn.core.step_guard import StepGuard
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.models.data_checks import check_outputs, is_arrays
from tfp_bnn.models.draws_of_step import DrawsOfStep, OneDraw, mean_over_draws, mean_prediction
from tfp_bnn.models.example_count import count_examples, repeats
from tfp_bnn.models.fit_callbacks import tell_direction, with_row_check
from tfp_bnn.models.likelihood_checks import check_class_weight, choose_metrics
from tfp_bnn.models.one_draw import warn_of_one_draw
from tfp_bnn.models.preparation import (
    attach_optimizer,
    beta_of_step,
    build_before_tracing,
    check_setup,
    forget_calibration,
    renew_step,
    set_num_examples,
)
from tfp_bnn.models.step_count import StepCount
from tfp_bnn.variational.elbo import mean_over_rows, training_loss
from tfp_bnn.variational.fused_adam import fused_adam
from tfp_bnn.variational.objectives import OBJECTIVES, Objective, StepTerms
from tfp_bnn.variational.schedules import SCHEDULES, Schedule


class ElboTraining:
    """`fit`, `evaluate` and their steps. A base of `VariationalMixin`, which provides the attributes they need."""

    likelihood: Likelihood
    likelihood_weights: dict[str, keras.Variable]
    _num_examples: keras.Variable
    _beta: keras.Variable
    _trackers: dict[str, keras.metrics.Mean]
    _step_guard: StepGuard
    _step_count: StepCount
    trainable_weights: list[keras.Variable]
    non_trainable_weights: list[keras.Variable]
    train_function: Any
    test_function: Any
    num_examples: Any
    kl: Callable[[], tf.Tensor]
    _draw: Callable[..., AbstractContextManager[None]]
    _check_examples: Callable[[Any, Any], None]

    @property
    def beta_schedule(self) -> Schedule:
        """The schedule of beta. Can be changed at any time: a name, a config or an object."""
        return self._beta_schedule

    @beta_schedule.setter
    def beta_schedule(self, value: str | Mapping[str, Any] | Schedule) -> None:
        self._beta_schedule = SCHEDULES.get(value)
        self._forget_step()

    @property
    def objective(self) -> Objective:
        """What training minimizes. Can be changed at any time: a name, a config or an object."""
        return self._objective

    @objective.setter
    def objective(self, value: str | Mapping[str, Any] | Objective) -> None:
        self._objective = OBJECTIVES.get(value)
        self._forget_step()

    @property
    def num_draws(self) -> int:
        """The number of draws of all weights and masks in each training step. Can be changed at any time."""
        return self._num_draws

    @num_draws.setter
    def num_draws(self, value: int) -> None:
        self._num_draws = require_integer("num_draws", value, 1)
        self._forget_step()

    @property
    def optimizer(self) -> Any:
        """The optimizer that `compile` was given. A new one goes on where the schedule of beta was."""
        if "optimizer" not in vars(self):
            raise AttributeError("The model is not compiled, and has no optimizer. Call `compile` first.")
        return vars(self)["optimizer"]

    @optimizer.setter
    def optimizer(self, value: Any) -> None:
        self._step_count.replace(vars(self).get("optimizer"), value)
        # Under its own name, because Keras saves what it finds under the names of attributes.
        vars(self)["optimizer"] = value

    @property
    def num_steps(self) -> int:
        """The number of training steps so far, by any optimizer, which the schedule of beta counts.

        Saved with the model. Set it to 0 to start a warm-up of beta again.
        """
        return self._step_count.total(vars(self).get("optimizer"))

    @num_steps.setter
    def num_steps(self, value: int) -> None:
        self._step_count.set_total(require_integer("num_steps", value, 0), vars(self).get("optimizer"))

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, num_examples: int | None = None, **kwargs: Any
    ) -> keras.callbacks.History:
        """Trains the model as `keras.Model.fit` does, but finds N and checks arrays before the first step.

        An existing calibration belongs to the old posterior. It is set to None, with a warning.

        Args:
            x: As in Keras, and nested lists and pandas frames with nullable columns.
            y: As in Keras.
            *args: As in Keras.
            num_examples: N, if it cannot be counted: for generators and for pipelines with a filter; see
                `tfp_bnn.models.example_count`.
            **kwargs: As in Keras.

        Returns:
            The history, as in Keras, with `loss`, `nll`, `kl`, `elbo` and `beta` in addition to the metrics.

        Raises:
            ValueError: If N is not known; if the data are empty, have the wrong input shape, NaN, labels out of range
                or negative sample weights; or if the model was compiled with a loss, or has a layer with `kl_weight`.
        """
        arguments = inspect.signature(keras.Model.fit).bind(self, x, y, *args, **kwargs).arguments
        check_setup(self)
        for name in ("x", "y", "sample_weight"):
            arguments[name] = as_arrays(arguments.get(name), name)
        x, y = arguments["x"], arguments["y"]
        if is_arrays(x):
            self._check_examples(x, y)
        validation_data = arguments.get("validation_data")
        if isinstance(validation_data, list | tuple):
            validation_data = tuple(as_arrays(part, "validation_data") for part in validation_data)
            arguments["validation_data"] = validation_data
            if is_arrays(validation_data[0]):
                self._check_examples(*[*validation_data, None][:2])
        # As in Keras, explicit validation data override the split.
        split = arguments.get("validation_split") or 0.0 if validation_data is None else 0.0
        counted = count_examples(x, split)
        set_num_examples(self, counted, num_examples)
        attach_optimizer(self)
        callbacks = arguments.get("callbacks")
        tell_direction(callbacks)
        if not is_arrays(x) and not repeats(x) and arguments.get("steps_per_epoch") is None:
            arguments["callbacks"] = with_row_check(callbacks)
        check_class_weight(self, y, arguments.get("class_weight"))
        del arguments["self"]
        forget_calibration(self)
        renew_step(self, "train", x, y)
        build_before_tracing(self, x, y, arguments.get("sample_weight"))
        with invalid_arguments_as_value_errors():
            return super().fit(**arguments)  # type: ignore[misc]

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluates the model as `keras.Model.evaluate` does: `loss`, `nll`, `kl`, `elbo`, `beta` (1) and the metrics.

        Each batch uses one weight draw. N is that of the last training. A model that was never trained reports `elbo`
        and `loss` as NaN, with a warning.

        Raises:
            ValueError: If the data are empty, have the wrong input shape, NaN or labels out of range; or if the model
                was compiled with a loss or has a layer with `kl_weight`.
        """
        check_setup(self)
        x, y = as_arrays(x), as_arrays(y, "y")
        if is_arrays(x):
            self._check_examples(x, y)
        renew_step(self, "test", x, y)
        if self.num_examples is None:
            warnings.warn(
                "The model was never fitted, so N, the number of training examples, is not known: `elbo` and "
                "`loss` are NaN. Set `model.num_examples`.",
                stacklevel=2,
            )
        with invalid_arguments_as_value_errors():
            return super().evaluate(x, y, *args, **kwargs)  # type: ignore[misc]

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """The raw outputs, such as logits, as `keras.Model.predict` gives them: under one weight draw for each batch.

        They are no average over the posterior, no probabilities, and other numbers in each call. For predictions use
        `predict_mean`, or `posterior_predictive` to know how uncertain they are. The first call of a process warns of
        this with a `OneDrawWarning`, unless the model has no randomness.
        """
        warn_of_one_draw(self)
        return super().predict(as_arrays(x), *args, **kwargs)  # type: ignore[misc]

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Trains on one batch as `keras.Model.train_on_batch` does. Set `model.num_examples` to N first.

        Raises:
            ValueError: If N is not known, or the data are not valid, as in `fit`.
        """
        check_setup(self)
        set_num_examples(self, None, self.num_examples)
        attach_optimizer(self)
        x, y = as_arrays(x), as_arrays(y, "y")
        self._check_examples(x, y)
        check_class_weight(self, y, class_weight)
        forget_calibration(self)
        renew_step(self, "train", x, y)
        build_before_tracing(self, x, y, sample_weight)
        with invalid_arguments_as_value_errors():
            return super().train_on_batch(  # type: ignore[misc]
                x, y, sample_weight=sample_weight, class_weight=class_weight, return_dict=return_dict
            )

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluates one batch as `keras.Model.test_on_batch` does.

        Raises:
            ValueError: If the data are not valid or the model has a loss, as in `evaluate`.
        """
        check_setup(self)
        x, y = as_arrays(x), as_arrays(y, "y")
        self._check_examples(x, y)
        renew_step(self, "test", x, y)
        with invalid_arguments_as_value_errors():
            return super().test_on_batch(x, y, *args, **kwargs)  # type: ignore[misc]

    def make_train_function(self, force: bool = False) -> Any:
        """Compiles the training step as Keras does. The result raises a ValueError for a step that was refused."""
        made = self.train_function
        self._step_count.settle(vars(self).get("optimizer"))
        super().make_train_function(force)  # type: ignore[misc]
        if self.train_function is not made:
            self.train_function = self._step_guard.watch(self.train_function)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Compiles the step of `evaluate` as Keras does. The result raises a ValueError for a batch it refused."""
        made = self.test_function
        super().make_test_function(force)  # type: ignore[misc]
        if self.test_function is not made:
            self.test_function = self._step_guard.watch(self.test_function)
        return self.test_function

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on one batch, under `num_draws` draws, each of which the outputs and the KL share.

        The step of Keras, except that a batch is refused if inputs, targets, terms of the ELBO or gradients are not
        finite. All weights then stay as they were, including the statistics of normalization layers, and so do the
        states of recurrent layers.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        before = self._step_guard.values_of([*self.non_trainable_weights, *recurrent_states(self)])
        with self._step_guard.collect() as checks:
            with self._draw(training=True):
                with tf.GradientTape() as tape:
                    y_pred = self(x, training=True)  # type: ignore[operator]
                    if self.num_draws > 1:
                        y_pred = self._with_more_draws(x, y_pred)
                    loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
                    scaled = self.optimizer.scale_loss(loss)
                weights = self.trainable_weights
                if not weights:
                    warnings.warn("The model does not have any trainable weights.", stacklevel=2)
                gradients = tape.gradient(scaled, weights)
                assertions: list[Any] = []
                # With a scaled loss, gradients overflow now and then: the optimizer leaves these out and scales less.
                if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
                    assertions = assert_gradients_finite(gradients)
            # Keras lists the metric of the loss first. A distribution strategy sums losses, but averages metrics.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            (loss_metric, *_) = self.metrics  # type: ignore[attr-defined]
            loss_metric.update_state(loss * replicas, sample_weight=tf.shape(keras.tree.flatten(x)[0])[0])
            # Metrics check what they get, too.
            logs = self.compute_metrics(x, y, y_pred, sample_weight)
        if weights and not self.optimizer.built:
            # Not within the branch that applies the gradients.
            self.optimizer.build(weights)
        with tf.control_dependencies(assertions):
            self._step_guard.decide(checks, self._apply_gradients, gradients, before)
        return logs

    def _forget_step(self) -> None:
        """Lets the next step be made again, because the one that was traced has a former setting."""
        if getattr(self, "train_function", None) is not None:
            # A callback may come here, and `fit` calls what it finds under this name.
            self.train_function = lambda iterator: self.make_train_function(force=True)(iterator)

    def _with_more_draws(self, x: Any, outputs: Any) -> DrawsOfStep:
        draws = DrawsOfStep([self._one_draw(outputs, training=True)])
        for _ in range(self.num_draws - 1):
            with self._draw(training=True):
                draws.append(self._one_draw(self(x, training=True), training=True))  # type: ignore[operator]
        return draws

    def _one_draw(self, outputs: Any, training: bool) -> OneDraw:
        """The outputs under the draw that is open, with its terms of the loss."""
        check_outputs(outputs, self.likelihood)
        ratio = None
        if training and self.objective.weighs_draws:
            layers = self.variational_layers  # type: ignore[attr-defined]
            ratio = tf.add_n([tf.constant(0.0), *(layer.log_ratio() for layer in layers)])
        # Keras forgets the losses of a call at the next one.
        losses = [tf.cast(tf.reduce_sum(loss), tf.float32) for loss in self.losses]  # type: ignore[attr-defined]
        return OneDraw(outputs, self.kl(), ratio, losses)

    def _apply_gradients(self, *gradients: Any) -> None:
        if gradients:
            with fused_adam(self.optimizer):
                self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))

    def test_step(self, data: Any) -> dict[str, Any]:
        """One batch of `evaluate`, under one draw that the outputs and the KL share."""
        before = self._step_guard.values_of(recurrent_states(self))
        with self._draw(training=False), self._step_guard.collect() as checks:
            logs = super().test_step(data)  # type: ignore[misc]
        self._step_guard.decide(checks, before=before)
        return logs

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> tf.Tensor:
        """The loss in nats per example: nll + beta * kl / N + regularizers, unless another objective is trained.

        beta is 1 unless training. `y_pred` are the raw outputs, or a `DrawsOfStep` if the step has several draws.
        """
        draws = y_pred if isinstance(y_pred, DrawsOfStep) else [self._one_draw(y_pred, training)]
        if y is None:
            raise ValueError(
                "Targets are missing: a Bayesian model is trained and evaluated on pairs. Pass `y`, or a dataset of "
                "(x, y)."
            )
        known = self.likelihood.without_missing(y)
        checks = *assert_finite(x, "inputs"), *assert_finite(known, "targets"), *assert_weights(sample_weight)
        with tf.control_dependencies(checks):
            log_prob = [
                self.likelihood.log_likelihood(y, draw.outputs, self.likelihood_weights, sample_weight)
                for draw in draws
            ]
        nll = -mean_over_rows(mean_over_draws(log_prob))
        kl = mean_over_draws([draw.kl for draw in draws])
        beta = tf.constant(1.0)
        if training:
            beta = beta_of_step(self, self._step_count(self.optimizer))
            self._beta.assign(beta)
        num_examples = tf.convert_to_tensor(self._num_examples)
        kl_per_example = kl / num_examples
        values = {"nll": nll, "kl": kl, "elbo": -(nll + kl_per_example), "beta": beta}
        for name, value in values.items():
            self._trackers[name].update_state(value, sample_weight=tf.shape(log_prob[0])[0])
        regularizers = [mean_over_draws(of_one) for of_one in zip(*(draw.regularizers for draw in draws), strict=True)]
        if training:
            ratios = [draw.log_ratio for draw in draws if draw.log_ratio is not None]
            step = StepTerms(log_prob, ratios, nll, beta * kl_per_example, beta, num_examples)
            loss = training_loss([*self.objective(step), *regularizers], nll, kl, log_prob)
        else:
            loss = tf.add_n([nll, kl_per_example, *regularizers])
        # The gradients of the replicas of a distribution strategy are summed.
        return loss / tf.distribute.get_strategy().num_replicas_in_sync

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Updates the metrics with probabilities or means, one row for each position; their mean over several draws."""
        of_draws = [draw.outputs for draw in y_pred] if isinstance(y_pred, DrawsOfStep) else [y_pred]
        rows, predictions, weights = zip(
            *(self.likelihood.metric_rows(y, out, self.likelihood_weights, sample_weight) for out in of_draws),
            strict=True,
        )
        choose_metrics(self, of_draws[0])
        return super().compute_metrics(x, rows[0], mean_prediction(predictions), weights[0])  # type: ignore[misc]
