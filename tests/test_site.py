"""The documentation site is built without a warning, its links lead somewhere, and it works in a headless Chromium.

The pictures of CONTRIBUTING.md are made by this test: `SCREENSHOTS=docs python -m pytest tests/test_site.py`. With
`SITE=folder`, it looks at a site that is built already.
"""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .chromium import chromium, save_picture

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "docs" / "site"
PAGES = (
    *("index.html", "docs/inference.html", "models.html", "models/hierarchical_mlp.rotated_moons.html"),
    *("gallery.html", "api/tfp_bnn.layers.html", "notebooks/01_iris.html"),
)
WIDTHS = {1920: 1080, 1280: 900, 400: 800}
# Page, width, and file of its picture.
PICTURES = {("index.html", 1280): "site_home.png", ("models.html", 1280): "site_models.png"}
# Texts that go on beyond their place or that of the page, and on a desk tables that scroll.
CUT_OFF = """
const wide = innerWidth > 1200 ? ', .pst-scrollable-table-container' : '';
const texts = [...document.querySelectorAll('h1, h2, h3, dt, main p' + wide)];
const ends = text => text.scrollWidth > text.clientWidth + 1 || text.getBoundingClientRect().right > innerWidth;
return texts.filter(text => text.clientWidth && ends(text) && !text.closest('table')).map(text => text.innerText);
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the site, as `make docs` builds it, which refuses warnings and links that lead nowhere."""
    pytest.importorskip("pydata_sphinx_theme", reason="no Sphinx and theme: pip install 'tfp_bnn[docs]'")
    if built := os.environ.get("SITE"):
        return Path(built)
    folder = tmp_path_factory.mktemp("build") / "docs"
    build = subprocess.run(
        [sys.executable, SITE / "build.py", folder], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert build.returncode == 0, build.stderr[-5000:] + build.stdout
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium that may look for no other host."""
    apart = "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"
    with chromium(tmp_path_factory.mktemp("profile"), *apart) as driver:
        yield driver


@pytest.mark.slow
def test_every_public_name_and_every_card_has_its_place(site):
    import tfp_bnn
    import zoo

    described = re.findall(r'<dt class="[^"]*" id="([\w.]+)"', "".join(p.read_text() for p in site.glob("api/*.html")))
    modules = {name for name in tfp_bnn.__all__ if f"{tfp_bnn.__name__}.{name}" in sys.modules}
    assert {f"tfp_bnn.{name}" for name in tfp_bnn.__all__ if name not in modules and name[0] != "_"} <= set(described)
    assert {f"zoo.{name}" for name in zoo.__all__} <= set(described)
    assert len(described) == len(set(described))
    assert {page.stem for page in site.glob("models/*.html")} == set(zoo.list_models(pretrained=True))


@pytest.mark.slow
def test_the_gallery_shows_each_figure_of_a_notebook_once(site):
    figures = re.findall(r'src="_images/(\d\d_\w+\.png)"', (site / "gallery.html").read_text("utf-8"))
    assert figures
    assert len(figures) == len(set(figures))


@pytest.mark.slow
def test_pages_fit_their_width_and_say_nothing_in_the_console(site, browser):
    cut = {}
    for width, height in WIDTHS.items():
        # A headless window may not be narrower than 500 pixels, so that of the page is set.
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for page in PAGES:
            browser.get((site / page).as_uri())
            assert browser.find_element("tag name", "h1").text
            missing = "return [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
            assert browser.execute_script(missing) == []
            if texts := browser.execute_script(CUT_OFF):
                cut[page, width] = texts
            if (folder := os.environ.get("SCREENSHOTS")) and (page, width) in PICTURES:
                save_picture(browser, Path(folder, PICTURES[page, width]))
    assert cut == {}
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.slow
def test_models_are_filtered_and_pages_found(site, browser):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get((site / "models.html").as_uri())
    browser.find_element("css selector", "input.filter").send_keys("LENET mnist")
    table = browser.find_element("css selector", "input.filter + table, input.filter + * table")
    rows = [row.text for row in table.find_elements("css selector", "tbody tr") if row.text]
    assert rows
    assert all("lenet5" in row and "mnist" in row for row in rows)

    browser.get(f"{(site / 'search.html').as_uri()}?q=flipout")
    results = WebDriverWait(browser, 60).until(lambda page: page.find_elements("css selector", "#search-results li a"))
    assert any("tfp_bnn.layers" in result.get_attribute("href") for result in results)


def test_a_link_that_leads_nowhere_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SITE)
    broken_links = runpy.run_path(str(SITE / "links.py"))["broken_links"]
    (tmp_path / "b.html").write_text('<h1 id="here">B</h1><img src="none.png">')
    links = ("b.html", "b.html#here", "b.html#gone", "c.html", "#", "https://example.org/x")
    (tmp_path / "a.html").write_text("".join(f'<a href="{link}">x</a>' for link in links))
    assert broken_links(tmp_path) == ["a.html: b.html#gone", "a.html: c.html", "b.html: none.png"]


@pytest.mark.parametrize(
    ("markdown", "rst"),
    [
        ("The `scale` of `a + b`s, |x| and *args.", "The :py:obj:`scale` of ``a + b``\\ s, \\|x\\| and \\*args."),
        ("`loc`:\n\n>>> f(`loc`, *y)\n2\n\n`y`", ":py:obj:`loc`:\n\n>>> f(`loc`, *y)\n2\n\n``y``"),
        ("References:\n    A 2014,\n    https://a.org/1\n    B 2015, https://b.org\n", None),
    ],
    ids=["code", "doctest", "references"],
)
def test_docstrings_in_markdown_become_restructuredtext(markdown, rst):
    to_rst = runpy.run_path(str(SITE / "markdown_docstrings.py"))["to_rst"]
    expected = rst or "References:\n    - A 2014,\n      https://a.org/1\n    - B 2015, https://b.org\n"
    assert to_rst(markdown) == expected


def test_the_citation_is_that_of_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    settings = (ROOT / "setup.cfg").read_text("utf-8")
    assert citation["version"] == re.search(r"^version = (.*)$", settings, re.MULTILINE)[1]
    assert citation["license"] == re.search(r"^license_expression = (.*)$", settings, re.MULTILINE)[1]


def test_the_site_needs_what_the_tests_install():
    settings = (ROOT / "setup.cfg").read_text("utf-8")
    extras = dict(re.findall(r"^(\w+) =\n((?: .*\n|#.*\n)+)", settings, re.MULTILINE))
    needed = {line.strip() for line in extras["docs"].splitlines() if line.startswith(" ")}
    assert needed <= {line.strip() for line in extras["dev"].splitlines()}
