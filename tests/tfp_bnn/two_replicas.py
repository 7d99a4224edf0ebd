"""Trains models on two replicas, on two logical CPUs, and stores the results. Run as a script.

The devices must be created before TensorFlow starts, so this needs a separate process. The first argument is the path
of the pickle to write.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

X = np.random.default_rng(0).normal(size=(33, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
SHARED = {"name": "normal", "hyperprior": "half_cauchy", "shared": "all"}
MIXTURE = {"name": "scale_mixture", "scale_1": 2.0, "scale_2": 0.3}
# Priors by what their KL asks of the noise: nothing, the weights, the scale, a scale that two layers share.
KINDS = {
    "closed form": {"name": "normal", "scale": 0.5},
    "estimated": MIXTURE,
    "inferred": {"name": "normal", "hyperprior": "inverse_gamma"},
    "shared": SHARED,
    "shared and estimated": {**MIXTURE, "hyperprior": "log_normal", "shared": "all"},
}
# A mixture of equals is a normal to which TFP registers no KL: the estimate is a known function of the draw.
EQUALS = {"name": "scale_mixture", "scale_1": 2.0, "scale_2": 2.0}
STEPS = 300


def main(path: Path) -> None:
    """All measurements, each under its name."""
    import keras
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    keras.utils.set_random_seed(0)
    found = {
        "trained": _trained(strategy, path.with_suffix(".keras")),
        "refused": _refused(strategy),
        "drawn": _drawn(strategy),
        "grouped": _grouped(strategy),
        "masks": _masks(strategy),
        "steps": {kind: _step_of_the_kl(strategy, prior) for kind, prior in KINDS.items()},
        "without noise": [_without_noise(strategy), _without_noise(None), _without_noise(strategy, num_draws=2)],
        "parts of the data": _parts_of_the_data(strategy),
        "natural gradient": [_by_natural_gradient(strategy), _by_natural_gradient(None)],
        "many steps": _many_steps(strategy),
    }
    path.write_bytes(pickle.dumps(found))


def _model(strategy: Any, layers: list[Any], learning_rate: float, eagerly: bool, **kwargs: Any) -> Any:
    """A compiled stack; without a strategy that of one replica."""
    import keras
    import tensorflow as tf

    import tfp_bnn

    with strategy.scope() if strategy else tf.distribute.get_strategy().scope():
        model = tfp_bnn.VariationalSequential(layers, seed=0, **kwargs)
        metrics = ["accuracy"] if model.likelihood.task == "classification" else []
        model.compile(keras.optimizers.SGD(learning_rate), metrics=metrics, run_eagerly=eagerly)
    return model


def _two_layers(layer_class: Any, **kwargs: Any) -> list[Any]:
    import keras

    return [keras.Input((4,)), layer_class(8, activation="relu", **kwargs), layer_class(2, **kwargs)]


def _value(variable: Any) -> np.ndarray:
    import keras

    return keras.ops.convert_to_numpy(variable).copy()


def _copies(variable: Any) -> list[np.ndarray]:
    """The value in each replica."""
    return [copy.numpy() for copy in variable.value.values]


def _trained(strategy: Any, path: Path) -> dict[str, Any]:
    """Runs compiled `fit` and `evaluate`. The last batch has one row, so one replica has none."""
    import keras
    import tensorflow as tf

    from tfp_bnn.layers import DenseFlipout

    bias = {
        "bias_posterior": "mean_field_normal",
        "bias_prior": MIXTURE,
        "kernel_regularizer": keras.regularizers.L2(1e-2),
    }
    layers = _two_layers(DenseFlipout, kernel_prior=SHARED, **bias)
    beta = {"name": "constant", "beta": 0.3}
    model = _model(strategy, layers, learning_rate=0.05, eagerly=False, beta_schedule=beta)
    at_start = [_value(variable) for variable in model.trainable_variables]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
        history = model.fit(batches, epochs=3, verbose=0, validation_data=(X[:20], Y[:20])).history
    found = {
        "history": history,
        "warnings": [str(warning.message) for warning in caught],
        "num_examples": model.num_examples,
        "beta": model.beta,
        "evaluated": model.evaluate(X, Y, batch_size=16, return_dict=True, verbose=0),
        "rows_seen": model.rows_seen,
        "penalty": float(sum(1e-2 * np.sum(np.square(layer.kernel)) for layer in model.layers)),
        "moved": [bool(np.any(_value(v) != s)) for v, s in zip(model.trainable_variables, at_start, strict=True)],
        "copies": {v.path: _copies(v) for v in (*model.variables, *model.noise_variables.values())},
        "of_model": [v.path for v in model.shared_priors["all"].weights.values()],
        "variables": [v.path for v in model.variables],
        "kl_by_layer": {name: float(kl) for name, kl in model.kl_by_layer().items()},
        "predicted": model.posterior_predictive(X, num_samples=3).mean(),
        "noise": {name: _value(variable) for name, variable in model.noise_variables.items()},
    }
    model.save(path)
    # By a process without a strategy, as it were.
    loaded = keras.models.load_model(path)
    found["loaded"] = {
        "predicted": loaded.posterior_predictive(X, num_samples=3).mean(),
        "noise": {name: _value(variable) for name, variable in loaded.noise_variables.items()},
        "num_examples": loaded.num_examples,
    }
    return found


def _refused(strategy: Any) -> dict[str, Any]:
    """Two batches, the second with NaN for the second replica only."""
    import keras
    import tensorflow as tf

    from tfp_bnn.layers import DenseFlipout

    model = _model(strategy, [keras.Input((4,)), DenseFlipout(2)], learning_rate=0.1, eagerly=False)
    x = X[:8].copy()
    x[7] = np.nan
    message = ""
    try:
        model.fit(tf.data.Dataset.from_tensor_slices((x, Y[:8])).batch(4), epochs=2, verbose=0)
    except ValueError as error:
        message = str(error)
    return {
        "message": message,
        "iterations": int(_value(model.optimizer.iterations)),
        "copies": [_copies(variable) for variable in model.trainable_variables],
    }


def _drawn(strategy: Any) -> list[tuple[int, str, np.ndarray]]:
    """What the replicas drew in two steps of `fit`: the replica, what it is for, and the noise itself."""
    import keras

    from tfp_bnn.layers import DenseFlipout

    layer = DenseFlipout(64, kernel_prior=SHARED, bias_posterior="mean_field_normal")
    model = _model(strategy, [keras.Input((64,)), layer], learning_rate=0.0, eagerly=True)
    x = np.ones((64, 64), np.float32)
    with _recorded() as records:
        model.fit(x, np.zeros(64, np.int64), batch_size=32, verbose=0)
    return records


def _grouped(strategy: Any) -> dict[str, Any]:
    """Grouped flipout: training, where the last batch has one row, so one replica has none; and the noise of it."""
    import keras
    import tensorflow as tf

    from tfp_bnn.layers import Convolution1DFlipout, DenseFlipout

    convolution = Convolution1DFlipout(8, 2, groups_of_noise=4, bias_posterior="mean_field_normal")
    layers = [keras.Input((4, 1)), convolution, keras.layers.Flatten(), DenseFlipout(2)]
    model = _model(strategy, layers, learning_rate=0.05, eagerly=True)
    with _recorded() as records:
        batches = tf.data.Dataset.from_tensor_slices((X[..., None], Y)).batch(16)
        history = model.fit(batches, verbose=0).history
    of_convolution = [record for record in records if record[1] in ("kernel", "bias_signs")]
    return {"history": history, "copies": [_copies(v) for v in model.trainable_variables], "noise": of_convolution}


@contextmanager
def _recorded() -> Iterator[list[tuple[int, str, np.ndarray]]]:
    """Notes all noise that layers ask for in an eager step."""
    from tfp_bnn.core.noise import Noise

    records: list[tuple[int, str, np.ndarray]] = []
    originals = {method: getattr(Noise, method) for method in ("normal", "signs")}

    def recording(original: Any) -> Any:
        def draw(self: Any, name: str, shape: Any) -> Any:
            value = original(self, name, shape)
            # Keras builds a model by a call in no replica.
            if (replica := _replica()) is not None:
                records.append((replica, name, value.numpy()))
            return value

        return draw

    for method, original in originals.items():
        setattr(Noise, method, recording(original))
    try:
        yield records
    finally:
        for method, original in originals.items():
            setattr(Noise, method, original)


def _replica() -> int | None:
    """The number of the replica that this runs in, or None."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return None if context is None else int(context.replica_id_in_sync_group)


def _masks(strategy: Any) -> dict[str, np.ndarray]:
    """Ones after dropout: `(replica, row, unit)` in two calls of training, and in one of prediction."""
    import keras

    from tfp_bnn.layers import MCDropout

    model = _model(strategy, [keras.Input((64,)), MCDropout(0.5)], 0.0, eagerly=True, likelihood="normal")
    ones = np.ones((4, 64), np.float32)

    def train() -> np.ndarray:
        outputs = strategy.run(lambda: model(ones[:2], training=True))
        return np.stack([replica.numpy() for replica in strategy.experimental_local_results(outputs)])

    # Each replica predicts half of the rows.
    predicted = model.predict(ones, batch_size=4, verbose=0).reshape(2, 2, 64)
    return {"first": train(), "second": train(), "predicted": predicted}


def _step_of_the_kl(strategy: Any, prior: dict[str, Any]) -> dict[str, Any]:
    """Measures how a step with rate 1 moves the variables if the inputs are 0, so only the KL has a gradient.

    For comparison: the step of one replica where the KL needs no noise, and the mean gradient of the KL for the draws
    of the two replicas, each computed separately without a strategy.
    """
    import tensorflow as tf

    from tfp_bnn.core.noise import Noise, noise_scope, scoped_noise
    from tfp_bnn.layers import DenseReparameterization

    posterior = {"name": "mean_field_normal", "initial_scale": 0.4}
    x, y = np.zeros((4, 4), np.float32), np.array([0, 1, 0, 1])

    def make(strategy: Any) -> Any:
        layers = _two_layers(DenseReparameterization, use_bias=False, kernel_prior=prior, kernel_posterior=posterior)
        return _model(strategy, layers, learning_rate=1.0, eagerly=True)

    model, single = make(strategy), make(None)
    variables = model.trainable_variables
    at_start = [_value(variable) for variable in variables]
    roots: dict[int, Noise] = {}
    noise_of_layers = model._noise_of_layers

    def note(noise: Any) -> Any:
        if (replica := _replica()) is not None:
            roots[replica] = noise
        return noise_of_layers(noise)

    model._noise_of_layers = note
    history = model.fit(x, y, batch_size=4, verbose=0).history
    moved = [_value(variable) - start for variable, start in zip(variables, at_start, strict=True)]
    single.set_weights(model.get_weights())
    for variable, start in zip(single.trainable_variables, at_start, strict=True):
        variable.assign(start)
    kls, gradients = [], []
    for replica in sorted(roots):
        with noise_scope(single._noise_of_layers(roots[replica])), tf.GradientTape() as tape:
            terms = [layer.kl() for layer in single.variational_layers]
            terms += [shared.hyper_kl(scoped_noise(shared)) for shared in single.shared_priors.values()]
            kl = tf.add_n(terms)
        kls.append(float(kl))
        gradients.append(tape.gradient(kl, [variable.value for variable in single.trainable_variables]))
    found = {
        "paths": [variable.path.partition("/")[2] for variable in variables],
        "at_start": at_start,
        "moved": moved,
        "kls": kls,
        "gradients": [np.mean(pair, axis=0) for pair in zip(*gradients, strict=True)],
        "history": history,
        "copies": [_copies(variable) for variable in variables],
        "seeds": [roots[replica].seed.numpy() for replica in sorted(roots)],
    }
    single.fit(x, y, batch_size=4, verbose=0)
    found["moved by one"] = [_value(v) - s for v, s in zip(single.trainable_variables, at_start, strict=True)]
    return found


def _without_noise(strategy: Any, **kwargs: Any) -> dict[str, Any]:
    """Training of a network of points, which leaves no difference between two replicas and one but rounding."""
    import keras

    from tfp_bnn.layers import DenseReparameterization

    keras.utils.set_random_seed(1)
    layers = _two_layers(
        DenseReparameterization,
        kernel_posterior="delta",
        kernel_prior={"name": "normal", "scale": 0.5},
        kernel_regularizer=keras.regularizers.L2(0.1),
    )
    model = _model(strategy, layers, learning_rate=0.1, eagerly=True, **kwargs)
    # Batches of 8, 8 and 3 rows.
    history = model.fit(X[:19], Y[:19], batch_size=8, epochs=2, shuffle=False, verbose=0).history
    return {"history": history, "rows_seen": model.rows_seen, "weights": model.get_weights()}


def _parts_of_the_data(strategy: Any) -> str:
    """What an objective that needs all the data says to replicas that have a part each."""
    import keras

    from tfp_bnn.layers import DenseReparameterization

    layers = [keras.Input((4,)), DenseReparameterization(2)]
    model = _model(strategy, layers, 0.1, eagerly=True, objective="importance_weighted", num_draws=2)
    try:
        # An even number: Keras cannot build a model from a first batch that the replicas share unevenly.
        model.fit(X[:32], Y[:32], batch_size=32, verbose=0)
    except ValueError as error:
        return str(error)
    return ""


def _by_natural_gradient(strategy: Any) -> list[np.ndarray]:
    """Training on inputs of 0: only the KL moves the kernel, and the companion the biases, without noise."""
    import keras
    import tensorflow as tf

    import tfp_bnn

    keras.utils.set_random_seed(1)
    with strategy.scope() if strategy else tf.distribute.get_strategy().scope():
        model = tfp_bnn.VariationalSequential([keras.Input((4,)), tfp_bnn.layers.DenseFlipout(2)], seed=0)
        model.compile(tfp_bnn.NaturalGradient(0.1, 0.1))
    at_start = [_value(variable) for variable in model.trainable_variables]
    model.fit(0 * X[:19], Y[:19], batch_size=8, epochs=2, shuffle=False, verbose=0)
    return [_value(v) - start for v, start in zip(model.trainable_variables, at_start, strict=True)]


def _many_steps(strategy: Any) -> dict[str, list[float]]:
    """The mean over an epoch of many small steps, without learning: y = 0 ~ N(w, 1), with w ~ N(0, 1)."""
    import keras

    from tfp_bnn.layers import DenseReparameterization

    posterior = {"name": "mean_field_normal", "initial_scale": 1.0}
    layer = DenseReparameterization(
        1, use_bias=False, kernel_initializer="zeros", kernel_posterior=posterior, kernel_prior=EQUALS
    )
    likelihood = {"name": "normal", "scale": 1.0}
    model = _model(strategy, [keras.Input((1,)), layer], learning_rate=0.0, eagerly=False, likelihood=likelihood)
    rows = 2 * STEPS
    return model.fit(np.ones((rows, 1), np.float32), np.zeros((rows, 1)), batch_size=2, verbose=0).history


if __name__ == "__main__":
    main(Path(sys.argv[1]))
