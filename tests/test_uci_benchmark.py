"""The benchmark of UCI regression: what is read when, units, and the guide has the tables of its results."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

ROOT = Path(__file__).parents[1]
ROWS = 30


@pytest.fixture
def benchmark(monkeypatch):
    """With two steps and four draws, which are not compiled."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("uci")
    monkeypatch.setattr(module, "STEPS", 2)
    monkeypatch.setattr(module, "DRAWS", 4)
    tf.config.run_functions_eagerly(True)
    yield module
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def data(tmp_path):
    """A set in the layout of the real ones: a constant input, and the target in the first column."""
    folder = tmp_path / "yacht" / "data"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    table = np.column_stack([random.normal(50, 20, ROWS), random.normal(size=(ROWS, 2)), np.ones(ROWS)])
    np.savetxt(folder / "data.txt", table)
    np.savetxt(folder / "index_features.txt", [1, 2, 3], "%d")
    np.savetxt(folder / "index_target.txt", [0], "%d")
    for split in (0, 1):
        test, train = np.split(random.permutation(ROWS), [5])
        np.savetxt(folder / f"index_train_{split}.txt", train, "%.1f")
        np.savetxt(folder / f"index_test_{split}.txt", test, "%.1f")
    return tmp_path


def test_rows_of_a_split_are_those_of_its_indices(benchmark, data):
    table = np.loadtxt(data / "yacht/data/data.txt")
    test = np.loadtxt(data / "yacht/data/index_test_1.txt").astype(int)
    rows = benchmark.Rows.of_split(data, "yacht", 1)
    assert (rows.x.shape, rows.y.shape, rows.x_test.shape) == ((25, 3), (25, 1), (5, 3))
    np.testing.assert_array_equal(rows.x_test, table[test, 1:])
    np.testing.assert_array_equal(rows.y_test, table[test, :1])


def test_rows_that_are_held_out_are_training_rows_that_are_not_trained_on(benchmark, data):
    rows = benchmark.Rows.of_split(data, "yacht", 0)
    held_out = rows.held_out(seed=0)
    assert len(held_out.y_test) == 5
    assert sorted(np.concatenate([held_out.y, held_out.y_test])) == sorted(rows.y)


def test_scores_are_those_of_the_mixture_of_draws_in_units_of_the_target(benchmark, data):
    rows = benchmark.Rows.of_split(data, "yacht", 0)
    trainer = benchmark.Trainer(next(iter(benchmark.WAYS.values())), 3)
    found = benchmark.measured(trainer, rows, seed=4)
    # By training rows alone; the third input is constant.
    x_scale = np.append(rows.x.std(axis=0)[:2], 1.0)
    predictive = trainer.model.posterior_predictive(
        (rows.x_test - rows.x.mean(axis=0)) / x_scale, benchmark.DRAWS, seed=4
    )
    means = predictive.samples * rows.y.std() + rows.y.mean()
    log_prob = scipy.stats.norm.logpdf(rows.y_test, means, found["noise"]).squeeze(-1)
    nll = np.log(len(means)) - scipy.special.logsumexp(log_prob, axis=0)
    assert found["nll"] == pytest.approx(nll.mean(), rel=1e-4)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((means.mean(axis=0) - rows.y_test) ** 2)), rel=1e-4)
    assert found["noise"] == pytest.approx(0.3 * rows.y.std(), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["flipout, Adam", "local reparameterization, natural gradient"])
def test_a_trainer_starts_again_for_each_split(benchmark, way):
    x, y = np.random.default_rng(0).normal(size=(2, 20, 1))
    trainer = benchmark.Trainer(benchmark.WAYS[way], 1)
    first, other, again = ([w.copy() for w in trainer.train(x, y, seed).get_weights()] for seed in (1, 2, 1))
    assert not np.array_equal(first[0], other[0])
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert trainer.model.num_examples == 20
    assert trainer.model.beta == 1.0


@pytest.mark.slow
def test_a_run_that_is_resumed_adds_what_is_missing(benchmark, data, tmp_path, capsys):
    arguments = ["--data", str(data), "--results", str(tmp_path / "uci.csv"), "--sets", "yacht", "--ways"]
    arguments.append("local reparameterization, Adam")
    benchmark.main([*arguments, "--splits", "1"])
    (first,) = benchmark.read_results(tmp_path / "uci.csv")
    with pytest.raises(SystemExit):
        benchmark.main(arguments)
    assert "uci.csv exists. Pass --resume" in capsys.readouterr().err
    benchmark.main([*arguments, "--splits", "2", "--resume"])
    results = benchmark.read_results(tmp_path / "uci.csv")
    assert results[0] == first
    assert [row["split"] for row in results] == ["0", "1"]


def test_held_out_rows_do_not_come_among_the_results(benchmark, data, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--data", str(data), "--held-out"])
    assert "no test rows" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_named(benchmark, tmp_path, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--data", str(tmp_path / "nowhere")])
    assert "nowhere, which is not there. Pass --data" in capsys.readouterr().err


def test_the_table_has_means_and_standard_errors(benchmark):
    way = next(iter(benchmark.WAYS))
    rows = [{"set": "yacht", "way": way, "split": str(k), "nll": str(nll)} for k, nll in enumerate([1, 2] * 10)] + [
        {"set": "energy", "way": way, "split": str(k), "nll": str(nll)} for k, nll in enumerate([0.5, 0.7])
    ]
    # The standard deviation of ten pairs of 1 and 2 is sqrt(5 / 19), and 0.1 that of two over sqrt 2.
    assert f"| {way} |  |  | 0.600 ± 0.100 (2 splits) |  | 1.500 ± 0.115 |" in benchmark.table(rows, "nll")


@pytest.mark.parametrize("number", ["nll", "rmse"])
def test_the_guide_has_the_tables_of_the_results(benchmark, number):
    table = benchmark.table(benchmark.read_results(benchmark.RESULTS), number)
    assert table in (ROOT / "docs/inference.md").read_text("utf-8")


def test_the_results_have_all_splits_and_are_better_than_refined_variational_inference(benchmark):
    """The bar that the guide states, by the way that it recommends."""
    way = next(iter(benchmark.WAYS))
    results = benchmark.read_results(benchmark.RESULTS)
    for name, bar in zip(benchmark.SETS, benchmark.PUBLISHED["nll"]["published: refined VI"], strict=True):
        found = [float(row["nll"]) for row in results if (row["set"], row["way"]) == (name, way)]
        assert len(found) == benchmark.SPLITS
        assert np.mean(found) < bar
