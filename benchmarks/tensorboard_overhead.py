"""Cost of `BayesianTensorBoard`: its share of the training time, within one run.

Run: `python benchmarks/tensorboard_overhead.py --epochs 40`. `lenet5_flipout` is trained on MNIST with its recipe and
the callback with its defaults: 1,000 validation images and 10 weight draws each epoch, histograms and figures every 10
epochs. The time in the callback's own methods is compared with that of the whole training; other load on the machine
slows both. 10 epochs have a quarter of the figures of 40 and all of the start-up, so the share can only be larger.
MNIST comes from TFDS_DATA_DIR.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import zoo
from tfp_bnn.callbacks import BayesianTensorBoard

TARGET = 0.05
METHODS = ("on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end", "on_test_begin", "on_test_end")


class Timed(BayesianTensorBoard):
    """The callback with a timer around each of its methods."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = {name: [] for name in METHODS}

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name not in METHODS:
            return found

        def timed(*args):
            start = time.perf_counter()
            if name == "on_train_begin":
                self._began = start
            found(*args)
            self.calls[name].append(time.perf_counter() - start)
            if name == "on_train_end":
                self.total = time.perf_counter() - self._began

        return timed


def measure(recipe: str, epochs: int) -> Timed:
    data = zoo.load_dataset(zoo.load_recipe(recipe).dataset)
    with tempfile.TemporaryDirectory() as folder:
        board = Timed(folder, (data.validation.x, data.validation.y), class_names=data.class_names)
        zoo.train(recipe, epochs=epochs, measure=False, callbacks=[board])
    return board


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="lenet5_flipout.mnist")
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    board = measure(arguments.recipe, arguments.epochs)
    own = sum(map(sum, board.calls.values()))
    training = board.total - own
    ends = board.calls["on_epoch_end"]
    drawn = [seconds for epoch, seconds in enumerate(ends, 1) if epoch % 10 == 0 or epoch == len(ends)]
    plain = [seconds for epoch, seconds in enumerate(ends, 1) if epoch > 1 and seconds not in drawn]
    print(f"{arguments.recipe}, {arguments.epochs} epochs")
    print(f"training itself         {training:8.1f} s  {training / arguments.epochs:7.2f} s an epoch")
    print(f"callback, in all        {own:8.1f} s")
    print(f"  start and first epoch {sum(board.calls['on_train_begin']) + ends[0]:8.2f} s")
    if plain:
        print(f"  numbers of an epoch   {statistics.median(plain):8.2f} s (median)")
    print(f"  with its figures      {statistics.median(drawn):8.2f} s (median of {len(drawn)})")
    print(f"share                   {own / training:8.2%}  (target: at most {TARGET:.0%})")
