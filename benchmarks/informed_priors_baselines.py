"""The baselines of `informed_priors.py`, chosen by cross-validation on the images themselves.

The deterministic ones start from the means of the source's posterior with a new head, train on all images, and have a
temperature. The folds are 3, and the same for all; the temperature divides the logits and minimizes the NLL of the rows
held out. What is chosen, is chosen by that NLL.

- `fine_tuning`: all weights by 300 steps of Adam, or 10 passes if these are more, with a cosine. First the rate is
  chosen of three, then at that rate a weight decay of none or three (AdamW, towards 0).
- `linear_probe`: multinomial logistic regression on the inputs of the last layer, scaled to a variance of 1, with one
  of seven penalties.
- `without_kl`: the steps of `zoo.fine_tune` without any prior.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import scipy.optimize
import scipy.special
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tfp_bnn
import zoo
from tfp_bnn.transfer import Tuner, to_deterministic, transfer_posterior
from zoo.datasets import Split

FOLDS = 3
RATES = (3e-4, 1e-3, 3e-3)
DECAYS = (0.1, 1.0, 10.0)
PENALTIES = tuple(10.0**power for power in range(-4, 3))
LEAST_STEPS, PASSES = 300, 10
HEAD = "logits"

Fitted = Callable[[np.ndarray], np.ndarray]
"""The logits of inputs."""
Fit = Callable[[np.ndarray, np.ndarray], Fitted]


def fine_tuning(source: Any, images: Split, seed: int) -> Fitted:
    """Fine-tunes all weights."""
    net = to_deterministic(_with_new_head(source, images))
    start = net.get_weights()
    batch = _batch_size(len(images))
    steps = _num_steps(len(images))

    def way(rate: float, decay: float) -> Fit:
        schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
        adam = keras.optimizers.AdamW(schedule, weight_decay=decay)
        net.compile(adam, keras.losses.SparseCategoricalCrossentropy(from_logits=True), steps_per_execution=50)
        adam.build(net.trainable_variables)
        of_adam = [np.asarray(variable) for variable in adam.variables]

        def fit(x: np.ndarray, y: np.ndarray) -> Fitted:
            net.set_weights(start)
            for variable, value in zip(adam.variables, of_adam, strict=True):
                variable.assign(value)
            rows = np.concatenate(list(_passes(len(x), steps * batch, seed)))
            net.fit(x[rows], y[rows], batch_size=batch, shuffle=False, verbose=0)
            return lambda inputs: net.predict(inputs, batch_size=1000, verbose=0)

        return fit

    def tried(rate: float, decay: float) -> tuple[float, float, float, float]:
        nll, temperature = _held_out(way(rate, decay), images, seed)
        return nll, temperature, rate, decay

    best = min(tried(rate, 0.0) for rate in RATES)
    _, temperature, rate, decay = min(best, *(tried(best[2], decay) for decay in DECAYS))
    return _tempered(way(rate, decay)(images.x, images.y), temperature)


def linear_probe(source: Any, images: Split, seed: int) -> Fitted:
    """Logistic regression on the frozen inputs of the last layer."""
    net = to_deterministic(_with_new_head(source, images))
    body = keras.Model(net.inputs, net.get_layer(HEAD).input)
    classes = len(np.unique(images.y))

    def features(x: np.ndarray) -> np.ndarray:
        return body.predict(x, batch_size=1000, verbose=0)

    def way(penalty: float) -> Fit:
        def fit(x: np.ndarray, y: np.ndarray) -> Fitted:
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2000)).fit(x, y)

            def logits(inputs: np.ndarray) -> np.ndarray:
                # A class that a fold has no row of gets a small probability, not 0.
                found = np.full((len(inputs), classes), -20.0)
                found[:, probe.classes_] = np.log(np.maximum(probe.predict_proba(inputs), 1e-9))
                return found

            return logits

        return fit

    of_images = Split(features(images.x), images.y)
    best, penalty = min((_held_out(way(penalty), of_images, seed), penalty) for penalty in PENALTIES)
    logits = _tempered(way(penalty)(of_images.x, of_images.y), best[1])
    return lambda x: logits(features(x))


def without_kl(source: Any, images: Split, seed: int) -> tfp_bnn.VariationalModel:
    """The posterior after the steps of `zoo.fine_tune` on the NLL alone: the prior plays no part."""
    target = _with_new_head(source, images, beta_schedule={"name": "constant", "beta": 0.0})
    tuner = Tuner(source, target, [HEAD], steps=_num_steps(len(images)), batch_size=_batch_size(len(images)), seed=seed)
    tuner.fit(images.x, images.y, None)
    return target


def _with_new_head(source: Any, images: Split, **arguments: Any) -> tfp_bnn.VariationalModel:
    start = zoo.create_model("lenet5_flipout", num_outputs=len(np.unique(images.y)), **arguments)
    transfer_posterior(source, start, inflate=None, new_layers=[HEAD])
    return start


def _batch_size(rows: int) -> int:
    """That of `zoo.fine_tune`."""
    return 16 if rows <= 500 else 32


def _num_steps(rows: int) -> int:
    """That of `zoo.fine_tune`."""
    return max(LEAST_STEPS, PASSES * -(-rows // _batch_size(rows)))


def _passes(rows: int, number: int, seed: int) -> Iterator[np.ndarray]:
    """Permutations of the rows, one for each pass, `number` rows in all."""
    rng = np.random.default_rng(seed)
    while number > 0:
        yield rng.permutation(rows)[:number]
        number -= rows


def _held_out(fit: Fit, images: Split, seed: int) -> tuple[float, float]:
    """NLL of the rows held out, in nats, and the temperature that makes it least."""
    logits = np.empty((len(images), len(np.unique(images.y))))
    # As in `choose_inflate`: similar targets in each fold.
    shuffled = np.random.default_rng(seed).permutation(len(images))
    in_order = shuffled[np.argsort(images.y[shuffled], kind="stable")]
    fold_of = np.empty(len(images), np.int64)
    fold_of[in_order] = np.arange(len(images)) % FOLDS
    for fold in range(FOLDS):
        held_out = fold_of == fold
        logits[held_out] = fit(images.x[~held_out], images.y[~held_out])(images.x[held_out])

    def nll(log_temperature: float) -> float:
        log_probabilities = scipy.special.log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(log_probabilities[np.arange(len(images)), images.y].mean())

    found = scipy.optimize.minimize_scalar(nll, bounds=(np.log(0.05), np.log(100.0)), method="bounded")
    return float(found.fun), float(np.exp(found.x))


def _tempered(logits: Fitted, temperature: float) -> Fitted:
    return lambda x: logits(x) / temperature
