"""What is misspelt in a recipe and the changes of `--set`, refused before TensorFlow is imported.

Names and fields are read from the code that declares them (`zoo.core.declared`). Numbers are checked by the schemas,
later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from zoo.cli.early import ZOO, bundled_recipes, check_dataset, check_model, may_have_plugins
from zoo.core.declared import Declarations
from zoo.core.names import unknown_name_message
from zoo.core.shown import shown
from zoo.core.yaml_text import changed, parse_mapping
from zoo.hub.locating import read_files
from zoo.hub.manifest import bundled_models
from zoo.hub.reading import read_texts

_SCHEMAS = Declarations(ZOO / "recipes", ZOO / "architectures")
_LIBRARY = ZOO.parent / "tfp_bnn"
# The registry of a value by the last word of its key, and where it is.
_SPECS = {
    "prior": ("PRIORS", "priors"),
    "hyperprior": ("HYPERPRIORS", "priors"),
    "posterior": ("POSTERIORS", "posteriors"),
    "likelihood": ("LIKELIHOODS", "likelihoods"),
    "objective": ("OBJECTIVES", "variational"),
}
# What a schema takes besides what it declares: short forms, and priors of a fine-tuning that are none.
_SHORT = {"inference": ("natural_gradient",), "start_from.prior": ("posterior", "default")}
# Larger files are refused when the recipe is loaded.
_MOST_BYTES = 2**18
_NUMBERS = frozenset({"int", "float", "bool"})


def check_changes(source: str, changes: Iterable[Mapping[str, Any]]) -> None:
    """Checks a recipe with each of some changes, before TensorFlow is imported.

    Args:
        source: Name of a recipe, or its file, as `check_recipe` accepts it.
        changes: For each, new values by dotted key.

    Raises:
        ValueError: For an unknown key or name (the message gives the nearest), or words in place of a number.
    """
    if may_have_plugins():
        return
    is_file = source not in bundled_recipes()
    path = Path(source) if is_file else ZOO / "recipes" / f"{source}.yaml"
    if path.stat().st_size > _MOST_BYTES:
        return
    what = f"The recipe {source!r}"
    values = parse_mapping(path.read_bytes(), what)
    if is_file:
        _check_recipe(values, what)
    for overrides in changes:
        what = f"The recipe {shown(values.get('name', source))}"
        new = changed(values, overrides, what)
        _check_recipe(new, what)
        _check_sources(new)


def check_prior(value: Any) -> None:
    """Checks the `--prior` of a fine-tuning: a name, or a mapping. A ValueError gives the nearest name."""
    if not may_have_plugins():
        _check_spec("prior", value, _SHORT["start_from.prior"])


def check_layers(model: str, layers: Iterable[str]) -> None:
    """Checks names of layers of a bundled model that are to be frozen. A ValueError gives the nearest name."""
    if model not in bundled_models():
        return
    folder, _, files = read_files(model)
    known = read_texts(files, folder)["metrics"].get("kl", {}).get("by_layer", {})
    for layer in layers:
        if known and layer not in known and not layer.endswith("_dropout"):
            raise ValueError(unknown_name_message("layer to freeze", layer, known))


def check_methods(names: Iterable[str]) -> None:
    """Checks names of inference methods to compare. A ValueError gives the nearest name."""
    known = _SCHEMAS.alias("Baseline").texts
    for name in names:
        if name not in known:
            raise ValueError(unknown_name_message("inference method of a comparison:", name, known))


def _check_recipe(values: Mapping[Any, Any], what: str) -> None:
    if "start_from" in values:
        _check(values, "FineTuneRecipe", what)
        return
    _check(values, "Recipe", what)
    known = _SCHEMAS.registered("register_architecture")
    architecture, network = values.get("architecture"), values.get("model")
    if not isinstance(architecture, str):
        return
    if architecture not in known:
        raise ValueError(f"{what}: {unknown_name_message('architecture', architecture, known)}")
    if isinstance(network, Mapping):
        _check(network, _SCHEMAS.class_of("register_architecture", architecture), f"The architecture {architecture!r}")


def _check_sources(values: Mapping[Any, Any]) -> None:
    """Checks the datasets and the model that a recipe names, after the changes, which may name others."""

    def named(*keys: str) -> str | None:
        value: Any = values
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value if isinstance(value, str) else None

    if (model := named("start_from", "model")) is not None:
        check_model(model)
    if (dataset := named("dataset")) is not None:
        check_dataset(dataset)
    if (other := named("evaluation", "out_of_distribution")) is not None and other != "uniform":
        check_dataset(other)


def _check(values: Mapping[Any, Any], schema: str, what: str, above: str = "") -> None:
    fields = _SCHEMAS.fields(schema)
    for key, value in values.items():
        if key not in fields:
            of = f" of {above[:-1]}" if above else ""
            raise ValueError(f"{what}: {unknown_name_message(f'key{of}', key, fields)}")
        allowed, place = _SCHEMAS.allowed(fields[key]), f"{above}{key}"
        kind = str(key).rpartition("_")[2]
        if isinstance(value, Mapping) and len(allowed.schemas) == 1:
            _check(value, allowed.schemas[0], what, f"{place}.")
        elif kind in _SPECS:
            try:
                _check_spec(kind, value, _SHORT.get(place, ()))
            except ValueError as error:
                raise ValueError(f"{what}: {place}: {error}") from None
        elif isinstance(value, str):
            _check_text(value, place, what, allowed.texts, allowed.others)


def _check_text(value: str, place: str, what: str, texts: tuple[str, ...], others: frozenset[str]) -> None:
    if texts and "str" not in others and value not in (known := (*texts, *_SHORT.get(place, ()))):
        raise ValueError(f"{what}: {unknown_name_message(f'{place}:', value, known)}")
    elif others and not texts and others <= _NUMBERS:
        expected = "true or false" if others == {"bool"} else "a number"
        raise ValueError(f"{what}: {place} got {shown(value)}; {expected} was expected.")


def _check_spec(kind: str, value: Any, also: tuple[str, ...] = ()) -> None:
    """Checks a name, or a mapping of a name and arguments; what else there is, the schemas check."""
    name = value.get("name") if isinstance(value, Mapping) else value
    if not isinstance(name, str) or name in also:
        return
    registry, room = _SPECS[kind]
    declared = _library(room)
    known = declared.registered(f"{registry}.register")
    if name not in known:
        raise ValueError(unknown_name_message(kind, name, (*known, *also)))
    arguments = declared.arguments(declared.class_of(f"{registry}.register", name))
    if not isinstance(value, Mapping) or arguments is None:
        return
    for key, argument in value.items():
        if key != "name" and key not in arguments:
            if not arguments:
                raise ValueError(f"The {kind} {name!r} takes no arguments, but got {key!r}.")
            raise ValueError(unknown_name_message(f"argument of the {kind} {name!r}:", key, arguments))
        if key in _SPECS:
            _check_spec(str(key), argument)


@cache
def _library(room: str) -> Declarations:
    return Declarations(_LIBRARY / room)
