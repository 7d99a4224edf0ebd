"""Schema of the comparison of a recipe with its baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.inference.ensemble import MOST_MEMBERS
from zoo.core.validation import Plain

Baseline = Literal["map", "mc_dropout", "ensemble", "variational", "natural_gradient"]
"""Inference methods that a comparison knows."""
BASELINES: tuple[Baseline, ...] = get_args(Baseline)
Tuned = Literal["map", "mc_dropout", "variational", "natural_gradient"]
"""Those with a grid; an ensemble has the settings that were chosen for `map`."""

Grid = Mapping[str, tuple[Any, ...]]
"""Values to try by dotted key of a recipe. All their combinations are candidates."""
_Values = Annotated[tuple[Any, ...], Field(min_length=1, max_length=100)]

_OF_ADAM: Grid = {"optimizer.learning_rate": (1e-3, 3e-3)}
DEFAULT_GRIDS: Mapping[Tuned, Grid] = {
    "map": {**_OF_ADAM, "beta": (0.1, 1.0)},
    "mc_dropout": {**_OF_ADAM, "model.dropout": (0.05, 0.2)},
    "variational": {**_OF_ADAM, "beta": (0.1, 1.0)},
    "natural_gradient": {"optimizer.natural_gradient.curvature_rate": (2e-4, 2e-3), "beta": (0.1, 1.0)},
}
"""Four candidates for every method. For points, beta is the weight of the prior. A slow curvature stops short of the
optimum of the ELBO, a fast one comes close."""


def check_baselines(names: Sequence[str]) -> tuple[Baseline, ...]:
    """Returns the methods by these names. A ValueError gives the nearest for an unknown one."""
    for name in names:
        if name not in BASELINES:
            raise ValueError(unknown_name_message("inference method of a comparison:", name, BASELINES))
    return tuple(baseline for baseline in BASELINES if baseline in names)


class ComparisonRecipe(Plain):
    """How a recipe is compared with its baselines; see `zoo.training.comparing`. Has no effect on a training.

    Attributes:
        tuning_epochs: Number of epochs of the runs among which the validation split chooses; None for those of the
            recipe. Those of a deterministic start are added, for each candidate of a method that has one.
        grids: Values to try, by inference method and dotted key. Default: `DEFAULT_GRIDS`. With an empty mapping, a
            method is run as the recipe says.
        members: Number of members of the ensemble.
        member_epochs: Share of the epochs that each member is trained for.
    """

    tuning_epochs: Annotated[int, Field(strict=True, ge=1, le=100_000)] | None = None
    grids: dict[Tuned, dict[str, _Values]] = Field(default_factory=dict)
    members: Annotated[int, Field(strict=True, ge=1, le=MOST_MEMBERS)] = 3
    member_epochs: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0

    def grid(self, inference: Tuned) -> Grid:
        """Returns the values to try for a method, by dotted key."""
        return self.grids.get(inference, DEFAULT_GRIDS[inference])
