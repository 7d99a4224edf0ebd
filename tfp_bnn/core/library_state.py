"""The only file that touches what Keras and TensorFlow keep outside their objects, which is not public.

Each function says why the public API is not enough, as in `tfp_bnn.core.layer_tree`.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.eager import context as tf_context
from tensorflow.python.framework import config as tf_config

_ALLOCATES: ContextVar[bool] = ContextVar("allocates", default=True)
# Keras' own names of its list of variables that wait for their first value, and of its counts of the names it gives.
_POSTPONED = "uninitialized_variables"
_NAMES = "object_name_uids"

# === Building ===


@contextlib.contextmanager
def without_allocation() -> Iterator[None]:
    """Lets models be built in a block with variables that have shapes and no values, and never get any.

    `StatelessScope(initialize_variables=False)` only postpones: Keras lists the variables globally, and allocates them
    when any later scope ends, also those of a model that was refused for its size.
    """
    listed = global_state.get_global_attribute(_POSTPONED, [], set_to_default=True)
    before = len(listed)
    token = _ALLOCATES.set(False)
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        _ALLOCATES.reset(token)
        del listed[before:]


def allocates() -> bool:
    """Whether layers may make arrays of the size of their weights: not within `without_allocation`."""
    return _ALLOCATES.get()


@contextlib.contextmanager
def names_counted_anew() -> Iterator[None]:
    """Gives layers without a name, in a block, the names that they have in a new process.

    Keras counts them through the whole process, so the same code makes `dense` first and `dense_1` then. Weights are
    stored and noise is drawn by these names. `clear_session` would take all other state with it. Later names are none
    of those in the block.
    """
    before = global_state.get_global_attribute(_NAMES, {})
    global_state.set_global_attribute(_NAMES, Counter())
    try:
        yield
    finally:
        within = global_state.get_global_attribute(_NAMES, {})
        global_state.set_global_attribute(_NAMES, Counter(before) | Counter(within))


# === Calls that are under way ===


def outermost_call() -> Any:
    """An object that stands for the outermost of the calls of layers that are under way, or None; new for each call."""
    return global_state.get_global_attribute("current_call_ctx")


def model_in_call() -> keras.Model | None:
    """The model whose `__call__` is the outermost of the calls of layers that are under way, or None."""
    entry = getattr(outermost_call(), "entry_layer", None)
    return entry if isinstance(entry, keras.Model) else None


# === Determinism ===


@contextlib.contextmanager
def deterministic_operations(seed: int) -> Iterator[None]:
    """Switches TensorFlow's deterministic operations on for a block, and restores the state from before.

    Under determinism TensorFlow refuses random operations without a seed, so its global seed is set for the block too.
    The public API can neither read nor unset either of the two.

    Args:
        seed: Integer, the global seed of TensorFlow within the block.
    """
    context = tf_context.context()
    switched_on, seed_before = tf_config.is_op_determinism_enabled(), context._seed
    # TensorFlow has this generator only once a seed was set.
    generator_before = getattr(context, "_rng", None)
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(seed)
    try:
        yield
    finally:
        context._seed, context._rng = seed_before, generator_before
        if not switched_on:
            tf_config.disable_op_determinism()
