"""Executes the notebooks of this folder: Markdown to `.ipynb` with outputs.

Run: `python notebooks/run.py [NAME ...] [--small]`. `NAME.md` is the source. `NAME.ipynb` next to it is the result with
the parameters of the source. With `--small`, the parameters in `small.yaml` replace them, for a quick test, and the
results are thrown away. A cell that fails, writes to stderr or prints a warning is an error.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
import yaml
from traitlets.config import Config

FOLDER = Path(__file__).resolve().parent
SMALL = FOLDER / "small.yaml"
ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # The debugger would print a note.
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    # The networks are small. More threads gain nothing and make sums depend on the machine.
    "TF_NUM_INTRAOP_THREADS": "1",
}
# Files instead of ports, which other users of the machine could read.
CONFIG_OF_MANAGER = Config({"KernelManager": {"transport": "ipc"}})
# Cells show what Python prints, but not the notes of C++ code that loads TensorFlow.
CONFIG_OF_KERNEL = "c.IPKernelApp.capture_fd_output = False\n"
WARNING = re.compile(r"\w*Warning\b|WARNING")


class NotebookError(Exception):
    """Error of one cell. The message names the notebook and the cell."""


def names() -> list[str]:
    """The names of all notebooks, in reading order."""
    return sorted(path.stem for path in FOLDER.glob("[0-9][0-9]_*.md"))


def read_source(name: str) -> Any:
    """Reads `NAME.md` as a notebook without outputs. The ids of its cells are their numbers, to keep diffs short."""
    notebook = jupytext.read(FOLDER / f"{name}.md")
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index}"
    return notebook


def small_parameters(name: str) -> dict[str, Any]:
    """Returns the parameters in `small.yaml` of one notebook.

    Raises:
        ValueError: If there are none.
    """
    found = yaml.safe_load(SMALL.read_text("utf-8")).get(name)
    if not found:
        raise ValueError(f"{SMALL} has no parameters for {name!r}. Add values with which it runs within a minute.")
    return dict(found)


def execute(name: str, parameters: Mapping[str, Any], to: Path) -> None:
    """Executes a notebook in a temporary folder and writes it with its outputs.

    Args:
        name: Name of the notebook.
        parameters: Values that replace those in the cell with the tag `parameters`.
        to: File for the result. It is only written if all cells are in order.

    Raises:
        NotebookError: If a cell fails, writes to stderr or prints a warning.
        ValueError: If the notebook has no such parameters.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "source.ipynb"), Path(folder, "result.ipynb")
        nbformat.write(read_source(name), source)
        unknown = sorted(set(parameters) - set(papermill.inspect_notebook(source)))
        if unknown:
            raise ValueError(f"{name} has no parameters {unknown}. Add them to its cell `parameters`, or fix {SMALL}.")
        os.environ.update(ENVIRONMENT, IPYTHONDIR=folder)
        profile = Path(folder, "profile_default")
        profile.mkdir()
        profile.joinpath("ipython_kernel_config.py").write_text(CONFIG_OF_KERNEL, "utf-8")
        try:
            with _stderr_of_kernel(Path(folder, "stderr")):
                papermill.execute_notebook(
                    source,
                    result,
                    dict(parameters),
                    progress_bar=False,
                    cwd=folder,
                    start_timeout=600,
                    # How the lines of an output arrive differs each time.
                    coalesce_streams=True,
                    config=CONFIG_OF_MANAGER,
                )
        except papermill.exceptions.PapermillExecutionError as error:
            raise NotebookError(f"{name}, cell {error.cell_index}: {error}") from error
        notebook = nbformat.read(result, as_version=4)
        check_outputs(name, notebook)
        # How long the cells took differs each time.
        notebook.metadata.pop("papermill")
        for cell in notebook.cells:
            for key in ("papermill", "execution"):
                cell.metadata.pop(key, None)
        nbformat.write(notebook, to)


@contextlib.contextmanager
def _stderr_of_kernel(file: Path) -> Iterator[None]:
    """Sends what the kernel's process writes to stderr itself, not through Python, to a file."""
    before = os.dup(2)
    with file.open("wb") as stream:
        os.dup2(stream.fileno(), 2)
    try:
        yield
    except BaseException:
        os.write(before, file.read_bytes())
        raise
    finally:
        os.dup2(before, 2)
        os.close(before)


def check_outputs(name: str, notebook: Any) -> None:
    """Refuses outputs that contain an error, a warning, text on stderr or a figure that is not shown.

    Raises:
        NotebookError: With the number of the cell and the text.
    """
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = output.get("text") or data.get("text/plain", "")
            if output.output_type == "error" or output.get("name") == "stderr" or WARNING.search(text):
                raise NotebookError(f"{name}, cell {index} printed: {text or output.get('evalue')}")
            if text.startswith("<Figure") and "image/png" not in data:
                raise NotebookError(f"{name}, cell {index} does not show its figure. Add `%matplotlib inline` above.")


def main() -> None:
    """Executes the chosen notebooks, and says how long each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="notebook without its ending; default: all")
    parser.add_argument("--small", action="store_true", help="use small.yaml, and keep no results")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(names()))
    if unknown:
        parser.error(f"no notebooks {unknown}; there are {names()}")
    failures = 0
    for name in arguments.names or names():
        start = time.perf_counter()
        try:
            with tempfile.TemporaryDirectory() as folder:
                to = (Path(folder) if arguments.small else FOLDER) / f"{name}.ipynb"
                execute(name, small_parameters(name) if arguments.small else {}, to)
        except NotebookError as error:
            failures += 1
            print(error, file=sys.stderr, flush=True)
        else:
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
