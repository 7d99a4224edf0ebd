"""Whether a dataset is one for a model."""

from __future__ import annotations

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
    about = (getattr(model, "card", None) or {}).get("config", {}).get("data", {})
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
