"""A training state is complete: after saving and restoring it, the next step is bit-for-bit identical."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.layers import DenseFlipout, LSTMFlipout
from tfp_bnn.models.training_state import restore_training_state, training_state

X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = np.arange(12) % 2


def make(seed: int = 0, units: int = 4, compiled: bool = True, dropout: bool = True) -> tfp_bnn.VariationalModel:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((3,))
    x = DenseFlipout(units, activation="relu", name="hidden")(inputs)
    if dropout:
        x = keras.layers.Dropout(0.5, seed=seed)(x)
    outputs = DenseFlipout(2, name="logits", kernel_prior={"name": "normal", "empirical_bayes": True})(x)
    model = tfp_bnn.VariationalModel(
        inputs, outputs, seed=seed, beta_schedule={"name": "linear_warmup", "steps": 4, "final": 1.0}
    )
    if compiled:
        rate = keras.optimizers.schedules.CosineDecay(0.01, 10)
        model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), metrics=["accuracy"])
    model.num_examples = len(X)
    return model


def step(model: tfp_bnn.VariationalModel) -> dict[str, float]:
    return {name: float(value) for name, value in model.train_on_batch(X, Y, return_dict=True).items()}


def assert_same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert list(first) == list(second)
    for name, value in first.items():
        assert value.dtype == second[name].dtype, name
        assert value.tobytes() == second[name].tobytes(), name


@pytest.fixture(scope="module")
def trained() -> tfp_bnn.VariationalModel:
    model = make()
    for _ in range(3):
        step(model)
    return model


@pytest.mark.slow
def test_round_trip_and_the_steps_after_it_have_the_same_bits(trained):
    state = training_state(trained)
    # A model of other weights, noise and dropout, of which nothing may be left.
    other = make(seed=5)
    assert step(other) != step(trained)
    restore_training_state(trained, state)
    restore_training_state(other, state)
    assert_same(training_state(other), state)
    for _ in range(3):
        assert step(other) == step(trained)
        assert_same(training_state(other), training_state(trained))
    first, second = (model.evaluate(X, Y, verbose=0, return_dict=True) for model in (trained, other))
    assert first == second


def test_the_arrays_are_copies_in_their_own_dtypes(trained):
    state = training_state(trained)
    kept = {name: value.copy() for name, value in state.items()}
    step(trained)
    assert_same(state, kept)
    assert {value.dtype.name for value in state.values()} >= {"float32"}
    assert {name.split("/")[0] for name in state} == {
        "model",
        "optimizer",
        "training_noise",
        "evaluation_noise",
        "steps_before",
    }
    # Of each trained weight Adam has two moments; iterations and N and beta are there too.
    trained_weights = len(trained.trainable_variables)
    assert sum(name.startswith("optimizer/") for name in state) >= 2 * trained_weights + 1
    assert float(next(value for name, value in state.items() if name.endswith("/num_examples"))) == 12
    changed = [name for name, value in training_state(trained).items() if not np.array_equal(value, state[name])]
    assert "training_noise" in changed
    assert "evaluation_noise" not in changed


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda s: s.pop("training_noise"), "missing training_noise"),
        (lambda s: s.update(extra=np.zeros(1)), "unknown extra"),
        (lambda s: s.update(training_noise=s["training_noise"][:1]), r"training_noise: .* \(1,\) where .* \(2,\)"),
        (lambda s: s.update({"optimizer/0": s["optimizer/0"].astype(np.float64)}), "optimizer/0: float64"),
        (lambda s: [s.pop("optimizer/0"), s.update(extra=np.zeros(1))], "missing optimizer/0; unknown extra"),
    ],
)
def test_another_state_is_refused_and_changes_nothing(trained, spoil, says):
    state = {name: value + 1 for name, value in training_state(trained).items()}
    before = training_state(trained)
    spoil(state)
    with pytest.raises(ValueError, match=f"not one of this model: {says}"):
        restore_training_state(trained, state)
    assert_same(training_state(trained), before)


def test_that_of_another_network_is_refused(trained):
    other = make(units=5)
    before = training_state(other)
    with pytest.raises(ValueError, match=r"\(3, 4\) where float32 \(3, 5\) was expected"):
        restore_training_state(other, training_state(trained))
    assert_same(training_state(other), before)
    with pytest.raises(ValueError, match=r"unknown model/\d+/"):
        restore_training_state(make(dropout=False), training_state(trained))


def test_what_is_not_compiled_has_no_state():
    with pytest.raises(ValueError, match="built and compiled"):
        training_state(make(compiled=False))


# === States of recurrent layers ===


def with_a_state() -> tuple[tfp_bnn.VariationalSequential, keras.layers.Layer]:
    keras.utils.set_random_seed(0)
    lstm = LSTMFlipout(2, stateful=True)
    model = tfp_bnn.VariationalSequential([keras.Input((1, 3), batch_size=12), lstm, DenseFlipout(2)], seed=0)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    model.num_examples = len(X)
    return model, lstm


def test_a_recurrent_layer_goes_on_where_it_was():
    (model, lstm), (other, same) = with_a_state(), with_a_state()
    older = {name: value for name, value in training_state(model).items() if not name.startswith("recurrent_state/")}
    model.train_on_batch(X[:, None], Y)
    state = training_state(model)
    assert sum(name.startswith("recurrent_state/") for name in state) == 2
    restore_training_state(other, state)
    for ours, theirs in zip(lstm.states, same.states, strict=True):
        assert np.abs(ours).min() > 0
        np.testing.assert_array_equal(ours, theirs)
    assert model.train_on_batch(X[:, None], Y) == other.train_on_batch(X[:, None], Y)
    assert_same(training_state(model), training_state(other))
    # A state from before they were in it starts anew.
    restore_training_state(model, older)
    assert not any(np.any(variable) for variable in lstm.states)
