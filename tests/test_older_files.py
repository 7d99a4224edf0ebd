"""Files written by the last commit before the modules were moved into rooms still load, and mean the same.

`data/before_rooms/make.py` wrote them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import tfp_bnn  # noqa: F401
import zoo
from zoo.evaluation.remeasuring import measure_again
from zoo.evaluation.verification import Status

FOLDER = Path(__file__).parent / "data" / "before_rooms"
MODELS = ("functional", "sequential")


@pytest.fixture(scope="module", params=MODELS)
def old(request):
    """The path of a `.keras` file, and what its model said when it was written."""
    with np.load(FOLDER / f"{request.param}.npz") as said:
        return FOLDER / f"{request.param}.keras", dict(said)


@pytest.mark.slow
def test_a_keras_file_predicts_and_goes_on_training_as_when_it_was_saved(old):
    path, said = old
    model = keras.models.load_model(path)
    # The mean of 8 draws, made of other random numbers than today. For a normal mean, a z above 6 has probability 2e-9.
    draws = np.array([model.posterior_predictive(said["x"], num_samples=1, seed=k).mean() for k in range(200)])
    z = (said["mean"] - draws.mean(axis=0)) / (draws.std(axis=0) * np.sqrt(1 / 8 + 1 / 200))
    assert np.abs(z).max() < 6
    # One draw of each, where the KL has no closed form.
    kl = np.array([[float(value) for value in model.kl_by_layer().values()] for _ in range(100)])
    assert (np.abs(said["kl"] - kl.mean(axis=0)) <= 6 * kl.std(axis=0) * np.sqrt(1 + 1 / 100) + 1e-4 * said["kl"]).all()
    assert model.calibration is not None
    model.calibration = None
    # Keras shuffles the rows, in an order that was not recorded: over orders the number varies by some percent.
    keras.utils.set_random_seed(0)
    logs = model.fit(said["x"], said["y"], epochs=1, batch_size=8, verbose=0).history
    np.testing.assert_allclose(logs["nll"][0], said["next_nll"], rtol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trained", "tuned"])
def test_an_artifact_loads_and_all_numbers_without_draws_are_confirmed(name, tmp_path):
    """Numbers with draws are those of other random numbers, until they are measured again."""
    folder = shutil.copytree(FOLDER / name, tmp_path / name)
    model = zoo.load_artifact(folder, trust=True)
    assert model.posterior_predictive(zoo.load_dataset("iris").test.x, num_samples=4).mean().shape == (30, 3)
    checks = zoo.verify(folder, full=True)
    assert len(checks) > 10
    of_draws = {"golden", "test", "test_uncalibrated", "validation", "quick", "out_of_distribution"}
    assert {check.quantity.split("/")[0] for check in checks if check.status is not Status.PASSED} <= of_draws
    measure_again(folder)
    assert {check.status for check in zoo.verify(folder, full=True)} == {Status.PASSED}
