"""Where a registered class or function was defined."""

from __future__ import annotations

import inspect
from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """The place where a registered object was defined.

    Attributes:
        module: Dotted name of the module.
        name: Qualified name in it.
    """

    module: str
    name: str

    @classmethod
    def of(cls, thing: object) -> Origin:
        """The origin of a class or a function; for other objects, the module of the class and the `repr`."""
        if inspect.isclass(thing) or inspect.isroutine(thing):
            return cls(thing.__module__ or "builtins", thing.__qualname__)
        return cls(type(thing).__module__, repr(thing))

    @property
    def package(self) -> str:
        """The top-level package, such as `"tfp_bnn"`."""
        return self.module.partition(".")[0]

    def defines_again(self, other: Origin) -> bool:
        """Whether both are the same definition: a module was reloaded, or a notebook cell was run again.

        Functions and classes made inside a function share their qualified name without being the same.
        """
        return self == other and "<" not in self.name

    def __str__(self) -> str:
        return f"{self.module}.{self.name} (package {self.package!r})"
