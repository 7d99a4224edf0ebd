"""Names of the zoo: `<architecture>` or `<architecture>.<tag>`. Imports nothing heavy."""

from __future__ import annotations

import re

_GRAMMAR = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)?", re.ASCII)


def check_name(name: object) -> str:
    """Checks a name of the zoo and returns it.

    Raises:
        ValueError: If it cannot be such a name, for example because it is a path. The message describes valid names.
    """
    if not isinstance(name, str) or len(name) > 100 or not _GRAMMAR.fullmatch(name):
        shown = repr(name) if len(repr(name)) <= 120 else repr(name)[:117] + "..."
        raise ValueError(
            f"{shown} is not a name of the zoo. Expected <architecture>.<tag> in lower-case letters, digits and "
            "underscores, such as 'lenet5_flipout.digits'. A folder or an address is opened with "
            "zoo.load_artifact(path, trust=True)."
        )
    return name


def check_plain_name(kind: str, name: object) -> str:
    """Checks the name of an architecture or a dataset and returns it.

    Args:
        kind: Kind of the named object, for messages.
        name: Name to check.

    Raises:
        ValueError: If it is not a valid name. The message describes valid names.
    """
    if not isinstance(name, str) or "." in name or len(name) > 100 or not _GRAMMAR.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a valid {kind} name. Use lower-case letters, digits and underscores, such as 'my_{kind}'."
        )
    return name
