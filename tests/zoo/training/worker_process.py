"""One of several processes that train together. Run as a script: `worker_process.py OUT KIND [CHECKPOINTS [resume]]`.

TF_CONFIG names the processes; without it, this one trains alone. Pickles what a worker knows at the end to OUT.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np

X = np.random.default_rng(0).normal(size=(19, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
EPOCHS = 8


def main(out: Path, kind: str, folder: Path | None = None, resume: bool = False) -> None:
    from zoo.datasets import Split
    from zoo.training import Workers, run_on_workers
    from zoo.training.batches import ShuffledBatches
    from zoo.training.checkpoints import Checkpoints

    workers = Workers.of_environment()
    # The last batch has 3 rows.
    batches = ShuffledBatches(Split(X, Y), batch_size=8, epochs=EPOCHS, seed=0)
    model, progress = run_on_workers(
        lambda: _model(kind, seed=workers.index),
        batches,
        workers=workers,
        patience=120,
        checkpoints=None if folder is None else Checkpoints(folder, {"kind": kind}),
        resume=resume,
    )
    found = {
        "weights": model.get_weights(),
        "history": progress.history,
        "num_examples": model.num_examples,
        "num_steps": model.num_steps,
        "rows_seen": model.rows_seen,
        "kl": float(model.kl()),
        "drawn": _drawn(model),
        "predicted": model.posterior_predictive(X, num_samples=3, seed=0).mean(),
        "refused": _refused(model),
        "natural gradient": _by_natural_gradient(model.distribute_strategy) if kind == "points" else [],
    }
    out.write_bytes(pickle.dumps(found))


def _model(kind: str, seed: int) -> Any:
    """Networks of points, or with noise. Their initial weights depend on the process."""
    import keras

    import tfp_bnn

    keras.utils.set_random_seed(seed if kind == "noise" else 0)
    posterior = "delta" if kind == "points" else "mean_field_normal"
    arguments = {"kernel_posterior": posterior, "kernel_prior": {"name": "normal", "scale": 0.5}}
    dense = tfp_bnn.layers.DenseReparameterization
    layers = [keras.Input((4,)), dense(8, activation="relu", **arguments), dense(2, **arguments)]
    model = tfp_bnn.VariationalSequential(layers, seed=0)
    model.compile(keras.optimizers.Adam(0.05), metrics=["accuracy"])
    return model


def _drawn(model: Any) -> np.ndarray:
    """The outputs of this process under the draw of its replica."""
    import tensorflow as tf

    ones = tf.ones((2, 4))
    outputs = model.distribute_strategy.run(lambda: model(ones, training=True))
    return outputs.numpy()


def _by_natural_gradient(strategy: Any) -> list[np.ndarray]:
    """Weights after steps on inputs of 0: only the KL moves the kernel, and the companion the biases, without noise."""
    import keras

    import tfp_bnn
    from tfp_bnn.models import elbo_step

    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = tfp_bnn.VariationalSequential([keras.Input((4,)), tfp_bnn.layers.DenseFlipout(2)], seed=0)
        model.compile(tfp_bnn.NaturalGradient(0.1, 0.1))
    step = elbo_step(model, 19)
    for _ in range(4):
        step(0 * X, Y)
    return model.get_weights()


def _refused(model: Any) -> dict[str, Any]:
    """A batch with NaN in one row, which is that of the first replica."""
    from tfp_bnn.models import elbo_step

    x, before = X[:4].copy(), model.get_weights()
    x[0, 0] = np.nan
    try:
        elbo_step(model, 19)(x, Y[:4])
        message = ""
    except ValueError as error:
        message = str(error)
    same = [bool(np.array_equal(one, other)) for one, other in zip(before, model.get_weights(), strict=True)]
    return {"message": message, "same": all(same)}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]) if sys.argv[3:] else None, sys.argv[4:] == ["resume"])
