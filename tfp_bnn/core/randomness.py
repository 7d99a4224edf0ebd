"""Randomness that Keras draws where no seed is given, for the length of a block."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator


@contextlib.contextmanager
def default_seeds_from(seed: int) -> Iterator[None]:
    """Gives initializers and seed generators made in a block the seeds that `keras.utils.set_random_seed` would.

    Keras draws the seed of an initializer, or of a `SeedGenerator`, that has none from Python's own generator. Only
    that one is seeded, and put back afterwards: NumPy, TensorFlow and Keras' global generator stay as they are.

    Args:
        seed: An integer.

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
