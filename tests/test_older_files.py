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
    mean = model.posterior_predictive(said["x"], num_samples=8, seed=1).mean()
    np.testing.assert_allclose(mean, said["mean"], rtol=1e-5, atol=1e-6)
    kl = np.array([float(value) for value in model.kl_by_layer().values()])
    np.testing.assert_allclose(kl, said["kl"], rtol=1e-4)
    assert model.calibration is not None
    model.calibration = None
    # Keras shuffles the rows, in an order that was not recorded: over orders the number varies by some percent.
    keras.utils.set_random_seed(0)
    logs = model.fit(said["x"], said["y"], epochs=1, batch_size=8, verbose=0).history
    np.testing.assert_allclose(logs["nll"][0], said["next_nll"], rtol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trained", "tuned"])
def test_an_artifact_loads_and_all_its_numbers_are_confirmed(name, tmp_path):
    folder = shutil.copytree(FOLDER / name, tmp_path / name)
    model = zoo.load_artifact(folder, trust=True)
    assert model.posterior_predictive(zoo.load_dataset("iris").test.x, num_samples=4).mean().shape == (30, 3)
    checks = zoo.verify(folder, full=True)
    assert len(checks) > 10
    assert {check.status for check in checks} == {Status.PASSED}
