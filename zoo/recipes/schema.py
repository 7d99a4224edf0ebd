"""The schema of recipes: all that a training depends on, in one file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from zoo.architectures import ARCHITECTURES
from zoo.core.names import check_name
from zoo.core.validation import Strict
from zoo.datasets import check_dataset_name


class OptimizerRecipe(Strict):
    """How the ELBO is maximized.

    Attributes:
        name: Of a Keras optimizer.
        learning_rate: At the start.
        decay: `"cosine"` to zero over the whole training, or None.
        clipnorm: Cap on the norm of each gradient, or None.
    """

    name: Literal["adam", "adamw", "nadam", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(strict=True, gt=0, le=10)] = 1e-3
    decay: Literal["cosine"] | None = "cosine"
    clipnorm: Annotated[float, Field(strict=True, gt=0)] | None = None


class AugmentationRecipe(Strict):
    """How training images are changed at random, anew in each epoch; see `zoo.training.augmentation`.

    Attributes:
        shift: At most this many pixels along each axis, whole ones.
        flip: Whether half of the images are mirrored left to right.
        crop: Smallest side of a random window, as a fraction of the image, that is resized to the whole; 1 for none.
        rotation: At most this many degrees either way.
    """

    shift: Annotated[int, Field(strict=True, ge=0, le=1024)] = 0
    flip: Annotated[bool, Field(strict=True)] = False
    crop: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0
    rotation: Annotated[float, Field(strict=True, ge=0, le=180)] = 0.0


class EvaluationRecipe(Strict):
    """How the published numbers are measured.

    Attributes:
        num_samples: Monte Carlo samples of the weights.
        seed: Of the samples.
        spread_seeds: Further training seeds, over which the spread of the numbers is reported.
        out_of_distribution: A dataset of the same input shape that the model was not trained for, or `"uniform"` for
            uniform noise over the range of the training inputs.
    """

    num_samples: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 50
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 0
    spread_seeds: tuple[Annotated[int, Field(strict=True, ge=0, lt=2**31)], ...] = (1, 2)
    out_of_distribution: str = "uniform"


class Recipe(Strict):
    """A training, from the data to the published numbers.

    Attributes:
        name: Of the model that it makes, `<architecture>.<tag>`.
        architecture: A registered architecture.
        dataset: A registered dataset; None where the data are passed to `zoo.train`.
        model: Arguments of the architecture; `input_shape` and `num_outputs` are those of the dataset.
        inference: The way to the posterior: `"variational"`; `"map"`, the most probable weights; `"mc_dropout"`, for
            which `model` has a `dropout`; or `"ensemble"`, of MAP estimates unless `model` has a `kernel_posterior`.
        members: The number of members of an ensemble, 3 by default; None for the other ways.
        standardize_inputs: Whether each input column is standardized by its moments on the training split, within the
            model.
        standardize_targets: Likewise for the targets of a regression.
        augmentation: Of the training images, or None.
        optimizer: See `OptimizerRecipe`.
        batch_size: Examples in a step.
        epochs: Passes over the training split.
        warmup: beta rises from 0 to `beta` over this fraction of the steps.
        beta: Final weight of the KL; 1 is the ELBO.
        calibration: `"temperature"` (classification) or `"scale"` (regression), fitted to the validation split after
            training, or None.
        seed: Of initial weights, shuffling, augmentation and noise.
        evaluation: See `EvaluationRecipe`.
        notes: A sentence for the card.
        overrides: What was changed for one run, by dotted key; see `change_recipe`.
    """

    name: str
    architecture: str
    dataset: str | None = None
    model: dict[str, Any] = Field(default_factory=dict)
    inference: Literal["variational", "map", "mc_dropout", "ensemble"] = "variational"
    members: Annotated[int, Field(strict=True, ge=1, le=100)] | None = None
    standardize_inputs: bool = False
    standardize_targets: bool = False
    augmentation: AugmentationRecipe | None = None
    optimizer: OptimizerRecipe = OptimizerRecipe()
    batch_size: Annotated[int, Field(strict=True, ge=1, le=65536)] = 64
    epochs: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 100
    warmup: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.2
    beta: Annotated[float, Field(strict=True, ge=0, le=10)] = 1.0
    calibration: Literal["temperature", "scale"] | None = None
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 0
    evaluation: EvaluationRecipe = EvaluationRecipe()
    notes: str = ""
    overrides: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _well_formed(cls, value: str) -> str:
        return check_name(value)

    @field_validator("architecture")
    @classmethod
    def _known_architecture(cls, value: str) -> str:
        return ARCHITECTURES[value].name

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, value: str | None) -> str | None:
        return None if value is None else check_dataset_name(value)

    @model_validator(mode="before")
    @classmethod
    def _members_of_an_ensemble(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("inference") == "ensemble":
            return {**values, "members": 3} if values.get("members") is None else values
        if values.get("members") is not None:
            raise ValueError("members is for inference: ensemble only. Remove it, or set it to null")
        return values
