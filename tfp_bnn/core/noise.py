"""Counter-based noise of Bayesian layers.

Philox is a cipher: under a key it turns each counter of 128 bits into four random words of 32. `Noise.fold_in` derives
a key from a seed and a number, such as that of a step, a sample or a replica. Under a key, every random tensor has a
block of counters of its own, determined by its owner, such as a layer, and its name. A draw therefore depends on (seed,
step or sample, layer, replica) and on nothing else: not on the batch size, not on how often validation runs, not on the
other layers.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.arguments import is_integer, require_integer
from tfp_bnn.core.checks import current_graph

# Philox by its number among TensorFlow's algorithms: the default differs under XLA, and so would the noise.
_PHILOX = 1
# The key under which seeds are counters: Philox scrambles seeds too.
_KEY_OF_SEEDS = np.array([0x02461E293EC8F720], np.uint64)
# The upper half of a block is the owner, and the lower half the name, of 31 bits. The bit above marks other blocks.
_OF_KEYS, _OF_SEEDS = 1 << 31, 1 << 31 | 1
_WORD, _BYTE = 32, 8
# The eight signs of each byte: its bits in turn, from the highest, where 1 means -1.
_SIGNS_OF_BYTE = 1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)
_TRAINING, _EVALUATION = 0, 1


class NoiseSource(Protocol):
    """Interface of the noise that a layer uses. Tests inject their own."""

    def normal(self, name: str, shape: Sequence[int]) -> tf.Tensor:
        """Returns standard normal noise, float32."""

    def signs(self, name: str, shape: Sequence[Any]) -> tf.Tensor:
        """Returns signs, exactly +1 or -1, float32. Only the first size can be a tensor."""

    def keep(self, name: str, shape: Sequence[Any], probability: float) -> tf.Tensor:
        """Returns a mask, exactly 1 with the given probability and otherwise 0, float32."""


class Noise:
    """Noise that is a pure function of a seed.

    Its random words are the same with and without XLA, and so are signs and masks. Normal numbers are too, up to the
    rounding of logarithm, sine and cosine.

    Args:
        seed: Integer tensor of shape `(2,)`.

    References:
        Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3
    """

    def __init__(self, seed: tf.Tensor) -> None:
        self._key = _words([1], _KEY_OF_SEEDS, tf.cast(seed, tf.uint64), tf.uint64)
        self._owner = 0

    def fold_in(self, number: int | tf.Tensor) -> Noise:
        """Returns an independent child of this noise for each `number`, under a key of its own."""
        number = tf.cast(tf.convert_to_tensor(number), tf.uint64)
        child = copy.copy(self)
        child._key = _words([1], self._key, tf.stack([number, self._block(_OF_KEYS)]), tf.uint64)
        child._owner = 0
        return child

    def block(self, owner: int) -> Noise:
        """Returns the noise of an owner of random tensors, such as a layer, under the same key: it costs nothing.

        Args:
            owner: Number of the owner, from 0 to 2^32 - 2. Each has independent noise.

        Raises:
            ValueError: If the number is out of range, or the noise has an owner already.
        """
        if self._owner or not 0 <= owner < 2**32 - 1:
            raise ValueError(f"`owner` must be from 0 to 2^32 - 2, for noise without an owner, but got {owner}.")
        child = copy.copy(self)
        # 0 is this noise itself.
        child._owner = owner + 1
        return child

    @property
    def seed(self) -> tf.Tensor:
        """A seed for functions of TensorFlow that take one: int64, shape `(2,)`."""
        return _words([2], self._key, np.array([0, self._block(_OF_SEEDS)], np.uint64), tf.int64)

    def normal(self, name: str, shape: Sequence[int]) -> tf.Tensor:
        """Returns independent N(0, 1) noise of the given shape, float32.

        By the method of Box and Muller (1958), two random words for two numbers. TensorFlow's own function is slower,
        and has other numbers under XLA. The largest magnitude is sqrt(62 log 2) = 6.56, which a standard normal exceeds
        once in 2e10 numbers; that of TensorFlow is 5.68.
        """
        static = tf.get_static_value(shape) if tf.is_tensor(shape) else shape
        number = tf.reduce_prod(shape) if static is None else math.prod(static)
        # Unpacked and not sliced: a slice takes five operations of a graph.
        of_radius, of_angle = tf.unstack(self._words(name, [2, (number + 1) // 2]), num=2)
        # The odd numbers below 2^31, all equally likely: uniform in (0, 1), symmetric about 1/2.
        uniform = tf.abs(2.0**-31 * tf.cast(tf.bitwise.bitwise_or(of_radius, 1), tf.float32))
        radius = tf.sqrt(-2.0 * tf.math.log(uniform))
        angle = math.pi * 2.0**-31 * tf.cast(of_angle, tf.float32)
        normal = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=0)
        is_even = static is not None and number % 2 == 0
        return tf.reshape(normal if is_even else normal[:number], shape)

    def signs(self, name: str, shape: Sequence[Any]) -> tf.Tensor:
        """Returns independent signs of the given shape: exactly +1 or -1, each with probability 1/2, float32.

        Each is a bit of a random word. Those along the first axis, the only one whose size can be a tensor, start a new
        word each.
        """
        columns = math.prod(shape[1:])
        words = self._words(name, [shape[0], -(-columns // _WORD), 1])
        in_bytes = tf.bitwise.right_shift(words, np.arange(_WORD - _BYTE, -1, -_BYTE, dtype=np.int32))
        in_bytes = tf.reshape(tf.bitwise.bitwise_and(in_bytes, 255), [shape[0], -1])[:, : -(-columns // _BYTE)]
        # A lookup, because TensorFlow is slow at spreading words to their bits by shifts.
        signs = tf.gather(_SIGNS_OF_BYTE, in_bytes)
        if columns % _BYTE:
            signs = tf.reshape(signs, [shape[0], -1])[:, :columns]
        return tf.reshape(signs, shape)

    def keep(self, name: str, shape: Sequence[Any], probability: float) -> tf.Tensor:
        """Returns a mask of independent entries, exactly 1 with the given probability and otherwise 0, float32."""
        # The probability as a number of words, of which there are 2^32 from -2^31.
        last = max(1, round(probability * 2.0**_WORD)) - 1 + tf.int32.min
        return tf.cast(self._words(name, shape) <= last, tf.float32)

    def _words(self, name: str, shape: Sequence[Any]) -> tf.Tensor:
        """Random words, int32, from the block of a tensor."""
        return _words(shape, self._key, np.array([0, self._block(number_of(name))], np.uint64), tf.int32)

    def _block(self, lower: int) -> np.uint64:
        return np.uint64(self._owner << 32 | lower)


def _words(shape: Sequence[Any], key: tf.Tensor, counter: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Random integers of all values of a dtype. Four words of 32 bits share a counter, and the next four have the next.

    The first of the two words of a counter counts on, so a tensor would have to have 2^66 words to leave its block.
    """
    shape = tf.convert_to_tensor(shape, tf.int32)
    return tf.raw_ops.StatelessRandomUniformFullIntV2(shape=shape, key=key, counter=counter, alg=_PHILOX, dtype=dtype)


class NoNoise:
    """Absence of noise, for the plug-in prediction: weights are posterior means and masks are their expectations."""

    def fold_in(self, number: int | tf.Tensor) -> NoNoise:
        """Returns itself."""
        return self

    def block(self, owner: int) -> NoNoise:
        """Returns itself."""
        return self

    def normal(self, name: str, shape: Sequence[int]) -> tf.Tensor:
        """Returns zeros of the given shape, float32."""
        return tf.zeros(shape, tf.float32)

    def signs(self, name: str, shape: Sequence[Any]) -> tf.Tensor:
        """Returns ones of the given shape, float32."""
        return tf.ones(shape, tf.float32)

    def keep(self, name: str, shape: Sequence[Any], probability: float) -> tf.Tensor:
        """Returns the probability in every entry, which is the expectation of a mask, float32."""
        return tf.fill(shape, tf.constant(probability, tf.float32))


class NoiseStreams:
    """Two independent streams of noise, for training and for evaluation, each with a saved counter.

    With a single stream, adding `validation_data` to `fit` would change the trained weights. Keras does not save the
    state of a `SeedGenerator`. `save` and `load` do, so a resumed run does not replay its early noise.

    Args:
        seed: Integer, or None for a seed drawn from Keras' global seed (`keras.utils.set_random_seed`).
    """

    def __init__(self, seed: int | None) -> None:
        if seed is not None:
            if not is_integer(seed):
                raise ValueError(f"`seed` must be an integer or None, but got {seed!r}.")
            seed = require_seed(seed)
        self._generators = [keras.random.SeedGenerator(seed), keras.random.SeedGenerator(seed)]

    def next(self, training: bool) -> Noise:
        """Returns the next noise of a stream. Replicas of a distribution strategy get different noise."""
        stream = _TRAINING if training else _EVALUATION
        noise = Noise(self._generators[stream].next()).fold_in(stream)
        replica = tf.distribute.get_replica_context()
        if replica is not None and replica.num_replicas_in_sync > 1:
            noise = noise.fold_in(replica.replica_id_in_sync_group)
        return noise

    @property
    def variables(self) -> dict[str, keras.Variable]:
        """The state of both streams, by name."""
        return {name: generator.state for name, generator in zip(self.keys, self._generators, strict=True)}

    def save(self, store: Any) -> None:
        """Saves the state of both streams to a Keras weights store."""
        for name, variable in self.variables.items():
            store[name] = np.asarray(variable)

    def load(self, store: Any) -> None:
        """Loads what `save` wrote."""
        for name, variable in self.variables.items():
            variable.assign(np.asarray(store[name]))

    keys = ("training_noise", "evaluation_noise")


@dataclass(frozen=True)
class _Scope:
    noise_of_layer: Mapping[int, NoiseSource]
    uses: Counter[int] = field(default_factory=Counter)
    made: dict[tuple[int, Any], tuple[object, tf.Tensor]] = field(default_factory=dict)


_scope: contextvars.ContextVar[_Scope | None] = contextvars.ContextVar("tfp_bnn_noise", default=None)
_of_all_draws: contextvars.ContextVar[dict[int, tuple[object, tf.Tensor]] | None] = contextvars.ContextVar(
    "tfp_bnn_of_all_draws", default=None
)


@contextlib.contextmanager
def noise_scope(noise_of_layer: Mapping[int, NoiseSource]) -> Iterator[None]:
    """Context in which each layer takes its noise from a mapping instead of its own streams.

    A scope makes all uses of a layer in one forward pass share one weight draw. It is read while a function is traced,
    so a compiled function must open the scope inside itself, always in the same way.

    Args:
        noise_of_layer: Noise of each layer, by `id(layer)`.
    """
    token = _scope.set(_Scope(noise_of_layer))
    try:
        yield
    finally:
        _scope.reset(token)


def in_noise_scope() -> bool:
    """Whether a `noise_scope` is open in this thread."""
    return _scope.get() is not None


def scoped_noise(layer: object) -> NoiseSource | None:
    """Returns the noise of `layer` in the open `noise_scope`, or None."""
    scope = _scope.get()
    return None if scope is None else scope.noise_of_layer.get(id(layer))


@contextlib.contextmanager
def shared_by_draws(made: dict[int, tuple[object, tf.Tensor]]) -> Iterator[None]:
    """Context in which `once_in_scope` spans all draws: those of a loop take what the first made before the loop.

    Args:
        made: What was made, by the `id` of the thing that it was made for; empty before the first draw.
    """
    token = _of_all_draws.set(made)
    try:
        yield
    finally:
        _of_all_draws.reset(token)


def once_in_scope(thing: object, make: Callable[[], tf.Tensor]) -> tf.Tensor:
    """Returns `make()`, which is called once for each thing in the open `noise_scope`; each time outside a scope.

    For what several parts of a forward pass compute from a variable, which does not change in it. Gradients of it are
    known to a tape that was there when it was made. Each graph, such as the body of a loop, has its own, except in
    `shared_by_draws`.
    """
    of_all_draws = _of_all_draws.get()
    if of_all_draws is not None:
        if id(thing) not in of_all_draws:
            of_all_draws[id(thing)] = thing, make()
        return of_all_draws[id(thing)][1]
    scope = _scope.get()
    if scope is None:
        return make()
    key = id(thing), current_graph()
    if key not in scope.made:
        # With the thing, because another one could get its id.
        scope.made[key] = thing, make()
    return scope.made[key][1]


def name_of_use(name: str, thing: object) -> str:
    """Returns a name of noise that differs between the uses of a thing in the open `noise_scope`: `name`, `name#2`, ...

    For noise that belongs to a use of a weight and not to its draw. Outside a scope each call has noise of its own.
    """
    scope = _scope.get()
    if scope is None:
        return name
    scope.uses[id(thing)] += 1
    number = scope.uses[id(thing)]
    return name if number == 1 else f"{name}#{number}"


def require_seed(seed: Any) -> Any:
    """Returns a seed: an integer, or an integer tensor, as in the graph of an exported model.

    Raises:
        ValueError: If it is neither, or has more than 64 bits.
    """
    if tf.is_tensor(seed) and seed.dtype.is_integer:
        return seed
    number = require_integer("seed", seed)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"`seed` must be an integer of at most 64 bits, but got {number}.")
    return number


def layer_key(layer: keras.Layer) -> int:
    """Returns the number of a layer as an owner, because two with the same seed must not draw the same noise."""
    # By name: the path of a layer can change when the model is saved and loaded.
    return number_of(layer.name)


def number_of(name: str) -> int:
    """Returns a number for a name, of 31 bits."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF
