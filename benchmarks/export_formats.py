"""Sizes, times and errors of exported models, by format.

Run: `python benchmarks/export_formats.py`; needs `pip install 'tfp_bnn[onnx,litert]'` and the images of MNIST. Each
file is run by its own runtime, on one thread, with requests of one row and of 32. The difference is the largest one of
mean, entropy and its two parts to `posterior_predictive` with the same draws, and of the plug-in mean to
`plug_in_predictive`. A trained model in 8 bits is judged on its test split, next to 32 bits. Times are those of the
processor, which other programs on the machine change little.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import zoo
from tfp_bnn import UnlikelyInputsWarning
from zoo.datasets import load_dataset

PARTS = ("mean", "entropy", "aleatoric", "epistemic")
REPEATS = 20
SUFFIXES = {"tf_saved_model": "", "onnx": ".onnx", "litert": ".tflite"}
NAMES = {"tf_saved_model": "SavedModel", "onnx": "ONNX", "litert": "LiteRT"}
Run = Callable[[np.ndarray], dict[str, np.ndarray]]


def run_saved_model(path: Path) -> Run:
    loaded = tf.saved_model.load(str(path))
    (name,) = loaded.signatures["serving_default"].structured_input_signature[1]

    def run(x: np.ndarray) -> dict[str, np.ndarray]:
        answer = loaded.signatures["serving_default"](**{name: tf.constant(x)})
        return {key: value.numpy() for key, value in answer.items()}

    return run


def run_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    (given,), names = session.get_inputs(), [output.name for output in session.get_outputs()]
    return lambda x: dict(zip(names, session.run(None, {given.name: x}), strict=True))


def run_litert(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path), num_threads=1).get_signature_runner()
    (name,) = run.get_input_details()
    return lambda x: run(**{name: x})


RUNTIMES = {"tf_saved_model": run_saved_model, "onnx": run_onnx, "litert": run_litert}


def milliseconds(run: Run, x: np.ndarray) -> float:
    run(x)
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run(x)
        times.append(1000 * (time.process_time() - start))
    return float(np.median(times))


def size(path: Path) -> float:
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    return sum(each.stat().st_size for each in files) / 1e6


def accuracy(run: Run, data: Any) -> float:
    found = [run(data.x[start : start + 500].astype(np.float32))["mean"] for start in range(0, len(data), 500)]
    return float(np.mean(np.concatenate(found).argmax(axis=-1) == data.y))


def print_rows(title: str, model: Any, samples: int, x: np.ndarray, inputs: np.ndarray, test: Any) -> None:
    """Prints a row of the table for each file of a model, and a sentence on what 8 bits cost."""
    predictive, plug_in = model.posterior_predictive(x, num_samples=samples), model.plug_in_predictive(x)
    accuracies = []
    cases = [(format, {"num_samples": samples}) for format in SUFFIXES]
    cases += [("onnx", {"plug_in": True}), ("litert", {"plug_in": True})]
    cases += [("litert", {"plug_in": True, "int8_from": inputs})]
    for format, settings in cases:
        expected = plug_in if "plug_in" in settings else predictive
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{SUFFIXES[format]}"
            start = time.process_time()
            model.export(path, format=format, verbose=False, **settings)
            seconds = time.process_time() - start
            run = RUNTIMES[format](path)
            answer = run(x)
            difference = max(
                float(np.abs(answer[part] - getattr(expected, part)()).max()) for part in PARTS if part in answer
            )
            what = f"S = {samples}"
            if "plug_in" in settings:
                what = "plug-in, 8 bits" if "int8_from" in settings else "plug-in"
            times = f"{milliseconds(run, x[:1]):.2f} | {milliseconds(run, x):.1f}"
            numbers = f"{size(path):.2f} | {seconds:.0f} | {times} | {difference:.0e}"
            print(f"| {title} | {NAMES[format]} | {what} | {numbers} |", flush=True)
            if test is not None and format == "litert" and "plug_in" in settings:
                accuracies.append(accuracy(run, test))
    if accuracies:
        before, after = accuracies
        print(
            f"\n{title}, the plug-in on {len(test):,} test rows: accuracy {before:.4f} in 32 bits and {after:.4f} in 8 "
            f"bits, a loss of {before - after:.4f}.\n"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50, help="S of lenet5_flipout.mnist.")
    parser.add_argument("--samples-of-resnet", type=int, default=10, help="S of ResNet-20; 0 leaves it out.")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore", UnlikelyInputsWarning)
    print("| model | format | | MB | export, s | ms, 1 row | ms, 32 rows | largest difference |")
    print("|---|---|---|---|---|---|---|---|")
    mnist = load_dataset("mnist")
    x = mnist.test.x[:32].astype(np.float32)
    inputs = mnist.train.x[:200].astype(np.float32)
    print_rows("LeNet-5", zoo.load_model("lenet5_flipout.mnist"), given.samples, x, inputs, mnist.test)
    if given.samples_of_resnet:
        resnet = zoo.create_model("resnet20_flipout", input_shape=(32, 32, 3), num_outputs=10, seed=0)
        images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3)).astype(np.float32)
        print_rows("ResNet-20, untrained", resnet, given.samples_of_resnet, images, images, None)


if __name__ == "__main__":
    main()
