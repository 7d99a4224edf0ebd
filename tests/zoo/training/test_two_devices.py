"""Training from recipes on several devices: the same as on one, but for the noise, and refused where it cannot be.

The measurements are those of the script `two_devices.py`, made once, in a process with two logical CPUs.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
import zoo
from zoo.training.strategies import check_replicas, strategy_of

from ..recipe_parts import RECIPE


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("two devices") / "found"
    path = os.pathsep.join([str(Path(tfp_bnn.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(Path(__file__).with_name("two_devices.py")), str(out)]
    result = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    # The file was just written by that process.
    return pickle.loads(out.read_bytes())  # noqa: S301


@pytest.mark.thorough
def test_without_noise_two_devices_train_like_one(two_devices):
    """Six steps of Adam; they differ by the rounding of sums over rows."""
    (weights, history), (of_one, history_of_one) = two_devices["points"]
    assert history.keys() == history_of_one.keys()
    for name, values in history_of_one.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5, err_msg=name)
    for one, other in zip(weights, of_one, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.thorough
def test_devices_draw_other_noise(two_devices):
    first, second, *_ = two_devices["outputs"]
    assert not np.array_equal(first, second)


@pytest.mark.thorough
def test_a_run_is_resumed_with_the_same_bits_at_a_batch_that_is_shared_unevenly(two_devices):
    assert "resuming after epoch 1, step 2" in two_devices["told"]
    (weights, history), (of_whole, history_of_whole) = two_devices["resumed"]
    # The sums of the devices become one sum in a checkpoint, so running means differ by its rounding.
    assert history.keys() == history_of_whole.keys()
    for name, values in history_of_whole.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-6, err_msg=name)
    for one, other in zip(weights, of_whole, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.thorough
def test_a_run_is_not_resumed_on_another_number_of_devices(two_devices):
    assert "has different settings: replicas was 2" in two_devices["other devices"]


@pytest.mark.thorough
def test_an_artifact_does_not_depend_on_the_devices(two_devices):
    np.testing.assert_allclose(*two_devices["predicted"], rtol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["natural_gradient", "swag"])
def test_ways_that_change_the_optimizer_train_on_two_devices(two_devices, way):
    assert np.isfinite(two_devices[way]).all()


# === What is refused ===


@pytest.fixture
def network():
    layers = [keras.Input((4,)), keras.layers.BatchNormalization(), tfp_bnn.layers.DenseReparameterization(3)]
    return tfp_bnn.VariationalSequential(layers)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("mirorred", r"Unknown strategy 'mirorred'\. Did you mean 'mirrored'\? Expected one of: mirrored\."),
        (
            tf.distribute.MultiWorkerMirroredStrategy,
            r"does not work under MultiWorkerMirroredStrategy\. .*run_on_worke",
        ),
        (tf.distribute.ParameterServerStrategy, r"a OneDeviceStrategy, but got ParameterServerStrategy"),
    ],
)
def test_a_strategy_that_fit_does_not_know_is_refused(strategy, message):
    if not isinstance(strategy, str):
        # Making one starts its servers.
        strategy = strategy.__new__(strategy)
    with pytest.raises(ValueError, match=message):
        strategy_of(strategy)


def test_the_strategy_of_the_current_scope_is_used():
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    with strategy.scope():
        assert strategy_of(None) is strategy
    assert strategy_of(None).num_replicas_in_sync == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 33}, r"has batch_size: 33, which 4 replicas cannot share evenly\. Set it to 32\."),
        ({"batch_size": 1}, r"has batch_size: 1, .* Set it to 4\."),
        ({"inference": "hmc"}, r"inference: hmc takes no steps on batches that 4 replicas could share"),
    ],
)
def test_what_replicas_cannot_share_is_refused(changes, message, network):
    recipe, data = zoo.load_recipe(RECIPE).model_copy(update=changes), zoo.load_dataset("iris")
    with pytest.raises(ValueError, match=message):
        check_replicas(recipe, network, data, 4)
    check_replicas(recipe, network, data, 1)


def test_an_objective_of_all_examples_needs_one_replica(network):
    network.objective = "importance_weighted"
    with pytest.raises(ValueError, match=r"needs all examples in one replica, but there are 4"):
        check_replicas(zoo.load_recipe(RECIPE), network, zoo.load_dataset("iris"), 4)


def test_batch_normalization_needs_a_row_in_each_replica(network):
    recipe, data = zoo.load_recipe({**RECIPE, "batch_size": 124}), zoo.load_dataset("iris")
    with pytest.raises(ValueError, match=r"The last batch .* has 96 rows, .* none in some of the 124 replicas"):
        check_replicas(recipe, network, data, 124)


def test_a_fine_tuning_trains_on_one_device():
    recipe = {"start_from": {"model": "mlp_flipout.digits"}, "name": "mlp_flipout.tuned", "dataset": "digits"}
    with pytest.raises(ValueError, match=r"A fine-tuning trains on one device\. Leave out `strategy`"):
        zoo.train(recipe, strategy="mirrored")
