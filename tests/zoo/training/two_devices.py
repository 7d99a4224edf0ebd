"""Trains recipes on two logical CPUs, and stores the results. Run as a script: `two_devices.py OUT`.

The devices must be created before TensorFlow starts, so this needs a separate process.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np

RNG = np.random.default_rng(0)
X = RNG.normal(size=(38, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
# Batches of 12, 12 and 7 rows, of which the last and the 7 rows for validation are shared unevenly.
DATA = {"data": (X[:31], Y[:31]), "validation_data": (X[31:], Y[31:]), "measure": False}
RECIPE = {
    "name": "mlp_flipout.two_devices",
    "architecture": "mlp_flipout",
    "model": {"hidden": [4], "kernel_prior": {"name": "normal", "scale": 0.5}},
    "batch_size": 12,
    "epochs": 2,
    "warmup": 0.0,
    "evaluation": {"num_samples": 4, "spread_seeds": []},
}
NATURAL = {"inference": "natural_gradient", "optimizer": {"natural_gradient": {"curvature_rate": 0.1}}}
SWAG = {"inference": "swag", "swag": {"epochs": 4, "rank": 2}, "epochs": 1}


class Killed(BaseException):
    """As if the process had been killed."""


def main(out: Path) -> None:
    """All measurements, each under its name."""
    import keras
    import tensorflow as tf

    import zoo

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    outputs: list[np.ndarray] = []

    class Draws(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            model = self.model
            of_replicas = model.distribute_strategy.run(lambda: model(tf.ones((2, 4)), training=True))
            outputs.extend(value.numpy() for value in strategy.experimental_local_results(of_replicas))

    class Dies(keras.callbacks.Callback):
        steps = 0

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.steps += 1
            if self.steps == 6:
                raise Killed

    def trained(recipe: dict[str, Any], where: Any = strategy, **options: Any) -> Any:
        return zoo.train({**RECIPE, **recipe}, strategy=where, **DATA, **options)

    def result(run: Any) -> tuple[Any, Any]:
        return run.model.get_weights(), run.history

    def predicted(model: Any) -> np.ndarray:
        return model.posterior_predictive(X, num_samples=4, seed=0).mean()

    folder = out.with_suffix(".run")
    found: dict[str, Any] = {"points": [result(trained({"inference": "map"}, where)) for where in (strategy, None)]}
    whole = trained({})
    try:
        trained({}, out=folder, checkpoint_seconds=0.0, callbacks=[Dies()])
    except Killed:
        pass
    try:
        trained({}, None, out=folder, resume=True)
    except ValueError as error:
        found["other devices"] = str(error)
    told: list[str] = []
    resumed = trained({}, out=folder, resume=True, tell=told.append)
    found["resumed"] = [result(run) for run in (resumed, whole)]
    found["told"] = told
    found["predicted"] = [predicted(resumed.model), predicted(zoo.load_artifact(folder, trust=True))]
    for name, recipe in {"natural_gradient": NATURAL, "swag": SWAG}.items():
        # A draw by a callback changes those of the steps after it.
        found[name] = predicted(trained(recipe, callbacks=[Draws()]).model)
    found["outputs"] = outputs
    out.write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
