"""A saved model is complete: loaded in a fresh process, it predicts and continues training without a difference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.core.layer_tree import seed_generators, sublayers
from tfp_bnn.core.library_state import deterministic_operations
from tfp_bnn.layers import Convolution2DFlipout, DenseFlipout, DenseReparameterization

N = 50
EPOCHS = 3
STOP = 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype(np.float32)
IMAGES = RNG.normal(size=(N, 4, 4, 1)).astype(np.float32)
TARGETS = (X @ RNG.normal(size=(4, 2)) + RNG.normal(scale=0.3, size=(N, 2))).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
BINARY = (X[:, :1] > 0).astype(np.float32)
NORMAL = {"name": "normal", "scale": "learned", "initial_scale": 0.8}
WARMUP = {"name": "linear_warmup", "steps": 7, "initial": 0.1}
EMPIRICAL_BAYES = {"name": "normal", "scale": 0.5, "empirical_bayes": True}


def functional():
    x = keras.Input((4,))
    h = DenseFlipout(5, activation="tanh", kernel_prior=EMPIRICAL_BAYES, bias_posterior="mean_field_normal")(x)
    outputs = DenseFlipout(2, seed=7)(h)
    model = tfp_bnn.VariationalModel(x, outputs, name="net", likelihood=NORMAL, beta_schedule=WARMUP, seed=3)
    return model, X, TARGETS, ["mae"]


def sequential():
    layers = [
        keras.Input((4, 4, 1)),
        Convolution2DFlipout(2, 3, activation="relu"),
        keras.layers.Flatten(),
        DenseReparameterization(3, kernel_prior="scale_mixture"),
    ]
    model = tfp_bnn.VariationalSequential(layers, beta_schedule={"name": "constant", "beta": 0.3}, seed=5)
    return model, IMAGES, LABELS, ["accuracy"]


def sequential_without_input():
    # No seed: the one that Keras drew must come back from the file.
    layers = [keras.layers.BatchNormalization(), DenseReparameterization(1, kernel_posterior="mean_field_normal")]
    return tfp_bnn.VariationalSequential(layers, likelihood="bernoulli"), X, BINARY, ["binary_accuracy"]


@pytest.fixture(autouse=True, scope="module")
def op_determinism():
    """Without it the order of a sum depends on how busy the machine is, and with it the last bit."""
    with deterministic_operations(0):
        yield


MODELS = {make.__name__: make for make in (functional, sequential, sequential_without_input)}

# Nothing but `import keras, tfp_bnn` is needed to load; safe mode is Keras' default.
RESUME = """
import sys
import keras, tfp_bnn
import json
from pathlib import Path
import numpy as np
import tensorflow as tf

tf.config.experimental.enable_op_determinism()
folder, names, stop, epochs = Path(sys.argv[1]), sys.argv[2].split(), int(sys.argv[3]), int(sys.argv[4])
for name in names:
    data = np.load(folder / f"{name}.npz")
    model = keras.models.load_model(folder / name / f"{stop}.keras")
    found = {
        "class": type(model).__name__,
        "name": model.name,
        "config": model.get_config(),
        "num_examples": model.num_examples,
        "beta": model.beta,
        "learned": {key: float(value) for key, value in model.likelihood.parameters(model.likelihood_weights).items()},
        "optimizer": type(model.optimizer).__name__,
        "learning_rate": float(model.optimizer.learning_rate),
        "iterations": int(model.optimizer.iterations),
    }
    found["mean"] = model.posterior_predictive(data["x"], num_samples=3, seed=1).mean().tolist()
    pair = data["x"], data["y"]
    validation = {"validation_data": pair} if name == "functional" else {}
    history = model.fit(*pair, batch_size=16, epochs=epochs, initial_epoch=stop, shuffle=False, verbose=0, **validation)
    found["history"] = history.history
    (folder / f"{name}.json").write_text(json.dumps(found))
    np.savez(folder / f"{name}.final.npz", *model.get_weights(), *[np.asarray(v) for v in model.optimizer.variables])
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """For each model: the run that did not stop, and what a fresh process made of the file of epoch 2."""
    folder = tmp_path_factory.mktemp("saved models")
    runs = {}
    for name, make in MODELS.items():
        keras.utils.set_random_seed(len(runs))
        model, x, y, metrics = make()
        np.savez(folder / f"{name}.npz", x=x, y=y)
        # One of them eagerly: a compiled step takes seconds to make, here and there.
        eager = name == "sequential_without_input"
        model.compile(keras.optimizers.Adam(0.05), metrics=metrics, run_eagerly=eager)
        at_stop = {}

        def note(epoch, logs, model=model, x=x, at_stop=at_stop):
            if epoch + 1 == STOP:
                at_stop["num_examples"], at_stop["beta"] = model.num_examples, model.beta
                at_stop["learned"] = model.likelihood.parameters(model.likelihood_weights)
                at_stop["mean"] = model.posterior_predictive(x, num_samples=3, seed=1).mean()

        callbacks = [
            keras.callbacks.ModelCheckpoint(folder / name / "{epoch}.keras"),
            keras.callbacks.LambdaCallback(on_epoch_end=note),
        ]
        validation = {"validation_data": (x, y)} if name == "functional" else {}
        history = model.fit(
            x, y, batch_size=16, epochs=EPOCHS, shuffle=False, callbacks=callbacks, verbose=0, **validation
        )
        runs[name] = {"model": model, "history": history.history, "at_stop": at_stop, "folder": folder}
    path = os.pathsep.join([str(Path(tfp_bnn.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", RESUME, str(folder), " ".join(MODELS), str(STOP), str(EPOCHS)]
    environment = {**os.environ, "PYTHONPATH": path}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    for name, run in runs.items():
        run["found"] = json.loads((folder / f"{name}.json").read_text())
        with np.load(folder / f"{name}.final.npz") as arrays:
            run["final"] = list(arrays.values())
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_fresh_process_finds_the_model_as_it_was(runs, name):
    model, at_stop, found = (runs[name][key] for key in ("model", "at_stop", "found"))
    assert found["class"] == type(model).__name__
    assert found["name"] == model.name
    assert found["config"] == json.loads(json.dumps(model.get_config()))
    assert found["num_examples"] == at_stop["num_examples"] == N
    assert found["beta"] == pytest.approx(at_stop["beta"], abs=0)
    assert found["learned"] == {key: float(value) for key, value in at_stop["learned"].items()}
    assert found["optimizer"] == "Adam"
    assert found["learning_rate"] == pytest.approx(0.05)
    # Four batches an epoch.
    assert found["iterations"] == 4 * STOP
    np.testing.assert_allclose(found["mean"], at_stop["mean"], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_training_goes_on_bit_by_bit(runs, name):
    model, history, found = (runs[name][key] for key in ("model", "history", "found"))
    # The logs, those of the metrics and of validation among them.
    assert set(found["history"]) == set(history)
    assert found["history"] == {key: values[STOP:] for key, values in history.items()}
    final = [*model.get_weights(), *(variable.numpy() for variable in model.optimizer.variables)]
    assert len(final) == len(runs[name]["final"])
    for array, same in zip(runs[name]["final"], final, strict=True):
        np.testing.assert_array_equal(array, same)


@pytest.mark.slow
def test_what_was_restored_had_moved(runs):
    # Or the tests above would show nothing.
    at_stop = runs["functional"]["at_stop"]
    assert at_stop["learned"]["scale"] != pytest.approx(0.8, abs=0.01)
    assert at_stop["beta"] == pytest.approx(1.0)
    layer = runs["functional"]["model"].variational_layers[0]
    assert float(layer.kernel_prior.distribution.scale) != pytest.approx(0.5, abs=0.01)
    warmup = np.average(0.1 + 0.9 * np.arange(4) / 7, weights=[16, 16, 16, 2])
    assert runs["functional"]["history"]["beta"][0] == pytest.approx(warmup, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_weights_alone_bring_everything_but_the_optimizer(runs, name, tmp_path):
    model = runs[name]["model"]
    model.save_weights(tmp_path / "all.weights.h5")
    keras.utils.set_random_seed(99)
    other, x, _, _ = MODELS[name]()
    other(x[:1])
    other.load_weights(tmp_path / "all.weights.h5")
    for array, same in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, same)
    assert other.num_examples == N
    assert other.beta == model.beta
    # The next draws of both streams are the same; so are all the ones of a prediction.
    for training in (True, False):
        np.testing.assert_allclose(other(x, training=training), model(x, training=training), atol=1e-6)
    draws = [net.posterior_predictive(x, 2).samples for net in (other, model)]
    np.testing.assert_allclose(draws[0], draws[1], atol=1e-6)
    model.load_weights(tmp_path / "all.weights.h5")


def test_a_model_that_was_never_fitted_is_saved_as_such(tmp_path):
    model, x, _, _ = functional()
    model.save(tmp_path / "new.keras")
    loaded = keras.models.load_model(tmp_path / "new.keras")
    assert loaded.num_examples is None
    assert np.isnan(loaded.beta)
    np.testing.assert_array_equal(loaded(x), model(x))
    np.testing.assert_array_equal(loaded(x, training=True), model(x, training=True))


@keras.saving.register_keras_serializable(package="test_saving")
class Net(tfp_bnn.VariationalMixin, keras.Model):
    def __init__(self, units=2, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = [DenseFlipout(4, activation="relu"), DenseFlipout(4, activation="relu")]
        self.top = DenseReparameterization(units)

    def call(self, inputs, training=None):
        for layer in self.hidden:
            inputs = layer(inputs, training=training)
        return self.top(inputs, training=training)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pytest.mark.slow
def test_a_subclass_is_saved_with_its_likelihood(tmp_path):
    model = Net(likelihood=NORMAL, beta_schedule=WARMUP, seed=4)
    model.compile(keras.optimizers.Adam(0.1), run_eagerly=True)
    model.fit(X, TARGETS, batch_size=N, verbose=0)
    model.save(tmp_path / "subclass.keras")
    loaded = keras.models.load_model(tmp_path / "subclass.keras")
    assert loaded.get_config() == model.get_config()
    assert loaded.num_examples == N
    logs = [net.train_on_batch(X, TARGETS, return_dict=True) for net in (model, loaded)]
    assert logs[0] == logs[1]
    for array, same in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, same)


def test_nested_models_are_saved(tmp_path):
    inner = tfp_bnn.VariationalSequential(
        [keras.Input((4,)), DenseFlipout(4)], name="inner", likelihood="normal", seed=1
    )
    x = keras.Input((4,))
    model = tfp_bnn.VariationalModel(x, DenseFlipout(3)(keras.Sequential([keras.Input((4,)), inner])(x)), seed=2)
    model(X)
    model.save(tmp_path / "nested.keras")
    loaded = keras.models.load_model(tmp_path / "nested.keras")
    assert len(loaded.variational_layers) == 2
    draws = [net.posterior_predictive(X, 2).samples for net in (model, loaded)]
    np.testing.assert_array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(model(X), loaded(X))


@pytest.mark.parametrize(
    ("make", "calibration"),
    [(functional, {"name": "scale", "scale": 1.7}), (sequential, {"name": "temperature", "temperature": 0.6})],
    ids=["scale", "temperature"],
)
def test_a_calibration_is_saved_with_the_model(make, calibration, tmp_path):
    model, x, _, _ = make()
    model.calibration = calibration
    model.save(tmp_path / "calibrated.keras")
    loaded = keras.models.load_model(tmp_path / "calibrated.keras")
    assert loaded.calibration == model.calibration
    assert loaded.calibration.get_config()[calibration["name"]] == calibration[calibration["name"]]
    for calibrated in (True, False):
        draws = [net.posterior_predictive(x, 2, calibrated=calibrated).samples for net in (model, loaded)]
        np.testing.assert_allclose(draws[1], draws[0], atol=1e-6)


def with_dropout(kind, rate=0.5):
    layers = [
        keras.layers.GaussianNoise(0.3),
        keras.Sequential([DenseFlipout(8), keras.layers.Dropout(rate)]),
        DenseFlipout(2),
    ]
    if kind == "sequential":
        return tfp_bnn.VariationalSequential([keras.Input((4,)), *layers], likelihood="normal", seed=1)
    x = outputs = keras.Input((4,))
    for layer in layers:
        outputs = layer(outputs)
    return tfp_bnn.VariationalModel(x, outputs, likelihood="normal", seed=1)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_training_goes_on_bit_by_bit_with_dropout(kind, tmp_path):
    keras.utils.set_random_seed(0)
    model = with_dropout(kind)
    model.compile(keras.optimizers.Adam(0.05))
    train = {"batch_size": 10, "shuffle": False, "verbose": 0}
    model.fit(X, TARGETS, epochs=1, **train)
    model.save(tmp_path / "stopped.keras")
    history = model.fit(X, TARGETS, epochs=2, initial_epoch=1, **train).history
    # Another process would have another global seed.
    keras.utils.set_random_seed(99)
    loaded = keras.models.load_model(tmp_path / "stopped.keras")
    assert loaded.fit(X, TARGETS, epochs=2, initial_epoch=1, **train).history == history
    for array, same in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, same)


def test_weights_without_the_states_of_seed_generators_still_load(tmp_path, monkeypatch):
    model, path = with_dropout("functional"), tmp_path / "old.weights.h5"
    with monkeypatch.context() as patch:
        patch.setattr("tfp_bnn.models.variational_mixin.save_seed_generators", lambda model, store: None)
        model.save_weights(path)
    other = with_dropout("functional")
    generators = [found for layer in sublayers(other) for found in seed_generators(layer)]
    states = [np.asarray(generator.state) for generator in generators]
    assert len(states) == 2
    other.load_weights(path)
    for array, same in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, same)
    # The generators go on as they were, as with the file of a network that has others.
    for generator, state in zip(generators, states, strict=True):
        np.testing.assert_array_equal(generator.state, state)
