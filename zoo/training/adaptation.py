"""Adapts the config of a trained network to new data: a pure function of the source's config and the data."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfp_bnn.likelihoods import LIKELIHOODS
from zoo.architectures import ARCHITECTURES
from zoo.architectures.base import ArchitectureConfig, BuiltFrom
from zoo.architectures.image_config import ImageConfig
from zoo.architectures.moments import check_noise_fits, column_moments
from zoo.core.validation import validate
from zoo.datasets import Dataset
from zoo.datasets.images import pixels_fit

Head = Literal["new", "keep"]


def adapted_config(
    built: BuiltFrom,
    data: Dataset | None,
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    head: Head,
    kernel_prior: Any,
    informed: bool,
    adapt_inputs: bool,
) -> ArchitectureConfig:
    """Returns the config of the source, adapted to new data.

    Args:
        built: Architecture and config of the source.
        data: Dataset, or None for arrays.
        x: Training inputs of shape `(n, ...)`.
        y: Targets, one per input.
        head: `"new"` for a new last layer that fits the targets, or `"keep"`.
        kernel_prior: Prior of the kernels, as a name, a config or an object.
        informed: Whether that prior is informed by the posterior of the source.
        adapt_inputs: Whether the model resizes and rescales images of a different size or range.

    Raises:
        ValueError: If the source cannot take the inputs, or if `head="keep"` and the data need a different number of
            outputs.
    """
    old = built.config
    likelihood = LIKELIHOODS.get(old.likelihood)
    values = {**old.model_dump(), "kernel_prior": kernel_prior, **_adapted_inputs(built, x, adapt_inputs)}
    needed = likelihood.num_outputs_for(y, None if data is None else data.num_classes)
    if informed and "group_prior" in values:
        values["group_prior"] = kernel_prior
    if head == "keep" and (needed > old.num_outputs or (data is not None and needed != old.num_outputs)):
        raise ValueError(
            f"The source has {old.num_outputs} outputs, but the data need {needed}. Give the model a new head "
            "(head='new')."
        )
    if head == "new":
        values["num_outputs"] = needed
        if not likelihood.has_probabilities:
            # The targets of a new head may have other units.
            mean, variance = column_moments(y.reshape(len(y), -1), likelihood)
            check_noise_fits(likelihood, variance)
            if old.target_mean is not None:
                values["target_mean"], values["target_variance"] = mean, variance
            rescaled = likelihood.rescaled(math.sqrt(sum(variance) / len(variance)))
            if rescaled != likelihood:
                values["likelihood"] = {"name": LIKELIHOODS.name_of(rescaled), **rescaled.get_config()}
    return validate(ARCHITECTURES[built.name].config, values, f"The architecture {built.name!r}")


def _adapted_inputs(built: BuiltFrom, x: npt.NDArray[Any], adapt_inputs: bool) -> dict[str, Any]:
    """Returns the changes of the config for inputs of this shape and range."""
    old, changes = built.config, {}
    shape, known = tuple(x.shape[1:]), tuple(old.input_shape)
    if shape != known:
        # What the first convolution gets stays as it was.
        *size, channels = old.image_shape if isinstance(old, ImageConfig) else (None, None)
        grey = shape[-1:] == (3,) and channels == 1
        can = channels is not None and len(shape) == 3 and (grey or shape[-1] == channels)
        if not (can and adapt_inputs):
            hint = (
                "Pass adapt_inputs=True (--adapt-inputs) to let the model convert images"
                if can
                else f"The first layer of {built.name!r} takes no others: change the data"
            )
            raise ValueError(f"The source takes inputs of shape {known}, but the data have {shape}. {hint}.")
        changes = {"input_shape": shape, "grey": grey, "resize": tuple(size)}
    pixel_max = getattr(old, "pixel_max", None)
    if pixel_max is not None:
        highest = 255.0 if x.dtype == np.uint8 else float(x.max(initial=0.0))
        fits = pixels_fit(highest, pixel_max)
        if adapt_inputs and highest > 0:
            changes = changes if fits else {**changes, "pixel_max": highest}
        elif not fits:
            raise ValueError(
                f"The source takes pixels from 0 to {pixel_max:g}, but those of the data go up to {highest:g}. Pass "
                "adapt_inputs=True (--adapt-inputs) to let the model rescale them, or rescale them yourself."
            )
    num_groups = getattr(old, "num_groups", None)
    if num_groups is not None and not np.isin(x[:, -1], np.arange(num_groups)).all():
        raise ValueError(
            f"The source knows the groups 0 to {num_groups - 1}, but the last column of the data goes from "
            f"{x[:, -1].min():g} to {x[:, -1].max():g}. Fine-tune it on those groups only."
        )
    return changes
