"""One self-contained HTML page: sections of text, tables, figures and code. Knows nothing about networks.

All text is escaped. Images are embedded, a content security policy forbids requests, no script runs, and colours follow
the reader's light or dark theme.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

from zoo.core.shown import is_small, printable

NONE = "-"
"""Cell without a value, which a list of cells leaves out."""
_NONE = ' class="r none"'
_PNG_SIZE = slice(16, 24)
# Figures wider than this, in pixels, take the full width of the page.
_WIDE = 800
# Figures up to this width stand three to a row.
_SMALL = 450

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { --text: #1b1b1b; --faint: #565656; --page: #ffffff; --line: #c9c9c9; --box: #f3f3f3; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8e8e8; --faint: #b0b0b0; --page: #17191c; --line: #464a50; --box: #24272b; }
}
body { margin: 0 auto; max-width: 66rem; padding: 1rem 1.2rem 4rem; color: var(--text); background: var(--page);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
p { max-width: 46rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
caption { text-align: left; color: var(--faint); padding-bottom: .3rem; }
th, td { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { font-weight: 600; }
th, td { overflow-wrap: break-word; }
.r { text-align: right; font-variant-numeric: tabular-nums; }
td.r { white-space: nowrap; }
.small { --narrowest: 17rem; }
.figures { display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(var(--narrowest, 24rem), 100%), 1fr)); }
figure { margin: 0; min-width: 0; }
figure.whole { grid-column: 1 / -1; }
img { display: block; max-width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
figcaption { color: var(--faint); font-size: .9rem; max-width: 46rem; padding-top: .3rem; }
pre { background: var(--box); padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.facts { color: var(--faint); max-width: none; overflow-wrap: anywhere; }
/* Where a table does not fit, each row is a list of its cells with their names. */
$stacked
</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="facts">$facts</p>
<p>$lead</p>
</header>
<main>
$sections
</main>
</body>
</html>
""")


_STACKED = Template("""\
@media (max-width: $width) {
  $table, $table :is(caption, tbody, tr, th, td) { display: block; overflow-wrap: anywhere; }
  $table thead { display: none; }
  $table tr { padding: .4rem 0; border-bottom: 1px solid var(--line); }
  $table :is(tbody th, td) { border: 0; padding: 0; text-align: left; white-space: normal; }
  $table td[data-label] { display: flex; justify-content: space-between; gap: 1rem; }
  $table td[data-label]::before { content: attr(data-label); color: var(--faint); }
  $table td.none { display: none; }
  $table td.s { display: block; color: var(--faint); }
  $table td.s::before { content: none; }
}""")
# Tables of more columns need more room.
_MANY_COLUMNS = 8
_STYLES = "\n".join(
    _STACKED.substitute(table=f"table.{name}", width=width) for name, width in (("few", "52rem"), ("many", "68rem"))
)


@dataclass(frozen=True)
class Table:
    """A table whose rows are named by their first cell.

    Attributes:
        caption: Description of the contents, with units.
        header: One name per column, or empty.
        rows: Cells as text.
        align: One letter per column: `l` for text, `s` for sentences, `r` for numbers.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str


@dataclass(frozen=True)
class Image:
    """A figure.

    Attributes:
        file: Name of the separate image file.
        png: Bytes of that file.
        alt: Text description of the image.
        caption: Explanation of how to read it.
    """

    file: str
    png: bytes
    alt: str
    caption: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, from the header of the PNG."""
        both = self.png[_PNG_SIZE]
        return int.from_bytes(both[:4]), int.from_bytes(both[4:])


@dataclass(frozen=True)
class Section:
    """A part of the page, in this order: text, tables, images, code.

    Attributes:
        title: Heading.
        text: Paragraphs.
        tables: Tables.
        images: Figures, side by side where there is room.
        code: Blocks of code.
    """

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    images: Sequence[Image] = ()
    code: Sequence[str] = ()


def with_error(value: float | None, error: float | None) -> str:
    """A number with 2 standard errors, or without them if they are not known.

    Example:
        >>> with_error(0.5, 0.01), with_error(0.5, None), with_error(None, None)
        ('0.5000 ± 0.0200', '0.5000', 'not defined')
    """
    if value is None or math.isnan(value):
        return "not defined"
    number = as_precise(value, value)
    return number if error is None else f"{number} ± {as_precise(2 * error, value)}"


def as_precise(number: float, value: float) -> str:
    """A number with as many decimals as a value beside it.

    These are four, fewer if the value has more than one digit before the point, and as many as it takes if it is too
    small for four.

    Example:
        >>> as_precise(0.25, 0.5), as_precise(0.25, 190.7), as_precise(25, 1e6), as_precise(1.25e-6, 0.000012)
        ('0.2500', '0.25', '25', '1.25e-06')
    """
    if is_small(value):
        return f"{number:.4g}"
    digits = len(f"{abs(value):.0f}") if math.isfinite(value) else 1
    return f"{number:.{max(0, 5 - digits)}f}"


def page(title: str, facts: str, lead: str, sections: Sequence[Section]) -> str:
    """A whole page.

    Args:
        title: Heading and window title.
        facts: Line below it: what the page is about.
        lead: The sentence below that.
        sections: The parts.

    Returns:
        HTML 5.
    """
    return _PAGE.substitute(
        stacked=_STYLES,
        title=_text(title),
        # A line does not begin with a dot, nor end with a sign.
        facts=_text(facts).replace(" · ", "&nbsp;· ").replace(" = ", "&nbsp;=&nbsp;"),
        lead=_text(lead),
        sections="\n".join(_section(section) for section in sections),
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{_text(section.title)}</h2>"]
    parts += [f"<p>{_text(text)}</p>" for text in section.text]
    parts += [_table(table) for table in section.tables]
    if section.images:
        small = " small" if all(image.size[0] <= _SMALL for image in section.images) else ""
        parts += [f'<div class="figures{small}">', *(_figure(image) for image in section.images), "</div>"]
    parts += [f"<pre><code>{_text(code)}</code></pre>" for code in section.code]
    return "\n".join(["<section>", *parts, "</section>"])


def _table(table: Table) -> str:
    classes = ["" if side == "l" else f' class="{side}"' for side in table.align]
    lines = ["<tbody>"]
    if table.header:
        named = zip(table.header, classes, strict=True)
        header = "".join(f'<th scope="col"{css}>{_text(name)}</th>' for name, css in named)
        lines.insert(0, f"<thead><tr>{header}</tr></thead>")
    for row in table.rows:
        first, *others = zip(row, classes, strict=True)
        labels = [f' data-label="{_text(name)}"' for name in table.header[1:]] or [""] * len(others)
        named_cells = zip(others, labels, strict=True)
        cells = "".join(
            f"<td{_NONE if cell == NONE else css}{label}>{_text(cell)}</td>" for (cell, css), label in named_cells
        )
        lines.append(f'<tr><th scope="row"{first[1]}>{_text(first[0])}</th>{cells}</tr>')
    return "\n".join(
        [
            '<div class="scroll">',
            f'<table class="{"many" if len(table.align) > _MANY_COLUMNS else "few"}">',
            f"<caption>{_text(table.caption)}</caption>",
            *lines,
            "</tbody>",
            "</table>",
            "</div>",
        ]
    )


def _figure(image: Image) -> str:
    width, height = image.size
    css = ' class="whole"' if width > _WIDE else ""
    data = base64.b64encode(image.png).decode("ascii")
    caption = f"<figcaption>{_text(image.caption)}</figcaption>" if image.caption else ""
    return (
        f'<figure{css}><img src="data:image/png;base64,{data}" alt="{_text(image.alt)}" width="{width}" '
        f'height="{height}">{caption}</figure>'
    )


def _text(value: str) -> str:
    """Also without characters that change how the text around them is read."""
    return html.escape(printable(value))
