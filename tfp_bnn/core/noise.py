"""Counter-based noise of Bayesian layers.

A seed is a pair of integers, `Noise.fold_in` derives a child seed from a seed and a number, and each random tensor is a
pure function of its seed and its name. A draw therefore depends on (seed, step or sample, layer, replica) and on
nothing else: not on the batch size, not on how often validation runs, not on the other layers.
"""

from __future__ import annotations

import contextlib
import contextvars
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.arguments import is_integer, require_integer

# Philox by its number among TensorFlow's algorithms: the default differs under XLA, and so would the noise.
_PHILOX = 1
# The key with which TensorFlow scrambles seeds, and what keeps the last of two numbers.
_KEY_OF_SEEDS = np.array([0x02461E293EC8F720], np.uint64)
_LAST = np.array([0, 1], np.uint64)
_TRAINING, _EVALUATION = 0, 1


class NoiseSource(Protocol):
    """Interface of the noise that a layer uses. Tests inject their own."""

    def normal(self, name: str, shape: Sequence[int]) -> tf.Tensor:
        """Returns standard normal noise, float32."""

    def signs(self, name: str, shape: Sequence[Any]) -> tf.Tensor:
        """Returns signs, exactly +1 or -1, float32."""

    def keep(self, name: str, shape: Sequence[Any], probability: float) -> tf.Tensor:
        """Returns a mask, exactly 1 with the given probability and otherwise 0, float32."""


class Noise:
    """Noise that is a pure function of a seed.

    Args:
        seed: Integer tensor of shape `(2,)`.
    """

    def __init__(self, seed: tf.Tensor) -> None:
        self.seed = seed
        # By dtype; with the graph that they belong to.
        self._first_of_children: dict[tf.DType, tuple[tf.Graph | None, tf.Tensor]] = {}

    def fold_in(self, number: int | tf.Tensor) -> Noise:
        """Returns an independent child of this noise for each `number`."""
        number = tf.convert_to_tensor(number)
        # The seeds of all children begin alike. A network has many children: it is drawn once, to trace less.
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        made_in, first = self._first_of_children.get(number.dtype, (None, None))
        if first is None or made_in is not graph:
            first = _draw("UniformFullInt", (), self.seed, dtype=number.dtype)
            self._first_of_children[number.dtype] = graph, first
        return Noise(tf.stack([first, number]))

    def normal(self, name: str, shape: Sequence[int]) -> tf.Tensor:
        """Returns independent N(0, 1) noise of the given shape, float32."""
        return _draw("Normal", shape, self._seed_of(name), dtype=tf.float32)

    def signs(self, name: str, shape: Sequence[Any]) -> tf.Tensor:
        """Returns independent signs of the given shape: exactly +1 or -1, each with probability 1/2, float32."""
        bits = _draw("UniformInt", shape, self._seed_of(name), minval=0, maxval=2)
        return tf.cast(2 * bits - 1, tf.float32)

    def keep(self, name: str, shape: Sequence[Any], probability: float) -> tf.Tensor:
        """Returns a mask of independent entries, exactly 1 with the given probability and otherwise 0, float32."""
        uniform = _draw("Uniform", shape, self._seed_of(name), dtype=tf.float32)
        return tf.cast(uniform < probability, tf.float32)

    def _seed_of(self, name: str) -> tf.Tensor:
        return self.fold_in(number_of(name)).seed


def _draw(kind: str, shape: Sequence[Any], seed: tf.Tensor, **arguments: Any) -> tf.Tensor:
    """The numbers of `tf.random.stateless_*` or `tf.random.fold_in` with Philox, bit for bit, by fewer operations.

    Those functions scramble the seed with a dozen small operations, and a network has many seeds: each operation costs
    time to trace, and to run. TensorFlow has one operation for it, but under XLA that gives another key.
    """
    # Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": Philox is a cipher, so it scrambles seeds too.
    mixed = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[2], key=_KEY_OF_SEEDS, counter=tf.raw_ops.Cast(x=seed, DstT=tf.uint64), alg=_PHILOX, dtype=tf.uint64
    )
    key = tf.raw_ops.Slice(input=mixed, begin=[0], size=[1])
    counter = tf.raw_ops.Mul(x=mixed, y=_LAST)
    draw = getattr(tf.raw_ops, f"StatelessRandom{kind}V2")
    return draw(shape=tf.convert_to_tensor(shape, tf.int32), key=key, counter=counter, alg=_PHILOX, **arguments)


class NoNoise:
    """Absence of noise, for the plug-in prediction: weights are posterior means and masks are their expectations."""

    def fold_in(self, number: int | tf.Tensor) -> NoNoise:
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
            seed = int(seed)
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


_scope: contextvars.ContextVar[_Scope | None] = contextvars.ContextVar("tfp_bnn_noise", default=None)


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
        ValueError: If it is neither.
    """
    return seed if tf.is_tensor(seed) and seed.dtype.is_integer else require_integer("seed", seed)


def layer_key(layer: keras.Layer) -> int:
    """Returns a number to fold into a seed, because two layers with the same seed must not draw the same noise."""
    # By name: the path of a layer can change when the model is saved and loaded.
    return number_of(layer.name)


def number_of(name: str) -> int:
    """Returns a number for a name, to fold into a seed."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF
