"""The mixin that makes a Keras model Bayesian: training on the evidence lower bound (ELBO), and the predictive."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.arguments import is_integer, require_integer
from tfp_bnn.core.expected_inputs import ExpectedInputs
from tfp_bnn.core.layer_tree import OnlyExportedByItself, sublayers
from tfp_bnn.core.noise import NoiseStreams, in_noise_scope, noise_scope
from tfp_bnn.core.step_guard import StepGuard
from tfp_bnn.layers.base import VariationalLayer
from tfp_bnn.layers.stochastic import StochasticLayer
from tfp_bnn.likelihoods import LIKELIHOODS, Likelihood
from tfp_bnn.models.data_checks import check_examples, check_input_names, check_inputs, example_shape
from tfp_bnn.models.derived_state import compiled_with_derived_state
from tfp_bnn.models.elbo_training import ElboTraining
from tfp_bnn.models.finite_weights import refuse_non_finite_weights
from tfp_bnn.models.predictive_model import PredictiveModel
from tfp_bnn.models.preparation import NEGATIVE_ELBO
from tfp_bnn.models.saving import SEED_GENERATORS, load_seed_generators, save_seed_generators
from tfp_bnn.models.step_count import StepCount
from tfp_bnn.models.summary import one_line, print_bayesian_summary
from tfp_bnn.models.variational_draws import VariationalDraws
from tfp_bnn.predictive.calibrators import Calibration
from tfp_bnn.predictive.conformal import Conformal
from tfp_bnn.priors.shared_scales import SharedPrior, bind_shared_priors
from tfp_bnn.variational.kl import kl_by_layer
from tfp_bnn.variational.objectives import OBJECTIVES, Objective
from tfp_bnn.variational.schedules import SCHEDULES, Schedule

_NOT_SAVED = "It is not saved."


class VariationalMixin(OnlyExportedByItself, VariationalDraws, PredictiveModel, ElboTraining):
    """Trains a Keras model of Bayesian layers on the ELBO. List it before `keras.Model` when subclassing.

        loss = nll + beta * kl / N + regularizers of the user

    `nll` is the expected negative log-likelihood, estimated with `num_draws` draws of the weights, in nats per example;
    `kl` is KL(posterior || prior) of all Bayesian layers, in nats, summed over weights; N is the number of training
    examples; `beta` is the annealing weight. `elbo = -(nll + kl / N)`, in nats per example, is always at beta = 1, as
    are all losses in validation. `fit` and `evaluate` report `loss`, `nll`, `kl`, `elbo` and `beta` in addition to the
    metrics of `compile`, which receive probabilities or means, never logits. Compile without a loss.

    `sample_weight` multiplies the log-likelihood of an example, position or target, and `class_weight` that of a class.
    N still counts examples.

    The outputs may have positions, such as pixels or time steps: `(batch, *positions, channels)`. The NLL of an example
    is the sum over its positions, N counts examples and not positions, and metrics receive one row for each position.

    `model(x)`, `predict`, `evaluate` and validation take one draw of the weights for each batch, whatever `num_draws`
    is: raw outputs, such as logits. For predictions use `predict_mean`, or `posterior_predictive`, which also knows how
    uncertain they are.

    With `num_draws=K`, a training step makes K forward passes with independent weights and masks, and takes K times as
    long. `nll` and `kl` are means over the draws, also where the KL has no closed form. Metrics receive the mean of the
    K predictions. Statistics of normalization layers move K times, once with each pass. Another `objective` changes
    `loss` in training only: `nll`, `kl`, `elbo` and all losses of evaluation are still those of the ELBO.

    Noise is counter-based, from (seed, call, layer, replica), with one stream for training and another for evaluation.
    N, beta, the state of the noise and that of the seed generators of all layers, such as dropout, are saved with the
    model, so training resumes as if it had never stopped.

    Args:
        likelihood: Distribution of the targets: a name, a config or an object of `tfp_bnn.likelihoods`. For several
            outputs, a dict or list of them, with the structure of the outputs; see `tfp_bnn.likelihoods.Joint`.
        beta_schedule: Schedule of beta by training step: a name, a config or an object of `tfp_bnn.schedules`. It
            counts the steps of the model, `num_steps`, which neither `compile` nor `tfp_bnn.transfer.update` resets;
            set `num_steps = 0` to start a warm-up again.
        objective: What training minimizes: `"elbo"`, `"pac_m"` or `"importance_weighted"`, or a config or an object of
            `tfp_bnn.objectives`. See the classes there for what each is a bound of.
        num_draws: Number of independent draws of all weights and masks in each training step, K >= 1; 1 for layers
            with `stateful=True`. Default: 1.
        num_examples: N, for data whose number of examples cannot be counted. `fit` counts arrays and simple `tf.data`
            pipelines itself, and the count wins.
        seed: Integer that determines all noise of training and evaluation; None draws one from Keras' global seed.
        calibration: Calibration of the posterior predictive: a name, a config or an object of `tfp_bnn.calibration`, or
            None. It is usually fitted and set by `tfp_bnn.calibrate` after training.
        conformal: Conformal prediction: a config or an object of `tfp_bnn.calibration`, or None. It is usually fitted
            and set by `tfp_bnn.conformalize` after training.
        class_names: One name per class or label, for the tables and figures of predictions, or None.
        target_units: One unit per target that is a number, for the same, or None.
        inputs_expected: A `tfp_bnn.ExpectedInputs` or its config, or None; see `PredictiveModel`.
        architecture: What the model was built from, as an object that Keras can serialize, or its config. Models of the
            zoo have one; None for a model of your own.

    Raises:
        ValueError: If the outputs do not fit the likelihood, if there is a layer with `kl_weight`, an unknown name or a
            value out of range.

    References:
        Blundell et al. 2015, https://arxiv.org/abs/1505.05424; Graves 2011, Practical Variational Inference for Neural
        Networks
    """

    _architecture: Any = None

    def __init__(
        self,
        *args: Any,
        likelihood: str | Mapping[str, Any] | Likelihood | Sequence[Any] = "categorical",
        beta_schedule: str | Mapping[str, Any] | Schedule = "constant",
        objective: str | Mapping[str, Any] | Objective = "elbo",
        num_draws: int = 1,
        num_examples: int | None = None,
        seed: int | None = None,
        calibration: str | Mapping[str, Any] | Calibration | None = None,
        conformal: Mapping[str, Any] | Conformal | None = None,
        class_names: Sequence[str] | None = None,
        target_units: Sequence[str] | None = None,
        inputs_expected: Mapping[str, Any] | ExpectedInputs | None = None,
        architecture: Any = None,
        **kwargs: Any,
    ) -> None:
        likelihood = LIKELIHOODS.get(likelihood)
        objective, beta_schedule = OBJECTIVES.get(objective), SCHEDULES.get(beta_schedule)
        num_draws = require_integer("num_draws", num_draws, 1)
        noise_streams = NoiseStreams(seed)
        super().__init__(*args, **kwargs)
        self._likelihood = likelihood
        self.calibration, self.conformal = calibration, conformal
        self.class_names, self.target_units = class_names, target_units
        if not isinstance(inputs_expected, ExpectedInputs | None):
            inputs_expected = ExpectedInputs.from_config(inputs_expected)
        self.inputs_expected = inputs_expected
        self.architecture = architecture
        self.beta_schedule = beta_schedule
        self.objective, self.num_draws = objective, num_draws
        self.seed = None if seed is None else int(seed)
        self._noise_streams = noise_streams
        self.likelihood_weights = likelihood.add_weights(self._add_float32_weight)
        self._num_examples = self._add_state("num_examples", math.nan)
        self._beta = self._add_state("beta", math.nan)
        self._declared_num_examples = num_examples
        if num_examples is not None:
            self.num_examples = num_examples
        self._trackers = {name: keras.metrics.Mean(name=name) for name in ("nll", "kl", "elbo", "beta")}
        self._step_guard = StepGuard()
        self._step_count = StepCount()
        self._shared_priors: dict[str, SharedPrior] = {}

    # === What the model knows ===

    @property
    def likelihood(self) -> Likelihood:
        """The distribution of the targets, that of the model for good, because its weights are weights of the model."""
        return self._likelihood

    @likelihood.setter
    def likelihood(self, value: Any) -> None:
        raise AttributeError(
            f"The likelihood of a model cannot be changed. Make a new model: {type(self).__name__}.from_config("
            "{**model.get_config(), 'likelihood': ...})."
        )

    @property
    def num_examples(self) -> int | None:
        """N, the number of training examples that divides the KL; None if it is not known yet."""
        value = float(np.asarray(self._num_examples))
        return None if math.isnan(value) else int(value)

    @num_examples.setter
    def num_examples(self, value: int) -> None:
        if not is_integer(value) or value < 1:
            raise ValueError(
                f"`num_examples` must be an integer >= 1, but got {value!r}. It is the number of examples in the "
                "training set."
            )
        self._num_examples.assign(float(value))

    @property
    def architecture(self) -> Any:
        """What the model was built from; None for a model of your own. It is part of the config of the model.

        A model can be loaded without the package of this object. It is the config of the object then, until that
        package is imported.
        """
        found = self._architecture
        if isinstance(found, MappingProxyType) and keras.saving.get_registered_object(found.get("registered_name")):
            self._architecture = keras.saving.deserialize_keras_object(dict(found))
        return self._architecture

    @architecture.setter
    def architecture(self, value: Any) -> None:
        # Keras would track a plain dictionary.
        self._architecture = MappingProxyType(value) if isinstance(value, dict) else value

    @property
    def loss(self) -> Any:
        """What is minimized, `"negative_elbo"`; or what `compile` was given, which `fit` refuses.

        It is not None, because Keras' wrappers for scikit-learn only take models that have a loss.
        """
        return NEGATIVE_ELBO if self._given_loss is None else self._given_loss

    @loss.setter
    def loss(self, value: Any) -> None:
        self._given_loss = value

    @property
    def beta(self) -> float:
        """The annealing weight of the last training step; NaN before the first."""
        return float(np.asarray(self._beta))

    @property
    def rows_seen(self) -> int:
        """The number of examples that the current or last epoch of training or evaluation has seen."""
        return int(tf.convert_to_tensor(self._trackers["nll"].count))

    @property
    def variational_layers(self) -> list[VariationalLayer]:
        """The Bayesian layers, each once, nested models included."""
        return [layer for layer in sublayers(self) if isinstance(layer, VariationalLayer)]

    @property
    def stochastic_layers(self) -> list[StochasticLayer]:
        """The layers with randomness, such as the Bayesian ones and `MCDropout`, each once."""
        return [layer for layer in sublayers(self) if isinstance(layer, StochasticLayer)]

    @property
    def shared_priors(self) -> Mapping[str, SharedPrior]:
        """The priors that layers share, by name. The model owns the variables of their scales."""
        return MappingProxyType(self._shared_priors)

    @property
    def noise_variables(self) -> dict[str, keras.Variable]:
        """The counters of the noise of training and of evaluation, by name."""
        return self._noise_streams.variables

    @property
    def _state_variables(self) -> list[keras.Variable]:
        """The variables that belong to the model, but not to its network."""
        of_priors = (variable for prior in self._shared_priors.values() for variable in prior.weights.values())
        return [self._num_examples, self._beta, *self.likelihood_weights.values(), *of_priors]

    def kl(self) -> tf.Tensor:
        """KL(posterior || prior) in nats, summed over all Bayesian layers, unscaled; float32 scalar.

        A layer that is used twice counts once, and so does the KL of a prior scale that layers share. If the divergence
        has no closed form, this is an estimate from one draw.
        """
        return tf.add_n([*self.kl_by_layer().values(), tf.constant(0.0)])

    def kl_by_layer(self) -> dict[str, tf.Tensor]:
        """The terms of `kl` in nats: one for each Bayesian layer, by its name (`name#2` and so on where names repeat).

        The KL(q(s) || p(s)) of an inferred prior scale s is a separate term: `prior/<name>` for a scale shared under a
        name, `prior/<layer>/<weight>` for one that belongs to a single weight.
        """
        return kl_by_layer(self, self._shared_priors, lambda: self._noise_streams.next(training=False))

    # === Calls ===

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The raw outputs under one draw of the weights, shared by all uses of a layer."""
        # Here too, because the batches of a stream come to nothing else in training.
        check_input_names(args[0] if args else kwargs.get("inputs"), self._known_inputs())
        symbolic = any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten((args, kwargs)))
        if in_noise_scope() or symbolic:
            outputs = super().__call__(*args, **kwargs)  # type: ignore[misc]
        else:
            with self._draw(training=bool(kwargs.get("training"))):
                outputs = super().__call__(*args, **kwargs)  # type: ignore[misc]
        # Some layers are only built by the first call.
        self._bind_shared_priors()
        return outputs

    def __repr__(self) -> str:
        return one_line(self)

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Prints the layers, as `keras.Model.summary` does, and a table of the Bayesian weights."""
        super().summary(*args, **kwargs)  # type: ignore[misc]
        print_bayesian_summary(self, kwargs.get("print_fn"))

    # === Saving ===

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the model as `keras.Model.save` does, in the `.keras` format.

        Raises:
            ValueError: For a file in the older HDF5 format, which cannot hold the posterior and could not be loaded; or
                if weights are NaN or infinite. A file that exists is not touched then.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                f"The HDF5 format of {filepath} cannot hold a Bayesian model. Use '{Path(filepath).stem}.keras', "
                f"or its weights alone with model.save_weights('{Path(filepath).stem}.weights.h5')."
            )
        refuse_non_finite_weights(self, _NOT_SAVED)
        super().save(filepath, *args, **kwargs)  # type: ignore[misc]

    def get_config(self) -> dict[str, Any]:
        """The config of the network and the arguments of the model."""
        built = self.architecture
        config = {
            **super().get_config(),  # type: ignore[misc]
            "likelihood": keras.saving.serialize_keras_object(self.likelihood),
            "beta_schedule": keras.saving.serialize_keras_object(self.beta_schedule),
            "objective": keras.saving.serialize_keras_object(self.objective),
            "num_draws": self.num_draws,
            "num_examples": self._declared_num_examples,
            "seed": self.seed,
            "calibration": keras.saving.serialize_keras_object(self.calibration),
            "conformal": keras.saving.serialize_keras_object(self.conformal),
            "class_names": self.class_names,
            "target_units": self.target_units,
            "inputs_expected": None if self.inputs_expected is None else self.inputs_expected.get_config(),
        }
        if built is not None:
            is_config = isinstance(built, MappingProxyType)
            config["architecture"] = dict(built) if is_config else keras.saving.serialize_keras_object(built)
        return config

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Creates the weights that a file has values for, including those of shared priors."""
        super().build_from_config(config)  # type: ignore[misc]
        self._bind_shared_priors()

    def save_weights(self, *args: Any, **kwargs: Any) -> None:
        """Saves the weights as Keras does.

        Raises:
            ValueError: As for `save`.
        """
        refuse_non_finite_weights(self, _NOT_SAVED)
        super().save_weights(*args, **kwargs)  # type: ignore[misc]

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        """Loads weights as Keras does."""
        with compiled_with_derived_state(self):
            super().load_weights(*args, **kwargs)  # type: ignore[misc]

    def save_own_variables(self, store: Any) -> None:
        """Saves N, beta, the parameters of the likelihood, the number of steps and the state of all noise."""
        # `keras.saving.save_model` comes here directly; its file is then incomplete, and cannot be loaded.
        refuse_non_finite_weights(self, _NOT_SAVED)
        super().save_own_variables(store)  # type: ignore[misc]
        self._noise_streams.save(store)
        self._step_count.save(store, vars(self).get("optimizer"))
        save_seed_generators(self, store)

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` saved."""
        self._step_count.load(store)
        self._noise_streams.load(store)
        load_seed_generators(self, store)
        own = {*NoiseStreams.keys, StepCount.key, SEED_GENERATORS}
        super().load_own_variables({key: store[key] for key in store.keys() if key not in own})  # type: ignore[misc]

    # === Internals ===

    @contextlib.contextmanager
    def _draw(self, training: bool) -> Iterator[None]:
        with noise_scope(self._noise_of_layers(self._noise_streams.next(training))):
            yield

    def _bind_shared_priors(self) -> None:
        bind_shared_priors(self, self._shared_priors)

    def _add_float32_weight(self, **kwargs: Any) -> keras.Variable:
        return self.add_weight(dtype="float32", autocast=False, **kwargs)  # type: ignore[attr-defined]

    def _add_state(self, name: str, value: float) -> keras.Variable:
        start = keras.initializers.Constant(value)
        return self._add_float32_weight(
            name=name, shape=(), initializer=start, trainable=False, aggregation="only_first_replica"
        )

    def _known_inputs(self) -> Any:
        """The symbolic inputs in their structure, or None."""
        return None if getattr(self, "inputs", None) is None else getattr(self, "input", None)

    def _known_input_shape(self) -> tuple[int | None, ...] | None:
        inputs = getattr(self, "inputs", None)
        return (None, *inputs[0].shape[1:]) if inputs is not None and len(inputs) == 1 else None

    def _check_inputs(self, x: Any) -> None:
        check_input_names(x, self._known_inputs())
        check_inputs(x, self._known_input_shape())

    def _check_examples(self, x: Any, y: Any) -> None:
        check_input_names(x, self._known_inputs())
        check_examples(x, y, self.likelihood, self._known_input_shape(), example_shape(self))

    def _check_weights(self) -> None:
        refuse_non_finite_weights(self, "It cannot predict.")
