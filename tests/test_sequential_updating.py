"""The benchmark of sequential updating: what it compares, and that the guide shows what it found."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfp_bnn
from zoo.datasets import Dataset, Split

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("sequential_updating")
        for name in ("sequential_updating", "sequential_updating_report"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def report(benchmark):
    return sys.modules["sequential_updating_report"]


def images(seed: int, number: int = 100) -> Split:
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 256, (number, 28, 28, 1)).astype(np.uint8), np.arange(number) % 10)


def flat(rows: Split) -> Split:
    return Split(rows.x.reshape(len(rows), -1), rows.y)


@pytest.fixture
def tiny_mnist(benchmark, monkeypatch):
    data = Dataset("mnist", "classification", images(0), images(1), images(2), None, tuple("0123456789"), "Noise.", "-")
    monkeypatch.setattr(benchmark.zoo, "load_dataset", lambda name: data)


def rows_of(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")][2:]


def test_every_experiment_deals_out_all_training_images_once(benchmark):
    train, test = flat(images(0)), flat(images(2))
    for make in benchmark.EXPERIMENTS.values():
        tasks = make(train, test, np.random.default_rng(0))
        assert len(tasks) == 5
        assert sum(len(task.train) for task in tasks) == len(train)
        # The order of the pixels does not change how many of them have which value.
        contents = {tuple(np.sort(image)) for task in tasks for image in task.train.x}
        assert contents == {tuple(np.sort(image)) for image in train.x}


def test_class_split_tasks_have_two_digits_each(benchmark):
    tasks = benchmark.class_split(flat(images(0)), flat(images(2)), np.random.default_rng(0))
    for number, task in enumerate(tasks):
        for rows in (task.train, task.test):
            assert set(rows.y) == {2 * number, 2 * number + 1}


def test_permuted_tasks_have_one_order_of_pixels_each_and_the_first_the_original(benchmark):
    test = flat(images(2))
    # The first image shows which pixel is where.
    test.x[0] = np.arange(784) % 256
    test.x[1] = np.arange(784) // 256
    tasks = benchmark.permuted(flat(images(0)), test, np.random.default_rng(0))
    orders = [task.test.x[0].astype(int) + 256 * task.test.x[1].astype(int) for task in tasks]
    assert orders[0].tolist() == list(range(784))
    for task, order in zip(tasks, orders, strict=True):
        np.testing.assert_array_equal(task.test.x, test.x[:, order])
    assert len({tuple(order) for order in orders}) == 5


@pytest.mark.thorough
def test_the_chain_of_one_network_is_what_update_does(benchmark):
    parts = [flat(images(seed, 40)) for seed in range(3)]
    learner = benchmark.Learner(7, 0.1, 1e-2, 3)
    learner.fit(parts[0])
    for part in parts[1:]:
        tfp_bnn.transfer.transfer_posterior(learner.model, learner.model, 1.0)
        learner.fit(part)

    model = benchmark.network(7, 0.1)
    model.compile(benchmark.optimizer(3, 1e-2))
    training = {"steps_per_epoch": 3, "num_examples": 40, "verbose": 0}
    model.fit(benchmark.batches(parts[0], 7), **training)
    for part in parts[1:]:
        adam = benchmark.optimizer(3, 1e-2)
        model = tfp_bnn.transfer.update(model, benchmark.batches(part, 7), optimizer=adam, **training)

    for ours, theirs in zip(learner.model.variational_layers, model.variational_layers, strict=True):
        for name, weight in ours.variational_weights.items():
            expected = theirs.variational_weights[name].parameters()
            for role, value in weight.parameters().items():
                np.testing.assert_allclose(value, expected[role], rtol=1e-4, atol=1e-6, err_msg=f"{name} {role}")


@pytest.mark.thorough
def test_refitting_keeps_the_original_prior(benchmark):
    learner = benchmark.Learner(7, 0.1, 1e-2, 2)
    for seed in (0, 1):
        learner.fit(flat(images(seed, 20)))
    weight = learner.model.variational_layers[0].variational_weights["kernel"].parameters()
    assert (weight["prior_loc"] == 0).all()
    np.testing.assert_allclose(weight["prior_scale"], 0.1, rtol=1e-6)
    assert not np.allclose(weight["scale"], 0.05, rtol=1e-3)


def test_a_score_is_the_mean_over_tasks_and_counts_what_goes_to_the_last_classes(benchmark):
    # Whatever the image, this network says 9, with a logit of 3 more than for any digit but 1, the next.
    outputs = keras.layers.Dense(10, kernel_initializer="zeros", name="logits")
    model = tfp_bnn.VariationalSequential([keras.Input((784,)), outputs], seed=0)
    outputs.bias.assign([0.0, 1.0] + [0.0] * 7 + [3.0])
    tasks = benchmark.class_split(flat(images(0)), flat(images(2)), np.random.default_rng(0))
    found = benchmark.score(model, tasks, 2, 0)
    assert found.by_task == [0.0, 0.0, 0.0, 0.0, 0.5]
    assert found.accuracy == pytest.approx(0.1)
    assert found.to_last == 1.0
    assert found.nll == pytest.approx(np.log(8 + np.exp(1.0) + np.exp(3.0)) - 0.1 * (1.0 + 3.0), rel=1e-6)
    # Told the task, it says 1, 2, 4, 6 or 9.
    assert found.told == pytest.approx(0.5)
    one_task = benchmark.random_parts(flat(images(0)), flat(images(2)), np.random.default_rng(0))
    of_one_task = benchmark.score(model, one_task, 2, 0)
    assert (of_one_task.to_last, of_one_task.told) == (None, None)
    assert of_one_task.accuracy == pytest.approx(0.1)


@pytest.mark.thorough
@pytest.mark.usefixtures("tiny_mnist")
def test_prints_a_row_for_each_method(benchmark, report, capsys):
    assert benchmark.main(["--quick", "--experiments", "class-split MNIST", "--inflate", "1", "3"]) == 0
    printed = capsys.readouterr().out
    rows = rows_of(printed)
    assert [row[0] for row in rows] == ["class-split MNIST", "", "", "", ""]
    assert [row[1] for row in rows] == ["posterior as prior", "posterior as prior, inflate=3", *report.METHODS[1:]]
    accuracies = [float(row[2].split("±")[0]) for row in rows]
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)
    assert "% (joint). Accuracy on all" in printed.splitlines()[-1]


def test_the_table_has_every_experiment_and_method_and_the_gap_to_the_joint_fit(benchmark, report):
    results = some_results(benchmark, report)
    for scores in (by_method["plain refitting"] for by_method in results.values()):
        scores[1].nll = 0.7
    rows = rows_of(report.markdown(results))
    assert [row[1] for row in rows] == list(report.METHODS) * 3
    assert [row[0] for row in rows if row[0]] == list(benchmark.EXPERIMENTS)
    assert rows[1][3:5] == ["0.600 ± 0.141", "0.100 ± 0.141"]
    assert rows[3][3:5] == ["0.500 ± 0.000", ""]


def some_results(benchmark, report):
    rng = np.random.default_rng(0)

    def one(experiment: str):
        by_task = [round(value, 6) for value in rng.uniform(size=5).tolist()]
        of_classes = [0.25, 0.75] if experiment == "class-split MNIST" else []
        return report.Score(round(float(np.mean(by_task)), 6), 0.5, by_task, *of_classes)

    return {name: {method: [one(name), one(name)] for method in report.METHODS} for name in benchmark.EXPERIMENTS}


def test_what_is_written_is_read_again_and_only_the_results_of_the_guide_change(
    benchmark, report, monkeypatch, tmp_path
):
    for name in ("CSV", "GUIDE", "FIGURE"):
        monkeypatch.setattr(report, name, tmp_path / "made" / name)
    results = some_results(benchmark, report)
    report.write_csv(results, range(2))
    assert report.read_csv() == results
    begin, end = report.MARKERS
    report.GUIDE.write_text(f"# Before\n\n{begin}old\n{end}\n\nAfter.\n", "utf-8")
    report.write_guide(results)
    written = report.GUIDE.read_text("utf-8")
    assert written == f"# Before\n\n{begin}{report.tables(results)}\n{end}\n\nAfter.\n"
    assert "25.0 % (joint)" in written
    assert "0.750 ± 0.000 (joint)" in written
    assert report.FIGURE.read_bytes().startswith(b"\x89PNG")


def test_docs_are_not_written_from_a_part_of_the_run(benchmark, capsys):
    for part in (["--quick"], ["--split", "validation"], ["--experiments", "permuted MNIST"]):
        with pytest.raises(SystemExit):
            benchmark.main(["--docs", *part])
        assert "--docs is for the whole run" in capsys.readouterr().err


def test_the_guide_shows_the_results_that_are_kept(report):
    results = report.read_csv()
    assert all(len(scores) >= 5 for by_method in results.values() for scores in by_method.values())
    begin, end = report.MARKERS
    shown = report.GUIDE.read_text("utf-8").split(begin)[1].split(end)[0]
    assert shown == f"{report.tables(results)}\n"
