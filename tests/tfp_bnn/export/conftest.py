"""How exported files are run in tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_NEEDED = {"onnx": ("tf2onnx", "onnxruntime"), "litert": ("ai_edge_litert",)}
_Inputs = dict[str, np.ndarray]


def _run_onnx(path: Path) -> Callable[[_Inputs], dict[str, np.ndarray]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(None, inputs), strict=True))


def _run_litert(path: Path) -> Callable[[_Inputs], dict[str, np.ndarray]]:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path)).get_signature_runner()
    return lambda inputs: run(**inputs)


_RUN = {"onnx": _run_onnx, "litert": _run_litert}


class Portable:
    """Exports models to one format, and runs the files without TensorFlow."""

    def __init__(self, format: str, folder: Path) -> None:
        self.format, self.path = format, folder / "exported"

    def __call__(self, model: Any, **kwargs: Any) -> Callable[[_Inputs], dict[str, np.ndarray]]:
        """Exports a model. Returns a function from inputs to what the file answers, both by name."""
        model.export(self.path, format=self.format, verbose=False, **kwargs)
        return _RUN[self.format](self.path)


@pytest.fixture
def exporting_to(tmp_path: Path) -> Callable[[str], Portable]:
    """A function that returns the `Portable` of a format, or skips the test where its packages are missing."""

    def of_format(format: str) -> Portable:
        for package in _NEEDED[format]:
            pytest.importorskip(package, reason=f"needs {package}: pip install 'tfp_bnn[{format}]'")
        return Portable(format, tmp_path)

    return of_format


@pytest.fixture(params=["onnx", "litert"])
def portable(request: pytest.FixtureRequest, exporting_to: Callable[[str], Portable]) -> Portable:
    """A `Portable` of each format."""
    return exporting_to(request.param)
