"""A run that meets NaN and infinity stops before anything is saved; an epoch counts rows, not batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import zoo
from zoo.training.checkpoints import Checkpoints
from zoo.training.engine import NonFiniteError


def spoil(layer: str, part: str, value: float) -> Callable[[keras.callbacks.Callback], None]:
    def act(callback: keras.callbacks.Callback) -> None:
        variables = [v for v in callback.model.trainable_variables if f"{layer}/" in v.path and part in v.path]
        variables[0].assign(np.full(variables[0].shape, value, np.float32))

    return act


class TestT4NonFinite:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("layer", "part", "term", "where"),
        [
            ("logits", "bias", "negative log-likelihood", "the weights of the layer 'logits'"),
            ("dense1", "prior", "KL", "the weights of the layer 'dense1'"),
        ],
    )
    def test_a_poisoned_layer_is_named_before_anything_is_saved(self, tiny, folder, layer, part, term, where):
        """Within step 5, that is in epoch 2, batch 2."""
        saver = tiny.Saver()
        before = []

        def act(callback: keras.callbacks.Callback) -> None:
            before.append(tiny.digests(folder))
            spoil(layer, part, math.nan)(callback)

        with pytest.raises(
            NonFiniteError, match=rf"in epoch 2, batch 2 of 3: The ({term}) of a training step is NaN .*{where}"
        ) as caught:
            tiny.go(folder, [tiny.At("on_train_batch_begin", 5, act), saver])
        assert "Nothing was saved since the last checkpoint" in str(caught.value)
        # Four steps and one epoch.
        assert saver.saved == [True] * 5
        assert tiny.digests(folder) == before[0]
        # What is there is the last good one.
        progress, arrays, messages = Checkpoints(folder, {}).load()
        assert (progress.epoch, progress.step, messages) == (1, 1, [])
        assert all(np.isfinite(value).all() for name, value in arrays.items() if name.startswith("model/"))

    @pytest.mark.slow
    @pytest.mark.parametrize("step", [2, 6])
    def test_gradients_that_are_not_finite_though_the_loss_is(self, tiny, folder, monkeypatch, step):
        """Also in the last step of an epoch, and of all, after which no loss is computed any more."""
        seen = []

        def poison_gradients(callback: keras.callbacks.Callback) -> None:
            # As a gradient of inf would: the weights are not finite after a step whose loss was.
            train_function = callback.model.train_function

            def with_inf(iterator: Any) -> Any:
                logs = train_function(iterator)
                spoil("dense1", "kernel_loc", math.inf)(callback)
                return logs

            monkeypatch.setattr(callback.model, "train_function", with_inf)
            seen.append(tiny.digests(folder))

        saver = tiny.Saver()
        epoch, batch = divmod(step - 1, 3)
        with pytest.raises(
            NonFiniteError,
            match=rf"in epoch {epoch + 1}, batch {batch + 1} of 3: The gradients .* the weights of the layer 'dense1'",
        ):
            tiny.go(folder, [tiny.At("on_train_batch_begin", step, poison_gradients), saver])
        assert all(saver.saved)
        assert len(saver.saved) == step - 1 + epoch
        assert tiny.digests(folder) == seen[0]

    @pytest.mark.thorough
    def test_a_learning_rate_that_makes_it_blow_up(self, tiny, folder):
        optimizer = {"name": "sgd", "learning_rate": 10.0, "decay": None}

        def scale_up(callback: keras.callbacks.Callback) -> None:
            callback.model.optimizer.learning_rate = 1e30

        saver = tiny.Saver()
        with pytest.raises(NonFiniteError, match=r"in epoch \d, batch \d of 3: The (neg|KL|grad).* NaN or infinite"):
            tiny.go(folder, [tiny.At("on_train_batch_begin", 3, scale_up), saver], optimizer=optimizer)
        assert all(saver.saved)
        progress, arrays, _ = Checkpoints(folder, {}).load()
        assert all(np.isfinite(value).all() for name, value in arrays.items() if name.startswith("model/"))
        assert progress.epoch * 3 + progress.step >= 2

    @pytest.mark.slow
    def test_a_bad_batch(self, tiny, folder):
        """A dataset refuses NaN; one that changes during training meets the check of the step."""
        data, before = zoo.load_dataset("iris"), []

        def damage(callback: keras.callbacks.Callback) -> None:
            data.train.x[:] = np.nan

        note = tiny.At("on_train_batch_begin", 4, lambda callback: before.append(tiny.digests(folder)))
        with pytest.raises(NonFiniteError, match="epoch 2, batch 1 of 3: The inputs of a batch have NaN or infinite"):
            tiny.go(folder, [tiny.At("on_epoch_end", 1, damage), note], data=data)
        assert tiny.digests(folder) == before[0]

    @pytest.mark.slow
    def test_weights_that_a_callback_made_infinite_are_not_saved(self, tiny, folder, eager_steps):
        before = []

        def act(callback: keras.callbacks.Callback) -> None:
            before.append(tiny.digests(folder))
            spoil("logits", "kernel_loc", math.inf)(callback)

        message = r"A callback made weights NaN or infinite\. .* layer 'logits'"
        with eager_steps(), pytest.raises(NonFiniteError, match=message):
            tiny.go(folder, [tiny.At("on_train_batch_end", 2, act)])
        assert tiny.digests(folder) == before[0]

    @pytest.mark.thorough
    def test_without_checkpoints_too(self, tiny):
        with pytest.raises(NonFiniteError, match="epoch 1, batch 2 of 3: The KL"):
            tiny.go(None, [tiny.At("on_train_batch_begin", 2, spoil("dense1", "prior", math.nan))])


@pytest.mark.thorough
@pytest.mark.parametrize("batch_size", [40, 1000])
def test_the_means_of_an_epoch_count_rows_where_the_last_batch_is_not_full(tiny, batch_size):
    seen: list[int] = []
    model, history = tiny.go(
        None,
        [tiny.At("on_test_begin", 1, lambda callback: seen.append(callback.model.rows_seen))],
        batch_size=batch_size,
        epochs=1,
    )
    assert seen == [96] == [model.num_examples]
    assert int(model.optimizer.iterations) == math.ceil(96 / batch_size)
    ((loss,), (nll,), (kl,), (elbo,)) = (history[name] for name in ("loss", "nll", "kl", "elbo"))
    assert elbo == pytest.approx(-(nll + kl / 96), rel=1e-6)
    assert loss == pytest.approx(-elbo, rel=1e-6)


@pytest.mark.slow
def test_a_constant_column_is_no_number_to_divide_by(tiny, eager_steps):
    data = zoo.load_dataset("iris")
    for split in (data.train, data.validation, data.test):
        split.x[:, 1] = 7.0
    with eager_steps():
        model, history = tiny.go(None, data=data, epochs=1)
    assert model.architecture.config.input_variance[1] == 1.0
    assert np.isfinite([value for values in history.values() for value in values]).all()


def test_labels_out_of_the_range_of_the_network_are_refused_before_the_first_step(tiny, folder):
    with pytest.raises(ValueError, match=r"0 to 2|labels") as caught:
        tiny.go(folder, model={"hidden": [4], "num_outputs": 2})
    assert "2" in str(caught.value)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("step", "found_in"), [(1, 2), (2, 3), (3, 3)])
def test_weights_that_no_callback_sees_are_refused_by_the_next_step_or_at_the_end_of_the_epoch(
    tiny, folder, monkeypatch, eager_steps, step, found_in
):
    def poison(callback: keras.callbacks.Callback) -> None:
        train_function = callback.model.train_function

        def with_inf(iterator: Any) -> Any:
            logs = train_function(iterator)
            spoil("dense1", "kernel_loc", math.inf)(callback)
            monkeypatch.setattr(callback.model, "train_function", train_function)
            return logs

        monkeypatch.setattr(callback.model, "train_function", with_inf)

    with eager_steps(), pytest.raises(NonFiniteError, match=rf"in epoch 1, batch {found_in} of 3: .* layer 'dense1'"):
        tiny.go(folder, [tiny.At("on_train_batch_begin", step, poison)])
