"""Registry of recipes: those in this folder, and those that other packages register."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType

from tfp_bnn.core.origin import Origin
from tfp_bnn.core.registry import Registry
from zoo.core.names import check_name

RECIPES: Registry[Path] = Registry("recipe")
"""YAML file of each recipe, by name."""


def register_recipes(source: Path | str | ModuleType) -> list[str]:
    """Registers every YAML file of a folder as a recipe, either all or none.

    The files are only read and validated when a recipe is loaded.

    Args:
        source: Folder as a `Path`, or package that contains the files, as a dotted name or module.

    Returns:
        The names of the recipes, which are the file names without the extension.

    Raises:
        ValueError: If there is no such folder or it has no recipes, if a file is not named `<architecture>.<tag>.yaml`,
            or if a name is taken.

    Example:
        >>> from pathlib import Path
        >>> import zoo
        >>> folder = Path("my_recipes")
        >>> zoo.register_recipes(folder)
        Traceback (most recent call last):
        ...
        ValueError: 'my_recipes' is no folder with recipes, which are files <architecture>.<tag>.yaml. ...
    """
    folder = source if isinstance(source, Path) else _folder_of(source)
    files = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if not files:
        raise ValueError(
            f"{str(folder)!r} is no folder with recipes, which are files <architecture>.<tag>.yaml. If they come with "
            "an installed package, it must list them in its package data."
        )
    frame = inspect.currentframe()
    caller = frame.f_back.f_globals.get("__name__", __name__) if frame and frame.f_back else __name__
    before = RECIPES.contents()
    try:
        for name, path in files.items():
            RECIPES.register(check_name(name), Origin(caller, f"{folder.name}/{path.name}"))(path)
    except ValueError:
        RECIPES.replace_contents(*before)
        raise
    return list(files)


def _folder_of(package: str | ModuleType) -> Path:
    module = importlib.import_module(package) if isinstance(package, str) else package
    places = list(getattr(module, "__path__", []))
    if not places:
        raise ValueError(
            f"{module.__name__!r} is a module, not a package, so it cannot contain recipes. Pass their folder."
        )
    return Path(places[0])


register_recipes(Path(__file__).parent)
