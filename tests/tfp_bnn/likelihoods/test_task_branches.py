"""The likelihood owns the task: nowhere else does code ask which task or which likelihood it has before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tfp_bnn import likelihoods

ROOT = Path(__file__).resolve().parents[3]
# Priors have these names too.
OF_PRIORS_TOO = {"Laplace", "Normal", "StudentT"}
LIKELIHOODS = {"Discrete", *likelihoods.__all__} - {"LIKELIHOODS"}
# A dataset says itself whether it has classes, and checks its own targets.
ALLOWED = {"zoo/datasets/base.py"}


def branches(tree: ast.AST) -> Iterator[str]:
    """Comparisons of `.task` with a text, look-ups by `.task`, and `isinstance` with a class of likelihoods."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(_is_task(side) for side in sides) and not all(_is_task(side) for side in sides):
                yield f"{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Subscript) and _is_task(node.slice):
            yield f"{node.lineno}: {ast.unparse(node)}"
        elif (
            isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass") and len(node.args) > 1
        ):
            names = {leaf.id for leaf in ast.walk(node.args[1]) if isinstance(leaf, ast.Name)}
            names |= {leaf.attr for leaf in ast.walk(node.args[1]) if isinstance(leaf, ast.Attribute)}
            about_likelihoods = "likelihood" in ast.unparse(node.args[0]).lower() or not names & OF_PRIORS_TOO
            if names & LIKELIHOODS and about_likelihoods:
                yield f"{node.lineno}: {ast.unparse(node)}"


def _is_task(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "task"


@pytest.mark.parametrize("package", ["tfp_bnn", "zoo"])
def test_no_code_outside_of_the_likelihoods_branches_on_the_task(package):
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("tfp_bnn/likelihoods/") or name in ALLOWED:
            continue
        uses = list(branches(ast.parse(path.read_text(encoding="utf-8"))))
        if uses:
            found[name] = uses
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "model.likelihood.task == 'classification'",
        "'regression' != data.task",
        "TABLE[data.task]",
        "isinstance(model.likelihood, Bernoulli)",
        "isinstance(found, Categorical | Bernoulli)",
        "isinstance(x.likelihood, (likelihoods.Normal,))",
        "model.likelihood.task in ('classification',)",
    ],
)
def test_a_branch_is_found(text):
    assert list(branches(ast.parse(text))) == [f"1: {ast.unparse(ast.parse(text))}"]


@pytest.mark.parametrize(
    "text", ["data.task != model.likelihood.task", "isinstance(prior, Normal)", "isinstance(y, int)", "model.task"]
)
def test_other_code_is_no_branch(text):
    assert list(branches(ast.parse(text))) == []
