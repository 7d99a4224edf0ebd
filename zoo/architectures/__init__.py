"""The architectures of the zoo. To add one, add a file that registers it."""

from __future__ import annotations

import importlib
import pkgutil

from zoo.architectures.base import ARCHITECTURES, Architecture, ArchitectureConfig

__all__ = ["ARCHITECTURES", "Architecture", "ArchitectureConfig"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
