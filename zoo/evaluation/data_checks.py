"""Whether a dataset is one for a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tfp_bnn.inference import members_of
from tfp_bnn.models import PredictiveModel
from zoo.core.shown import shown
from zoo.datasets import Dataset


def check_task(model: PredictiveModel, data: Dataset) -> None:
    """Raises a ValueError if the task of the dataset differs from that of the model."""
    if data.task != model.likelihood.task:
        raise ValueError(
            f"The dataset {data.name!r} is for {data.task}, but the model has the likelihood {model.likelihood!r}, for "
            f"{model.likelihood.task}. Choose a dataset of the same task."
        )


def check_names(model: PredictiveModel, data: Dataset) -> None:
    """Raises a ValueError if the dataset has columns or classes of the model at other positions than the model.

    Names that have nothing in common say nothing: those data are taken as they are.
    """
    about = _description_of_data(model)
    for kind, of_model, of_data in (
        ("columns", about.get("feature_names") or (), data.feature_names or ()),
        ("classes", model.class_names or (), data.class_names or ()),
    ):
        pairs = enumerate(zip(of_model, of_data, strict=False), start=1)
        different = next(((position, *pair) for position, pair in pairs if pair[0] != pair[1]), None)
        if different and set(of_model) & set(of_data):
            position, expected, found = different
            raise ValueError(
                f"The {kind} of the dataset {data.name!r} are not those that the model was trained on: at position "
                f"{position}, {shown(expected, 80)} was expected, but got {shown(found, 80)}. Put them in the order of "
                "the model; a file given to `tfp-bnn evaluate` is read by their names."
            )


def trained_on(model: PredictiveModel) -> str | None:
    """Returns the name of the dataset that a loaded model was trained on; None if none is known."""
    name: str | None = _description_of_data(model).get("dataset")
    return name


def _description_of_data(model: PredictiveModel) -> Mapping[str, Any]:
    about: Mapping[str, Any] = (getattr(model, "card", None) or {}).get("config", {}).get("data", {})
    return about


def with_groups_of(model: PredictiveModel, data: Dataset) -> Dataset:
    """Returns a dataset with the number of groups of a model, because files and arrays do not state it.

    Data that state a smaller number keep it. Data for a model without groups, or for inputs of another shape, are
    returned unchanged.

    Args:
        model: Model of the zoo, trained or not.
        data: Dataset.

    Raises:
        ValueError: If the last column of the inputs has other groups than the model.
    """
    config = getattr(getattr(members_of(model)[0], "architecture", None), "config", None)
    known = getattr(config, "known_groups", None)
    if config is None or known is None or data.input_shape != config.input_shape:
        return data
    return data if data.num_groups is not None and data.num_groups <= known else replace(data, num_groups=known)
