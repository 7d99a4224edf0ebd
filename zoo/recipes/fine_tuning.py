"""Schema of recipes that start from a trained model: a fine-tuning in one file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from zoo.architectures.base import Spec
from zoo.core.validation import Strict
from zoo.recipes.schema import DatasetName, EvaluationRecipe, OfSpecs, RecipeName

_Positive = Annotated[float, Field(strict=True, gt=0)]
_Count = Annotated[int, Field(strict=True, ge=1, lt=2**32)]


class StartFromRecipe(Strict):
    """Source of a fine-tuning, and how its posterior becomes the prior; see `zoo.fine_tune`.

    Attributes:
        model: Name of a pretrained model, folder or address of an artifact, or None for a model without a name.
        prior: `"posterior"`, `"default"`, or name or config of a prior.
        inflate: Factor of the standard deviations of the posterior, or `"auto"`.
        head_scale: Standard deviation of the prior of a new head, or `"auto"`.
        mix: Share of a broad component of the prior, or None.
        freeze: Names of layers that are not trained.
        head: `"new"` or `"keep"`, for the last layer.
        adapt_inputs: Whether the model resizes and rescales images.
    """

    model: str | None
    prior: Spec = "posterior"
    inflate: _Positive | Literal["auto"] = "auto"
    head_scale: _Positive | Literal["auto"] = "auto"
    mix: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = None
    freeze: tuple[str, ...] = ()
    head: Literal["new", "keep"] = "new"
    adapt_inputs: Annotated[bool, Field(strict=True)] = False


class FineTuneRecipe(OfSpecs):
    """Recipe of a fine-tuning, from a trained model and data to the published numbers.

    Attributes:
        name: Name of the resulting model, `<architecture>.<tag>`.
        start_from: Model to start from; see `StartFromRecipe`.
        dataset: Registered dataset, of which the training split is used, or None if the data are passed to `zoo.train`.
        steps: Number of optimizer steps. None for 10 passes over the rows, but at least 300 steps.
        batch_size: Rows per step. None for 16 for up to 500 rows, 32 for up to 5,000, else 128.
        learning_rate: Initial learning rate of Adam. It decays to 0 along a cosine.
        seed: Determines the new head, the order of the rows, the noise and the folds.
        evaluation: Settings of the evaluation, without `spread_seeds`: only one seed is trained.
        notes: Note for the card.
        overrides: Changes for one run, by dotted key; see `change_recipe`.
    """

    name: RecipeName
    start_from: StartFromRecipe
    dataset: DatasetName | None = None
    steps: _Count | None = None
    batch_size: _Count | None = None
    learning_rate: _Positive = 4e-3
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 0
    evaluation: EvaluationRecipe = EvaluationRecipe(spread_seeds=())
    notes: str = ""
    overrides: dict[str, Any] = Field(default_factory=dict)

    @field_validator("evaluation", mode="before")
    @classmethod
    def _one_seed(cls, value: Any) -> Any:
        if isinstance(value, dict):
            value = {"spread_seeds": (), **value}
            if value["spread_seeds"]:
                raise ValueError("spread_seeds: a fine-tuning is trained for one seed. Leave them out.")
        return value
