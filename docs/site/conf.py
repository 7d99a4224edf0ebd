"""Sphinx settings of the documentation site; `build.py` gathers its pages and runs Sphinx."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

project = "tfp_bnn"
release = version_of("tfp_bnn")
author = "the authors of tfp_bnn"
project_copyright = "the authors of tfp_bnn, Apache-2.0"

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb", "markdown_docstrings"]
exclude_patterns = ["README.md"]
# The order of what is documented is that of `__all__`, which is sorted.
autodoc_member_order = "alphabetical"
autodoc_typehints_format = "short"
# Otherwise a default without a literal, such as a function, keeps the whole signature from being read.
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Call arguments", "params_style")]

# As GitHub shows the same files: an anchor for every heading.
myst_heading_anchors = 4
# Notebooks are shown as they were executed.
nb_execution_mode = "off"

html_theme = "pydata_sphinx_theme"
html_title = f"tfp_bnn {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["filter.js"]
html_show_sourcelink = False
# The theme complains in the console if this is not set.
html_context = {"default_mode": "auto"}
html_copy_source = False
html_theme_options = {
    "logo": {"text": "tfp_bnn"},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 7,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
}
# The table of models links to all cards.
html_sidebars = {"index": [], "gallery": [], "models": [], "CHANGELOG": []}


def setup(app: Sphinx) -> None:
    """Leaves private bases of classes out."""
    app.connect("autodoc-process-bases", _without_private_bases)


def _without_private_bases(app: Sphinx, name: str, obj: type, options: dict[str, Any], bases: list[type]) -> None:
    bases[:] = [base for base in bases if not getattr(base, "__name__", "").startswith("_")] or [object]
