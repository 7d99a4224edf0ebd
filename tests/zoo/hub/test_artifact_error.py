"""`zoo.ArtifactError`: the one error of everything that reads an artifact."""

from __future__ import annotations

import pytest

import zoo
from tfp_bnn.core import plugins
from tfp_bnn.core.plugins import PluginError
from zoo.hub import loading, manifest
from zoo.hub.loading import open_model
from zoo.hub.reading import read_artifact


@pytest.mark.parametrize(
    "wrong",
    [OSError(5, "Input/output error"), KeyError("data"), RecursionError("too deep"), MemoryError(), TypeError("a\nb")],
)
def test_whatever_goes_wrong_while_an_artifact_is_loaded_is_one_error(tiny_artifact, monkeypatch, wrong):
    def fail(*_):
        raise wrong

    monkeypatch.setattr(loading, "parse_tensors", fail)
    with pytest.raises(zoo.ArtifactError) as caught:
        zoo.load_artifact(tiny_artifact, trust=True)
    assert caught.value.__cause__ is wrong
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["nothing.here", "a folder\nthat is not there", "mlp_flipout", ""])
def test_an_artifact_that_is_not_there_is_the_same_error(tmp_path, name):
    for read in (
        read_artifact,
        open_model,
        zoo.load_model,
        zoo.verify,
        lambda path: zoo.load_artifact(tmp_path / (path or "none"), trust=True),
        lambda path: zoo.evaluate(path, "iris"),
        lambda path: zoo.fine_tune(path, "iris"),
    ):
        with pytest.raises(zoo.ArtifactError) as caught:
            read(name)
        assert str(caught.value).isprintable()


def test_a_damaged_model_of_the_package_is_the_same_error(artifact, monkeypatch):
    (artifact / "README.md").write_text("changed")
    with pytest.raises(zoo.ArtifactError, match="not the one that was published"):
        manifest.read_verified(artifact, manifest.read_manifest(artifact))
    monkeypatch.setattr(loading, "saved_models_folder", lambda: artifact.parent)
    with pytest.raises(zoo.ArtifactError, match="does not exist"):
        zoo.load_model("mlp_flipout.iris")


def test_a_plug_in_that_fails_is_no_fault_of_the_artifact(tiny_artifact, monkeypatch):
    def fail():
        raise PluginError("no such plug-in")

    monkeypatch.setattr(loading, "load_plugins", fail)
    monkeypatch.setattr(plugins, "load_plugins", fail)
    with pytest.raises(PluginError):
        zoo.load_artifact(tiny_artifact, trust=True)
    with pytest.raises(PluginError):
        zoo.load_model("mlp_flipout.iris")
