"""A Sphinx extension that lets docstrings be Markdown: it makes reStructuredText of them before napoleon reads them.

Docstrings have the sections of Google's style, code between single backticks, lists, and doctests.
"""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"`([^`]+)`(?=(\w)?)")
# What reStructuredText would take for emphasis, a substitution or a reference.
_SPECIAL = re.compile(r"[\\*|]|_(?!\w)")
_NAME = re.compile(r"[A-Za-z_][\w.]*\w")
_REFERENCES = re.compile(r"^( *)References:\n((?:\1 +.*\n|\n)+)", re.MULTILINE)
_DOCTEST = re.compile(r"((?:^ *>>> .*\n(?:^ *\S.*\n)*)+)", re.MULTILINE)


def to_rst(text: str) -> str:
    """Returns a docstring as reStructuredText, with its sections and doctests as they are.

    Code that is a name becomes a reference, which is a link if the name is documented.
    """
    text = _REFERENCES.sub(lambda section: f"{section[1]}References:\n{_as_list(section[2])}", text)
    parts = _DOCTEST.split(text)
    parts[::2] = [_inline(part) for part in parts[::2]]
    return "".join(parts)


def _inline(text: str) -> str:
    out, end = [], 0
    for code in _CODE.finditer(text):
        out.append(_SPECIAL.sub(r"\\\g<0>", text[end : code.start()]))
        content = " ".join(code[1].split()) if "\n" not in code[1] else code[1]
        out.append(f":py:obj:`{content}`" if _NAME.fullmatch(content) else f"``{content}``")
        # Markup must end before the word goes on, as in `x`s.
        out.append("\\ " if code[2] else "")
        end = code.end()
    return "".join([*out, _SPECIAL.sub(r"\\\g<0>", text[end:])])


def _as_list(section: str) -> str:
    """Makes each reference, which ends with an address, an item of a list."""
    lines, starts = [], True
    for line in section.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        lines.append(f"{indent}{'- ' if starts else '  '}{line.lstrip()}" if line.strip() else line)
        starts = bool(re.search(r"https?://\S+$", line)) or not line.strip()
    return "\n".join(lines) + "\n"


def _convert(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rst("\n".join(lines) + "\n").splitlines()


def setup(app: Any) -> dict[str, bool]:
    """Registers the conversion, before that of napoleon."""
    app.connect("autodoc-process-docstring", _convert, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
