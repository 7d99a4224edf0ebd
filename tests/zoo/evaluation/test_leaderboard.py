"""The leaderboard: rows from the numbers of cards, a file that keeps the rows of others, a table and a figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo.evaluation.leaderboard import (
    COLUMNS,
    leaderboard_figure,
    leaderboard_table,
    read_leaderboard,
    row_of,
    with_leaderboard,
    write_leaderboard,
)

METRICS = {
    "num_samples": 50,
    "training_seeds": [0, 1],
    "test": {"accuracy": 0.5, "nll": 1.0, "ece": 0.1, "brier": 0.3, "entropy": 0.2},
    "test_uncalibrated": {"accuracy": 0.5, "nll": 1.5, "ece": 0.2},
    "spread": {"accuracy": {"mean": 0.6, "std": 0.125}, "nll": {"mean": 1.25, "std": 0.25}},
    "out_of_distribution": {"data": "uniform", "auroc_entropy": 0.75},
    "kl": {"total": 12.0},
    "beta": 1.0,
}


def row(**about):
    known = {"model": "mlp_flipout.iris", "inference": "map", "epochs": 10, "members": None, "cpu_seconds": 2.0}
    return row_of(METRICS, **{**known, **about})


def test_a_row_has_means_over_seeds_and_what_is_not_known_is_empty(tmp_path):
    write_leaderboard([row()], tmp_path / "new" / "leaderboard.csv")
    (found,) = read_leaderboard(tmp_path / "new" / "leaderboard.csv")
    assert tuple(found) == COLUMNS
    known = {"accuracy": "0.6", "accuracy_spread": "0.125", "nll": "1.25", "ece": "0.1", "ece_spread": ""}
    known |= {"nll_uncalibrated": "1.5", "auroc_entropy": "0.75", "auroc_mutual_information": "", "rmse": ""}
    known |= {"kl": "12", "beta": "1", "seeds": "2", "license": "", "cpu_seconds": "2", "seconds": ""}
    assert {column: found[column] for column in known} == known


def test_new_rows_replace_those_of_the_same_model_and_inference_and_keep_all_others(tmp_path):
    path = tmp_path / "leaderboard.csv"
    write_leaderboard([row(), row(model="a.b"), row(inference="ensemble", members=3)], path)
    write_leaderboard([row(epochs=20)], path)
    found = [(row["model"], row["inference"], row["epochs"]) for row in read_leaderboard(path)]
    assert found == [
        ("a.b", "map", "10"),
        ("mlp_flipout.iris", "ensemble", "10"),
        ("mlp_flipout.iris", "map", "20"),
    ]


def test_the_table_is_the_same_from_numbers_and_from_a_file(tmp_path):
    rows = [row(inference="ensemble", members=3, epochs=5), row(cpu_seconds=None)]
    write_leaderboard(rows, tmp_path / "leaderboard.csv")
    table = leaderboard_table(rows)
    assert leaderboard_table(read_leaderboard(tmp_path / "leaderboard.csv")) == table
    header, _, ensemble, point = table.splitlines()
    assert header == "| model | inference | epochs | seeds | accuracy | NLL | Brier | ECE | AUROC by entropy | CPU s |"
    assert ensemble == (
        "| `mlp_flipout.iris` | ensemble | 3 x 5 | 2 | 0.6 ± 0.12 | 1.25 ± 0.25 | 0.3 | 0.1 | 0.75 | 2 |"
    )
    assert point.endswith("| 0.75 |  |")


def test_the_page_shows_the_leaderboard_of_the_zoo():
    page = (Path(__file__).parents[3] / "docs" / "comparing.md").read_text("utf-8")
    assert with_leaderboard(page, read_leaderboard()) == page


def test_a_page_without_the_place_for_it_is_refused():
    with pytest.raises(ValueError, match="expected the lines '<!-- leaderboard"):
        with_leaderboard("# A page\n", [])


def test_the_figure_has_a_panel_for_each_model_of_several_methods_with_a_point_for_each():
    rows = [
        row(model="of.one"),
        row(),
        row(inference="ensemble"),
        row(model="a.b"),
        row(model="a.b", inference="ensemble", cpu_seconds=None),
    ]
    first, second = leaderboard_figure(rows).axes
    assert [text.get_text() for text in first.texts] == ["map", "ensemble"]
    assert [text.get_text() for text in second.texts] == ["map"]
    assert [panel.get_title() for panel in (first, second)] == ["mlp_flipout.iris", "a.b"]
