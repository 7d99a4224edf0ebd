"""Names that are read from the text of the code are those that the code has once it is imported."""

from __future__ import annotations

import math
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest

import tfp_bnn
import zoo.recipes
from tfp_bnn.core.arguments import constructor_arguments
from zoo.architectures import ARCHITECTURES
from zoo.cli.early_recipes import SCHEMAS
from zoo.core.declared import Declarations
from zoo.core.validation import Strict, checker, checker_of, problem_of
from zoo.datasets import DATASETS

ROOT = Path(zoo.__file__).parent
REGISTRIES = {
    "PRIORS": ("priors", tfp_bnn.priors.PRIORS),
    "HYPERPRIORS": ("priors", tfp_bnn.hyperpriors.HYPERPRIORS),
    "POSTERIORS": ("posteriors", tfp_bnn.posteriors.POSTERIORS),
    "LIKELIHOODS": ("likelihoods", tfp_bnn.likelihoods.LIKELIHOODS),
    "OBJECTIVES": ("variational", tfp_bnn.objectives.OBJECTIVES),
}


def own(registry, package):
    return sorted(name for name in registry if registry.package_of(name) == package)


@pytest.mark.parametrize("kind", REGISTRIES)
def test_specs_and_the_arguments_of_their_constructors(kind):
    room, registry = REGISTRIES[kind]
    declared = Declarations(ROOT.parent / "tfp_bnn" / room)
    assert declared.registered(f"{kind}.register") == own(registry, "tfp_bnn")
    for name in own(registry, "tfp_bnn"):
        arguments, takes_others = constructor_arguments(registry[name])
        assert declared.arguments(declared.class_of(f"{kind}.register", name)) == (
            None if takes_others else list(arguments)
        )


def test_datasets_and_architectures():
    assert Declarations(ROOT / "datasets").registered("DATASETS.register") == own(DATASETS, "zoo")
    assert SCHEMAS.registered("register_architecture") == own(ARCHITECTURES, "zoo")
    for name in own(ARCHITECTURES, "zoo"):
        assert SCHEMAS.class_of("register_architecture", name) == ARCHITECTURES[name].config.__name__


def test_fields_of_schemas_and_the_texts_that_they_take():
    schemas = {ARCHITECTURES[name].config for name in own(ARCHITECTURES, "zoo")}
    schemas |= {value for value in vars(zoo.recipes).values() if isinstance(value, type) and issubclass(value, Strict)}
    for schema in schemas:
        fields = SCHEMAS.fields(schema.__name__)
        assert set(fields) == set(schema.model_fields)
        for name, field in schema.model_fields.items():
            allowed, parts = SCHEMAS.allowed(fields[name]), list(parts_of(field.annotation))
            assert allowed.texts == tuple(part for part in parts if isinstance(part, str)), (schema, name)
            inner = sorted(part.__name__ for part in parts if isinstance(part, type) and issubclass(part, Strict))
            assert list(allowed.schemas) == inner, (schema, name)
            others = {part.__name__ for part in parts if isinstance(part, type) and not issubclass(part, Strict)}
            assert allowed.others == others - {"NoneType"}, (schema, name)


def parts_of(annotation: Any):
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from parts_of(part)
    elif origin is Annotated:
        yield from parts_of(get_args(annotation)[0])
    elif origin is Literal:
        yield from get_args(annotation)
    else:
        yield origin or annotation


PROBES = (-1, 0, 0.5, 1, 1.0, 1.5, 2, 10, 101, 100_001, 10**8, 2**31, 2**32, 1e-9, math.inf, math.nan)
PROBES = (*PROBES, True, None, "x", [], [0], [1], [1, 2], [1.5], ["x"], {"x": 1})
NOT_DECLARED = {"resize", "dataset"}
"""Fields with types of other files or with a function that checks them: everything passes early."""


def test_bounds_of_fields():
    schemas = {ARCHITECTURES[name].config for name in own(ARCHITECTURES, "zoo")}
    schemas |= {value for value in vars(zoo.recipes).values() if isinstance(value, type) and issubclass(value, Strict)}
    compared = 0
    for schema in {owner for leaf in schemas for owner in leaf.__mro__ if issubclass(owner, Strict)}:
        for name in schema.__annotations__.keys() & schema.model_fields:
            kinds = list(parts_of(schema.model_fields[name].annotation))
            if name in NOT_DECLARED or any(isinstance(kind, type) and issubclass(kind, Strict) for kind in kinds):
                continue
            early, later = checker(SCHEMAS.type_of(SCHEMAS.fields(schema.__name__)[name])), checker_of(schema, name)
            for value in PROBES:
                assert problem_of(value, early) == problem_of(value, later), (schema, name, value)
            compared += 1
    assert compared > 100
