"""What cards say of the source of their data and of licences."""

from __future__ import annotations

import pytest

import zoo
from zoo.hub.origin_text import origin_lines
from zoo.hub.reading import read_artifact


def test_source_licences_and_citation_are_stated():
    data = {"source": "a lake", "license": "CC0-1.0", "citation": "A. Diver, 2026"}
    assert origin_lines({"data": data, "license": "MIT"}) == [
        "- source of the data: a lake",
        "- licence of the data: CC0-1.0",
        "- citation of the data: A. Diver, 2026",
        "- licence of this model: MIT",
    ]


def test_what_is_not_known_is_said_to_be_so():
    unknown = ["- source of the data: not stated", "- licence of the data: not stated"]
    assert origin_lines({"data": {}}) == [*unknown, "- licence of this model: not stated"]


def test_data_that_a_program_makes_need_no_licence():
    assert "- licence of the data: none needed, a program makes them" in origin_lines(
        {"data": {"license": "generated"}}
    )


def test_an_artifact_keeps_what_its_dataset_says_and_the_licence_it_is_saved_with(tiny_artifact, tmp_path):
    config = read_artifact(tiny_artifact)["config"]
    iris = zoo.load_dataset("iris")
    assert {key: config["data"][key] for key in ("source", "license", "citation")} == {
        "source": iris.source,
        "license": "CC BY 4.0",
        "citation": iris.citation,
    }
    assert "license" not in config
    model = zoo.load_artifact(tiny_artifact, trust=True)
    saved = read_artifact(zoo.save_artifact(model, tmp_path / "saved", license="MIT"))
    assert saved["config"]["license"] == "MIT"
    assert "- licence of this model: MIT\n" in saved["card"]


@pytest.mark.parametrize("license", ["x" * 201, 3])
def test_a_licence_that_could_not_be_loaded_is_not_saved(tiny_artifact, tmp_path, license):
    model = zoo.load_artifact(tiny_artifact, trust=True)
    with pytest.raises(ValueError, match="license"):
        zoo.save_artifact(model, tmp_path / "saved", license=license)
    assert not (tmp_path / "saved").exists()
