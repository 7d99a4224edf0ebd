"""Every verb that takes the folder of an artifact takes an address too."""

from __future__ import annotations

import json
import re
import shutil

import pytest


@pytest.fixture
def published(server, cache, tiny_artifact):
    shutil.copytree(tiny_artifact, server.folder / "tiny")
    return f"{server.url}/tiny"


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "rows.csv").write_text("5.1,3.5,1.4,0.2\n")
    return tmp_path / "rows.csv"


def test_a_card_is_shown_without_trust(tfp_bnn, published, tiny_artifact):
    code, out, _ = tfp_bnn("show", published, "--trust")
    assert (code, out) == (0, (tiny_artifact / "README.md").read_text("utf-8"))


@pytest.mark.slow
def test_verbs_that_use_a_model_need_trust(tfp_bnn, published, tiny_artifact, rows, server):
    for words in (("predict", "{}", rows), ("evaluate", "{}")):
        command = [published if word == "{}" else word for word in words]
        code, out, err = tfp_bnn(*command)
        assert (code, out) == (2, "")
        assert "If you know where it comes from" in err
        near = [tiny_artifact if word == "{}" else word for word in words]
        assert tfp_bnn(*command, "--trust")[:2] == tfp_bnn(*near, "--trust")[:2]


@pytest.mark.slow
def test_verify_measures_the_card_again(tfp_bnn, published):
    code, out, _ = tfp_bnn("verify", published, "--json", "--trust")
    checks = json.loads(out)
    assert (code, checks["failed"]) == (0, 0)
    assert {check["model"] for check in checks["checks"]} == {published}


@pytest.mark.slow
def test_fine_tuning_starts_from_an_address_and_names_it(tfp_bnn, published, tmp_path):
    options = ("--dataset", "iris", "--steps", "1", "--inflate", "1", "--head-scale", "1", "--out", tmp_path / "tuned")
    assert tfp_bnn("finetune", published, *options)[0] == 2
    assert tfp_bnn("finetune", published, *options, "--trust")[0] == 0
    config = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert config["data"]["fine_tuning"]["source"] == published


@pytest.mark.slow
@pytest.mark.filterwarnings("default::UserWarning")
def test_a_copy_in_the_cache_is_used_with_a_warning_in_one_line(tfp_bnn, published, server):
    assert tfp_bnn("show", published)[0] == 0
    server.shutdown()
    server.server_close()
    code, _, err = tfp_bnn("show", published)
    assert code == 0
    (line,) = err.splitlines()
    assert line.startswith(f"tfp-bnn: warning: {published} cannot be reached")


def test_the_doctor_names_the_cache(tfp_bnn, cache):
    assert json.loads(tfp_bnn("doctor", "--json")[1])["cache"] == str(cache)


def test_an_index_is_written_and_listed_with_addresses_that_other_commands_take(tfp_bnn, server, cache, tmp_path):
    index = tmp_path / "index.yaml"
    assert tfp_bnn("index", index, f"mlp.iris={server.url}/iris")[:2] == (0, f"{index}\n")
    code, out, _ = tfp_bnn("list", "--index", index)
    assert code == 0
    address = out.splitlines()[2].split()[-1]
    assert address.startswith(f"{server.url}/iris#sha256=")
    assert out.splitlines()[1].split()[0] == "mlp.iris"
    assert "Apache-2.0" in out
    (entry,) = json.loads(tfp_bnn("list", "--index", index, "--json")[1])
    assert (entry["name"], entry["address"], entry["dataset"]) == ("mlp.iris", address, "iris")
    assert tfp_bnn("show", address)[0] == 0
    # Who wrote the index did not know the number.
    index.write_text(re.sub(r"accuracy: \S+", "accuracy: null", index.read_text()))
    code, out, err = tfp_bnn("list", "--index", index, "--sort", "accuracy")
    assert code == 0, err
    assert " - " in out.splitlines()[1]
    assert tfp_bnn("list", "--index", tmp_path / "none.yaml")[0] == 2
    code, _, err = tfp_bnn("index", index, "mlp.iris")
    assert code == 2
    assert "NAME=ADDRESS was expected" in err
