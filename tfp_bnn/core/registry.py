"""Registries, which turn a name, a config or an object into a prior, a likelihood or a dataset.

Everything that users can refer to by name is in a `Registry`. Objects are registered where they are defined, so adding
one needs no central edit. A name belongs to the package that registered it, and another package cannot take it.
"""

from __future__ import annotations

import difflib
import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import keras

from tfp_bnn.core.arguments import constructor_arguments
from tfp_bnn.core.origin import Origin

T = TypeVar("T")

# In a message.
_MOST_NAMES = 5


def unknown_name_message(kind: str, name: object, known: Iterable[str]) -> str:
    """Returns a message with the unknown name, the nearest known name, and known names, at most five.

    Args:
        kind: Kind of object that the name should refer to, such as `"prior"`.
        name: Name that was passed.
        known: Names that are accepted.

    Returns:
        A message for a `ValueError`.
    """
    known = sorted(known)
    nearest = difflib.get_close_matches(str(name)[:120], known, n=_MOST_NAMES, cutoff=0.0)
    close = difflib.get_close_matches(str(name)[:120], nearest, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    shown = repr(name) if len(repr(name)) <= 120 else f"{repr(name)[:117]}..."
    others = f" and {len(known) - _MOST_NAMES} others" if len(known) > _MOST_NAMES else ""
    return f"Unknown {kind} {shown}.{hint} Expected one of: {', '.join(sorted(nearest))}{others}."


ON_MISS: list[Callable[[], None]] = []
"""Functions to call before a name is refused. They may register it: `tfp_bnn.core.plugins` adds `load_plugins`."""


class Registry(Generic[T]):
    """Named objects of one kind, in the order of registration.

    A lookup that finds nothing loads the installed plug-ins (`tfp_bnn.core.plugins`) and looks again. Iteration and
    `len` do not: they show what has been registered so far.

    Args:
        kind: Kind of the objects for error messages, such as `"dataset"`.
    """

    existing: ClassVar[weakref.WeakSet[Registry[Any]]] = weakref.WeakSet()
    """Every registry there is."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}
        # Only for objects that cannot tell their origin: an architecture is defined where its function is.
        self._origins: dict[str, Origin] = {}
        self.existing.add(self)

    def register(self, name: str, origin: Origin | None = None) -> Callable[[T], T]:
        """Returns a decorator that registers an object under `name`.

        The same definition, with the same module and qualified name, may be registered again and replaces the old one,
        because modules are reloaded and notebook cells are run again.

        Args:
            name: Name to register the object under.
            origin: Where the object was defined, if the object itself cannot tell.

        Raises:
            ValueError: If `name` is taken by something else. Nothing is registered then.
        """

        def add(thing: T) -> T:
            self._check_free(name, origin or Origin.of(thing))
            self._things[name] = thing
            if origin is not None:
                self._origins[name] = origin
            return thing

        return add

    def unregister(self, name: str) -> None:
        """Removes what is registered under `name`.

        Raises:
            ValueError: If nothing is registered under `name`.
        """
        if name not in self._things:
            raise ValueError(unknown_name_message(self.kind, name, self._things))
        del self._things[name]
        self._origins.pop(name, None)

    def contents(self) -> tuple[dict[str, T], dict[str, Origin]]:
        """Copies of all objects by name, and of the origins passed with them."""
        return dict(self._things), dict(self._origins)

    def replace_contents(self, things: Mapping[str, T], origins: Mapping[str, Origin]) -> None:
        """Restores what `contents` returned."""
        self._things, self._origins = dict(things), dict(origins)

    def origin_of(self, name: str) -> Origin:
        """Where the object registered under `name` was defined.

        Raises:
            ValueError: If nothing is registered under `name`.
        """
        thing = self[name]
        return self._origins.get(name) or Origin.of(thing)

    def package_of(self, name: str) -> str:
        """The top-level package that registered `name`, such as `"tfp_bnn"`.

        Raises:
            ValueError: If nothing is registered under `name`.
        """
        return self.origin_of(name).package

    def __getitem__(self, name: str) -> T:
        """Looks `name` up.

        Raises:
            ValueError: If nothing is registered under `name`. The message gives the nearest name.
        """
        if name not in self:
            raise ValueError(unknown_name_message(self.kind, name, self._things))
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        if name not in self._things:
            _look_further()
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def _check_free(self, name: str, origin: Origin) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"A {self.kind} is registered under a name, but got {name!r}.")
        if name in self._things:
            holder = self.origin_of(name)
            if not origin.defines_again(holder):
                raise ValueError(
                    f"The {self.kind} {name!r} is already registered as {holder}, so {origin} cannot use "
                    "this name. Choose another name."
                )


class Spec:
    """A small immutable description that can be converted to a config and back.

    Priors, posteriors, likelihoods and schedules are specs: they hold constructor arguments and no variables. The layer
    or model that uses them creates the variables they need (`add_weights`), and owns, counts and saves them.
    """

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, JSON-serializable."""
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
    """A registry of `Spec` classes, which users pass as a name, a config or an object, like Keras initializers."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self._conversions: dict[type, Callable[[Any], S]] = {}

    def register(self, name: str, origin: Origin | None = None) -> Callable[[type[S]], type[S]]:
        """Returns a decorator that registers a class under `name`, and with Keras for saved models.

        Keras knows the class under its own package, as in `tfp_bnn.priors>Normal` or `their_package.priors>Normal`, so
        classes of two packages may have the same name. As elsewhere, the same definition may be registered again.

        Raises:
            TypeError: If the decorated object is not a `Spec` class.
            ValueError: If `name`, or the name for Keras, is taken by another class. Nothing is registered then.
        """
        add = super().register(name, origin)

        def decorate(cls: type[S]) -> type[S]:
            if not (inspect.isclass(cls) and issubclass(cls, Spec)):
                raise TypeError(f"The {self.kind} {name!r} must be a class made from `Spec`, but got {cls!r}.")
            own = Origin.of(cls)
            self._check_free(name, own)
            package = f"{own.package}.{self.kind}s"
            holder = keras.saving.get_custom_objects().get(f"{package}>{cls.__name__}")
            if holder is not None and holder is not cls and not own.defines_again(Origin.of(holder)):
                raise ValueError(
                    f"The {self.kind} {name!r} cannot be saved: Keras already knows {Origin.of(holder)} as "
                    f"'{package}>{cls.__name__}', so {own} cannot use it. Choose another name for the class."
                )
            keras.saving.register_keras_serializable(package=package, name=cls.__name__)(cls)
            return add(cls)

        return decorate

    def converts(self, foreign: type) -> Callable[[Callable[[Any], S]], Callable[[Any], S]]:
        """Returns a decorator for a function that makes a spec from an object of another library.

        Args:
            foreign: Class of the objects that `get` then takes too.
        """

        def decorate(convert: Callable[[Any], S]) -> Callable[[Any], S]:
            self._conversions[foreign] = convert
            return convert

        return decorate

    def unregister(self, name: str) -> None:
        """Removes the class registered under `name`, here and from Keras.

        Raises:
            ValueError: If there is none.
        """
        cls = self._things.get(name)
        super().unregister(name)
        known_to_keras = keras.saving.get_custom_objects()
        for keras_name in [key for key, known in known_to_keras.items() if known is cls]:
            del known_to_keras[keras_name]

    def get(self, identifier: str | Mapping[str, Any] | Sequence[Any] | S) -> S:
        """Returns the object that `identifier` describes.

        Args:
            identifier: A registered name (`"normal"`), a mapping of that name and arguments (`{"name": "normal",
                "scale": 0.3}`), a config from `keras.saving.serialize_keras_object`, or an object, which is returned as
                it is. Others are what `converts` was told of.

        Raises:
            ValueError: If a name or argument is unknown (the message gives the nearest), an argument is missing, or a
                value is out of range.
            TypeError: If the object is of another kind, or its class is not registered.
        """
        if isinstance(identifier, str):
            return self._construct(identifier, {})
        found: Any = identifier
        if isinstance(identifier, Mapping) and "class_name" in identifier:
            found = self._deserialize(identifier)
        elif isinstance(identifier, Mapping) and "name" in identifier:
            arguments = dict(identifier)
            return self._construct(arguments.pop("name"), arguments)
        if type(found) in self._things.values():
            return found
        for foreign, convert in self._conversions.items():
            if isinstance(found, foreign):
                return convert(found)
        raise TypeError(
            f"Cannot make a {self.kind} from {found!r}. Expected a name ({', '.join(self)}), a mapping with the "
            f"key 'name', or a registered {self.kind} object.{self._why_not(found)}"
        )

    def name_of(self, spec: S) -> str:
        """The name under which the class of `spec` is registered, or the class name if it is not."""
        return next((name for name, cls in self._things.items() if cls is type(spec)), type(spec).__name__)

    def _construct(self, name: str, arguments: dict[str, Any]) -> S:
        cls = self[name]
        known, takes_others = constructor_arguments(cls)
        for key in arguments:
            if key not in known and not takes_others:
                raise ValueError(
                    unknown_name_message(f"argument of the {self.kind} {name!r}:", key, known)
                    if known
                    else f"The {self.kind} {name!r} takes no arguments, but got {key!r}."
                )
        try:
            return cls(**arguments)
        except TypeError as error:
            missing = [key for key, is_required in known.items() if is_required and key not in arguments]
            if not missing:
                raise
            example = ", ".join([f"'name': {name!r}", *(f"{key!r}: ..." for key in [*arguments, *missing])])
            raise ValueError(
                f"The {self.kind} {name!r} needs a value for {', '.join(map(repr, missing))}. Pass a mapping, "
                f"{{{example}}}, or an object of the class {cls.__name__}."
            ) from error

    def _deserialize(self, config: Mapping[str, Any]) -> Spec:
        """The object of a Keras config, from the registries, because Keras lets any package take any name."""
        registries = [self, *(registry for registry in self.existing if isinstance(registry, SpecRegistry))]
        classes = (cls for registry in registries if (cls := registry._class_in(config)) is not None)
        found = next(classes, None)
        if found is None:
            _look_further()
            found = self._class_in(config)
        if found is None:
            raise TypeError(
                f"Cannot make a {self.kind} from the config of {config['class_name']!r}, saved as "
                f"{config.get('registered_name')!r}: no such class is registered. Import the package that registers it "
                f"(it was defined in {config.get('module')!r}) first, or name that package as a plug-in."
            )
        return found.from_config(config.get("config") or {})

    def _class_in(self, config: Mapping[str, Any]) -> type[S] | None:
        """The registered class that a Keras config refers to.

        The module takes precedence over the name in Keras: until version 0.1 the classes of all packages were
        registered under `tfp_bnn`, and files from then contain those names.
        """
        module, keras_name = config.get("module"), config.get("registered_name")
        for cls in self._things.values():
            if (cls.__module__, cls.__name__) == (module, config["class_name"]):
                return cls
        for cls in self._things.values():
            same_package = module is None or str(module).partition(".")[0] == Origin.of(cls).package
            if same_package and keras.saving.get_registered_name(cls) == keras_name:
                return cls
        return None

    def _why_not(self, thing: object) -> str:
        """The reason why an object was refused, if known, as the end of a message."""
        if not isinstance(thing, Spec):
            return ""
        for registry in self.existing:
            if isinstance(registry, SpecRegistry) and type(thing) in registry._things.values():
                return f" {type(thing).__name__} is a {registry.kind}."
        return (
            f" The class {Origin.of(type(thing))} is not registered: put @{self.kind.upper()}S.register('its_name') "
            "above it."
        )


def _look_further() -> None:
    for look in ON_MISS:
        look()
