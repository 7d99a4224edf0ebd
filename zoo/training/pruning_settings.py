"""Settings of a pruning of the zoo, checked before anything is read or trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from tfp_bnn.compression import Criterion
from tfp_bnn.compression.importance import name_of
from tfp_bnn.compression.units import HowMany
from zoo.core.validation import check_field
from zoo.recipes import PruningRecipe

LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Settings:
    """What is pruned of a model of the zoo, and how what is left is trained.

    Attributes:
        fraction: As in `zoo.prune`.
        by: As in `zoo.prune`; of two names of a criterion the first.
        scope: As in `zoo.prune`.
        below: As in `zoo.prune`.
        units: As in `zoo.prune`.
        layers: As in `zoo.prune`.
        epochs: Passes over the training split after the last pruning; the learning rate decays to 0.
        rounds: Number of prunings; see `prune_in_rounds`.
        epochs_between: Passes after each pruning but the last, at the initial learning rate.
        learning_rate: Initial learning rate of Adam.
        seed: Seed of the order of the rows, the augmentation, and the noise of a model without a seed, such as a loaded
            one.

    Raises:
        ValueError: If a number is out of range, not exactly one of `fraction` and `below` is given, or the criterion is
            unknown.
    """

    fraction: float | None = None
    by: Criterion = "signal_to_noise"
    scope: Literal["global", "layer"] = "global"
    below: float | None = None
    units: bool = False
    layers: Sequence[str] | None = None
    epochs: int = 0
    rounds: int = 1
    epochs_between: int = 1
    learning_rate: float = LEARNING_RATE
    seed: int = 0

    def __post_init__(self) -> None:
        for name in PruningRecipe.model_fields:
            object.__setattr__(self, name, check_field(PruningRecipe, name, getattr(self, name)))
        HowMany.of(self.fraction, self.below)
        if self.rounds > 1 and not self.epochs:
            raise ValueError("Several rounds need training after the last one: give the number of `epochs`.")
        if self.rounds > 1 and self.fraction is None:
            raise ValueError("Rounds are steps to a `fraction`: with `below` there is one.")
        layers = [self.layers] if isinstance(self.layers, str) else self.layers
        object.__setattr__(self, "layers", None if layers is None else list(layers))
        object.__setattr__(self, "by", name_of(self.by))

    @property
    def what(self) -> dict[str, Any]:
        """The arguments of `zoo.prune`."""
        return {name: getattr(self, name) for name in ("fraction", "by", "scope", "below", "units", "layers")}

    @property
    def steps(self) -> list[Settings]:
        """The settings of each round, with the same share of what is left to remove."""
        if self.fraction is None or self.rounds == 1:
            return [self]
        shares = [1 - (1 - self.fraction) ** (number / self.rounds) for number in range(1, self.rounds)]
        return [replace(self, fraction=share) for share in [*shares, self.fraction]]

    def described(self) -> dict[str, Any]:
        """All settings by name, for the card of the model."""
        return asdict(self)


def settings_of(how: Settings | float | None, settings: dict[str, Any]) -> Settings:
    """Returns settings that are given as an object, or as the share to remove with further fields by name.

    Raises:
        TypeError: If there is no such field, or both are given.
        ValueError: As in `Settings`.
    """
    if isinstance(how, Settings):
        if settings:
            raise TypeError(f"Give either `Settings` or its fields, but got both: {', '.join(settings)}.")
        return how
    known = [field.name for field in fields(Settings)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise TypeError(f"The settings of a pruning have no {unknown[0]!r}. Expected some of: {', '.join(known)}.")
    return Settings(**settings) if how is None else Settings(how, **settings)
