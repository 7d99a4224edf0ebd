"""What is misspelt or out of bounds in recipes, `--set` and options, refused before TensorFlow is imported.

Names, fields and bounds are read from the code that declares them (`zoo.core.declared`). What depends on several fields
is checked by the schemas, later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from zoo.cli.early import ZOO, bundled_recipes, check_dataset, check_model, may_have_plugins
from zoo.core.declared import Declarations
from zoo.core.names import unknown_name_message
from zoo.core.shown import shown
from zoo.core.validation import checker, problem_of
from zoo.core.yaml_text import changed, parse_mapping
from zoo.hub.locating import read_files
from zoo.hub.manifest import bundled_models
from zoo.hub.reading import read_texts

_LIBRARY = ZOO.parent / "tfp_bnn"
SCHEMAS = Declarations(ZOO / "recipes", ZOO / "architectures", _LIBRARY / "inference" / "ensemble.py")
"""Schemas of recipes and architectures, and what their bounds refer to."""
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


def check_changes(source: str, changes: Iterable[Mapping[str, Any]]) -> None:
    """Checks a recipe with each of some changes, before TensorFlow is imported.

    Args:
        source: Name of a recipe, or its file, as `check_recipe` accepts it.
        changes: For each, new values by dotted key.

    Raises:
        ValueError: For an unknown key or name (the message gives the nearest), or a value out of bounds or of another
            type.
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


def check_option(option: str, value: Any, schema: str, field: str) -> None:
    """Checks the value of an option that becomes a field of a schema of recipes.

    Args:
        option: The option, such as `"--learning-rate"`.
        value: Its value; None if it was not given.
        schema: Name of the schema.
        field: Name of the field.

    Raises:
        ValueError: If the value is out of the bounds of the field.
    """
    if value is not None and (problem := problem_of(value, _checker(schema, field))):
        raise ValueError(f"{option} got {shown(value)}: {problem}.")


def check_strategy(name: str | None) -> None:
    """Checks the name of a strategy of several devices. A ValueError gives the nearest."""
    known = Declarations(ZOO / "training" / "strategies.py").alias("StrategyName").texts
    if name is not None and name not in known:
        raise ValueError(unknown_name_message("strategy", name, known))


def check_prior(value: Any) -> None:
    """Checks the `--prior` of a fine-tuning: a name, or a mapping. A ValueError gives the nearest name."""
    if not may_have_plugins():
        _check_spec("prior", value, _SHORT["start_from.prior"])


def check_layers(model: str, layers: Iterable[str], verb: str = "freeze") -> None:
    """Checks names of layers of a bundled model that something is done to. A ValueError gives the nearest name."""
    if model not in bundled_models():
        return
    folder, _, files = read_files(model)
    known = read_texts(files, folder)["metrics"].get("kl", {}).get("by_layer", {})
    for layer in layers:
        if known and layer not in known and not layer.endswith("_dropout"):
            raise ValueError(unknown_name_message(f"layer to {verb}", layer, known))


def check_methods(names: Iterable[str]) -> None:
    """Checks names of inference methods to compare. A ValueError gives the nearest name."""
    known = SCHEMAS.alias("Baseline").texts
    for name in names:
        if name not in known:
            raise ValueError(unknown_name_message("inference method of a comparison:", name, known))


def _check_recipe(values: Mapping[Any, Any], what: str) -> None:
    if "start_from" in values:
        _check(values, "FineTuneRecipe", what)
        return
    _check(values, "Recipe", what)
    known = SCHEMAS.registered("register_architecture")
    architecture, network = values.get("architecture"), values.get("model")
    if not isinstance(architecture, str):
        return
    if architecture not in known:
        raise ValueError(f"{what}: {unknown_name_message('architecture', architecture, known)}")
    if isinstance(network, Mapping):
        _check(network, SCHEMAS.class_of("register_architecture", architecture), f"The architecture {architecture!r}")


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
    fields = SCHEMAS.fields(schema)
    for key, value in values.items():
        if key not in fields:
            of = f" of {above[:-1]}" if above else ""
            raise ValueError(f"{what}: {unknown_name_message(f'key{of}', key, fields)}")
        allowed, place = SCHEMAS.allowed(fields[key]), f"{above}{key}"
        kind = str(key).rpartition("_")[2]
        if isinstance(value, Mapping) and len(allowed.schemas) == 1:
            _check(value, allowed.schemas[0], what, f"{place}.")
        elif kind in _SPECS:
            try:
                _check_spec(kind, value, _SHORT.get(place, ()))
            except ValueError as error:
                raise ValueError(f"{what}: {place}: {error}") from None
        elif isinstance(value, str) and allowed.texts and "str" not in allowed.others:
            if value not in (known := (*allowed.texts, *_SHORT.get(place, ()))):
                raise ValueError(f"{what}: {unknown_name_message(f'{place}:', value, known)}")
        elif problem := problem_of(value, _checker(schema, key)):
            raise ValueError(f"{what}: {place} got {shown(value)}: {problem}.")


@cache
def _checker(schema: str, field: str) -> TypeAdapter[Any]:
    return checker(SCHEMAS.type_of(SCHEMAS.fields(schema)[field]))


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
