"""A headless Chromium for the tests that open pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_MISSING = "no chromium and chromedriver: apt-get install chromium chromium-driver"
NEEDS_CHROMIUM = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=_MISSING)
"""For tests that would make their pages in vain."""


def save_picture(driver: Any, path: Path) -> None:
    """Saves what a page shows as a small PNG for the documentation, with 128 colours."""
    driver.save_screenshot(str(path))
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(128)
    small.save(path, optimize=True)


@contextmanager
def chromium(profile: Path, *arguments: str) -> Iterator[Any]:
    """A driver of Selenium, which keeps the messages of the console. Skips where there is no browser.

    Args:
        profile: Empty folder for the state of the browser.
        *arguments: Further arguments of Chromium.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    if not (CHROMIUM and DRIVER):
        pytest.skip(_MISSING)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # As root, as in a container, Chromium runs without its sandbox only; the pages are our own.
    own = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={profile}")
    for argument in (*own, *arguments):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()
