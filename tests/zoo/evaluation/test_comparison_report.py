"""A report that compares models on the same examples."""

from __future__ import annotations

import json

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
