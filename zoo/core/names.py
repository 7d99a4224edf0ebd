"""Names of the zoo: `<architecture>` or `<architecture>.<tag>`. Imports nothing heavy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from zoo.core.shown import shown

# Of a message.
_MOST_NAMES = 5
_GRAMMAR = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)?", re.ASCII)


def check_name(name: object) -> str:
    """Checks a name of the zoo and returns it.

    Raises:
        ValueError: If it cannot be such a name, for example because it is a path. The message describes valid names.
    """
    if not isinstance(name, str) or len(name) > 100 or not _GRAMMAR.fullmatch(name):
        raise ValueError(
            f"{shown(name, 120)} is not a name of the zoo. Expected <architecture>.<tag> in lower-case letters, digits "
            "and underscores, such as 'lenet5_flipout.digits'. A folder that exists, or an address, is opened with "
            "zoo.load_artifact(path, trust=True), on the command line with --trust."
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


def unknown_name_message(kind: str, name: object, known: Iterable[str]) -> str:
    """Returns the message of `tfp_bnn.core.registry.unknown_name_message`, whose package imports TensorFlow.

    Args:
        kind: Kind of object that the name should refer to, such as `"recipe"`.
        name: Name that was passed.
        known: Names that are accepted. At most the five nearest are shown.

    Example:
        >>> unknown_name_message("dataset", "digitz", ["digits", "iris"])
        "Unknown dataset 'digitz'. Did you mean 'digits'? Expected one of: digits, iris."
    """
    known = sorted(known)
    text = str(name)[:120]
    nearest = difflib.get_close_matches(text, known, n=_MOST_NAMES, cutoff=0.0)
    close = difflib.get_close_matches(text, nearest, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    others = f" and {len(known) - _MOST_NAMES} others" if len(known) > _MOST_NAMES else ""
    return f"Unknown {kind} {shown(name, 120)}.{hint} Expected one of: {', '.join(sorted(nearest))}{others}."
