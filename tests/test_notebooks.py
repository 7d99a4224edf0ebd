"""The notebooks run, print no warning, and their committed results are those of their sources."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

FILE = Path(__file__).parent.parent / "notebooks" / "run.py"
MOST_BYTES = 2**20
HEADER = "---\njupyter:\n  kernelspec:\n    display_name: Python 3\n    language: python\n    name: python3\n---\n\n"


def load_script():
    spec = importlib.util.spec_from_file_location("run_notebooks", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = load_script()


def sources(notebook) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def with_output(**output) -> nbformat.NotebookNode:
    cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output(**output)])
    return nbformat.v4.new_notebook(cells=[cell])


@pytest.mark.thorough
@pytest.mark.parametrize("name", run.names())
def test_runs_with_small_parameters_and_without_a_warning(name):
    command = [sys.executable, str(FILE), name, "--small"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""


@pytest.mark.parametrize("name", run.names())
def test_the_committed_result_is_that_of_its_source(name):
    path = FILE.parent / f"{name}.ipynb"
    result = nbformat.read(path, as_version=4)
    # With other parameters than those in the source there would be a cell more.
    assert sources(result) == sources(run.read_source(name))
    code = [cell for cell in result.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    run.check_outputs(name, result)
    assert path.stat().st_size < MOST_BYTES


@pytest.mark.parametrize("name", run.names())
def test_its_small_parameters_are_parameters(name):
    (cell,) = [cell for cell in run.read_source(name).cells if "parameters" in cell.metadata.get("tags", [])]
    defined: dict[str, object] = {}
    exec(cell.source, defined)  # noqa: S102
    small = run.small_parameters(name)
    assert small.keys() <= defined.keys()
    assert (defined["small"], small["small"]) == (False, True)


def test_a_notebook_without_small_parameters_is_an_error():
    with pytest.raises(ValueError, match="has no parameters for '99_none'"):
        run.small_parameters("99_none")


@pytest.mark.parametrize(
    "output",
    [
        {"output_type": "stream", "name": "stderr", "text": "a note"},
        {"output_type": "stream", "name": "stdout", "text": "x.py:1: UserWarning: look"},
        {"output_type": "error", "ename": "ValueError", "evalue": "a note", "traceback": []},
    ],
)
def test_an_output_that_is_not_in_order_is_an_error(output):
    with pytest.raises(run.NotebookError, match=r"some_name, cell 0 printed: (a note|x\.py)"):
        run.check_outputs("some_name", with_output(**output))


def test_a_figure_that_is_not_shown_is_an_error():
    text = {"text/plain": "<Figure size 400x320 with 1 Axes>"}
    with pytest.raises(run.NotebookError, match="some_name, cell 0 does not show its figure"):
        run.check_outputs("some_name", with_output(output_type="execute_result", data=text))
    run.check_outputs("some_name", with_output(output_type="execute_result", data={**text, "image/png": "x"}))


def test_other_outputs_are_in_order():
    run.check_outputs("some_name", with_output(output_type="stream", name="stdout", text="no warning here"))


@pytest.mark.thorough
def test_a_cell_that_fails_is_an_error_that_names_it(tmp_path, monkeypatch):
    (tmp_path / "00_wrong.md").write_text(
        f"{HEADER}# Title\n\n```python\nx = 1\n```\n\n```python\nx / 0\n```\n", "utf-8"
    )
    monkeypatch.setattr(run, "FOLDER", tmp_path)
    with pytest.raises(run.NotebookError, match=r"00_wrong, cell 2: [\s\S]*ZeroDivisionError"):
        run.execute("00_wrong", {}, tmp_path / "00_wrong.ipynb")
    assert not (tmp_path / "00_wrong.ipynb").exists()


@pytest.mark.thorough
def test_an_unknown_parameter_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "00_wrong.md").write_text(f'{HEADER}```python tags=["parameters"]\nx = 1\n```\n', "utf-8")
    monkeypatch.setattr(run, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"00_wrong has no parameters \['y'\]"):
        run.execute("00_wrong", {"y": 2}, tmp_path / "00_wrong.ipynb")
