"""The planted faults still fit the code and the tests; `make planted-faults` runs them."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from .catalog import ROOT, Fault, FaultError, load_faults

FAULTS = load_faults()
ROOMS = (
    "core variational likelihoods posteriors priors layers models inference predictive calibration metrics transfer "
    "callbacks figures"
)


def names_of_tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_there_are_faults_in_every_part():
    assert len(FAULTS) >= 40
    assert len({fault.title for fault in FAULTS}) == len(FAULTS)
    rooms = {"/".join(fault.file.split("/")[:2]) for fault in FAULTS}
    assert {f"tfp_bnn/{room}" for room in ROOMS.split()} <= rooms
    assert {f"zoo/{room}" for room in "datasets hub recipes evaluation training cli".split()} <= rooms


def test_every_fault_applies_and_its_tests_exist():
    for fault in FAULTS:
        assert (ROOT / fault.file).read_text("utf-8").count(fault.find) == 1, fault
        assert fault.find != fault.replace
        assert fault.tests
        for test in fault.tests:
            file, *names = test.partition("[")[0].split("::")
            assert names, f"{test} is a whole file"
            assert set(names) <= names_of_tests(ROOT / file), test


def test_no_text_is_planted_twice():
    changes = Counter((fault.file, fault.find, fault.replace) for fault in FAULTS)
    assert [change for change, count in changes.items() if count > 1] == []


def test_a_fault_is_applied_once_or_refused(tmp_path):
    (tmp_path / "module.py").write_text("a = 1\n")
    fault = Fault("Another number", "module.py", "a = 1", "a = 2", ("test.py::test",))
    assert fault.apply(tmp_path) == "a = 1\n"
    assert (tmp_path / "module.py").read_text() == "a = 2\n"
    for text in ("b = 1\n", "a = 1\na = 1\n"):
        (tmp_path / "module.py").write_text(text)
        with pytest.raises(FaultError, match=r"expects this text in module.py once"):
            fault.apply(tmp_path)
        assert (tmp_path / "module.py").read_text() == text
