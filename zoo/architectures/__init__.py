"""The architectures of the zoo.

A new file here that registers one is all it takes to add it; other packages register theirs with
`register_architecture`.
"""

from __future__ import annotations

import importlib
import pkgutil

from zoo.architectures.base import ARCHITECTURES, Architecture, ArchitectureConfig, register_architecture

__all__ = ["ARCHITECTURES", "Architecture", "ArchitectureConfig", "register_architecture"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
