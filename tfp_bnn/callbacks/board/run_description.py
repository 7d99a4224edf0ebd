"""Description of a model in a log: its hyperparameters and its summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfp_bnn.callbacks.board.tags import markdown_table
from tfp_bnn.inference import members_of, way_of
from tfp_bnn.inference.ways import meaning_of
from tfp_bnn.likelihoods import LIKELIHOODS
from tfp_bnn.models.predictive_model import PredictiveModel
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.posteriors import POSTERIORS
from tfp_bnn.priors import PRIORS


def hyperparameters(model: VariationalMixin, further: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """Returns the hyperparameters of a model, as numbers and strings by name.

    Args:
        model: Bayesian model, compiled if it is trained.
        further: Hyperparameters that are added or replace others. Nested mappings are flattened, with dots in the
            names.
    """
    weights = [weight for layer in model.variational_layers for weight in layer.variational_weights.values()]
    found: dict[str, Any] = {
        "likelihood": LIKELIHOODS.name_of(model.likelihood),
        "beta_schedule": repr(model.beta_schedule),
        "prior": _joined({PRIORS.name_of(weight.prior_spec) for weight in weights}),
        "prior_scale": _joined({getattr(weight.prior_spec, "scale", "none") for weight in weights}),
        "posterior": _joined({POSTERIORS.name_of(weight.posterior_spec) for weight in weights}),
        "bayesian_weights": sum(int(np.prod(weight.shape)) for weight in weights),
        "seed": model.seed,
        "num_examples": model.num_examples,
    }
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        found["optimizer"] = type(optimizer).__name__.lower()
        found["learning_rate"] = float(np.asarray(optimizer.learning_rate))
    return {name: _plain(value) for name, value in _flat({**found, **further})}


def model_page(model: PredictiveModel) -> str:
    """Returns the summary of a model in Markdown; of a posterior beside its networks, that of the first of them."""
    lines: list[str] = [] if isinstance(model, VariationalMixin) else [repr(model)]
    members_of(model)[0].summary(print_fn=lambda line, **_: lines.append(line))
    return "\n".join(["```", *lines, "```"])


def inference_page(model: PredictiveModel) -> str:
    """Returns what the inference method of a model is, and what its ELBO and KL are, in Markdown."""
    meaning = meaning_of(model)
    rows = {
        "inference": way_of(model),
        "ELBO": f"not defined: {meaning.reason}" if meaning.reason else "-(nll + kl / N), a bound of log p(data) / N",
        "KL": meaning.kl or "not defined",
    }
    return markdown_table(("of this model", ""), rows.items())


def _joined(values: set[Any]) -> Any:
    """Returns the only value, or a string of all values."""
    return values.pop() if len(values) == 1 else ", ".join(sorted(map(str, values)))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value


def _plain(value: Any) -> bool | float | str:
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, bool | int | float | str) else str(value)
