"""Active learning: train, choose the inputs that are worth a label, label them, and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import scipy.sparse

from tfp_bnn.acquisition.scores import require_one_predictive
from tfp_bnn.acquisition.selection import ACQUISITIONS, Score, select
from tfp_bnn.core.arguments import require_integer
from tfp_bnn.core.batches import as_arrays, inputs_of, is_stream, num_rows
from tfp_bnn.predictive import score

_INITIAL, _TRAINING, _DRAWS, _CHOICE = range(4)


@dataclass(frozen=True)
class Round:
    """One round of active learning.

    Attributes:
        labelled: Indices into the pool of the labelled examples, in the order in which they were labelled, int64.
        scores: Scores of the model on the test data, such as `accuracy` and `nll`; see `tfp_bnn.predictive.score`.
            Empty without test data.
        model: The model that was trained on the labelled examples.
    """

    labelled: npt.NDArray[np.int64]
    scores: Mapping[str, float]
    model: Any = field(repr=False)

    @property
    def num_labels(self) -> int:
        """The number of labelled examples."""
        return len(self.labelled)


def active_learning(
    train: Callable[[Any, Any, int], Any],
    x_pool: Any,
    y_pool: Any,
    *,
    by: str | Score = "bald",
    initial: int | npt.ArrayLike = 20,
    number: int = 10,
    test_data: tuple[Any, Any] | None = None,
    num_samples: int = 50,
    seed: int = 0,
) -> Iterator[Round]:
    """Trains on few labels, chooses which to add, and repeats until the pool has no unlabelled example left.

    It stands in for labelling by hand: the targets of the pool are known, but are only shown to `train` once they are
    chosen. Take as many rounds as wanted, as with `itertools.islice`; the first has the initial examples. For targets
    that are not known yet, use `select`.

    Runs with equal seeds are paired whatever `by` is: they have the same initial examples, and the same training seed
    in the same round.

    Args:
        train: Function `(x, y, seed)` that returns a trained model, anything with `posterior_predictive`: a variational
            model, an ensemble, a Laplace approximation. It may start from new weights, or from those of the last round.
        x_pool: Inputs of the pool: an array `(n, ...)`, or a list or dict of arrays.
        y_pool: Their targets, an array or tensor `(n, ...)`.
        by: How examples are chosen, as in `select`.
        initial: Number of examples that are labelled at the start, chosen at random, or their indices.
        number: Number of examples that are labelled between two rounds. The last time there may be fewer.
        test_data: Pair `(x, y)` on which each model is scored. Default: None, no scores.
        num_samples: Number of weight draws of the predictives.
        seed: Integer. Equal seeds give equal rounds, if `train` is reproducible.

    Yields:
        A `Round` for each number of labels.

    Raises:
        TypeError: If the model has several outputs.
        ValueError: If an argument is out of range, pool and targets differ in length, or `by` does not fit the targets.

    Example:
        >>> import itertools, keras, numpy as np, tfp_bnn
        >>> def train(x, y, seed):
        ...     layer = tfp_bnn.layers.DenseFlipout(2)
        ...     model = tfp_bnn.VariationalSequential([keras.Input((1,)), layer], seed=seed)
        ...     model.compile(keras.optimizers.Adam(0.1))
        ...     model.fit(x, y, epochs=2, verbose=0)
        ...     return model
        >>> x = np.linspace(-1, 1, 40)[:, None]
        >>> rounds = tfp_bnn.acquisition.active_learning(train, x, x[:, 0] > 0, initial=6, number=4, num_samples=10)
        >>> [step.num_labels for step in itertools.islice(rounds, 3)]
        [6, 10, 14]
    """
    require_integer("number", number, 1)
    require_integer("num_samples", num_samples, 1)
    require_integer("seed", seed, 0)
    if not callable(by):
        ACQUISITIONS[by]
    for of_pool in (x_pool, y_pool):
        if is_stream(of_pool):
            raise ValueError(f"The pool is a {type(of_pool).__name__}, a stream of batches. Expected arrays.")
    # Sparse tensors cannot be sliced.
    (x_pool,) = inputs_of(as_arrays(x_pool, "x_pool"))
    y_pool = as_arrays(y_pool, "y_pool")
    available = num_rows(x_pool)
    if num_rows(y_pool) != available:
        raise ValueError(f"The pool has {available} inputs but {num_rows(y_pool)} targets. Expected one for each.")
    labelled = _initial(initial, available, seed)
    return _rounds(train, x_pool, y_pool, labelled, by, number, test_data, num_samples, seed)


def _rounds(
    train: Callable[[Any, Any, int], Any],
    x_pool: Any,
    y_pool: Any,
    labelled: npt.NDArray[np.int64],
    by: str | Score,
    number: int,
    test_data: tuple[Any, Any] | None,
    num_samples: int,
    seed: int,
) -> Iterator[Round]:
    available = num_rows(x_pool)
    for index in range(available):

        def seed_of(purpose: int, index: int = index) -> int:
            return _seed(seed, purpose, index)

        model = train(_rows(x_pool, labelled), _rows(y_pool, labelled), seed_of(_TRAINING))
        scores: Mapping[str, float] = {}
        if test_data is not None:
            x_test, y_test = test_data
            scores = score(model.posterior_predictive(x_test, num_samples=num_samples, seed=seed_of(_DRAWS)), y_test)
        yield Round(labelled, scores, model)
        left = np.setdiff1d(np.arange(available), labelled)
        if not len(left):
            return
        predictive = model.posterior_predictive(_rows(x_pool, left), num_samples=num_samples, seed=seed_of(_DRAWS))
        require_one_predictive(predictive, "active_learning")
        chosen = left[select(predictive, min(number, len(left)), by, seed_of(_CHOICE))]
        labelled = np.concatenate([labelled, chosen])


def _initial(initial: int | npt.ArrayLike, available: int, seed: int) -> npt.NDArray[np.int64]:
    """The indices of the examples that are labelled at the start."""
    if np.ndim(initial) == 0:
        if require_integer("initial", initial, 1) > available:
            raise ValueError(f"`initial` is {initial!r}, but the pool has {available} examples. Expected at most that.")
        rng = np.random.default_rng(_seed(seed, _INITIAL, 0))
        return rng.permutation(available)[:initial].astype(np.int64)
    indices = np.asarray(initial)
    integers = indices.ndim == 1 and indices.size and np.issubdtype(indices.dtype, np.integer)
    if not integers or len(np.unique(indices)) < len(indices) or indices.min() < 0 or indices.max() >= available:
        raise ValueError(
            f"`initial` must be a number of examples, or different indices from 0 to {available - 1} of at least one "
            f"example, but got {initial!r}."
        )
    return indices.astype(np.int64)


def _seed(seed: int, purpose: int, index: int) -> int:
    """A seed for one purpose of one round, below 2^31."""
    return int(np.random.SeedSequence((seed, purpose, index)).generate_state(1)[0] >> 1)


def _rows(x: Any, indices: npt.NDArray[np.int64]) -> Any:
    return keras.tree.map_structure(
        lambda array: array[indices] if scipy.sparse.issparse(array) else np.asarray(array)[indices], x
    )
