"""The numbers of a card that say whether a variational posterior is at the optimum of the ELBO."""

from __future__ import annotations

from collections.abc import Sequence

import tfp_bnn
from tfp_bnn.inference import way_of
from tfp_bnn.inference.elbo_optimum import elbo_numbers
from tfp_bnn.models import PredictiveModel
from zoo.datasets import Dataset

_MOST_ROWS = 10_000


def optimum_numbers(model: PredictiveModel, data: Dataset) -> dict[str, float]:
    """Measures the ELBO at beta 1 on the first 10,000 training examples, whatever the model was trained with.

    Args:
        model: Trained model.
        data: Dataset that it was trained on.

    Returns:
        `elbo` and `nll`, in nats per example, and `temperature_of_scales`; see
        `tfp_bnn.inference.elbo_optimum.elbo_numbers`. Empty for other posteriors than variational ones of independent
        normals, without scales that were trained, and for a model that was trained on chosen rows.
    """
    if not isinstance(model, tfp_bnn.VariationalMixin) or way_of(model) != "variational":
        return {}
    if model.num_examples != len(data.train):
        return {}
    numbers = elbo_numbers(model, data.train.x[:_MOST_ROWS], data.train.y[:_MOST_ROWS], frozen=_frozen(model))
    if numbers.temperature_of_scales is None:
        return {}
    return {"elbo": numbers.elbo, "nll": numbers.nll, "temperature_of_scales": numbers.temperature_of_scales}


def _frozen(model: PredictiveModel) -> Sequence[str]:
    """The layers that were frozen in the fine-tuning of a loaded model, which trains all of them again."""
    card = getattr(model, "card", None)
    described = card["config"].get("data", {}).get("fine_tuning") if card else None
    frozen: Sequence[str] = (described or {}).get("freeze", ())
    return frozen
