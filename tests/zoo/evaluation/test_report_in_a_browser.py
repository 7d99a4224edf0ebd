"""The pages in a headless Chromium, from the width of a telephone to that of a desk: nothing is cut off.

The pictures of the guide are made by this test: `SCREENSHOTS=docs python -m pytest
tests/zoo/evaluation/test_report_in_a_browser.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import zoo
from zoo.evaluation.report import write_comparison_report, write_evaluation_report

from ...chromium import NEEDS_CHROMIUM, chromium, save_picture

pytestmark = [pytest.mark.slow, NEEDS_CHROMIUM]
WIDTHS = (400, 800, 1280, 1600)
SCREENSHOTS = os.environ.get("SCREENSHOTS")
# Width of the page, and file and height of its picture.
PICTURES = {400: ("report_narrow.png", 1600), 1280: ("report.png", 2560)}
# What leaves the page at its right or left edge, and what shows a part of itself only.
CUT_OFF = """
const width = document.documentElement.clientWidth, found = [];
for (const element of document.querySelectorAll('body *')) {
  const box = element.getBoundingClientRect(), text = element.textContent.slice(0, 40);
  if (box.width && (box.right > width + 1 || box.left < -1)) found.push(['leaves the page', element.localName, text]);
  const clips = getComputedStyle(element).overflowX != 'visible';
  if (clips && element.scrollWidth > element.clientWidth + 1) found.push(['scrolls', element.localName, text]);
}
return found;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A table of features next to one of classes, a regression, and a comparison."""
    folder = tmp_path_factory.mktemp("reports")
    found = {}
    for name in ("mlp_flipout.iris", "mlp_flipout.diabetes"):
        data = name.rpartition(".")[2]
        report = write_evaluation_report(zoo.load_model(name), data, "test", folder / data, name=name, num_samples=2)
        found[data] = report.path
    if SCREENSHOTS:
        name = "lenet5_flipout.digits"
        found["digits"] = write_evaluation_report(
            zoo.load_model(name), "digits", "test", folder / "digits", name=name
        ).path
    model = zoo.load_model("mlp_flipout.iris")
    models = {name: model for name in ("mlp_flipout.iris", "another_model_with_a_long_name", "a third")}
    found["comparison"] = write_comparison_report(models, "iris", "test", folder / "both", num_samples=2).path
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["iris", "diabetes", "comparison", *(["digits"] if SCREENSHOTS else [])])
def test_nothing_is_cut_off(name, width, browser, pages):
    # A window of Chromium has at least 500 pixels.
    file, height = PICTURES.get(width, ("", 900))
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(pages[name].as_uri())
    assert browser.execute_script(CUT_OFF) == []
    if SCREENSHOTS and name == "digits" and file:
        save_picture(browser, Path(SCREENSHOTS, file))
