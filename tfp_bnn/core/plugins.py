"""Plug-ins: other packages that register priors, likelihoods, architectures, datasets and recipes when imported.

An installed package names its module in the entry-point group `tfp_bnn.plugins`; the environment variable
`TFP_BNN_PLUGINS` and the option `tfp-bnn --plugin` name modules that need not be installed. They are imported at the
first lookup of a name that may come from a plug-in. Each is loaded completely or not at all.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

import keras

from tfp_bnn.core.origin import Origin
from tfp_bnn.core.registry import ON_MISS, Registry

GROUP = "tfp_bnn.plugins"
VARIABLE = "TFP_BNN_PLUGINS"

_lock = threading.RLock()
_loaded: set[str] = set()
_loading = False


class PluginError(ImportError):
    """A plug-in could not be loaded; nothing it registered remains."""


@dataclass(frozen=True)
class Plugin:
    """A module that registers something when it is imported.

    Attributes:
        module: Dotted name.
        source: Where it was named, for messages, such as `"the distribution outside-zoo 0.1"`.
    """

    module: str
    source: str


def load_plugins(*modules: str, source: str = "load_plugins") -> None:
    """Loads plug-ins that are not loaded yet: of installed packages, of `TFP_BNN_PLUGINS`, and those named here.

    Every lookup of a name calls it. It does nothing while a plug-in is being imported, so plug-ins may look names up.

    Args:
        *modules: Dotted names of further modules.
        source: Where these were named, for messages.

    Raises:
        PluginError: If a plug-in fails to import or registers a name that is taken. Everything it registered is rolled
            back, and the next call tries again.
    """
    global _loading
    with _lock:
        if _loading:
            return
        named = [name.strip() for name in os.environ.get(VARIABLE, "").split(",")]
        plugins = [
            *_installed(),
            *(Plugin(name, f"the environment variable {VARIABLE}") for name in named if name),
            *(Plugin(name, source) for name in modules),
        ]
        _loading = True
        try:
            for plugin in plugins:
                if plugin.module not in _loaded:
                    _load(plugin)
                    _loaded.add(plugin.module)
        finally:
            _loading = False


@functools.cache
def _installed() -> tuple[Plugin, ...]:
    """The plug-ins of the installed distributions."""
    found: dict[str, tuple[str, Plugin]] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        source = f"the distribution {entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
        plugin = Plugin(entry.module, source)
        if entry.attr:
            raise PluginError(
                f"The plug-in {entry.name!r} of {source} names the object {entry.value!r}; a module was expected. Name "
                f"the module that registers things when it is imported: {entry.name} = {entry.module!r}."
            )
        name, other = found.setdefault(entry.name, (entry.name, plugin))
        if other.module != plugin.module:
            raise PluginError(
                f"Two plug-ins are called {name!r}: the module {other.module!r} of {other.source}, and "
                f"{plugin.module!r} of {plugin.source}. Uninstall one of them, or rename its entry point."
            )
    return tuple(plugin for _, plugin in found.values())


def _load(plugin: Plugin) -> None:
    before = _Before()
    try:
        importlib.import_module(plugin.module)
        before.check_names_at_keras()
    except BaseException as error:
        before.restore(plugin.module)
        if not isinstance(error, Exception):
            raise
        reason = f"{type(error).__name__}: {error}".rstrip(". ")
        raise PluginError(
            f"The plug-in {plugin.module!r}, named by {plugin.source}, could not be loaded: {reason}. Nothing of it "
            "was registered. Fix it, uninstall it, or stop naming it."
        ) from error


@dataclass(frozen=True)
class _Before:
    """A snapshot of what was registered and imported before a plug-in."""

    things: dict[Registry[Any], tuple[dict[str, Any], dict[str, Origin]]] = field(
        default_factory=lambda: {registry: registry.contents() for registry in Registry.existing}
    )
    at_keras: dict[str, Any] = field(default_factory=lambda: dict(keras.saving.get_custom_objects()))
    modules: frozenset[str] = field(default_factory=lambda: frozenset(sys.modules))

    def check_names_at_keras(self) -> None:
        """Refuses a class that took another class's registered name in Keras, which allows it."""
        now = keras.saving.get_custom_objects()
        for name, old in self.at_keras.items():
            new = now.get(name)
            if new is not None and new is not old and not Origin.of(new).defines_again(Origin.of(old)):
                raise ValueError(f"Keras knows {Origin.of(old)} as {name!r}, so {Origin.of(new)} cannot use this name.")

    def restore(self, module: str) -> None:
        """Undoes what a failed plug-in did, and forgets its modules, so another import runs them again."""
        undone = {_top(module)}
        for registry in list(Registry.existing):
            old_things, old_origins = self.things.get(registry, ({}, {}))
            things, origins = registry.contents()
            for name in [name for name, thing in things.items() if old_things.get(name) is not thing]:
                origin = origins.get(name) or Origin.of(things[name])
                if self._is_of_another(origin.module, module):
                    continue
                undone.add(origin.package)
                _put_back(things, old_things, name)
                _put_back(origins, old_origins, name)
            registry.replace_contents(things, origins)
        at_keras = keras.saving.get_custom_objects()
        for name in [name for name, thing in at_keras.items() if self.at_keras.get(name) is not thing]:
            if name in self.at_keras or Origin.of(at_keras[name]).package in undone:
                _put_back(at_keras, self.at_keras, name)
        for name in set(sys.modules) - self.modules:
            if _top(name) in undone - {_top(known) for known in self.modules} | {_top(module)}:
                _forget(name)

    def _is_of_another(self, origin: str, module: str) -> bool:
        """Whether a new registration came from another package that the plug-in was just the first to import.

        For example, a plug-in may be the first to import `zoo.architectures`, which registers its own.
        """
        known_packages = {_top(name) for name in self.modules} - {_top(module)}
        return origin not in self.modules and _top(origin) in known_packages


def _top(module: str) -> str:
    return module.partition(".")[0]


def _put_back(now: dict[str, Any], before: dict[str, Any], name: str) -> None:
    if name in before:
        now[name] = before[name]
    else:
        now.pop(name, None)


def _forget(module: str) -> None:
    del sys.modules[module]
    parent, _, name = module.rpartition(".")
    if parent in sys.modules:
        vars(sys.modules[parent]).pop(name, None)


ON_MISS.append(load_plugins)
