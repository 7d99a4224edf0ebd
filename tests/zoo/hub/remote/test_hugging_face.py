"""Artifacts in repositories of the Hugging Face Hub, by its own client and a stand-in for the hub on the loopback."""

from __future__ import annotations

import json
import shutil
import ssl
import sys

import pytest
import yaml

from zoo.core.untrusted import ArtifactError
from zoo.hub.locating import local, read_files
from zoo.hub.manifest import describe_files, digest, read_manifest, saved_models_folder, to_json
from zoo.hub.remote.pushing import push

from . import lying_server as lies
from .fake_hub import TOKEN, FakeHub

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")

IRIS = "mlp_flipout.iris"


@pytest.fixture
def hub(tmp_path, certificate, trusted, cache, monkeypatch):
    """A hub that the client of the hub takes for the real one, and is logged in to."""
    (tmp_path / "hub").mkdir()
    with lies.running(FakeHub(tmp_path / "hub", certificate)) as started:
        monkeypatch.setattr(constants, "ENDPOINT", started.url)
        template = f"{started.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        client = sys.modules[type(huggingface_hub.get_session()).__module__.partition(".")[0]].Client
        context = ssl.create_default_context(cafile=certificate.with_name("certificate.pem"))
        huggingface_hub.set_client_factory(lambda: client(verify=context, trust_env=False, follow_redirects=True))
        yield started
        huggingface_hub.close_session()
        huggingface_hub.set_client_factory(huggingface_hub.utils._http.default_client_factory)


@pytest.fixture
def unlicensed(tmp_path):
    """An artifact that says nothing of its licence."""
    folder = shutil.copytree(saved_models_folder() / IRIS, tmp_path / "unlicensed")
    config = json.loads((folder / "config.json").read_text())
    del config["license"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "manifest.json").write_text(to_json({**read_manifest(folder), "files": describe_files(folder)}))
    return folder


def metadata_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_what_is_pushed_is_loaded_by_its_address_with_the_same_numbers(hub):
    address = push(IRIS, "hf://user/iris")
    commit = hub.heads["user/iris", "main"]
    folder, _, files = read_files(address)
    assert address == f"hf://user/iris@{commit}#sha256={digest((folder / 'manifest.json').read_bytes())}"
    before = read_files(IRIS)[2]
    assert {name for name in before if files[name] != before[name]} == {"README.md"}
    assert hub.messages == [f"Upload {IRIS}"]
    assert local("hf://user/iris") != folder
    assert read_files("hf://user/iris")[2] == files


def test_the_card_has_the_metadata_of_the_hub(hub):
    files = read_files(push(IRIS, "hf://user/iris"))[2]
    card = files["README.md"].decode()
    metadata = metadata_of(card)
    assert metadata["license"] == "apache-2.0"
    assert metadata["library_name"] == "tfp_bnn"
    assert metadata["pipeline_tag"] == "tabular-classification"
    assert metadata["datasets"] == ["iris"]
    assert {"tfp_bnn", "bayesian", "variational", "mlp_flipout"} <= set(metadata["tags"])
    (entry,) = metadata["model-index"]
    (results,) = entry["results"]
    measured = json.loads(files["metrics.json"])["test"]
    assert {metric["type"]: metric["value"] for metric in results["metrics"]} == measured
    assert set(metadata["metrics"]) == set(measured)
    # The client reads it as its own.
    assert huggingface_hub.ModelCard(card).data.license == "apache-2.0"
    assert 'zoo.load_artifact("hf://user/iris", trust=True)' in card
    assert card.endswith((saved_models_folder() / IRIS / "README.md").read_text("utf-8").partition("## ")[2])


def test_a_pushed_artifact_that_is_pushed_again_has_one_block_of_metadata(hub):
    first = read_files(push(IRIS, "hf://user/iris"))
    second = read_files(push(first[0], "hf://user/other"))[2]["README.md"].decode()
    assert second == first[2]["README.md"].decode().replace("hf://user/iris", "hf://user/other")


@pytest.mark.slow
def test_another_licence_is_on_the_card_too(hub):
    _, _, files = read_files(push(IRIS, "hf://user/iris", license="CC BY 4.0"))
    card = files["README.md"].decode()
    assert metadata_of(card)["license"] == "cc-by-4.0"
    assert "- licence of this model: CC BY 4.0\n" in card
    assert b'"license": "CC BY 4.0"' in files["config.json"]


def test_an_artifact_without_a_licence_is_not_published(hub, unlicensed):
    with pytest.raises(ValueError, match=r"does not state under which licence .* license='Apache-2.0'"):
        push(unlicensed, "hf://user/iris")
    assert hub.created == []


def test_branches_and_private_repositories(hub):
    push(IRIS, "hf://user/iris@trial", private=True, message="A trial")
    assert set(hub.heads) == {("user/iris", "trial")}
    assert hub.messages == ["A trial"]
    (created,) = hub.created
    assert created.get("private") or created.get("visibility") == "private"
    read_files("hf://user/iris@trial")
    with pytest.raises(ArtifactError, match="Check name and revision"):
        read_files("hf://user/iris@other")


@pytest.mark.parametrize("address", ["https://example.org/iris", f"hf://user/iris#sha256={'0' * 64}", "iris"])
def test_only_repositories_are_pushed_to(address):
    with pytest.raises(ValueError, match=r"hf://user/name"):
        push(IRIS, address)


def test_a_damaged_artifact_is_not_published(hub, unlicensed):
    (unlicensed / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="is not the one that was published"):
        push(unlicensed, "hf://user/iris", license="MIT")
    assert hub.created == []


def test_who_is_not_logged_in_is_told_how(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ConnectionError, match=r"hf://user/iris was not written: .* Log in with `hf auth login`"):
        push(IRIS, "hf://user/iris")
    assert hub.heads == {}


def test_the_token_goes_to_the_hub_and_to_no_other_host(hub):
    push(IRIS, "hf://user/iris")
    commit = hub.heads["user/iris", "main"]
    place = f"/user/iris/resolve/{commit}"
    weights = f"{hub.url.replace('127.0.0.1', 'localhost')}{place}/weights.safetensors?elsewhere"
    hub.lies[f"{place}/weights.safetensors"] = lies.redirected(weights)
    true = (hub.folder / place[1:] / "weights.safetensors").read_bytes()
    hub.lies[f"{place}/weights.safetensors?elsewhere"] = lambda handler, _: lies.send(handler, true)
    read_files("hf://user/iris")
    for name in ("manifest.json", "weights.safetensors"):
        assert hub.headers[f"{place}/{name}"]["authorization"] == f"Bearer {TOKEN}"
    assert "authorization" not in {key.lower() for key in hub.headers[f"{place}/weights.safetensors?elsewhere"]}


def test_a_hub_that_lies_is_refused_like_any_server(hub, cache):
    push(IRIS, "hf://user/iris")
    commit = hub.heads["user/iris", "main"]
    hub.lies[f"/user/iris/resolve/{commit}/weights.safetensors"] = lies.endless
    with pytest.raises(ArtifactError, match=r"hf://user/iris cannot be used: .* has more than the"):
        local("hf://user/iris")


@pytest.mark.filterwarnings("error")
def test_without_the_hub_the_copy_is_used_with_a_warning_and_a_commit_needs_no_hub(hub):
    address = push(IRIS, "hf://user/iris")
    pinned, moving = local(address), local("hf://user/iris")
    hub.failing = True
    with pytest.warns(UserWarning, match=r"hf://user/iris cannot be reached .*503.*copy in the cache is used"):
        assert local("hf://user/iris") == moving
    assert local(address) == pinned
    with pytest.raises(ArtifactError, match=r"hf://user/new cannot be reached, and it is not in the cache"):
        local("hf://user/new")


def test_an_unknown_repository_is_refused_in_words(hub):
    with pytest.raises(ArtifactError, match=r"hf://user/unknown cannot be used: .*404.*Check name and revision"):
        local("hf://user/unknown")


def test_a_name_that_the_hub_does_not_allow_is_refused(hub):
    with pytest.raises(ArtifactError, match=r"hf://user/two--dashes cannot be used: .*repo_id"):
        local("hf://user/two--dashes")


def test_a_client_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for use in (lambda: local("hf://user/iris"), lambda: push(IRIS, "hf://user/iris")):
        with pytest.raises(ValueError, match=r"pip install 'tfp_bnn\[hub\]'"):
            use()


def test_the_command_prints_the_address_of_the_commit(hub, capsys, monkeypatch):
    from zoo.cli import main

    monkeypatch.setattr(sys, "argv", ["tfp-bnn", "push", IRIS, "hf://user/iris", "--license", "Apache-2.0"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"hf://user/iris@{hub.heads['user/iris', 'main']}#sha256=")
    assert "with the few inputs in its golden.safetensors" in printed.err
