"""How text of unknown origin is shown: no control characters, never too long, no formulas in tables."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

# Control, format (such as right-to-left overrides), surrogate, private and unassigned characters.
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn")
_SURROGATE = re.compile("[\ud800-\udfff]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    r"""Returns a text in which characters that a terminal would obey, not show, are escaped; lines stay lines.

    Example:
        >>> printable("red: \x1b[31m\n")
        'red: \\x1b[31m\n'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode("ascii")
        if char not in "\n\t" and unicodedata.category(char) in _HIDDEN
        else char
        for char in text
    )


def encodable(json: str) -> str:
    r"""Returns JSON that UTF-8 can hold: a byte of a file name that is not UTF-8 becomes a text, as in `printable`.

    Example:
        >>> import json
        >>> print(json.loads(encodable('"caf\udce9"')), printable("caf\udce9"))
        caf\udce9 caf\udce9
    """
    return _SURROGATE.sub(lambda found: rf"\\u{ord(found[0]):04x}", json)


def minutes(seconds: float) -> str:
    """Returns a duration in minutes and seconds.

    Example:
        >>> minutes(75.9)
        '1:15'
    """
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def rounded(value: float) -> str:
    """Returns a number with four decimals, or in four digits if it is too small for these.

    Example:
        >>> rounded(0.98765), rounded(0.0), rounded(0.000012)
        ('0.9877', '0.0000', '1.2e-05')
    """
    return f"{value:.4g}" if is_small(value) else f"{value:.4f}"


def is_small(value: float) -> bool:
    """Whether four decimals would hide a number, or leave one digit of it."""
    return 0 < abs(value) < 1e-3


def in_one_line(text: str) -> str:
    r"""Returns a text without line breaks and tabs, which are escaped as `printable` escapes other characters.

    Example:
        >>> print(in_one_line("a\nfile"))
        a\nfile
    """
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")


def shown(value: object, most: int = 200) -> str:
    """Returns the `repr` of a value for a message, cut to some length.

    Example:
        >>> shown("x" * 1000, most=12)
        "'xxxxxxxx..."
    """
    if isinstance(value, str | bytes) and len(value) > most:
        value = value[:most]
    text = printable(repr(value))
    return text if len(text) <= most else text[: most - 3] + "..."


def listed(names: Collection[str], most: int = 5) -> str:
    """Returns some names for a message, sorted, and how many others there are.

    Example:
        >>> listed(["b", "a"]), listed([str(k) for k in range(100)], most=2), listed([])
        ("['a', 'b']", "['0', '1'] and 98 others", '[]')
    """
    chosen = ", ".join(shown(name, 80) for name in sorted(names)[:most])
    return f"[{chosen}]" + (f" and {len(names) - most:,} others" if len(names) > most else "")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns a phrase for each key whose value is not the same in two mappings, sorted.

    Example:
        >>> differences({"epochs": 5, "seed": 0}, {"epochs": 6, "seed": 0, "decay": "cosine"})
        ["decay was 'not set' and is 'cosine'", 'epochs was 5 and is 6']
    """
    return [
        f"{key} was {before.get(key, 'not set')!r} and is {now.get(key, 'not set')!r}"
        for key in sorted({*before, *now})
        if key not in before or key not in now or before[key] != now[key]
    ]


def cell(text: str) -> str:
    """Returns a text for a cell of a CSV file. A leading apostrophe keeps spreadsheets from running it as a formula.

    Example:
        >>> cell("=cmd|' /C calc'!A0"), cell("-1.5"), cell("cat")
        ("'=cmd|' /C calc'!A0", '-1.5', 'cat')
    """
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) and not is_number(text) else text


def is_number(text: str) -> bool:
    """Whether a text is a number, as `float` reads it."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def table_cell(value: object) -> str:
    """Returns a value for a table of results: nothing for None, floats with 6 digits, text as `cell` writes it."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return cell(value) if isinstance(value, str) else str(value)
