"""The log in a real TensorBoard, opened in a headless Chromium.

The screenshots of the guide were made by this test: `SCREENSHOTS=docs python -m pytest
tests/tfp_bnn/callbacks/board/test_browser.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.callbacks import BayesianTensorBoard
from tfp_bnn.callbacks.board.dashboard import CATEGORIES
from tfp_bnn.layers import Convolution2DFlipout, DenseFlipout

from ....chromium import NEEDS_CHROMIUM, chromium

pytestmark = [pytest.mark.slow, NEEDS_CHROMIUM]

EPOCHS = 40
WAIT_SECONDS = 120
# Polymer's elements are in shadow trees, in which selectors do not look.
DEEP = """
function all(root, found) {
  for (const element of root.querySelectorAll('*')) {
    found.push(element);
    if (element.shadowRoot) all(element.shadowRoot, found);
  }
  return found;
}
"""
VISIBLE_TEXTS = (
    DEEP
    + """
const leaves = all(document, []).filter(element => element.offsetParent && !element.children.length);
return leaves.map(leaf => leaf.textContent.trim()).filter(text => text);
"""
)
# Images with their tag: [tag, width of the loaded image].
IMAGES = (
    DEEP
    + """
return all(document, []).filter(e => e.localName == 'tf-image-loader').map(e => {
  const inside = all(e.shadowRoot || e, []);
  const image = inside.find(i => i.localName == 'img');
  return [e.tag, image ? image.naturalWidth : 0];
});
"""
)


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory) -> Path:
    """The log of a small network that learns scikit-learn's digits."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 1))
    prior = {"name": "normal", "scale": 0.3, "empirical_bayes": True}
    h = Convolution2DFlipout(8, 3, activation="relu", kernel_prior=prior, name="conv")(x)
    h = DenseFlipout(32, activation="relu", kernel_prior=prior, name="dense")(keras.layers.Flatten()(h))
    logits = DenseFlipout(10, kernel_prior=prior, name="logits")(h)
    model = tfp_bnn.VariationalModel(x, logits, seed=0, beta_schedule={"name": "linear_warmup", "steps": 300})
    model.compile(keras.optimizers.Adam(0.005), metrics=["accuracy"])
    validation = (images[1200:], labels[1200:])
    outside = np.random.default_rng(0).uniform(size=(300, 8, 8, 1)).astype(np.float32)
    folder = tmp_path_factory.mktemp("parent") / "logs"
    # Within the folder that is served: TensorBoard compares runs below it by their hyperparameters.
    board = BayesianTensorBoard(
        folder / "digits", validation, outside, every=10, hparams={"width": 32}, recipe="Forty epochs."
    )
    model.fit(
        images[:1200],
        labels[:1200],
        epochs=EPOCHS,
        batch_size=64,
        validation_data=validation,
        verbose=0,
        callbacks=[board],
    )
    return folder


@pytest.fixture(scope="module")
def address(log_dir, tmp_path_factory) -> Iterator[str]:
    """Of a TensorBoard server on a free port of the loopback."""
    # Its name alone, which the page shows: a screenshot has no path of this machine.
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", log_dir.name, "--host", "127.0.0.1", "--port", "0"]
    said = tmp_path_factory.mktemp("server") / "stderr"
    quiet: dict = {"stdout": subprocess.DEVNULL, "cwd": log_dir.parent}
    with said.open("w") as file, subprocess.Popen(command, stderr=file, **quiet) as server:
        try:
            for _ in range(WAIT_SECONDS):
                found = re.search(r"TensorBoard .* at (http://127\.0\.0\.1:\d+/)", said.read_text())
                if found or server.poll() is not None:
                    break
                time.sleep(1)
            assert found, said.read_text()
            yield found[1]
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def open_tab(address, browser):
    """A function that opens a tab of TensorBoard and waits until a condition holds of what a script finds there."""
    from selenium.webdriver.support.ui import WebDriverWait

    def go(tab, script, condition, height=1000, width=1280):
        browser.set_window_size(width, height)
        browser.get("about:blank")
        browser.get(f"{address}?darkMode=false#{tab}")
        wait = WebDriverWait(browser, WAIT_SECONDS, poll_frequency=1)
        return wait.until(lambda driver: (found := driver.execute_script(script)) and condition(found) and found)

    return go


def keep(browser, name, tmp_path):
    """Saves a screenshot, in few colours to be small, and returns it."""
    from PIL import Image

    path = Path(os.environ.get("SCREENSHOTS", tmp_path)) / name
    browser.save_screenshot(str(path))
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(128)
    small.save(path, optimize=True)
    return small


@pytest.mark.parametrize(
    ("width", "file"), [(1280, "tensorboard_dashboard.png"), (1920, "tensorboard_dashboard_wide.png")]
)
def test_the_dashboard_opens_arranged(width, file, open_tab, browser, tmp_path):
    expected = {
        *CATEGORIES,
        *("digits/train", "digits/validation"),
        *(
            "1 minimized: NLL + beta KL / N (nats per example)",
            "KL by layer (log10 of nats)",
            "mutual information (nats, ± 2 SE)",
        ),
    }
    tab = "custom_scalars&_smoothingWeight=0"

    def is_there(texts):
        return expected <= set(texts) and "Matches (0)" not in texts

    texts = open_tab(tab, VISIBLE_TEXTS, is_there, height=2000, width=width)
    # What is minimized comes first, whatever order TensorBoard makes of the charts.
    titles = [text for text in texts if text[:2] in ("1 ", "2 ", "3 ", "4 ", "5 ")]
    assert [title[0] for title in titles] == ["1", "2", "3", "4", "5"]
    # The folder is named, without the path of this machine.
    assert not any(str(tmp_path.parent) in text for text in texts)
    picture = keep(browser, file, tmp_path)
    # A page that was not drawn has one colour, or two.
    assert len(picture.getcolors()) > 20


@pytest.mark.parametrize(("width", "file"), [(1280, "tensorboard_images.png"), (1920, "tensorboard_images_wide.png")])
def test_the_reliability_diagram_is_on_the_page(width, file, open_tab, browser, tmp_path):
    tag = "figures/reliability_diagram"
    found = open_tab(
        "images&tagFilter=reliability|confidence", IMAGES, lambda images: dict(images).get(tag, 0) > 0, 860, width
    )
    assert dict(found)[tag] > 600
    picture = keep(browser, file, tmp_path)
    assert len(picture.getcolors()) > 20


def test_the_texts_are_whole(open_tab):
    # Its bars are not those between the cells of a table.
    expected = {"inference", "variational", "KL(posterior || prior)"}
    assert expected <= set(open_tab("text", VISIBLE_TEXTS, lambda texts: expected <= set(texts)))


def test_the_hyperparameters_are_a_table(open_tab):
    # The last is the learning rate, in its row of the table.
    expected = {"width", "learning_rate", "validation.calibration/ece", "0.0050000"}
    assert expected <= set(open_tab("hparams", VISIBLE_TEXTS, lambda texts: expected <= set(texts)))
