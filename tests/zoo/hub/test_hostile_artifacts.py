"""Artifacts that are damaged or hostile are refused; the numbers are those of the list of hostile cases."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import struct
import subprocess
import sys

import keras
import numpy as np
import pytest
import safetensors.numpy

import zoo
from tfp_bnn.models.weight_record import assign_weight_distributions, weight_distributions
from zoo.hub import loading, manifest
from zoo.hub.loading import open_model
from zoo.hub.reading import read_artifact

from .artifact_parts import stored_tensors

READERS = (read_artifact, functools.partial(zoo.load_artifact, trust=True))

# === Refusals (numbers as in the list of hostile cases) ===


def test_folder_needs_trust(artifact):
    with pytest.raises(zoo.ArtifactError, match="trust=True"):
        zoo.load_artifact(artifact)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>not found</html>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git-LFS pointer"),
        (b"x" * 100, "expected"),
    ],
)
def test_l1_replaced_weights(artifact, data, says):
    (artifact / "weights.safetensors").write_bytes(data)
    with pytest.raises(zoo.ArtifactError, match=f"{says}.*SHA-256") as caught:
        zoo.load_artifact(artifact, trust=True)
    assert f"found {len(data)} bytes" in str(caught.value)


def test_l1_truncated_weights(artifact):
    whole = (artifact / "weights.safetensors").read_bytes()
    (artifact / "weights.safetensors").write_bytes(whole[:-7])
    with pytest.raises(zoo.ArtifactError, match=f"expected {len(whole)} bytes.*found {len(whole) - 7} bytes"):
        zoo.load_artifact(artifact, trust=True)


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "config.json", "metrics.json", "README.md", "golden.safetensors"]
)
def test_l2_one_bit_flipped(artifact, name):
    data = bytearray((artifact / name).read_bytes())
    data[len(data) // 2] ^= 1
    (artifact / name).write_bytes(bytes(data))
    with pytest.raises(zoo.ArtifactError, match=f"{name}.* is not the one that was published"):
        zoo.load_artifact(artifact, trust=True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_l3_not_finite(artifact, rewrite, value):
    tensors = stored_tensors(artifact)
    tensors["dense1/kernel/loc"][2, 3] = value
    rewrite("weights.safetensors", safetensors.numpy.save(tensors))
    with pytest.raises(zoo.ArtifactError, match=r"'dense1/kernel/loc' has 1 values.*index \(2, 3\)"):
        zoo.load_artifact(artifact, trust=True)


@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.float16])
def test_l4_other_dtype(artifact, rewrite, dtype):
    tensors = stored_tensors(artifact)
    tensors["logits/bias"] = tensors["logits/bias"].astype(dtype)
    rewrite("weights.safetensors", safetensors.numpy.save(tensors))
    with pytest.raises(zoo.ArtifactError, match=f"'logits/bias' has .*{np.dtype(dtype)}; expected .*float32"):
        zoo.load_artifact(artifact, trust=True)


def test_l5_misnamed_tensor(artifact, rewrite):
    tensors = stored_tensors(artifact)
    tensors["logit/bias"] = tensors.pop("logits/bias")
    rewrite("weights.safetensors", safetensors.numpy.save(tensors))
    with pytest.raises(zoo.ArtifactError, match=r"missing \['logits/bias'\], unexpected \['logit/bias'\]"):
        zoo.load_artifact(artifact, trust=True)


def test_l6_transposed_tensor(artifact, rewrite):
    tensors = stored_tensors(artifact)
    tensors["logits/kernel/loc"] = np.ascontiguousarray(tensors["logits/kernel/loc"].T)
    rewrite("weights.safetensors", safetensors.numpy.save(tensors))
    with pytest.raises(zoo.ArtifactError, match=r"'logits/kernel/loc' has shape \(3, 8\).*expected \(8, 3\)"):
        zoo.load_artifact(artifact, trust=True)


def test_l7_header_of_gigabytes(artifact, rewrite):
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**31], "data_offsets": [0, 2**33]}}).encode()
    rewrite("weights.safetensors", struct.pack("<Q", len(header)) + header)
    with pytest.raises(zoo.ArtifactError, match="not a safetensors file"):
        zoo.load_artifact(artifact, trust=True)
    rewrite("weights.safetensors", struct.pack("<Q", 2**40))
    with pytest.raises(zoo.ArtifactError, match="not a safetensors file"):
        zoo.load_artifact(artifact, trust=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden": [10**9]}, "hidden"),
        ({"hidden": [-1]}, "hidden"),
        ({"hidden": [True]}, "hidden"),
        ({"hidden": [8.5]}, "hidden"),
        ({"hidden": [8] * 100_000}, "hidden"),
        ({"hiden": [8]}, "Did you mean 'hidden'"),
        ({"initial_scale": -1.0}, "initial_scale"),
        ({"kernel_prior": "nomal"}, "Did you mean 'normal'"),
        ({"input_shape": [8192, 8192, 8192]}, "input_shape"),
        ({"hidden": [9]}, "describes a network of"),
        ({"hidden": [8192] * 16}, "describes a network of"),
        ({"initial_scale": True}, "initial_scale"),
        # Keras would import the module that such a config names.
        ({"kernel_prior": {"module": "os", "class_name": "system", "config": {}}}, "config of Keras is not accepted"),
        ({"likelihood": {"class_name": "Lambda", "name": "normal", "config": {}}}, "config of Keras is not accepted"),
        ({"kernel_prior": {"name": "normal", "hyperprior": {"class_name": "x"}}}, "config of Keras is not accepted"),
        ({"kernel_prior": {"name": "normal", "hyperprior": {"name": {"class_name": "x"}}}}, "Unknown hyperprior"),
        ({"kernel_prior": {"name": "normal", "scale": float("nan")}}, "NaN"),
        ({"kernel_prior": {"name": "flat"}}, "is improper and has no KL to kernel_posterior"),
    ],
)
def test_l9_config_out_of_bounds(artifact, rewrite, change, says):
    config = json.loads((artifact / "config.json").read_text())
    config["config"] |= change
    rewrite("config.json", json.dumps(config).encode())
    with pytest.raises(zoo.ArtifactError, match=says):
        zoo.load_artifact(artifact, trust=True)


def test_a_network_refused_for_its_size_is_never_allocated(artifact, rewrite, monkeypatch):
    """Keras gives postponed variables their values when any later scope ends, so the next good load would pay."""
    config = json.loads((artifact / "config.json").read_text())
    config["config"]["hidden"] = [7]
    rewrite("config.json", json.dumps(config).encode())
    with pytest.raises(zoo.ArtifactError, match="describes a network of"):
        zoo.load_artifact(artifact, trust=True)
    allocated = []
    monkeypatch.setattr(keras.Variable, "_deferred_initialize", allocated.append)
    with keras.StatelessScope():
        pass
    assert allocated == []


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"[" * 200_000, "nested too deeply"),
        (b'{"schema": NaN}', "NaN is not a value"),
        (b'{"schema": 1, "schema": 1}', "appears twice"),
        (b"\xff\xfe", "not the JSON"),
        (b"\xef\xbb\xbf{}", "not the JSON"),
        (b"[]", "a mapping of keys was expected"),
        (b" " * (2**22 + 1), "at most 4194304 were expected"),
    ],
)
def test_l10_hostile_json(artifact, rewrite, data, says):
    rewrite("config.json", data)
    with pytest.raises(zoo.ArtifactError, match=says):
        zoo.load_artifact(artifact, trust=True)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc",
        "a/b",
        "/etc/passwd",
        "x\0y",
        "l\u0435net5_flipout.digits",
        "a" * 10_000,
        "",
        "A.B",
        "a.b.c",
        3,
        None,
    ],
)
def test_l11_names(name):
    with pytest.raises(zoo.ArtifactError, match="not a name of the zoo"):
        zoo.load_model(name)


def test_l12_manifest(artifact):
    whole = json.loads((artifact / "manifest.json").read_text())

    def write(**changes: object) -> None:
        (artifact / "manifest.json").write_text(json.dumps({**whole, **changes}))

    write(files={name: {**entry, "sha256": entry["sha256"].upper()} for name, entry in whole["files"].items()})
    assert zoo.load_artifact(artifact, trust=True)
    write(files={})
    with pytest.raises(zoo.ArtifactError, match=r"'files' got \{\}: Dictionary should have at least 1 item"):
        zoo.load_artifact(artifact, trust=True)
    write(files={name: {"bytes": entry["bytes"]} for name, entry in whole["files"].items()})
    with pytest.raises(zoo.ArtifactError, match=r"the key 'files.README.md.sha256' is missing"):
        zoo.load_artifact(artifact, trust=True)
    write(
        files={name: {**entry, "sha256": "d41d8cd98f00b204e9800998ecf8427e"} for name, entry in whole["files"].items()}
    )
    with pytest.raises(zoo.ArtifactError, match=r"'files.README.md.sha256' got .*String should match pattern"):
        zoo.load_artifact(artifact, trust=True)
    write()
    (artifact / "extra.py").write_text("print('hello')")
    with pytest.raises(zoo.ArtifactError, match=r"unlisted \['extra.py'\]"):
        zoo.load_artifact(artifact, trust=True)
    (artifact / "manifest.json").unlink()
    with pytest.raises(zoo.ArtifactError, match=r"no manifest\.json"):
        zoo.load_artifact(artifact, trust=True)


def test_l16_newer_schema(artifact):
    whole = json.loads((artifact / "manifest.json").read_text())
    (artifact / "manifest.json").write_text(json.dumps({**whole, "schema": 2}))
    with pytest.raises(zoo.ArtifactError, match=r"schema version 2.*Update tfp_bnn"):
        zoo.load_artifact(artifact, trust=True)


@pytest.mark.parametrize("value", [0.0, -0.1])
def test_l19_scale_that_is_no_scale(artifact, rewrite, value):
    tensors = stored_tensors(artifact)
    tensors["dense1/kernel/scale"][0, 0] = value
    rewrite("weights.safetensors", safetensors.numpy.save(tensors))
    with pytest.raises(zoo.ArtifactError, match="'dense1/kernel/scale' has 1 values"):
        zoo.load_artifact(artifact, trust=True)


def test_l20_other_backend():
    code = "import os; os.environ['KERAS_BACKEND'] = 'numpy'; import tfp_bnn"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "KERAS_BACKEND=tensorflow" in run.stderr


def test_refused_weights_change_nothing(tiny_artifact):
    model = zoo.load_artifact(tiny_artifact, trust=True)
    before = weight_distributions(model)
    spoiled = {name: value + np.float32(1.0) for name, value in before.items()}
    spoiled["logits/bias"] = spoiled["logits/bias"] * np.nan
    with pytest.raises(ValueError, match="logits/bias"):
        assign_weight_distributions(model, spoiled)
    for name, value in weight_distributions(model).items():
        np.testing.assert_array_equal(value, before[name])


def test_stricter_refusal_puts_the_old_weights_back(tiny_artifact):
    model = zoo.load_artifact(tiny_artifact, trust=True)
    before = weight_distributions(model)
    spoiled = {name: value + np.float32(1.0) for name, value in before.items()}
    spoiled["logits/kernel/prior_scale"] = np.array(1e-6, np.float32)
    with pytest.raises(ValueError, match="prior scale"):
        assign_weight_distributions(model, spoiled)
    for name, value in weight_distributions(model).items():
        np.testing.assert_allclose(value, before[name], rtol=1e-5)


def test_save_says_what_metrics_are(tiny_artifact, tmp_path):
    model = zoo.load_artifact(tiny_artifact, trust=True)
    with pytest.raises(ValueError, match=r"`metrics` has the keys \['accuracy'\]"):
        zoo.save_artifact(model, tmp_path / "x", metrics={"accuracy": 0.9})
    with pytest.raises(ValueError, match=r"^`metrics`: 'training_seeds\.0' got 2147483648: Input should be less than"):
        zoo.save_artifact(model, tmp_path / "x", metrics={**model.card["metrics"], "training_seeds": [2**31]})
    assert not list(tmp_path.iterdir())


# === Files that are none ===


@pytest.mark.parametrize("kind", ["link", "link to a device", "pipe", "folder", "link to nothing"])
@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json"])
def test_l22_only_regular_files_are_opened(artifact, kind, name):
    path = artifact / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"link": artifact / "config.json", "link to a device": "/dev/zero"}.get(kind, "nothing"))
    what = "a link" if "link" in kind else f"a {kind}"
    for read in READERS:
        with pytest.raises(zoo.ArtifactError, match=f"{name}' is {what}; a regular file was expected"):
            read(artifact)


def test_l23_the_number_and_the_sum_of_files_are_bounded(artifact):
    whole = json.loads((artifact / "manifest.json").read_text())
    entry = {"bytes": 64 * 2**20, "sha256": "0" * 64}
    for path in artifact.iterdir():
        path.unlink()

    def write(number):
        for k in range(number):
            with (artifact / f"f{k}").open("wb") as file:
                file.truncate(entry["bytes"])
        files = {f"f{k}": entry for k in range(number)}
        (artifact / "manifest.json").write_text(json.dumps({**whole, "files": files}))

    write(3)
    with pytest.raises(zoo.ArtifactError, match=r"lists 201326592 bytes in all; at most 134217728 were expected"):
        zoo.load_artifact(artifact, trust=True)
    write(60)
    with pytest.raises(zoo.ArtifactError, match=r"Dictionary should have at most 32 items"):
        zoo.load_artifact(artifact, trust=True)


def test_l24_many_keys_and_tensors_are_refused_in_few_words(artifact, rewrite):
    config = (artifact / "config.json").read_bytes()
    rewrite("config.json", json.dumps({f"k{k}": 0 for k in range(60_000)}).encode())
    with pytest.raises(zoo.ArtifactError, match="Unknown key 'k0'") as caught:
        zoo.load_artifact(artifact, trust=True)
    assert len(str(caught.value)) < 2000
    rewrite("config.json", config)
    rewrite("weights.safetensors", safetensors.numpy.save({f"x{k}": np.zeros(0, np.float32) for k in range(60_000)}))
    with pytest.raises(zoo.ArtifactError, match=r"has a header of .* bytes; at most 1048576 were expected"):
        zoo.load_artifact(artifact, trust=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": True}, "'schema' got True"),
        ({"num_examples": "640"}, "'num_examples' got '640'"),
        ({"num_examples": 10**18}, "'num_examples' got"),
        ({"num_examples": None}, None),
        ({"surprise": 1}, "Unknown key 'surprise'"),
        ({"name": "\x1b[31m"}, None),
        ({"data": {"class_names": [["a"]]}}, r"'data.class_names.0' got \['a'\]"),
        ({"data": {"class_names": "abc"}}, "'data.class_names' got 'abc'"),
    ],
)
def test_l26_the_config_has_one_schema(artifact, rewrite, change, says):
    config = {**json.loads((artifact / "config.json").read_text()), **change}
    rewrite("config.json", json.dumps(config).encode())
    for read in READERS:
        with contextlib.nullcontext() if says is None else pytest.raises(zoo.ArtifactError, match=says):
            read(artifact)


@pytest.mark.parametrize("value", [3e38, 1e16])
@pytest.mark.parametrize("name", ["dense1/kernel/scale", "dense1/kernel/loc", "logits/bias"])
def test_l26_numbers_whose_squares_are_infinite_are_refused(artifact, rewrite, value, name):
    tensors = stored_tensors(artifact)
    tensors[name].reshape(-1)[0] = value
    rewrite("weights.safetensors", safetensors.numpy.save(tensors))
    with pytest.raises(zoo.ArtifactError, match=rf"'{name}' has 1 values that are NaN, infinite, beyond 1e\+15"):
        zoo.load_artifact(artifact, trust=True)


@pytest.mark.parametrize("text", [b'"\\ud800"', b"1e999", b"1" * 400, b'"\\uD83D"'])
def test_l27_values_that_cannot_be_written_or_computed_with_are_refused(artifact, rewrite, text):
    rewrite("metrics.json", b'{"x": ' + text + b"}")
    with pytest.raises(zoo.ArtifactError, match=r"metrics.json is not the JSON that was expected"):
        read_artifact(artifact)


# === Names ===


def test_unknown_model_gives_the_nearest(monkeypatch):
    monkeypatch.setattr(loading, "bundled_models", lambda: {"lenet5_flipout.digits": {}})
    with pytest.raises(zoo.ArtifactError, match=r"Did you mean 'lenet5_flipout.digits'"):
        zoo.load_model("lenet5_flipout.digit")
    with pytest.raises(zoo.ArtifactError, match=r"architecture without weights.*lenet5_flipout.digits"):
        zoo.load_model("lenet5_flipout")


def test_open_model_takes_folders_only_with_trust(artifact):
    assert open_model(artifact, trust=True).output_shape == (None, 3)
    with pytest.raises(zoo.ArtifactError, match="trust=True"):
        open_model(artifact)


def test_package_manifest_refuses_what_is_damaged(artifact, monkeypatch):
    monkeypatch.setattr(manifest, "saved_models_folder", lambda: artifact.parent)
    (artifact / "README.md").write_text("changed")
    with pytest.raises(zoo.ArtifactError, match="not the one that was published"):
        manifest.write_package_manifest()
