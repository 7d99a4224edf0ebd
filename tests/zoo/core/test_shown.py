"""Text of unknown origin, as it is shown."""

from __future__ import annotations

import pytest

from zoo.core.shown import cell, listed, printable, shown


@pytest.mark.parametrize("text", ["\x1b[2J", "\x07", "\r", "\u202egpj.exe", "\x9b31m", "\ue000", "a\u200bb", "\ud800"])
def test_what_a_terminal_would_obey_is_escaped(text):
    found = printable(f"before {text} after\n")
    assert found.endswith("after\n")
    assert found.rstrip("\n").isprintable()
    assert shown(text).isprintable()
    assert cell(text).isprintable()


def test_other_text_stays_as_it_is():
    text = "naïve café, 北京, µ = 3 ± 0.1\n\ttable"
    assert printable(text) == text


@pytest.mark.parametrize("text", ["=1+1", "+1+cmd", "-2+3", "@SUM(A1)", "\t=1"])
def test_cells_are_no_formulas(text):
    assert cell(text).startswith(("'", "\\t"))


@pytest.mark.parametrize("text", ["-1.5", "+3", "1e-5", "cat", "3 - 2", ""])
def test_cells_that_are_no_formulas_stay(text):
    assert cell(text) == text


def test_long_values_and_lists_are_cut():
    assert len(shown("x" * 10**6)) == 200
    assert len(shown(list(range(10**5)))) == 200
    assert listed({f"name_{k:06d}" for k in range(60_000)}).endswith("and 59,995 others")
    assert len(listed({"x" * 10**6})) < 100
