"""The state of callbacks survives a resume: patience, best value and best weights."""

from __future__ import annotations

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from zoo.training.callback_state import callback_states, restore_callbacks, without_callbacks

VALUES = [1.0, 0.9, 0.95, 0.85, 0.849, 0.86, 0.855, 0.848, 0.87]


class Model:
    """As much of a model as these callbacks look at; its weights tell the epoch."""

    def __init__(self) -> None:
        self.stop_training = False
        self.weights = [np.zeros(2, np.float32), np.zeros((), np.int64)]
        self.optimizer = keras.optimizers.SGD(0.1)
        self.metrics: list[object] = []

    def get_weights(self) -> list[np.ndarray]:
        # As Keras does: a NumPy number for a weight of shape ().
        return [weight.copy() if weight.ndim else weight[()] for weight in self.weights]

    def set_weights(self, weights: list[np.ndarray]) -> None:
        self.weights = [np.array(weight) for weight in weights]


def begin(callback: keras.callbacks.Callback) -> Model:
    model = Model()
    callback.set_model(model)
    callback.on_train_begin()
    return model


def epoch_of(callback: keras.callbacks.Callback, model: Model, epoch: int) -> None:
    model.set_weights([np.full(2, epoch, np.float32), np.array(epoch)])
    callback.on_epoch_end(epoch, {"val_nll": VALUES[epoch]})


def through_json(states: list[dict]) -> list[dict]:
    return json.loads(json.dumps(states))


def end_of(make, cut: int | None) -> tuple[int, list[np.ndarray], dict]:
    """Where a run ends that was resumed after `cut` epochs, if at all: epoch, weights, what is remembered."""
    callback = make()
    model = begin(callback)
    epoch = 0
    while epoch < len(VALUES) and not model.stop_training:
        if epoch == cut:
            arrays: dict[str, np.ndarray] = {}
            states = through_json(callback_states([callback], model.stop_training, arrays))
            rate = model.optimizer.learning_rate
            callback = make()
            model = begin(callback)
            model.optimizer.learning_rate.assign(rate)
            model.stop_training = restore_callbacks([callback], states, arrays)
        epoch_of(callback, model, epoch)
        epoch += 1
    callback.on_train_end()
    remembered = callback_states([callback], model.stop_training, {})
    return epoch, [*model.get_weights(), np.asarray(model.optimizer.learning_rate)], remembered


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.callbacks.EarlyStopping("val_nll", mode="min", patience=3),
        lambda: keras.callbacks.EarlyStopping("val_nll", mode="min", patience=2, min_delta=0.01),
        lambda: keras.callbacks.EarlyStopping("val_nll", mode="min", patience=3, restore_best_weights=True),
        lambda: keras.callbacks.EarlyStopping("val_nll", mode="max", patience=4, restore_best_weights=True),
        lambda: keras.callbacks.ReduceLROnPlateau("val_nll", mode="min", patience=2, cooldown=1, min_delta=0.01),
    ],
    ids=["patience", "min_delta", "best weights", "max", "ReduceLROnPlateau"],
)
def test_a_resumed_callback_ends_where_an_uninterrupted_one_does(make):
    epochs, weights, remembered = end_of(make, None)
    for cut in range(epochs):
        resumed_epochs, resumed_weights, resumed_remembered = end_of(make, cut)
        assert resumed_epochs == epochs, cut
        for value, expected in zip(resumed_weights, weights, strict=True):
            np.testing.assert_array_equal(value, expected)
        assert resumed_remembered == remembered


def test_patience_is_spent_over_a_resume():
    """The case that this is about: one that starts afresh would wait three epochs more."""

    def make() -> keras.callbacks.EarlyStopping:
        return keras.callbacks.EarlyStopping("val_nll", mode="min", patience=4, min_delta=0.01)

    assert end_of(make, None)[0] == 8
    assert end_of(make, 6)[0] == 8


def test_arguments_of_the_constructor_come_from_the_call():
    states = through_json(callback_states([keras.callbacks.EarlyStopping("val_nll", patience=2)], False, {}))
    assert states[1]["attributes"]["patience"] == 2
    more = keras.callbacks.EarlyStopping("val_nll", patience=9)
    states[1]["attributes"]["wait"] = 1
    restore_callbacks([more], states, {})
    assert (more.patience, more.wait) == (9, 1)


def test_best_weights_are_kept_bit_by_bit():
    callback = keras.callbacks.EarlyStopping("val_nll", mode="min", restore_best_weights=True)
    model = begin(callback)
    weights = [np.array([0.1, -0.0], np.float32), np.array(3, np.int64)]
    model.set_weights(weights)
    callback.on_epoch_end(0, {"val_nll": 1.0})
    arrays: dict[str, np.ndarray] = {"model/0/kernel": np.ones(3)}
    states = through_json(callback_states([callback], False, arrays))
    assert set(arrays) == {"model/0/kernel", "callback/0/best_weights/0", "callback/0/best_weights/1"}
    assert list(without_callbacks(arrays)) == ["model/0/kernel"]
    fresh = keras.callbacks.EarlyStopping("val_nll", mode="min", restore_best_weights=True)
    begin(fresh)
    assert restore_callbacks([fresh], states, arrays) is False
    for value, expected in zip(fresh.best_weights, weights, strict=True):
        assert value.dtype == expected.dtype
        assert value.tobytes() == expected.tobytes()


def test_that_a_run_was_stopped_is_remembered():
    states = through_json(callback_states([keras.callbacks.EarlyStopping()], True, {}))
    assert restore_callbacks([keras.callbacks.EarlyStopping()], states, {}) is True
    assert restore_callbacks([], states, {}) is True
    assert restore_callbacks([], [], {}) is False


def test_another_class_and_one_that_is_new_start_afresh():
    stopping = keras.callbacks.EarlyStopping("val_nll", mode="min")
    model = begin(stopping)
    epoch_of(stopping, model, 0)
    states = through_json(callback_states([stopping], False, {}))
    other = keras.callbacks.ReduceLROnPlateau("val_nll", mode="min")
    new = keras.callbacks.EarlyStopping("val_nll", mode="min")
    for callback in (other, new):
        begin(callback)
    before = dict(vars(other))
    restore_callbacks([other, new], states, {})
    assert vars(other) == before
    assert new.best is None


def test_only_numbers_strings_and_arrays_are_kept():
    callback = keras.callbacks.Callback()
    callback.number, callback.text, callback.nothing, callback.flag = np.float32(0.5), "a", None, True
    callback.infinite = float("inf")
    callback.model_like, callback.mixed, callback._private = SimpleNamespace(), [np.zeros(1), "x"], 3
    (_, state) = through_json(callback_states([callback], False, {}))
    assert state == {
        "class": "Callback",
        "attributes": {"number": 0.5, "text": "a", "nothing": None, "flag": True, "infinite": float("inf")},
    }
