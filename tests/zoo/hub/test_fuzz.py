"""Damaged artifacts, through everything that reads them: refused in words, or what they say is what is loaded."""

from __future__ import annotations

import json
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfp_bnn
import zoo
from zoo.hub.manifest import describe_files
from zoo.hub.members import records_of
from zoo.hub.reading import read_artifact

from .artifact_parts import stored_tensors
from .mutations import mutate

SEED = 0
MOST_SECONDS, MOST_MEGABYTES = 1.0, 64


@pytest.fixture(scope="module")
def good_artifact(calibrated_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an artifact with a calibration and a conformal prediction. Tests must not change it."""
    folder = Path(shutil.copytree(calibrated_artifact, tmp_path_factory.mktemp("artifacts") / "good"))
    more = {
        "config": {"name": "sets", "level": 0.9, "num_samples": 8, "seed": 0, "thresholds": [0.5, 0.25, 1.0]},
        "metrics": {"coverage": 0.9, "mean_size": 1.25},
    }
    for name, conformal in more.items():
        values = json.loads((folder / f"{name}.json").read_text())
        (folder / f"{name}.json").write_text(json.dumps({**values, "conformal": conformal}))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": describe_files(folder)}))
    return folder


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def outcome(folder: Path) -> str:
    """Shows and loads an artifact: "refused", or "loaded" with exactly the tensors of its file."""
    refusals: list[zoo.ArtifactError] = []
    model = None
    for read in (read_artifact, lambda path: zoo.load_artifact(path, trust=True)):
        try:
            model = read(folder)
        except zoo.ArtifactError as error:
            refusals.append(error)
    for refusal in refusals:
        message = str(refusal)
        # Whatever else goes wrong is turned into one too, but not in words that were chosen for it.
        assert isinstance(refusal.__cause__, ValueError | OSError), repr(refusal.__cause__)
        assert 10 < len(message) < 2000, message
        assert message.isprintable(), repr(message)
    if not isinstance(model, tfp_bnn.VariationalModel):
        return "refused"
    (record,) = records_of(model)
    stored = stored_tensors(folder)
    for name, array in record.arrays().items():
        np.testing.assert_allclose(array, stored[name], rtol=1e-5, err_msg=name)
    predictive = model.posterior_predictive(np.full((2, 4), 3.0), num_samples=2)
    assert np.isfinite(predictive.mean()).all()
    if model.conformal is not None:
        assert model.conformal.predict(predictive).shape == (2, 3)
    return "loaded"


@pytest.fixture
def functions_run_eagerly() -> Iterator[None]:
    """Tracing the draws of each loaded model would take most of the time."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("number", [100, pytest.param(2000, marks=pytest.mark.thorough)])
@pytest.mark.usefixtures("functions_run_eagerly")
@pytest.mark.filterwarnings("ignore:The predictions have 2 draws")
def test_a_damaged_artifact_is_refused_or_loaded_as_it_is_written(good_artifact, tmp_path, number):
    outcomes, signed, slowest, largest = [], 0, 0.0, 0.0
    for index in range(number):
        folder = Path(shutil.copytree(good_artifact, tmp_path / str(index)))
        what = mutate(folder, np.random.default_rng([SEED, index]))
        before, start = peak_megabytes(), time.process_time()
        try:
            outcomes.append(outcome(folder))
        except Exception as error:
            raise AssertionError(f"Mutation {index} ({what}): {type(error).__name__}: {error}") from error
        if index:
            # The first warms up.
            slowest, largest = max(slowest, time.process_time() - start), max(largest, peak_megabytes() - before)
        signed += what.endswith("signed")
        shutil.rmtree(folder)
    print(f"{number} mutations, {signed} signed: {outcomes.count('loaded')} loaded; {slowest:.2f} s, {largest:.0f} MB")
    assert signed >= number / 2
    assert outcomes.count("refused") > number / 2
    assert outcomes.count("loaded") > 0
    # Seconds of the processor, which do not depend on what else runs.
    assert slowest < MOST_SECONDS
    assert largest < MOST_MEGABYTES
