"""`tfp-bnn --plugin`: models of other packages are trained, measured, used and verified like ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PACKAGE = Path(__file__).parents[2] / "outside_package"
ROOT = Path(__file__).parents[3]

# Several verbs in one process, which starts TensorFlow once.
VERBS = """
import json, sys
from zoo.cli import app
for arguments in json.loads(sys.argv[1]):
    try:
        app(arguments, standalone_mode=True)
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
    print("----", flush=True)
"""


def test_a_mistyped_module_is_refused_without_tensorflow():
    code = "import sys; from zoo.cli import main; sys.argv = ['tfp-bnn', '--plugin', 'no_such', 'list']\ntry: main()\n"
    code += "finally: print('tensorflow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("tfp-bnn: There is no module 'no_such' for --plugin. Give the dotted name of a")
    assert result.stdout == "False\n"


@pytest.mark.parametrize("name", ["../x", "", "a b"])
def test_what_is_no_module_is_refused(name, tfp_bnn, plugins):
    code, out, err = tfp_bnn("--plugin", name, "list")
    assert (code, out) == (2, "")
    assert f"There is no module {name!r} for --plugin" in err


def test_a_plugin_that_fails_ends_every_verb(tfp_bnn, plugins):
    plugins.write(broken="raise RuntimeError('not today')")
    for verb in (["list"], ["show", "mlp_flipout.iris"], ["evaluate", "mlp_flipout.iris"]):
        code, out, err = tfp_bnn("--plugin", "broken", *verb)
        assert (code, out) == (1, "")
        assert err.startswith("tfp-bnn: The plug-in 'broken', named by --plugin, could not be loaded: RuntimeE")


def test_a_module_of_the_current_folder_is_found(tfp_bnn, plugins, tmp_path, monkeypatch):
    (tmp_path / "of_this_folder.py").write_text("import zoo\nzoo.register_dataset('theirs')(lambda: None)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    try:
        code, out, _ = tfp_bnn("--plugin", "of_this_folder", "list", "mlp_flipout.iris")
        assert (code, "mlp_flipout.iris" in out) == (0, True)
        from zoo.datasets import DATASETS

        assert DATASETS.package_of("theirs") == "of_this_folder"
    finally:
        sys.modules.pop("of_this_folder", None)


@pytest.mark.slow
def test_an_outside_package_is_trained_and_once_installed_evaluated_used_and_verified(
    tfp_bnn, plugins, monkeypatch, tmp_path
):
    # Not installed, named by --plugin, found in the current folder.
    out = tmp_path / "made"
    monkeypatch.chdir(PACKAGE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    train = ["--plugin", "outside_zoo", "train", "outside_mlp.rings", "--out", out, "--seeds", "1", "--json"]
    code, printed, errors = tfp_bnn(*train)
    assert code == 0, errors
    test = json.loads(printed)["test"]
    assert test["accuracy"] > 0.9
    assert json.loads((out / "config.json").read_text())["package"] == "outside_zoo"

    # Installed, in a fresh process: found by its entry point.
    source, installed = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(installed), str(source)], check=True, capture_output=True, text=True)
    np.save(tmp_path / "x.npy", np.array([[0.5, 0.0], [2.5, 0.0]], "float32"))
    verbs = [
        ["evaluate", str(out), "--trust", "--num-samples", "10", "--json"],
        ["predict", str(out), str(tmp_path / "x.npy"), "--trust"],
        ["verify", str(out)],
    ]
    paths = os.pathsep.join([str(installed), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", VERBS, json.dumps(verbs)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    evaluated, predicted, verified, _ = done.stdout.split("----\n")[:4]
    assert json.loads(evaluated)["nll"] == pytest.approx(test["nll"], rel=1e-4)
    assert [row.split(",")[1] for row in predicted.splitlines()[1:]] == ["inner", "outer"]
    assert ", 0 failed" in verified.splitlines()[-1]
