"""Checks of recipes before TensorFlow refuse nothing that the changes make right."""

from pathlib import Path

import pytest

from zoo.cli.comparing import recipes_of
from zoo.cli.early import ZOO
from zoo.cli.early_recipes import check_changes

IRIS = (ZOO / "recipes" / "mlp_flipout.iris.yaml").read_text("utf-8")


@pytest.fixture
def early(monkeypatch):
    """As on the command line before the start: there are no plug-ins."""
    monkeypatch.setattr("zoo.cli.early_recipes.may_have_plugins", lambda: False)
    monkeypatch.setattr("zoo.cli.early.may_have_plugins", lambda: False)


def test_a_dataset_that_is_not_here_may_be_replaced(early, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(IRIS.replace("dataset: iris", "dataset: food101\nevaluation: {out_of_distribution: svhn_cropped}"))
    replaced = {"dataset": None, "evaluation.out_of_distribution": "uniform"}
    check_changes(str(path), [replaced])
    for changes in ({}, {"dataset": "wine"}, {"evaluation.out_of_distribution": "uniform"}):
        with pytest.raises(ValueError, match=r"Unknown dataset '(food101|svhn_cropped)'"):
            check_changes(str(path), [changes])


def test_recipes_to_compare_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [Path("a", "x.yaml"), Path("b", "x.yaml"), Path("y[1].yaml")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text(IRIS)
    first, second, bracketed = map(str, files)
    found = recipes_of(["mlp*iris", bracketed, "mlp_flipout.iris", first])
    assert found == ["mlp_flipout.iris", bracketed, first]
    with pytest.raises(ValueError, match=r"Several recipes are called 'x\.yaml'"):
        recipes_of([first, second])
    with pytest.raises(ValueError, match="No recipe of the zoo matches 'nix"):
        recipes_of(["nix*"])
    # A pattern leaves out the twins that are bundled, which are rows of other recipes.
    assert recipes_of(["resnet20*"]) == ["resnet20_flipout.cifar10"]
    assert recipes_of(["resnet20_flipout.cifar10_map"]) == ["resnet20_flipout.cifar10_map"]
