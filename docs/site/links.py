"""Checks the links of a site that was built: files and anchors of this site, without a network."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The anchors of a page, and what it links and shows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors, self.targets = {""}, set[str]()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Collects from one element."""
        for name, value in attributes:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.targets.add(value)


def broken_links(site: Path) -> list[str]:
    """Returns the links of all pages that lead to no file of the site, or to no anchor of a page.

    Args:
        site: Folder with HTML files.

    Returns:
        Lines `page: link`, sorted. Links to other hosts are not looked at.
    """
    site = site.resolve()
    # The theme leaves templates among its own files.
    pages = {path: _Page(path) for path in site.rglob("*.html") if path.relative_to(site).parts[0] != "_static"}
    broken = []
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[file].anchors if file in pages else {unquote(parts.fragment)}
            if not file.is_file() or unquote(parts.fragment) not in anchors:
                broken.append(f"{path.relative_to(site)}: {target}")
    return sorted(broken)
