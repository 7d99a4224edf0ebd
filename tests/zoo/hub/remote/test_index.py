"""Index files: what others publish is listed and loaded by its name, and a malformed index is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

import zoo
from zoo.hub.manifest import digest, saved_models_folder
from zoo.hub.remote.index import find_in_index, read_index, write_index

from . import lying_server as lies

IRIS = "mlp_flipout.iris"
SHA256 = "ab" * 32


@pytest.fixture
def published(tmp_path):
    """A folder with an artifact, and an index beside it."""
    shutil.copytree(saved_models_folder() / IRIS, tmp_path / "published" / "models" / "iris")
    return write_index(tmp_path / "published" / "index.yaml", {"mlp.iris": "models/iris"})


def index_of(tmp_path, **changes):
    path = tmp_path / "index.yaml"
    entry = {"address": "iris", "sha256": SHA256, **changes.pop("entry", {})}
    path.write_text(yaml.safe_dump({"schema": 1, "models": {"mlp.iris": entry}, **changes}))
    return path


def test_an_index_tells_what_its_artifacts_tell(published):
    (entry,) = yaml.safe_load(published.read_text())["models"].values()
    manifest = published.parent / "models" / "iris" / "manifest.json"
    told = json.loads(manifest.read_text())
    assert entry == {
        "address": "models/iris",
        "sha256": digest(manifest.read_bytes()),
        "license": "Apache-2.0",
        **{key: told[key] for key in ("architecture", "dataset", "task", "num_weights", "metrics")},
    }


def test_models_are_listed_and_loaded_by_their_names(published):
    assert zoo.list_models(index=published) == ["mlp.iris"]
    assert zoo.list_models("lenet*", index=published) == []
    model = zoo.load_model("mlp.iris", index=published, trust=True)
    assert model.card["config"] == zoo.load_model(IRIS).card["config"]


def test_an_index_on_a_server_leads_to_the_artifacts_beside_it(published, server, cache):
    shutil.copytree(published.parent, server.folder / "zoo")
    index = f"{server.url}/zoo/index.yaml"
    assert zoo.list_models(index=index) == ["mlp.iris"]
    assert find_in_index("mlp.iris", index).address == f"{server.url}/zoo/models/iris"
    pinned = f"{index}#sha256={digest(published.read_bytes()).upper()}"
    assert zoo.load_model("mlp.iris", index=pinned, trust=True).num_examples == 96
    with pytest.raises(zoo.ArtifactError, match=r"/zoo/index\.yaml has the SHA-256 .*; (ab){32} was expected"):
        zoo.list_models(index=f"{index}#sha256={SHA256}")


def test_an_index_can_be_written_of_addresses(server, cache, tmp_path):
    index = write_index(tmp_path / "index.yaml", {"mlp.iris": f"{server.url}/iris/"})
    entry = read_index(index)["mlp.iris"]
    assert entry.address == f"{server.url}/iris"
    assert entry.sha256 == digest((server.folder / "iris" / "manifest.json").read_bytes())


def test_a_model_of_an_index_needs_trust(published):
    with pytest.raises(zoo.ArtifactError, match="If you know where it comes from"):
        zoo.load_model("mlp.iris", index=published)


def test_a_model_that_is_not_the_one_of_the_index_is_refused(published, tmp_path):
    folder = published.parent / "models" / "iris"
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(zoo.ArtifactError, match=r"manifest\.json has the SHA-256 .* was expected"):
        zoo.load_model("mlp.iris", index=published, trust=True)


def test_an_unknown_name_gives_the_nearest(published):
    with pytest.raises(zoo.ArtifactError, match=r"index\.yaml': Unknown model 'mlp\.irs'.*'mlp\.iris'"):
        zoo.load_model("mlp.irs", index=published, trust=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema": 2}, "'schema' got 2"),
        ({"schema": "1"}, "'schema' got '1'"),
        ({"models": {}}, "at least 1 item"),
        ({"models": ["iris"]}, "'models' got"),
        ({"models": {"../iris": {"address": "iris", "sha256": SHA256}}}, "is not a name of the zoo"),
        ({"models": {f"m{k}": {"address": "iris", "sha256": SHA256} for k in range(1001)}}, "at most 1000 items"),
        ({"more": 1}, "key 'more'"),
        ({"entry": {"sha256": "ab"}}, "should match pattern"),
        ({"entry": {"sha256": None}}, "'models.mlp.iris.sha256' got None"),
        ({"entry": {"pickle": "x"}}, "'models.mlp.iris.pickle' is unknown"),
        ({"entry": {"metrics": {"accuracy": "high"}}}, "valid number"),
        ({"entry": {"metrics": {"accuracy": float("nan")}}}, "finite number"),
        ({"entry": {"num_weights": -1}}, "greater than or equal to 0"),
        ({"entry": {"license": "x" * 201}}, "at most 200 characters"),
        ({"entry": {"address": "../iris"}}, "'address' is '../iris'; expected"),
        ({"entry": {"address": "/etc"}}, "'address' is '/etc'; expected"),
        ({"entry": {"address": "models/../../iris"}}, "expected https://host/folder"),
        ({"entry": {"address": "http://example.org/iris"}}, "is not an address of an artifact"),
        ({"entry": {"address": "file:///etc"}}, "is not an address of an artifact"),
        ({"entry": {"address": "\x1b[31m"}}, "expected https://host/folder"),
    ],
)
def test_a_malformed_index_is_refused_in_few_words(tmp_path, changes, says):
    with pytest.raises(zoo.ArtifactError, match=says) as error:
        read_index(index_of(tmp_path, **changes))
    assert len(str(error.value)) < 2000
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds NoneType; a mapping"),
        ("[1]", "holds list; a mapping"),
        ("schema: 1\nschema: 1\n", "the key 'schema' appears twice"),
        ("a: &a [1]\nb: *a\n", "anchors and aliases are not allowed"),
        ("!!python/object/apply:os.system [ls]", "is not valid YAML"),
        ("[" * 1000, "more than 20 levels"),
        ("x" * (2**18 + 1), "has more than 262144 bytes"),
    ],
)
def test_what_is_no_index_is_refused(tmp_path, text, says):
    (tmp_path / "index.yaml").write_text(text)
    with pytest.raises(zoo.ArtifactError, match=says):
        zoo.list_models(index=tmp_path / "index.yaml")


def test_a_file_that_is_missing_and_a_link_are_refused(tmp_path):
    with pytest.raises(zoo.ArtifactError, match="There is no index"):
        read_index(tmp_path / "index.yaml")
    (tmp_path / "index.yaml").symlink_to("/dev/zero")
    with pytest.raises(zoo.ArtifactError, match="is a link; a regular file was expected"):
        read_index(tmp_path / "index.yaml")


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (lies.answers(404), "cannot be downloaded: .*404.*Without a network, pass the path of a copy"),
        (lies.endless, "has more than the at most 262144 bytes"),
        (lies.html, "is not valid YAML|holds str; a mapping"),
        (lies.redirected("http://127.0.0.1:9/index.yaml"), "without https"),
        (lies.cut, "cannot be downloaded: .* broke off"),
    ],
)
def test_an_index_on_a_server_that_lies_is_refused(published, server, lie, says):
    shutil.copy(published, server.folder / "index.yaml")
    server.lies["/index.yaml"] = lie
    with pytest.raises(zoo.ArtifactError, match=says):
        zoo.list_models(index=f"{server.url}/index.yaml")


@pytest.mark.parametrize("index", ["http://localhost/index.yaml", "hf://user/zoo"])
def test_other_addresses_of_an_index_are_refused(index):
    with pytest.raises(zoo.ArtifactError, match=r"is not an address|is no address of an index"):
        zoo.list_models(index=index)


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ({"mlp.iris": "nothing"}, "There is no folder .*nothing"),
        # Folders are not taken for names.
        ({"mlp.iris": IRIS}, "There is no folder"),
        ({"mlp.iris": "models"}, "it is not an artifact"),
        ({"mlp.iris": "../published/models/iris"}, "expected https://host/folder"),
        ({"../x": "models/iris"}, "is not a name of the zoo"),
        ({}, "at least 1 item"),
    ],
)
def test_an_index_is_not_written_of_what_cannot_be_read(published, monkeypatch, models, says):
    monkeypatch.chdir(published.parent)
    with pytest.raises(ValueError, match=says):
        write_index("other.yaml", models)
    assert not published.with_name("other.yaml").exists()
