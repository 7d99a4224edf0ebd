"""Every line of the README's examples runs, and its numbers are those of the cards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.evaluation.results_table import with_table

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_python_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = blocks("python")
    assert len(found) >= 3
    namespace: dict[str, object] = {}
    for block in found:
        exec(compile(block, str(README), "exec"), namespace)  # noqa: S102
    assert "dense_flipout" in capsys.readouterr().out


@pytest.mark.thorough
def test_commands_run(tmp_path):
    (commands,) = [block for block in blocks("sh") if "tfp-bnn list" in block]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    script = f"set -e\n{commands}"
    run = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "lenet5_flipout.digits" in run.stdout
    assert "setosa" in run.stdout


def test_make_targets_exist():
    makefile = (README.parent / "Makefile").read_text()
    targets = [line.split()[1] for block in blocks("sh") for line in block.splitlines() if line.startswith("make ")]
    assert targets == ["demo", "test"]
    for target in targets:
        assert f"\n{target}:" in makefile


def test_table_is_that_of_the_cards():
    assert with_table(TEXT) == TEXT


def test_table_needs_its_place():
    with pytest.raises(ValueError, match="no place for the table"):
        with_table("# README")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_links_lead_somewhere(target):
    assert (README.parent / target).exists()
