"""Validates values from files and callers as pydantic models. Errors suggest the nearest key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from zoo.core.names import unknown_name_message
from zoo.core.shown import printable, shown

# Of a message: whatever a file holds, it is read by someone.
_MOST_DETAILS, _MOST_CHARACTERS = 5, 500

# Types of errors whose messages name types of Python.
_MAPPING = "Input should be a mapping of keys"
_IN_YAML = {"dict_type": _MAPPING, "model_type": _MAPPING, "tuple_type": "Input should be a list, as in [1, 2]"}
_NUMBERS = ConfigDict(allow_inf_nan=False)

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """Base class of frozen schemas. Extra keys and NaN are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Plain(Strict):
    """Base class of schemas that are written as YAML. Values given in Python become what YAML can hold; see `plain`."""

    @model_validator(mode="before")
    @classmethod
    def _plain_values(cls, values: Any) -> Any:
        return plain(values, cls._config_of) if isinstance(values, Mapping) else values

    @staticmethod
    def _config_of(value: Any) -> Any:
        """Returns the config of an object that a schema knows, and others as they are."""
        return value


def plain(value: Any, config_of: Callable[[Any], Any] = lambda value: value, key: str = "") -> Any:
    """Returns a value as YAML and JSON can hold it: scalars and arrays of NumPy as those of Python, tuples as lists.

    Args:
        value: The value. Schemas stay as they are.
        config_of: Function that returns the config of an object, or another object as it is.
        key: Its dotted key, for the message.

    Raises:
        ValueError: For another object, such as a distribution, which could not be written.

    Example:
        >>> import numpy as np
        >>> plain({"scales": np.array([1.0, 2.0]), "members": np.int64(3), "units": (8, 8)})
        {'scales': [1.0, 2.0], 'members': 3, 'units': [8, 8]}
    """
    if isinstance(value, Mapping):
        return {name: plain(part, config_of, f"{key}.{name}" if key else str(name)) for name, part in value.items()}
    # Before numbers, since some of NumPy are numbers of Python too.
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(part, config_of, key) for part in value]
    if value is None or isinstance(value, str | int | float | BaseModel):
        return value
    if (config := config_of(value)) is not value:
        return plain(config, config_of, key)
    raise ValueError(
        f"{key!r} got {shown(value)}, of type {type(value).__name__}; a number, text, list or mapping was expected, as "
        "YAML can hold it. Give an object by its name or config"
    )


def validate(schema: type[M], values: Mapping[str, Any], what: str) -> M:
    """Validates values against a schema.

    Args:
        schema: Pydantic model.
        values: Values to validate.
        what: Description of the values for messages, such as `"recipe 'x.yaml'"`.

    Returns:
        An instance of `schema`.

    Raises:
        ValueError: For an unknown or missing key, or a value out of bounds. The message gives each key, the value and
            what was expected.
    """
    known = [field.alias or name for name, field in schema.model_fields.items()]
    for key in values:
        if key not in known:
            raise ValueError(f"{what}: {unknown_name_message('key', key, known)}")
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        details = _details(error)
        others = f"; and {len(details) - _MOST_DETAILS:,} others" if len(details) > _MOST_DETAILS else ""
        sentences = "; ".join(_sentence(detail) for detail in details[:_MOST_DETAILS])
        raise ValueError(f"{what}: {sentences}{others}") from None


def checker(kind: Any) -> TypeAdapter[Any]:
    """Returns what `problem_of` checks values of a type with, such as `Annotated[int, Field(ge=1)]`."""
    return TypeAdapter(kind, config=_NUMBERS)


def checker_of(schema: type[BaseModel], name: str) -> TypeAdapter[Any]:
    """Returns what `problem_of` checks values of one field of a schema with."""
    field = schema.model_fields[name]
    return checker(Annotated[(field.annotation, Field(), *field.metadata)])


def problem_of(value: Any, kind: TypeAdapter[Any]) -> str | None:
    """Says what is wrong with a value of a `checker`, or returns None. NaN and infinity are wrong."""
    try:
        kind.validate_python(value)
    except ValidationError as error:
        details = _details(error)[:_MOST_DETAILS]
        return ", or ".join(dict.fromkeys(_message(detail) for detail in details))
    return None


def check_field(schema: type[BaseModel], name: str, value: Any) -> Any:
    """Checks an argument by the field of a schema that it becomes, which has its bounds.

    Args:
        schema: Pydantic model.
        name: Name of the field.
        value: Value to check. A number of NumPy counts as one of Python.

    Returns:
        The value; a number as one of Python, which can be written as JSON.

    Raises:
        ValueError: If the value is out of bounds or of another type.
    """
    # Strict fields take no numbers of NumPy. An array with one number is none.
    number = value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
    if problem := problem_of(number, checker_of(schema, name)):
        raise ValueError(f"`{name}` got {shown(value)}: {problem}.")
    return number


def _details(error: ValidationError) -> list[Any]:
    """The details of an error, without lists that are too short only because their wrong items do not count."""
    details = error.errors(include_url=False)
    places = [detail["loc"] for detail in details]

    def is_of_items(detail: Any) -> bool:
        place = detail["loc"]
        return any(len(other) > len(place) and other[: len(place)] == place for other in places)

    return [detail for detail in details if detail["type"] != "too_short" or not is_of_items(detail)]


def _message(detail: Any) -> str:
    if detail["type"] in _IN_YAML:
        return _IN_YAML[detail["type"]]
    return printable(detail["msg"].removeprefix("Value error, ")[:_MOST_CHARACTERS])


def _sentence(detail: Any) -> str:
    key = printable(".".join(str(part) for part in detail["loc"])[:_MOST_CHARACTERS])
    if detail["type"] == "missing":
        return f"the key {key!r} is missing. Add it"
    if detail["type"] == "extra_forbidden":
        return f"the key {key!r} is unknown. Remove it, or look for a misspelling"
    message = _message(detail)
    return f"{key!r} got {shown(detail['input'])}: {message}" if key else message
