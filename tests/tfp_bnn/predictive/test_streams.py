"""Predictions from data in every form, streamed, and within a memory limit."""

from __future__ import annotations

import tracemalloc

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

import tfp_bnn
from tfp_bnn.core.draws import FiniteDraws
from tfp_bnn.layers import DenseFlipout, DenseLocalReparameterization, DenseReparameterization
from tfp_bnn.likelihoods import Categorical, Normal
from tfp_bnn.predictive import PosteriorPredictive, drawing, score

ROWS, SAMPLES = 30, 7
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 4)).astype(np.float32)
LABELS = RNG.integers(3, size=ROWS)
NUMBERS = RNG.normal(size=(ROWS, 3)).astype(np.float32)
WIDE = {"name": "mean_field_normal", "initial_scale": 0.7}


class Batches(keras.utils.PyDataset):
    def __init__(self, y=LABELS):
        super().__init__()
        self._y = y

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        return X[rows], self._y[rows]


FORMS = {
    "tf.data": lambda: tf.data.Dataset.from_tensor_slices((X, LABELS)).batch(8),
    "tf.data of inputs": lambda: tf.data.Dataset.from_tensor_slices(X).batch(8),
    "PyDataset": Batches,
    "generator": lambda: (batch for batch in Batches()),
    "nested lists": X.tolist,
    "sparse": lambda: scipy.sparse.csr_array(X),
}


def network(likelihood="categorical", num_outputs=3):
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    outputs = DenseReparameterization(num_outputs, kernel_posterior=WIDE)(x)
    return tfp_bnn.VariationalModel(x, outputs, likelihood=likelihood, seed=0)


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def regression():
    return network({"name": "normal", "scale": 0.5})


# === Forms ===


@pytest.mark.parametrize("form", FORMS)
def test_data_of_every_form_are_predicted_as_their_arrays(model, form):
    expected = model.posterior_predictive(X, SAMPLES)
    found = model.posterior_predictive(FORMS[form](), SAMPLES)
    np.testing.assert_allclose(found.samples, expected.samples, atol=1e-6)
    np.testing.assert_allclose(
        model.plug_in_predictive(FORMS[form]()).mean(), model.plug_in_predictive(X).mean(), atol=1e-6
    )
    streamed = [predictive.mean() for predictive, _ in model.stream_predictive(FORMS[form](), num_samples=SAMPLES)]
    np.testing.assert_allclose(np.concatenate(streamed), expected.mean(), atol=1e-6)


def test_several_inputs_come_in_batches_too():
    inputs = {name: keras.Input((4,), name=name) for name in "ab"}
    outputs = DenseFlipout(2)(keras.layers.Concatenate()(list(inputs.values())))
    model = tfp_bnn.VariationalModel(inputs, outputs, seed=0)
    expected = model.posterior_predictive({"a": X, "b": 2 * X}, 3).samples
    batches = tf.data.Dataset.from_tensor_slices(({"a": X, "b": 2 * X}, LABELS)).batch(8)
    np.testing.assert_allclose(model.posterior_predictive(batches, 3).samples, expected, atol=1e-6)
    lists = {"a": X.tolist(), "b": (2 * X).tolist()}
    np.testing.assert_allclose(model.posterior_predictive(lists, 3).samples, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (lambda: tf.data.Dataset.from_tensor_slices(X).batch(8).repeat(), "is infinite"),
        (lambda: tf.data.Dataset.from_tensor_slices(X), r"`x` has the shape \(4,\).*add the batch axis"),
        (lambda: tf.data.Dataset.from_tensor_slices(X[:, :3]).batch(8), r"`x` has the shape \(8, 3\)"),
        (lambda: iter([X, np.where(X == X[2, 1], np.nan, X)]), r"`x` has 1 values .* index \(2, 1\)"),
        (lambda: iter([]), "`x` is empty"),
        (lambda: object(), "`x` is or holds a object"),
    ],
)
def test_batches_that_do_not_fit_are_refused(model, x, message):
    for predict in (model.posterior_predictive, model.plug_in_predictive, lambda x: list(model.stream_predictive(x))):
        if predict.__name__ == "<lambda>" and message == "`x` is empty":
            continue
        with pytest.raises(ValueError, match=message):
            predict(x())


@pytest.mark.parametrize("layer", [DenseFlipout, DenseReparameterization, DenseLocalReparameterization])
@pytest.mark.slow
def test_sparse_inputs_are_trained_on_judged_and_predicted_as_dense_ones(layer):
    dense = np.where(RNG.random((64, 50)) < 0.1, 1.0, 0.0).astype(np.float32)
    y = RNG.integers(2, size=64)
    sparse = {
        "scipy": (scipy.sparse.csr_array(dense), y),
        "tensor": (tf.sparse.from_dense(dense), y),
        "tf.data": (tf.data.Dataset.from_tensor_slices((tf.sparse.from_dense(dense), y)).batch(32),),
    }

    def trained(*data):
        keras.utils.set_random_seed(0)
        x = keras.Input((50,), sparse=len(data) == 1 or not isinstance(data[0], np.ndarray))
        model = tfp_bnn.VariationalModel(x, layer(2)(x), seed=0)
        model.compile("sgd", run_eagerly=True)
        model.fit(*data, shuffle=False, verbose=0)
        return model

    expected = trained(dense, y)
    for name, data in sparse.items():
        model = trained(*data)
        assert model.num_examples == 64
        found = model.posterior_predictive(data[0], 4)
        np.testing.assert_allclose(
            found.samples, expected.posterior_predictive(dense, 4).samples, atol=1e-5, err_msg=name
        )
        model.evaluate(*data, verbose=0)


# === Streams ===


@pytest.mark.parametrize(("name", "targets"), [("model", LABELS), ("regression", NUMBERS)])
def test_scores_of_a_stream_are_those_of_all_rows(request, name, targets):
    model = request.getfixturevalue(name)
    predictive = model.posterior_predictive(X, SAMPLES)
    for y in (targets, None):
        stream = model.stream_predictive(X, y, SAMPLES, batch_size=8)
        assert score(stream) == pytest.approx(score(predictive, y), rel=1e-5)
    assert score(model.stream_predictive(Batches(targets), num_samples=SAMPLES)) == pytest.approx(
        score(predictive, targets), rel=1e-5
    )


@pytest.mark.parametrize("likelihood", [Categorical(), Normal(0.5)], ids=repr)
def test_batches_of_different_lengths_are_scored_together(likelihood):
    draws = FiniteDraws([lambda x, k=k: k * x for k in (1.0, 2.0)])
    stream, pairs = [], []
    for length in (5, 7):
        x = RNG.normal(size=(4, length, 3)).astype(np.float32)
        y = x.argmin(axis=-1) if likelihood.has_probabilities else 1.5 * x + 1.0
        stream.append((PosteriorPredictive.from_draws(draws, x, likelihood), y))
        pairs.append((x.reshape(-1, 3), y.reshape(-1, *y.shape[2:])))
    x, y = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    expected = score(PosteriorPredictive.from_draws(draws, x, likelihood), y)
    # The log-probability is that of an example.
    expected["nll"] = -np.mean([predictive.log_prob(targets) for predictive, targets in stream])
    assert score(stream) == pytest.approx(expected, rel=1e-5)
    of_none = score([(predictive, None) for predictive, _ in stream])
    assert of_none == pytest.approx({name: expected[name] for name in of_none}, rel=1e-5)


def test_an_empty_stream_has_no_scores(model):
    with pytest.raises(ValueError, match="The stream of predictions is empty"):
        score(model.stream_predictive(iter([])))
    with pytest.raises(ValueError, match="Leave out `y`"):
        score(model.stream_predictive(X), LABELS)


def test_a_stream_is_read_as_its_predictions_are_taken(model):
    read = []
    stream = model.stream_predictive((read.append(1) or X for _ in range(5)), num_samples=2)
    for number in (1, 2, 3):
        next(stream)
        assert len(read) == number


# === Memory ===


def test_rows_are_cut_by_samples_and_outputs(monkeypatch):
    """100,000 classes took 11 GB under a limit of 1 GiB."""
    monkeypatch.setattr(drawing, "_WORKING_BYTES", 2**16)
    seen = []

    def wide(x):
        seen.append(len(x))
        return np.tile(x, (1, 500)).astype(np.float32)

    # 20 draws of 300 rows of 1,000 numbers are 24 MB.
    x = RNG.normal(size=(300, 2)).astype(np.float32)
    tracemalloc.start()
    predictive = PosteriorPredictive.from_draws(FiniteDraws([wide] * 20), x, Categorical(), max_bytes=2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(seen[1:]) * 20 * 1000 * 4 <= 2**19
    # What is asked for takes 1.2 MB, and as much again while it is joined.
    assert peak < 6e6
    np.testing.assert_allclose(predictive.mean()[:5], Categorical().mean(wide(x[:5])), rtol=1e-5)


def test_a_mean_above_the_limit_pays_for_no_entropy(regression, monkeypatch):
    whole = regression.posterior_predictive(X, SAMPLES)

    def refuse(*arguments):
        raise AssertionError("An entropy was computed.")

    with monkeypatch.context() as patched:
        patched.setattr(Normal, "entropy", refuse)
        streamed = regression.posterior_predictive(X, SAMPLES, max_bytes=1)
        np.testing.assert_allclose(streamed.mean(), whole.mean(), atol=1e-6)
    np.testing.assert_allclose(streamed.entropy(), whole.entropy(), atol=1e-5)


def test_an_entropy_that_is_asked_for_later_is_that_of_the_same_predictions(regression):
    streamed = regression.posterior_predictive(X, SAMPLES, max_bytes=1)
    generator = regression.posterior_predictive(iter([X]), SAMPLES, max_bytes=1)
    with pytest.raises(ValueError, match=r"`entropy` needs the inputs once more.*can be read only once"):
        generator.entropy()
    kernel = regression.variational_layers[0].kernel
    value = np.asarray(kernel)
    kernel.assign(value + 1.0)
    with pytest.raises(ValueError, match=r"`entropy` needs the inputs once more.*different now.* Predict again"):
        streamed.entropy()
    kernel.assign(value)
    assert streamed.entropy().shape == (ROWS, 3)


def test_draws_that_fit_take_their_memory_once():
    x = np.ones((4000, 1), np.float32)
    tracemalloc.start()
    draws = FiniteDraws([lambda x: np.tile(x, (1, 100))] * 10)
    predictive = PosteriorPredictive.from_draws(draws, x, Categorical())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert predictive.num_samples * len(predictive) * 100 * 4 == 16e6
    assert peak < 1.5 * 16e6


def test_draws_of_a_stream_are_kept_up_to_the_limit_and_not_half_of_it():
    x = RNG.normal(size=(40, 3)).astype(np.float32)
    draws = FiniteDraws([lambda x: x, lambda x: -x])
    size = 2 * 40 * 3 * 4

    def predictive(max_bytes):
        batches = (x[start : start + 8] for start in range(0, 40, 8))
        return PosteriorPredictive.from_draws(draws, batches, Categorical(), max_bytes=max_bytes)

    whole = PosteriorPredictive.from_draws(draws, x, Categorical())
    np.testing.assert_array_equal(predictive(size).samples, whole.samples)
    assert not predictive(size - 1).has_draws
    np.testing.assert_allclose(predictive(size - 1).mean(), whole.mean(), rtol=1e-6)


@pytest.mark.parametrize("max_bytes", [2**30, 1])
def test_outputs_of_different_lengths_are_not_joined(max_bytes):
    def batches():
        return iter([np.zeros((4, length, 3), np.float32) for length in (5, 7)])

    draws = FiniteDraws([lambda x: x])
    with pytest.raises(ValueError, match=r"shape \(7, 3\) in one batch and \(5, 3\) in .* use `stream_predictive`"):
        PosteriorPredictive.from_draws(draws, batches(), Categorical(), max_bytes=max_bytes)
