"""Fixtures of the zoo: a small artifact, trained once, and a server for artifacts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .hub.remote.lying_server import LyingServer, make_certificate, running

TINY_RECIPE = {
    "name": "mlp_flipout.tiny",
    "architecture": "mlp_flipout",
    "dataset": "iris",
    "model": {"hidden": [8], "kernel_prior": {"name": "normal", "scale": 0.5, "empirical_bayes": True}},
    "standardize_inputs": True,
    "batch_size": 32,
    "epochs": 3,
    "evaluation": {"num_samples": 10, "seed": 0, "spread_seeds": [1]},
}


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory, eager_steps: Callable[[], Any]) -> Path:
    """The folder of an artifact. Tests must not change it."""
    from zoo import train

    with eager_steps():
        return train(TINY_RECIPE, tmp_path_factory.mktemp("artifacts") / "mlp_flipout.tiny").path


@pytest.fixture(scope="session")
def calibrated_artifact(tmp_path_factory: pytest.TempPathFactory, eager_steps: Callable[[], Any]) -> Path:
    """The folder of an artifact with a calibration and all numbers of a card. Tests must not change it."""
    import zoo
    from zoo.evaluation.card_numbers import measure, with_spread
    from zoo.training.by_recipe import build

    recipe, data = zoo.load_recipe(TINY_RECIPE), zoo.load_dataset("iris")
    with eager_steps():
        model = build(recipe, data)
    model.fit(data.train.x, data.train.y, epochs=3, verbose=0)
    model.calibration = {"name": "temperature", "temperature": 0.7}
    numbers = measure(model, data, recipe.evaluation)
    return zoo.save_artifact(
        model,
        tmp_path_factory.mktemp("artifacts") / "mlp_flipout.calibrated",
        recipe=recipe,
        metrics=with_spread(numbers, 0, {1: {name: value + 0.1 for name, value in numbers["test"].items()}}),
        data={"dataset": data.name, "task": data.task, "class_names": data.class_names},
        golden_inputs=data.test.x[:4],
    )


@pytest.fixture
def artifact(tiny_artifact: Path, tmp_path: Path) -> Path:
    """A copy of the artifact that tests may damage."""
    return Path(shutil.copytree(tiny_artifact, tmp_path / "artifact"))


@pytest.fixture
def rewrite(artifact: Path) -> Callable[[str, bytes], None]:
    """A function that replaces a file of the artifact and updates its manifest."""
    import json

    from zoo.hub.manifest import describe_files

    def replace(name: str, data: bytes) -> None:
        (artifact / name).write_bytes(data)
        manifest = json.loads((artifact / "manifest.json").read_text())
        manifest["files"] = describe_files(artifact)
        (artifact / "manifest.json").write_text(json.dumps(manifest))

    return replace


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests believe in the certificate of the server, and go to it directly."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.with_name("certificate.pem")))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def server(tmp_path: Path, certificate: Path, trusted: None) -> Iterator[LyingServer]:
    """Serves the folder `served`, in which the artifact `iris` is one that is bundled."""
    from zoo.hub.manifest import saved_models_folder

    shutil.copytree(saved_models_folder() / "mlp_flipout.iris", tmp_path / "served" / "iris")
    with running(LyingServer(tmp_path / "served", certificate)) as started:
        yield started


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache, which does not exist yet."""
    monkeypatch.setenv("TFP_BNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
