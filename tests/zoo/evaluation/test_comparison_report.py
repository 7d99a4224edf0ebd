"""A report that compares models on the same examples."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import zoo
from zoo.evaluation.card_numbers import evaluate
from zoo.evaluation.report import write_comparison_report


@pytest.fixture(scope="module")
def models():
    first, second = zoo.load_model("mlp_flipout.iris"), zoo.load_model("mlp_flipout.iris")
    second.calibration = {"name": "temperature", "temperature": 3.0}
    return {"plain": first, "<hot>": second, "same": first}


@pytest.mark.slow
def test_models_stand_side_by_side_with_errors_of_their_differences(models, tmp_path):
    folder = tmp_path / "report"
    written = write_comparison_report(models, "iris", "test", folder, num_samples=3, command="the command")
    for name, model in models.items():
        for score, value in evaluate(model, "iris", num_samples=3).items():
            assert written.metrics[f"{name}/{score}"] == value
    text = (folder / "index.html").read_text("utf-8")
    assert "Comparison of plain, &lt;hot&gt;, same" in text
    # The NLL of a flattened prediction is worse on every set of examples; a model does not differ from itself.
    (differences,) = [row for row in text.split("<tr>") if row.startswith('<th scope="row">nll</th>') and "+" in row]
    hot, same = differences.split("</td>")[:2]
    assert hot.endswith(" *")
    assert same.endswith(">+0.0000 ± 0.0000")
    numbers = json.loads((folder / "metrics.json").read_text())
    assert list(numbers["models"]) == ["plain", "<hot>", "same"]
    assert sorted(path.name for path in folder.iterdir()) == numbers["files"]
    assert numbers["command"] == "the command"


def test_one_model_is_no_comparison(models, tmp_path):
    with pytest.raises(ValueError, match="at least two models"):
        write_comparison_report({"plain": models["plain"]}, "iris", "test", tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


def test_data_whose_names_are_not_those_of_a_model_are_refused(models, tmp_path):
    iris = zoo.load_dataset("iris")
    swapped = {
        name: replace(iris, **{name: getattr(iris, name)[::-1]}) for name in ("feature_names", "class_names")
    } | {"y": replace(iris, test=replace(iris.test, y=iris.test.y[::-1]))}
    for data, says in (
        (swapped["feature_names"], "columns of the dataset 'iris' are not those that .*: at position 1, "),
        (swapped["class_names"], "classes of the dataset 'iris' are not those"),
        ({"plain": iris, "same": swapped["class_names"]}, "if their classes are the same, in the same order"),
        ({"plain": iris, "same": swapped["y"]}, "The test split for same has other targets than for plain"),
    ):
        with pytest.raises(ValueError, match=says):
            write_comparison_report(
                {name: models[name] for name in ("plain", "same")}, data, "test", tmp_path / "report", num_samples=2
            )
    assert list(tmp_path.iterdir()) == []
    # Other names say nothing of the order.
    assert evaluate(models["plain"], replace(iris, feature_names=("a", "b", "c", "d")), num_samples=2)
