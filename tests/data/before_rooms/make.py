"""Writes the `.keras` files and the artifact next to this script. Run once, with commit 259b263 checked out.

    PYTHONPATH=<checkout of 259b263> python make.py

They are what `tests/test_older_files.py` loads. They must not be written again by a later commit.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import keras
import numpy as np

import tfp_bnn
import zoo

HERE = Path(__file__).parent
LAYERS = tfp_bnn.layers
INFERRED = {"name": "normal", "scale": 0.4, "hyperprior": "half_cauchy", "shared": "body"}
rng = np.random.default_rng(0)


def functional() -> keras.Model:
    """Two inputs' worth of features: shared and learned priors, three posteriors, learned noise, a calibration."""
    inputs = keras.Input((4,))
    h = LAYERS.DenseFlipout(5, activation="tanh", kernel_prior=INFERRED, name="first")(inputs)
    h = LAYERS.DenseReparameterization(5, kernel_prior=INFERRED, kernel_posterior="low_rank_normal", name="second")(h)
    h = LAYERS.MCDropout(0.2, name="dropout")(h)
    laplace = {"name": "laplace", "scale": 0.3, "empirical_bayes": True}
    outputs = LAYERS.DenseLocalReparameterization(
        2, kernel_prior=laplace, bias_posterior="mean_field_normal", name="head"
    )(h)
    schedule = {"name": "linear_warmup", "steps": 10}
    return tfp_bnn.VariationalModel(inputs, outputs, likelihood="normal", beta_schedule=schedule, seed=3)


def sequential() -> keras.Model:
    """Convolutions, a mixture prior, a radial posterior, a point, class probabilities."""
    stack = [
        keras.Input((6, 6, 1)),
        LAYERS.Convolution2DFlipout(3, 3, kernel_prior="scale_mixture", activation="relu", name="conv"),
        keras.layers.Flatten(name="flatten"),
        LAYERS.DenseReparameterization(4, kernel_posterior="radial", kernel_prior="horseshoe", name="dense"),
        LAYERS.DenseReparameterization(3, kernel_posterior="delta", kernel_prior="student_t", name="logits"),
    ]
    return tfp_bnn.VariationalSequential(stack, seed=5)


def save(name: str, model: keras.Model, x: np.ndarray, y: np.ndarray, calibration: dict | None) -> None:
    """Trains a little, saves, and writes down what the model says."""
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(x, y, epochs=2, batch_size=8, verbose=0)
    model.calibration = calibration
    model.save(HERE / f"{name}.keras")
    mean = model.posterior_predictive(x, num_samples=8, seed=1).mean()
    kl = np.array([float(v) for v in model.kl_by_layer().values()])
    model.calibration = None
    logs = model.fit(x, y, epochs=1, batch_size=8, verbose=0).history
    np.savez(HERE / f"{name}.npz", x=x, y=y, mean=mean, kl=kl, next_nll=logs["nll"][0])


def main() -> None:
    """Writes all files."""
    x, y = rng.normal(size=(24, 4)).astype("float32"), rng.normal(size=(24, 2)).astype("float32")
    save("functional", functional(), x, y, {"name": "scale", "scale": 1.5})
    x, y = rng.normal(size=(24, 6, 6, 1)).astype("float32"), rng.integers(3, size=24)
    save("sequential", sequential(), x, y, {"name": "temperature", "temperature": 2.0})

    recipe = {
        "name": "mlp_flipout.tiny",
        "architecture": "mlp_flipout",
        "dataset": "iris",
        "model": {"hidden": [8], "kernel_prior": {"name": "normal", "scale": 0.5, "empirical_bayes": True}},
        "standardize_inputs": True,
        "batch_size": 32,
        "epochs": 3,
        "calibration": "temperature",
        "evaluation": {"num_samples": 10, "seed": 0, "spread_seeds": [1]},
    }
    # Relative paths, because an artifact stores the path of what it was fine-tuned from.
    os.chdir(HERE)
    for folder in ("trained", "tuned"):
        shutil.rmtree(folder, ignore_errors=True)
    zoo.train(recipe, "trained")
    zoo.fine_tune("trained", "iris", inflate=2.0, head_scale=1.0, steps=20, out="tuned", trust=True)


if __name__ == "__main__":
    main()
