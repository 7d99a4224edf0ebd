"""Every registered Keras metric with what to feed it, and the function that it should agree with.

Nothing is listed by hand. A metric is found by its registration; the function is the first `tfp_bnn.metrics.<name>`
that its docstring names, and its arguments are chosen by their names.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfp_bnn import metrics
from tfp_bnn.metrics.uncertainty import SCORES, SCORES_OF_SEVERAL_SAMPLES

CLASSES, SAMPLES, ROWS = 4, 5, 83
BATCH = 48
# Values of constructor arguments other than their defaults.
ALTERNATIVES: dict[str, list[Any]] = {
    "num_bins": [1, 10],
    "score": [score for score in SCORES if score != "entropy"],
    "coverage": [0.55],
    "recall": [0.6],
    "level": [0.5],
    "fair": [False],
    "levels": [[0.25, 0.8]],
}
# Without them the class cannot be made.
REQUIRED = {"num_classes": CLASSES}


@dataclass(frozen=True)
class Case:
    """A metric with its arguments."""

    cls: type[Any]
    config: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return "-".join([self.cls.__name__, *(f"{name}={value}" for name, value in self.config)])

    def make(self, **arguments: Any) -> Any:
        return self.cls(**{**dict(self.config), **arguments})

    @property
    def function(self) -> Any:
        name = re.search(r"`tfp_bnn\.metrics\.(\w+)`", self.cls.__doc__)
        assert name, f"the docstring of {self.cls.__name__} names no function of tfp_bnn.metrics"
        return getattr(metrics, name[1])

    @property
    def takes(self) -> set[str]:
        return set(inspect.signature(self.function).parameters)

    @property
    def of_targets(self) -> bool:
        return bool(self.takes & {"samples", "quantiles", "lower"})

    @property
    def of_kinds(self) -> bool:
        return "out_of_distribution" in self.takes

    @property
    def needs_labels(self) -> bool:
        return "labels" in self.takes

    @property
    def needs_samples(self) -> bool:
        """Whether one draw of class probabilities is refused."""
        score = self.make().get_config().get("score")
        name = {metrics.mutual_information: "mutual_information", metrics.class_variance: "variance"}
        return (score or name.get(self.function)) in SCORES_OF_SEVERAL_SAMPLES

    @property
    def may_be_undefined(self) -> bool:
        """Whether the result is NaN without positive or without negative rows."""
        return self.cls.__name__.endswith(("AUROC", "FPR"))

    def rows(self, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Targets or labels, and samples of predictions."""
        if self.of_targets:
            return target_rows(seed)
        labels, samples = class_rows(seed)
        return (np.minimum(labels, 1) if self.of_kinds else labels), samples

    def expected(self, y: np.ndarray, samples: np.ndarray) -> float:
        """What the function says of all rows at once, of scores rounded as the metric rounds them."""
        config = self.make().get_config()
        if self.of_targets:
            tail = (1.0 - config.get("level", 0.9)) / 2.0
            lower, upper = np.quantile(samples, [tail, 1.0 - tail], axis=0)
            values = {"targets": y, "samples": samples, "lower": lower, "upper": upper}
            values["quantiles"] = np.quantile(samples, config.get("levels", 0.5), axis=0)
        else:
            values = {"labels": y, "probabilities": mean(samples), "sample_probabilities": samples}
            if "score" in config:
                scores = rounded(metrics.uncertainty_scores(samples)[config["score"]])
                values |= {"uncertainty": scores}
                values |= {"in_distribution": scores[y == 0], "out_of_distribution": scores[y > 0]}
        values |= config
        return float(np.mean(self.function(**{name: values[name] for name in self.takes & set(values)})))

    def streamed(self, y: Any, samples: np.ndarray, weights: np.ndarray | None = None, metric: Any = None) -> float:
        """What the metric says after batches of 48 and fewer rows."""
        metric = self.make() if metric is None else metric
        for start in range(0, samples.shape[-2], BATCH):
            rows = slice(start, start + BATCH)
            metric.update_state(
                None if y is None else y[rows], samples[..., rows, :], None if weights is None else weights[rows]
            )
        return float(metric.result())


def mean(samples: np.ndarray) -> np.ndarray:
    return samples.mean(axis=0, dtype=np.float64).astype(samples.dtype)


def rounded(scores: np.ndarray) -> np.ndarray:
    """To the lower edge of the bin: 8 bits of mantissa, and 0 below 2^-28."""
    mantissa, exponent = np.frexp(scores.astype(np.float32))
    return np.where(scores < 2.0**-28, 0.0, np.ldexp(np.floor(mantissa * 2**9) / 2**9, exponent))


def class_rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    samples = rng.dirichlet(np.full(CLASSES, 0.3), size=(SAMPLES, ROWS)) + 1e-4
    return rng.integers(CLASSES, size=ROWS), (samples / samples.sum(axis=-1, keepdims=True)).astype(np.float32)


def target_rows(seed: int = 0, outputs: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(ROWS, outputs)), rng.normal(size=(SAMPLES, ROWS, outputs))


def registered() -> list[type[Any]]:
    """The Keras metrics that `tfp_bnn` registered."""
    classes = [cls for name, cls in keras.saving.get_custom_objects().items() if name.startswith("tfp_bnn>")]
    return [cls for cls in classes if issubclass(cls, keras.metrics.Metric)]


def _required(cls: type[Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in REQUIRED.items() if name in inspect.signature(cls).parameters)


# One of each metric, and others with one argument that is not the default.
PLAIN = [Case(cls, _required(cls)) for cls in registered()]
ALTERED = [
    Case(case.cls, (*case.config, (name, value)))
    for case in PLAIN
    for name in inspect.signature(case.cls).parameters
    for value in ALTERNATIVES.get(name, [])
]
OF_CLASSES = [case for case in PLAIN if not case.of_targets]
OF_LABELS = [case for case in PLAIN if case.needs_labels]
OF_TARGETS = [case for case in PLAIN if case.of_targets]
