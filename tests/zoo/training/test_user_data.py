"""Data passed by the user: how they are converted, what is rejected, and what an artifact records."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

import tfp_bnn
import zoo
from tfp_bnn.models.weight_record import weight_distributions
from zoo.datasets import Split
from zoo.evaluation.report.measured import measure as measured
from zoo.evaluation.verification import Status
from zoo.training import user_data
from zoo.training.user_data import dataset_from

# What happens around the steps is tested here; test_kill_and_resume.py and test_bad_numbers.py compile them.
pytestmark = pytest.mark.usefixtures("steps_run_eagerly")

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
Y = np.arange(20) % 3


def pipeline(x=X, y=Y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(7)


def test_the_last_fifth_of_the_rows_is_for_validation():
    data = dataset_from((X, Y))
    np.testing.assert_array_equal(data.train.x, X[:16])
    np.testing.assert_array_equal(data.validation.x, X[16:])
    np.testing.assert_array_equal(data.validation.y, Y[16:])
    assert data.test is not data.train
    assert (data.task, data.class_names) == ("classification", ("0", "1", "2"))
    # Rounded to the nearest row, and at least one.
    assert [len(dataset_from((X[:n], Y[:n])).validation) for n in (2, 7, 8, 13)] == [1, 1, 2, 3]


def test_splits_that_are_given_are_taken():
    data = dataset_from((X, Y), (X[:5], Y[:5]), (X[:3], Y[:3] + 2))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [20, 5, 3]
    # A class may be among the test rows only.
    assert data.class_names == ("0", "1", "2", "3", "4")


def test_a_pipeline_gives_the_rows_in_its_order():
    read = dataset_from(pipeline())
    for split, expected in ((read.train, Split(X[:16], Y[:16])), (read.validation, Split(X[16:], Y[16:]))):
        np.testing.assert_array_equal(split.x, expected.x)
        np.testing.assert_array_equal(split.y, expected.y)


class Batches(keras.utils.PyDataset):
    def __init__(self):
        super().__init__()

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[7 * index : 7 * index + 7], Y[7 * index : 7 * index + 7]


@pytest.mark.parametrize(
    "make",
    [
        lambda: pipeline().filter(lambda x, y: True),
        lambda: (batch for batch in pipeline()),
        Batches,
        lambda: (X.tolist(), Y.tolist()),
    ],
    ids=["filter", "generator", "PyDataset", "nested lists"],
)
def test_batches_of_every_kind_and_lists_give_the_same_rows(make):
    read = dataset_from(make())
    np.testing.assert_array_equal(np.concatenate([read.train.x, read.validation.x]).astype(np.float32), X)
    np.testing.assert_array_equal(np.concatenate([read.train.y, read.validation.y]), Y)


def test_the_targets_or_the_likelihood_tell_the_task():
    assert dataset_from((X, Y > 0)).class_names == ("0", "1")
    assert dataset_from((X, Y[:, None])).train.y.shape == (16,)
    for y, shape in ((Y / 2, (16, 1)), (X, (16, 4))):
        data = dataset_from((X, y))
        assert (data.task, data.train.y.shape, data.class_names) == ("regression", shape, None)
    counts = dataset_from((X, Y), task="regression")
    assert (counts.task, counts.train.y.dtype, counts.train.y.shape) == ("regression", np.float32, (16, 1))


def test_a_dataset_stays_as_it_is():
    iris = zoo.load_dataset("iris")
    assert dataset_from(iris) is iris
    with pytest.raises(ValueError, match="The dataset 'iris' has a validation and a test split"):
        dataset_from(iris, (X, Y))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (X, "`data` is a ndarray. Expected a pair of arrays (x, y)"),
        ((X, Y, Y), "`data` is a tuple. Expected a pair"),
        ((X, Y[:5]), "x of shape (20, 4) and y of shape (5,)"),
        ((X[:, 0], Y), "x of shape (20,) and y of shape (20,)"),
        ((X[:1], Y[:1]), "`data` has 1 rows: too few to set some aside. Pass `validation_data`"),
        ((X, Y.astype(str)), "numbers"),
        ((X, Y - 1), "got labels from -1"),
        ((X, np.eye(3, dtype=int)[Y]), "y.argmax"),
        ((X * np.nan, Y), "NaN"),
    ],
)
def test_what_nothing_can_be_trained_on_is_refused(data, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        dataset_from(data)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: pipeline().repeat(), "is infinite"),
        (lambda: tf.data.Dataset.from_tensor_slices(X).batch(7), "batches without targets. Expected batches (x, y)"),
        (lambda: tf.data.Dataset.from_tensor_slices((X[:, 0], Y)), "single rows or numbers. Expected batches"),
        (lambda: pipeline().take(0), "has no batches"),
        (lambda: ((X, Y, Y, Y) for _ in range(2)), "found"),
        (lambda: (scipy.sparse.csr_array(X), Y), "`data` has sparse inputs of shape (20, 4)"),
    ],
)
def test_pipelines_that_cannot_be_read_are_refused(make, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        dataset_from(make())


def test_a_pipeline_beyond_the_cap_is_refused_while_it_is_read(monkeypatch):
    monkeypatch.setattr(user_data, "MAX_BYTES", 2 * (7 * 4 * 4 + 7 * 8))
    with pytest.raises(ValueError, match="which would be read into memory"):
        dataset_from(pipeline())


# === Trained on them ===


@pytest.fixture(scope="module")
def by_arrays(tiny):
    told: list[str] = []
    iris = zoo.load_dataset("iris")
    run = zoo.train({**tiny.recipe, "dataset": None}, data=(iris.train.x, iris.train.y), tell=told.append)
    return run, told


@pytest.mark.thorough
def test_arrays_and_their_pipeline_give_the_same_bits(by_arrays, tiny):
    run, told = by_arrays
    iris = zoo.load_dataset("iris")
    again = zoo.train(
        {**tiny.recipe, "dataset": None},
        data=pipeline(iris.train.x, iris.train.y),
        test_data=(iris.test.x, iris.test.y),
    )
    assert repr(again.history) == repr(run.history)
    for name, value in weight_distributions(run.model).items():
        np.testing.assert_array_equal(value, weight_distributions(again.model)[name])
    assert run.metrics == {}
    assert told[0] == "no test split was given: the model is not measured"
    assert again.metrics["num_examples"] == 30


def test_a_run_is_saved_with_what_is_known_of_it(by_arrays, tmp_path):
    run, _ = by_arrays
    folder = zoo.save_artifact(run, tmp_path / "saved")
    assert (folder / "log.csv").read_text() == run.log
    assert zoo.load_recipe(folder / "recipe.yaml") == run.recipe
    loaded = zoo.load_artifact(folder, trust=True)
    assert loaded.class_names == ("0", "1", "2")
    assert loaded.card["config"]["data"]["dataset"] is None
    assert loaded.card["metrics"] == {}
    assert '`zoo.train("recipe.yaml", data=...)` runs it' in loaded.card["text"]
    golden, refusal = zoo.verify(folder)
    assert (golden.status, refusal.status) == (Status.PASSED, Status.FAILED)
    assert "no numbers that could be measured again" in refusal.message


@pytest.mark.slow
def test_a_measured_run_on_a_dataset_in_memory_names_no_dataset(tiny, tmp_path):
    """Whoever looked for it by its name might find other rows."""
    run = zoo.train(tiny.recipe, data=zoo.load_dataset("iris"), epochs=1)
    folder = zoo.save_artifact(run, tmp_path / "saved", name="mlp_flipout.mine")
    loaded = zoo.load_artifact(folder, trust=True)
    assert loaded.card["config"]["name"] == "mlp_flipout.mine"
    assert loaded.card["config"]["data"]["dataset"] is None
    assert loaded.class_names == ("setosa", "versicolor", "virginica")
    assert loaded.card["metrics"]["test"] == pytest.approx(run.metrics["test"])
    _, refusal = zoo.verify(folder)
    assert "The card does not name a dataset, so none of its numbers can be measured again" in refusal.message


GROUPED = {
    "name": "hierarchical_mlp.mine",
    "architecture": "hierarchical_mlp",
    "model": {"num_groups": 5, "hidden": []},
    "epochs": 1,
    "batch_size": 20,
    "evaluation": {"num_samples": 1, "spread_seeds": []},
}


@pytest.mark.slow
def test_groups_that_data_do_not_state_are_those_of_the_model():
    """Noise as inputs has whole numbers as groups then; of another shape, data are refused for that."""
    x = np.column_stack([X[:, :1], np.arange(20) % 5])
    data = dataset_from((x, Y % 2))
    run = zoo.train(GROUPED, data=data)
    assert run.metrics["out_of_distribution"]["num_examples"] == 4
    tuned = zoo.fine_tune(run.model, data, head="keep", inflate=1.0, steps=1)
    assert tuned.metrics["out_of_distribution"]["num_examples"] == 4
    of_report = {"name": "", "num_samples": 1, "seed": 0, "calibrated": False, "out_of_distribution": "uniform"}
    assert len(measured(run.model, data, "test", **of_report).outside) == 4
    with pytest.raises(ValueError, match=r"takes inputs of shape \(2,\)"):
        zoo.fine_tune(run.model, dataset_from((X, Y % 2)), head="keep", inflate=1.0, steps=1)


def test_groups_that_the_model_does_not_know_are_refused_before_training():
    x = np.column_stack([X[:, :1], np.arange(20) % 6])
    with pytest.raises(ValueError, match=r"got the group 5 in the last .* 0 to 4 for num_groups=5\. Number the groups"):
        zoo.train(GROUPED, data=(x, Y % 2), callbacks=[keras.callbacks.LambdaCallback(on_train_begin=pytest.fail)])


def test_a_recipe_without_a_dataset_asks_for_data(tiny):
    with pytest.raises(ValueError, match=r"names no dataset\. Pass `data`"):
        zoo.train({**tiny.recipe, "dataset": None})
    with pytest.raises(ValueError, match="can only be used with `data`"):
        zoo.train(tiny.recipe, test_data=(X, Y))


@pytest.mark.parametrize(
    "likelihood",
    [
        {"class": "categorical", "value": "normal"},
        {"name": "joint", "heads": {"class": "categorical"}},
        ["categorical", "normal"],
        tfp_bnn.likelihoods.Joint(["normal"]),
    ],
)
def test_a_joint_likelihood_is_refused_with_what_to_do_instead(likelihood):
    with pytest.raises(ValueError, match=r"has one output, and a joint likelihood .* save it as a \.keras file"):
        zoo.create_model("mlp_flipout", input_shape=(2,), num_outputs=2, likelihood=likelihood)
    if isinstance(likelihood, dict):
        recipe = {"name": "mlp_flipout.joint", "architecture": "mlp_flipout", "model": {"likelihood": likelihood}}
        with pytest.raises(ValueError, match="has one output, and a joint likelihood"):
            zoo.train(recipe, data=(np.zeros((20, 2)), {"class": np.zeros(20), "value": np.zeros(20)}))
