"""Control of the random seeds that Keras draws when none is given."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator


@contextlib.contextmanager
def default_seeds_from(seed: int) -> Iterator[None]:
    """Gives initializers and seed generators created in a block the seeds of `keras.utils.set_random_seed`.

    If an initializer or a `SeedGenerator` has no seed, Keras draws one from Python's own generator. Only that generator
    is seeded, and restored afterwards. NumPy, TensorFlow and Keras' global generator do not change.

    Args:
        seed: Integer seed.

    Example:
        >>> import keras
        >>> from tfp_bnn.core.randomness import default_seeds_from
        >>> with default_seeds_from(3):
        ...     first = keras.initializers.GlorotUniform()
        >>> with default_seeds_from(3):
        ...     second = keras.initializers.GlorotUniform()
        >>> first.seed == second.seed
        True
    """
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
