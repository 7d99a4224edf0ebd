"""Schema of recipes: everything that determines a training, in one file."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from tfp_bnn.core.registry import SpecRegistry
from tfp_bnn.inference.ensemble import MOST_MEMBERS
from tfp_bnn.likelihoods import LIKELIHOODS
from tfp_bnn.posteriors import POSTERIORS
from tfp_bnn.priors import PRIORS
from tfp_bnn.variational import OBJECTIVES
from zoo.architectures import ARCHITECTURES
from zoo.core.names import check_name
from zoo.core.validation import Plain, Strict
from zoo.datasets import check_dataset_name
from zoo.recipes.comparison import ComparisonRecipe
from zoo.recipes.inference import (
    OF_ALL_DATA,
    OF_BAYES,
    SETTINGS_OF_WAYS,
    FullBatchRecipe,
    HmcRecipe,
    LaplaceRecipe,
    NutsRecipe,
    SgldRecipe,
    SwagRecipe,
)

Way = Literal[
    "variational",
    "map",
    "mc_dropout",
    "ensemble",
    "maximum_likelihood",
    "vbll",
    "swag",
    "laplace",
    "full_rank",
    "mean_field",
    "hmc",
    "nuts",
    "sgld",
]
"""Inference methods of recipes."""

NATURAL_GRADIENT = "natural_gradient"
NATURAL_LEARNING_RATE = 0.02
"""Default rate of the means under the natural gradient, that of `tfp_bnn.NaturalGradient`."""

_LEFT_OUT = Field(default=None, exclude_if=lambda value: value is None)

RecipeName = Annotated[str, AfterValidator(check_name)]
DatasetName = Annotated[str, AfterValidator(check_dataset_name)]


class OfSpecs(Plain):
    """Base class of recipes. Priors, posteriors and likelihoods that are objects become their configs."""

    @staticmethod
    def _config_of(value: Any) -> Any:
        registries: tuple[SpecRegistry[Any], ...] = (PRIORS, POSTERIORS, LIKELIHOODS)
        for registry in registries:
            with contextlib.suppress(TypeError):
                spec = registry.get(value)
                return {"name": registry.name_of(spec), **spec.get_config()}
        return value


class NaturalGradientRecipe(Strict):
    """Settings that only natural-gradient variational inference has; see `tfp_bnn.NaturalGradient`.

    Attributes:
        curvature_rate: Fraction of a Newton step for the precisions; constant.
        momentum: Decay of the averaged gradient of the means.
        temperature: Temperature of a cold posterior, with the prior cooled too. `beta` of the recipe is the other kind.
        companion_learning_rate: Rate of Adam for all weights without a distribution, with the decay of the optimizer.
        initial_precision: Curvature P = h + delta at the start, which gives all posteriors the initial scale
            sqrt(beta * temperature / (N P)). None for the `initial_scale` in `model`.
    """

    curvature_rate: Annotated[float, Field(strict=True, ge=0, le=1)] = 2e-3
    momentum: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.9
    temperature: Annotated[float, Field(strict=True, gt=0)] = 1.0
    companion_learning_rate: Annotated[float, Field(strict=True, gt=0, le=10)] = 1e-3
    initial_precision: Annotated[float, Field(strict=True, gt=0)] | None = _LEFT_OUT


class OptimizerRecipe(Strict):
    """Optimizer settings of a recipe.

    Attributes:
        name: Name of a Keras optimizer.
        learning_rate: Initial learning rate. Default: 1e-3, and 0.02 for `natural_gradient`.
        decay: `"cosine"` for decay to zero over the whole training, or None.
        learning_rate_warmup: Fraction of the steps over which the rate first rises from 0, before it decays.
        clipnorm: Maximum norm of each gradient, or None.
        momentum: Nesterov momentum of `sgd`; None for the other optimizers, and for none.
        natural_gradient: Further settings of `natural_gradient`. Default: those of `NaturalGradientRecipe`, and None
            for other optimizers.
    """

    name: Literal["adam", "adamw", "nadam", "sgd", "natural_gradient"] = "adam"
    learning_rate: Annotated[float, Field(strict=True, gt=0, le=10)] = 1e-3
    decay: Literal["cosine"] | None = "cosine"
    clipnorm: Annotated[float, Field(strict=True, gt=0)] | None = None
    # Left out where they are not used: such recipes are written as before there were these.
    learning_rate_warmup: Annotated[float, Field(strict=True, ge=0, lt=1)] = Field(
        default=0.0, exclude_if=lambda value: not value
    )
    momentum: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = _LEFT_OUT
    natural_gradient: NaturalGradientRecipe | None = _LEFT_OUT

    @model_validator(mode="before")
    @classmethod
    def _settings_of_the_natural_gradient(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("learning_rate_warmup") and not values.get("decay", "cosine"):
            raise ValueError("learning_rate_warmup is for decay: cosine only. Remove it")
        if values.get("momentum") is not None and values.get("name") != "sgd":
            raise ValueError("momentum is for name: sgd only. Remove it")
        if values.get("name") != "natural_gradient":
            if values.get("natural_gradient") is not None:
                raise ValueError("natural_gradient is for name: natural_gradient only. Remove it")
            return values
        if values.get("clipnorm") is not None:
            raise ValueError("clipped gradients have the wrong curvature. Remove clipnorm, or use another optimizer")
        # Its rate is a fraction of a Newton step, which is another unit than that of the other optimizers.
        return {
            "learning_rate": NATURAL_LEARNING_RATE,
            **values,
            "natural_gradient": values.get("natural_gradient") or {},
        }


class DeterministicStartRecipe(Strict):
    """Training of the means alone, before that of the posterior; see `zoo.training.starting`.

    Attributes:
        epochs: Number of passes over the training split, in addition to the epochs of the recipe.
        optimizer: Optimizer settings of these epochs.
        model: Name of the pretrained model that these epochs gave, so that they need not be run again; None to run
            them.
    """

    epochs: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 5
    optimizer: OptimizerRecipe = OptimizerRecipe()
    model: RecipeName | None = _LEFT_OUT

    @field_validator("optimizer")
    @classmethod
    def _of_points(cls, value: OptimizerRecipe) -> OptimizerRecipe:
        if value.natural_gradient is not None:
            raise ValueError("a deterministic start has no posterior for natural_gradient. Use another optimizer")
        return value


class AugmentationRecipe(Strict):
    """Random augmentation of training images, different in each epoch; see `zoo.training.augmentation`.

    Attributes:
        shift: Maximum shift along each axis, in whole pixels.
        flip: Whether to mirror images horizontally with probability 0.5.
        crop: Minimum side of a random window that is resized to the whole image, as a fraction of the image. 1 for
            none.
        rotation: Maximum rotation in either direction, in degrees.
    """

    shift: Annotated[int, Field(strict=True, ge=0, le=1024)] = 0
    flip: Annotated[bool, Field(strict=True)] = False
    crop: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0
    rotation: Annotated[float, Field(strict=True, ge=0, le=180)] = 0.0


class ConformalRecipe(Strict):
    """Conformal prediction of a recipe; see `tfp_bnn.conformalize`.

    Attributes:
        level: Probability that a set or an interval contains the target of a new example.
        by_class: Whether that holds within each class.
    """

    level: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.9
    by_class: Annotated[bool, Field(strict=True)] = False


class EvaluationRecipe(Strict):
    """Evaluation settings for the published numbers.

    Attributes:
        num_samples: Number of Monte Carlo samples of the weights.
        seed: Seed of the samples.
        spread_seeds: Additional training seeds for the spread of the numbers.
        out_of_distribution: Name of another dataset with the same input shape, or `"uniform"` for noise, uniform over
            the range of the training inputs.
    """

    num_samples: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 50
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 0
    spread_seeds: tuple[Annotated[int, Field(strict=True, ge=0, lt=2**31)], ...] = (1, 2)
    out_of_distribution: str = "uniform"


class Recipe(OfSpecs):
    """Recipe of a training, from the data to the published numbers.

    Attributes:
        name: Name of the resulting model, `<architecture>.<tag>`.
        architecture: Registered architecture.
        dataset: Registered dataset, or None if the data are passed to `zoo.train`.
        model: Arguments of the architecture. `input_shape` and `num_outputs` come from the dataset.
        inference: Inference method, one of `tfp_bnn.inference.WAYS`: `"variational"`; `"map"`, the most probable
            weights; `"mc_dropout"`, which needs a `dropout` in `model`; `"ensemble"`, of MAP estimates unless `model`
            has a `kernel_posterior`; `"maximum_likelihood"`; `"vbll"`; `"swag"` and `"laplace"`, which start from a MAP
            estimate; or `"full_rank"`, `"mean_field"`, `"hmc"`, `"nuts"` and `"sgld"`, which have no epochs and no
            optimizer. `"natural_gradient"` is short for `"variational"` with the optimizer of that name.
        deterministic_start: Epochs in which only the means are trained, as a maximum a posteriori estimate, before the
            posterior is; None for none. For `"variational"` only.
        members: Number of members of an ensemble, 3 by default. None for the other methods.
        swag: Settings of `inference: swag`; None for the other methods. So are the next six.
        laplace: Settings of `inference: laplace`.
        full_rank: Settings of `inference: full_rank`.
        mean_field: Settings of `inference: mean_field`.
        hmc: Settings of `inference: hmc`.
        nuts: Settings of `inference: nuts`.
        sgld: Settings of `inference: sgld`.
        standardize_inputs: Whether the model standardizes each input column by its mean and variance on the training
            split.
        standardize_targets: Whether regression targets are standardized in the same way.
        augmentation: Augmentation of the training images, or None.
        optimizer: Optimizer settings.
        batch_size: Examples per step.
        epochs: Number of passes over the training split.
        warmup: Fraction of the steps over which beta rises from 0 to `beta`. Default: 0.2, and 0 for the natural
            gradient, which cannot have one.
        beta: Final weight of the KL. 1 is the ELBO.
        objective: `"elbo"`, `"pac_m"` or `"importance_weighted"`; see `tfp_bnn.objectives`.
        num_draws: Number of independent draws of all weights and masks in each training step.
        calibration: `"temperature"` (classification) or `"scale"` (regression), fitted to the validation split after
            training, or None.
        conformal: Conformal prediction, fitted to the validation split after the calibration, or None. With both, each
            is fitted to a random half of the split.
        seed: Seed of initial weights, shuffling, augmentation and noise.
        evaluation: Settings of the evaluation.
        comparison: How `tfp-bnn compare` tunes the baselines; None for the defaults.
        notes: Note for the card.
        overrides: Changes for one run, by dotted key; see `change_recipe`.
    """

    name: RecipeName
    architecture: str
    dataset: DatasetName | None = None
    model: dict[str, Any] = Field(default_factory=dict)
    inference: Way = "variational"
    # Left out where they are None, as in recipes from before there were these methods.
    deterministic_start: DeterministicStartRecipe | None = _LEFT_OUT
    members: Annotated[int, Field(strict=True, ge=1, le=MOST_MEMBERS)] | None = None
    swag: SwagRecipe | None = _LEFT_OUT
    laplace: LaplaceRecipe | None = _LEFT_OUT
    full_rank: FullBatchRecipe | None = _LEFT_OUT
    mean_field: FullBatchRecipe | None = _LEFT_OUT
    hmc: HmcRecipe | None = _LEFT_OUT
    nuts: NutsRecipe | None = _LEFT_OUT
    sgld: SgldRecipe | None = _LEFT_OUT
    standardize_inputs: bool = False
    standardize_targets: bool = False
    augmentation: AugmentationRecipe | None = None
    optimizer: OptimizerRecipe = OptimizerRecipe()
    batch_size: Annotated[int, Field(strict=True, ge=1, le=65536)] = 64
    epochs: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 100
    warmup: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.2
    beta: Annotated[float, Field(strict=True, ge=0, le=10)] = 1.0
    objective: str = "elbo"
    num_draws: Annotated[int, Field(strict=True, ge=1, le=1000)] = 1
    calibration: Literal["temperature", "scale"] | None = None
    conformal: ConformalRecipe | None = _LEFT_OUT
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 0
    evaluation: EvaluationRecipe = EvaluationRecipe()
    comparison: ComparisonRecipe | None = _LEFT_OUT
    notes: str = ""
    overrides: dict[str, Any] = Field(default_factory=dict)

    @field_validator("architecture")
    @classmethod
    def _known_architecture(cls, value: str) -> str:
        return ARCHITECTURES[value].name

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, value: str) -> str:
        OBJECTIVES.get(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _short_for_the_natural_gradient(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        optimizer = values.get("optimizer")
        if values.get("inference") == NATURAL_GRADIENT:
            given = optimizer if isinstance(optimizer, dict) else {}
            if given.get("name", NATURAL_GRADIENT) != NATURAL_GRADIENT:
                # Rates, decay and warm-up of another optimizer would be taken over without a word.
                raise ValueError(
                    f"inference: natural_gradient, but the optimizer is {given['name']!r}. Set optimizer: {{name: "
                    "natural_gradient} and warmup: 0"
                )
            optimizer = {**given, "name": NATURAL_GRADIENT}
            values = {**values, "inference": "variational", "optimizer": optimizer}
        if isinstance(optimizer, dict) and optimizer.get("name") == NATURAL_GRADIENT:
            return {"warmup": 0.0, **values}
        return values

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

    @model_validator(mode="before")
    @classmethod
    def _settings_of_the_way(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for way in SETTINGS_OF_WAYS:
            if values.get("inference") == way:
                values = {**values, way: values.get(way) or {}}
            elif values.get(way) is not None:
                raise ValueError(f"{way} is for inference: {way} only. Remove it, or set it to null")
        return values

    @model_validator(mode="after")
    def _start_of_a_posterior(self) -> Recipe:
        if self.deterministic_start is not None and self.inference != "variational":
            raise ValueError(
                f"deterministic_start is for inference: variational only, but inference is {self.inference}. Remove it"
            )
        return self

    @model_validator(mode="after")
    def _posterior_of_bayes(self) -> Recipe:
        if self.inference in OF_BAYES and self.beta != 1:
            raise ValueError(f"inference: {self.inference} is for beta: 1, but beta is {self.beta:g}")
        if self.inference in OF_ALL_DATA and self.augmentation is not None:
            raise ValueError(
                f"inference: {self.inference} is for the posterior of the data as they are. Remove augmentation"
            )
        if self.inference == "vbll" and (self.objective, self.num_draws) != ("elbo", 1):
            raise ValueError("inference: vbll has a bound without draws. Remove objective and num_draws")
        return self

    @model_validator(mode="after")
    def _natural_gradient_has_posteriors(self) -> Recipe:
        if self.optimizer.name == "natural_gradient":
            if self.inference != "variational":
                raise ValueError(f"inference: {self.inference} has no posterior for optimizer: natural_gradient")
            if self.warmup > 0 or self.beta == 0:
                raise ValueError(
                    f"optimizer: natural_gradient divides by beta, but with warmup: {self.warmup:g} and beta: "
                    f"{self.beta:g} it is 0 at first. Set warmup: 0 and a beta above 0"
                )
            how = self.optimizer.natural_gradient
            if how is not None and how.initial_precision is not None and "initial_scale" in self.model:
                raise ValueError("initial_precision and model.initial_scale are two of one thing. Remove one")
        return self
