"""Registries: how a name, a config or an object becomes a prior, a likelihood, a dataset.

Everything that a user may give by name lives in a `Registry`. Registering happens where the thing is defined, so adding
one edits nothing central.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import keras

T = TypeVar("T")


def unknown_name_message(kind: str, name: object, known: Iterable[str]) -> str:
    """Says what came, what was expected and which known name is nearest.

    Args:
        kind: what the name should have named, such as `"prior"`.
        name: what came.
        known: the names that would have been accepted.

    Returns:
        A sentence for a `ValueError`.
    """
    known = sorted(known)
    nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"Unknown {kind} {name!r}.{hint} Expected one of: {', '.join(known)}."


class Registry(Generic[T]):
    """Named things of one kind, in the order in which they were registered.

    Args:
        kind: what is registered, for error messages, such as `"dataset"`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Returns a decorator that registers what it decorates under `name`.

        Raises:
            ValueError: when `name` is taken.
        """

        def add(thing: T) -> T:
            if name in self._things:
                raise ValueError(
                    f"The {self.kind} {name!r} is already registered as {self._things[name]!r}. Choose another name."
                )
            self._things[name] = thing
            return thing

        return add

    def __getitem__(self, name: str) -> T:
        """Looks `name` up.

        Raises:
            ValueError: when nothing is registered under `name`; the message gives the nearest name.
        """
        try:
            return self._things[name]
        except (KeyError, TypeError):
            raise ValueError(unknown_name_message(self.kind, name, self._things)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)


class Spec:
    """A small description, not to be changed, that goes into a config and comes back out of it.

    Priors, posteriors, likelihoods and schedules are specs: they hold constructor arguments and no variables. What they
    need to learn they ask of the layer or model that uses them (`add_weights`), which owns it, counts it and saves it.
    """

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-serializable."""
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Spec:
        """The inverse of `get_config`."""
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((type(self), repr(self.get_config())))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.get_config().items())})"


S = TypeVar("S", bound=Spec)


class SpecRegistry(Registry[type[S]]):
    """A registry of `Spec` classes, given by users as a name, a config or an object, as Keras takes initializers."""

    def register(self, name: str) -> Callable[[type[S]], type[S]]:
        """Registers the class here under `name`, and with Keras, so that saved models find it."""
        add = super().register(name)

        def decorate(cls: type[S]) -> type[S]:
            serializable = keras.saving.register_keras_serializable(package=f"tfp_bnn.{self.kind}s", name=cls.__name__)(
                cls
            )
            return add(serializable)

        return decorate

    def get(self, identifier: str | Mapping[str, Any] | S) -> S:
        """Makes the object that `identifier` describes.

        Args:
            identifier: a registered name (`"normal"`), a mapping of that name and arguments (`{"name": "normal",
                "scale": 0.3}`), a config from `keras.saving.serialize_keras_object`, or an object, which is returned as
                it is.

        Raises:
            ValueError: for an unknown name or argument (the message gives the nearest), or a value that is out of
                range.
            TypeError: for an object of another kind.
        """
        if isinstance(identifier, Mapping) and "class_name" in identifier:
            identifier = keras.saving.deserialize_keras_object(dict(identifier))
        if isinstance(identifier, str):
            return self[identifier]()
        if isinstance(identifier, Mapping) and "name" in identifier:
            arguments = dict(identifier)
            name = arguments.pop("name")
            return self._construct(name, arguments)
        if isinstance(identifier, Spec) and type(identifier) in self._things.values():
            return identifier
        raise TypeError(
            f"Cannot make a {self.kind} from {identifier!r}. Expected a name ({', '.join(self)}), a mapping with the "
            f"key 'name', or a registered {self.kind} object."
        )

    def name_of(self, spec: S) -> str:
        """The name under which the class of `spec` is registered; that of the class itself where it is not."""
        return next((name for name, cls in self._things.items() if cls is type(spec)), type(spec).__name__)

    def _construct(self, name: str, arguments: dict[str, Any]) -> S:
        cls = self[name]
        known = list(cls().get_config())
        for key in arguments:
            if key not in known:
                raise ValueError(
                    unknown_name_message(f"argument of the {self.kind} {name!r}:", key, known)
                    if known
                    else f"The {self.kind} {name!r} takes no arguments, but got {key!r}."
                )
        return cls(**arguments)
