"""Memory and time of predictions for more data, or more outputs, than fit into memory.

Run: `python benchmarks/large_data.py`. It prints

- rows, seconds and growth of the peak memory of a process that predicts 1,000,000 rows of a `tf.data` pipeline, one
  batch at a time and in one call above `max_bytes`;
- the time of the mean of 20,000 rows above `max_bytes`, as a multiple of that below it, from one run;
- growth of the peak memory for 100,000 classes under `max_bytes` of 1 GiB;
- seconds of the entropy of 100 rows under 1,000 draws.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

import tfp_bnn
from tfp_bnn.layers import DenseFlipout

COLUMNS = 20
BATCH = 8192


def regression() -> tfp_bnn.VariationalModel:
    x = keras.Input((COLUMNS,))
    h = DenseFlipout(50, activation="relu")(x)
    return tfp_bnn.VariationalModel(x, DenseFlipout(1)(h), likelihood="normal", seed=0)


def rows_of_pipeline(number: int) -> tf.data.Dataset:
    """Rows that are made when they are read: no array holds them."""

    def batch(index: tf.Tensor) -> tf.Tensor:
        rows = tf.minimum(BATCH, number - index * BATCH)
        return tf.random.stateless_normal((rows, COLUMNS), [index, 0])

    return tf.data.Dataset.range(-(-number // BATCH)).map(lambda index: batch(tf.cast(index, tf.int32)))


def measured(task: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and MiB by which the peak memory of this process grew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    task()
    return time.perf_counter() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def predict_stream(model: tfp_bnn.VariationalModel, rows: int, num_samples: int) -> None:
    seen = 0
    for predictive, _ in model.stream_predictive(rows_of_pipeline(rows), num_samples=num_samples, batch_size=BATCH):
        seen += len(predictive.mean())
    assert seen == rows


def predict_at_once(model: tfp_bnn.VariationalModel, rows: int, num_samples: int) -> None:
    predictive = model.posterior_predictive(
        rows_of_pipeline(rows), num_samples=num_samples, batch_size=BATCH, max_bytes=2**26
    )
    assert len(predictive.mean()) == rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--num-samples", type=int, default=20)
    parser.add_argument("--classes", type=int, default=100_000)
    arguments = parser.parse_args()
    rows, num_samples = arguments.rows, arguments.num_samples
    model = regression()
    # Traces, and what TensorFlow allocates once.
    predict_stream(model, 2 * BATCH, num_samples)
    for name, predict in (("one batch at a time", predict_stream), ("one call", predict_at_once)):
        seconds, grown = measured(lambda predict=predict: predict(model, rows, num_samples))
        full = rows * num_samples * 4 / 2**20
        print(f"{rows} rows, {num_samples} draws, {name}: {seconds:.1f} s, peak memory + {grown:.0f} MiB")
        print(f"    (the draws alone would take {full:.0f} MiB)")
    x = np.random.default_rng(0).normal(size=(20_000, COLUMNS)).astype(np.float32)
    below, above = (
        measured(lambda limit=limit: model.posterior_predictive(x, 100, batch_size=BATCH, max_bytes=limit).mean())[0]
        for limit in (2**30, 1)
    )
    print(f"mean of 20000 rows above max_bytes: {above:.2f} s, {above / below:.2f} x of below")
    seconds, _ = measured(lambda: model.posterior_predictive(x[:100], 1000).entropy())
    print(f"entropy of 100 rows, 1000 draws, with the draws: {seconds:.1f} s")
    inputs = keras.Input((8,))
    wide = tfp_bnn.VariationalModel(inputs, DenseFlipout(arguments.classes)(inputs), seed=0)
    seconds, grown = measured(lambda: wide.posterior_predictive(x[:256, :8], num_samples).mean())
    print(
        f"256 rows of {arguments.classes} classes, {num_samples} draws: {seconds:.1f} s, peak memory + {grown:.0f} MiB"
    )


if __name__ == "__main__":
    main()
