"""Models from the network: the same as from their folder, and only with trust."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import zoo
from zoo.hub.loading import open_model
from zoo.hub.manifest import digest
from zoo.hub.reading import read_artifact

X = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)


@pytest.fixture
def published(server, cache, tiny_artifact):
    """The address of an artifact, which the cache does not have."""
    shutil.copytree(tiny_artifact, server.folder / "tiny")
    return f"{server.url}/tiny"


@pytest.mark.parametrize("load", [zoo.load_artifact, open_model])
def test_a_model_from_an_address_is_that_from_the_folder(published, tiny_artifact, load):
    far, near = load(published, trust=True), zoo.load_artifact(tiny_artifact, trust=True)
    means = [model.posterior_predictive(X, num_samples=3, seed=0).mean() for model in (far, near)]
    np.testing.assert_array_equal(*means)
    assert far.card["config"] == near.card["config"]


@pytest.mark.parametrize("trust", [False, 1, "yes", None])
@pytest.mark.parametrize("load", [zoo.load_artifact, open_model])
def test_without_trust_nothing_is_asked_for(published, server, load, trust):
    with pytest.raises(zoo.ArtifactError, match="is an address outside of the package"):
        load(published, trust)
    assert server.asked == {}


def test_a_card_can_be_read_before_its_author_is_trusted(published, tiny_artifact):
    assert read_artifact(published)["card"] == (tiny_artifact / "README.md").read_text("utf-8")


def test_a_hash_can_be_passed_for_addresses_and_folders(published, tiny_artifact):
    sha256 = digest((tiny_artifact / "manifest.json").read_bytes())
    for place in (published, tiny_artifact, f"{published}#sha256={sha256}"):
        zoo.load_artifact(place, trust=True, sha256=sha256.upper())
        with pytest.raises(zoo.ArtifactError, match=r"was expected|Give one of them"):
            zoo.load_artifact(place, trust=True, sha256="0" * 64)
    with pytest.raises(zoo.ArtifactError, match="64 hexadecimal digits"):
        zoo.load_artifact(tiny_artifact, trust=True, sha256="0")


def test_a_folder_that_is_called_like_a_bundled_model_is_a_folder(tiny_artifact, tmp_path, monkeypatch):
    shutil.copytree(tiny_artifact, tmp_path / "mlp_flipout.iris")
    monkeypatch.chdir(tmp_path)
    assert zoo.load_artifact("mlp_flipout.iris", trust=True).card["config"]["name"] == "mlp_flipout.tiny"
    with pytest.raises(zoo.ArtifactError, match="was expected"):
        zoo.load_artifact("mlp_flipout.iris", trust=True, sha256="0" * 64)


def test_a_folder_has_no_revision(tiny_artifact):
    with pytest.raises(zoo.ArtifactError, match="only hf:// addresses have one"):
        zoo.load_artifact(tiny_artifact, trust=True, revision="main")


@pytest.mark.parametrize("address", ["http://localhost/tiny", "s3://bucket/tiny", "hf://tiny"])
def test_other_protocols_are_refused_by_every_reader(address):
    for read in (lambda: zoo.load_artifact(address, trust=True), lambda: read_artifact(address)):
        with pytest.raises(zoo.ArtifactError, match=r"is not an address of an artifact\. Expected https://host/folder"):
            read()


def test_what_is_published_is_read_as_strictly_as_a_folder(published, server):
    (server.folder / "tiny" / "config.json").write_text('{"schema": 1}')
    from zoo.hub.manifest import describe_files, read_manifest, to_json

    manifest = {**read_manifest(server.folder / "tiny"), "files": describe_files(server.folder / "tiny")}
    (server.folder / "tiny" / "manifest.json").write_text(to_json(manifest))
    with pytest.raises(zoo.ArtifactError, match=r"config\.json: the key 'architecture' is missing"):
        zoo.load_artifact(published, trust=True)
