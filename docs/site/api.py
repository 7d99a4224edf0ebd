"""The pages of the API: one for each package and module that users import from."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Public as modules, but not packages of their own.
MODULES = ("tfp_bnn.hyperpriors", "tfp_bnn.objectives", "tfp_bnn.schedules")


def api_pages() -> dict[str, str]:
    """Returns the pages in reStructuredText by module, sorted.

    What is public in several modules is described in the first of them; the others refer to it, and so do aliases.
    """
    described: dict[int, str] = {}
    pages = {}
    for module in (*MODULES, *packages("tfp_bnn"), *packages("zoo")):
        homes = {name: described.setdefault(id(value), f"{module}.{name}") for name, value in public(module).items()}
        here = [name for name, home in homes.items() if home == f"{module}.{name}"]
        elsewhere = [f"``{name}`` (:py:obj:`{home}`)" for name, home in homes.items() if name not in here]
        lines = [module, "=" * len(module), "", f".. automodule:: {module}", f"   :members: {', '.join(here)}"]
        lines += ["   :imported-members:", "   :show-inheritance:", ""]
        lines += [f"Also here: {', '.join(elsewhere)}.", ""] if elsewhere else []
        pages[module] = "\n".join(lines)
    return dict(sorted(pages.items()))


def packages(name: str) -> list[str]:
    """A package and the packages in it that say what is public in `__all__`."""
    paths = [ROOT / name / "__init__.py", *sorted((ROOT / name).glob("*/__init__.py"))]
    found = [path.parent.relative_to(ROOT) for path in paths if "\n__all__ = " in path.read_text("utf-8")]
    return [".".join(path.parts) for path in found]


def public(module: str) -> dict[str, Any]:
    """What a module offers by name: what is in `__all__`, or else defined in it; no modules, no private names.

    Aliases come last.
    """
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", None)
    objects = {name: getattr(loaded, name) for name in names or vars(loaded) if not name.startswith("_")}
    found = {
        name: value
        for name, value in objects.items()
        if not inspect.ismodule(value) and (names or getattr(value, "__module__", None) == loaded.__name__)
    }
    return dict(sorted(found.items(), key=lambda item: getattr(item[1], "__name__", item[0]) != item[0]))
