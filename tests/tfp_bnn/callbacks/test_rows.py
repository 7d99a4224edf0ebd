"""The rows on which callbacks measure come in every form that `fit` takes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

import tfp_bnn
from tfp_bnn.callbacks import CalibrationEarlyStopping, PosteriorDoctor
from tfp_bnn.callbacks.rows import digest_of, take_rows

X = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
Y = np.arange(30) % 2


def nullable(x):
    return pytest.importorskip("pandas").DataFrame(x).convert_dtypes()


@pytest.mark.parametrize("form", [np.ndarray.tolist, nullable, scipy.sparse.csc_array, tf.sparse.from_dense])
def test_rows_of_every_form_are_arrays(form):
    rows = take_rows((form(X), Y.tolist()), 20, "validation_data")
    assert len(rows) == 20
    np.testing.assert_allclose(rows.x.toarray() if scipy.sparse.issparse(rows.x) else rows.x, X[:20])
    np.testing.assert_array_equal(rows.y, Y[:20])


def test_sparse_batches_are_joined():
    dataset = tf.data.Dataset.from_tensor_slices((tf.sparse.from_dense(X), Y)).batch(8)
    np.testing.assert_array_equal(take_rows(dataset, 20, "validation_data").x.toarray(), X[:20])


class Endless(keras.utils.PyDataset):
    """Batches without an end: `num_batches` is None."""

    num_batches = None

    def __getitem__(self, index):
        return X[index : index + 8], Y[index : index + 8]


def test_only_the_first_rows_of_endless_batches_are_read():
    assert len(take_rows(Endless(), 20, "validation_data")) == 20


def test_the_digest_is_that_of_the_values():
    def digest(*texts):
        return take_rows(tf.data.Dataset.from_tensor_slices((list(texts), Y[:2])).batch(1), 2, "x").digest

    assert digest("a", "bc") == digest("a", "bc") != digest("ab", "c")
    one, other = (scipy.sparse.csr_array(([1.0], ([0], [column])), shape=(1, 3)) for column in (0, 1))
    assert digest_of([one]) != digest_of([other])


def test_callbacks_measure_texts_and_sparse_rows():
    words = keras.layers.TextVectorization(8, output_mode="multi_hot")
    words.adapt(["a b", "c"])
    texts = tf.data.Dataset.from_tensor_slices((["a", "b c", "c", "a c"], [0, 1, 0, 1])).batch(2)
    for layers, data, y in (
        ([keras.Input((), dtype="string"), words], texts, None),
        ([keras.Input((3,), sparse=True)], scipy.sparse.csr_array(X), Y),
    ):
        model = tfp_bnn.VariationalSequential([*layers, tfp_bnn.layers.DenseReparameterization(2)], seed=0)
        model.compile("adam", run_eagerly=True)
        rows = data if y is None else (data, y)
        callbacks = [CalibrationEarlyStopping(rows, num_samples=2), PosteriorDoctor(rows, num_samples=2, tolerance=9.0)]
        history = model.fit(data, y, epochs=1, verbose=0, callbacks=callbacks)
        assert np.isfinite(history.history["val_mc_nll"]).all()
