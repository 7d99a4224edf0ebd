"""What the command line says of an artifact that cannot be used."""

from __future__ import annotations

import shutil

import pytest


@pytest.mark.parametrize(
    "verb",
    [
        ("show",),
        ("evaluate", "--trust", "--dataset", "iris"),
        ("predict", "--trust", "-"),
        ("finetune", "--trust", "--dataset", "iris"),
    ],
)
def test_every_verb_refuses_a_damaged_artifact_in_one_line(tfp_bnn, tiny_artifact, tmp_path, verb):
    folder = shutil.copytree(tiny_artifact, tmp_path / "two\nlines")
    (folder / "config.json").write_text("{}")
    code, out, err = tfp_bnn(verb[0], folder, *verb[1:])
    *progress, message = err.splitlines()
    assert (code, out) == (2, "")
    assert message.startswith("tfp-bnn: The file ")
    assert "is not the one that was published" in message
    assert not any("published" in line for line in progress)


def test_verify_counts_a_damaged_artifact_as_a_failed_check(tfp_bnn, tiny_artifact, tmp_path):
    folder = shutil.copytree(tiny_artifact, tmp_path / "two\nlines")
    (folder / "config.json").write_text("{}")
    code, out, _ = tfp_bnn("verify", folder)
    assert code == 1
    assert "0 passed, 1 failed" in out


def test_an_artifact_that_says_nothing_of_its_data_is_evaluated_only_on_a_dataset_by_name(tfp_bnn, artifact, rewrite):
    import json

    config = json.loads((artifact / "config.json").read_text())
    del config["data"]
    rewrite("config.json", json.dumps(config).encode())
    code, _, err = tfp_bnn("evaluate", artifact, "--trust")
    assert code == 2
    assert "does not name the dataset" in err
