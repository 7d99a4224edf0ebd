"""Settings of a fine-tuning, checked before anything is trained."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import keras
import numpy as np

from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.priors import PRIORS, Prior
from tfp_bnn.transfer.informed_priors import require_bayesian_layers
from tfp_bnn.transfer.tuning import HEAD_SCALES, INFLATES
from zoo.architectures.base import BuiltFrom
from zoo.core.validation import check_field
from zoo.datasets import Dataset, Split, load_dataset
from zoo.hub.loading import open_model
from zoo.recipes import FineTuneRecipe, StartFromRecipe
from zoo.training.adaptation import Head
from zoo.training.user_data import read_rows

DEFAULT, POSTERIOR, AUTO = "default", "posterior", "auto"

_LEAST_STEPS, _PASSES = 300, 10
_BATCH_SIZES = ((500, 16), (5000, 32))
_LARGE_BATCH = 128


@dataclass(frozen=True)
class Settings:
    """Arguments of `fine_tune` that determine the weights.

    Attributes:
        prior: `"posterior"`, `"default"`, or name, config or object of a prior.
        inflate: Number, or `"auto"`.
        head_scale: Number, or `"auto"`.
        mix: Share of the broad component, or None.
        freeze: Names of layers that are not trained.
        head: `"new"` or `"keep"`.
        adapt_inputs: Whether the model resizes and rescales its inputs.
        steps: Number of optimizer steps. None only before `checked`.
        batch_size: Rows per step. None only before `checked`.
        learning_rate: Initial learning rate of Adam.
        seed: Training seed.
    """

    prior: str | Mapping[str, Any] | Prior
    inflate: float | str
    head_scale: float | str
    mix: float | None
    freeze: Sequence[str]
    head: Head
    adapt_inputs: bool
    steps: int | None
    batch_size: int | None
    learning_rate: float
    seed: int

    @property
    def informed(self) -> bool:
        """Whether the posterior of the source becomes the prior."""
        return isinstance(self.prior, str) and self.prior == POSTERIOR

    @property
    def inflates(self) -> Sequence[float]:
        """Factors to choose from: a single one if it was given."""
        return _candidates("inflate", self.inflate, INFLATES)

    @property
    def head_scales(self) -> Sequence[float]:
        """Scales for the prior of a new head to choose from: a single one if it was given."""
        return _candidates("head_scale", self.head_scale, HEAD_SCALES)

    def checked(self, num_rows: int) -> Settings:
        """Returns validated settings, with numbers instead of None and a list of layers to freeze.

        Args:
            num_rows: Number of training rows.

        Raises:
            ValueError: For a number out of range, an unknown option, or a setting without effect.
        """
        _check_choice("head", self.head, get_args(Head))
        for name in ("inflates", "head_scales"):
            getattr(self, name)
        _check_prior(self.prior, self.mix)
        of_head = self.informed and self.head == "new"
        for name, value, of in (
            ("inflate", self.inflate, self.informed),
            ("head_scale", self.head_scale, of_head),
        ):
            if value != AUTO and not of:
                raise ValueError(
                    f"Got {name}={value!r} with prior={self.prior!r} and head={self.head!r}, where it has no effect."
                )
        for name in ("seed", "steps", "batch_size", "learning_rate"):
            check_field(FineTuneRecipe, name, getattr(self, name))
        usual = next((size for most, size in _BATCH_SIZES if num_rows <= most), _LARGE_BATCH)
        batch_size = int(self.batch_size or usual)
        return replace(
            self,
            seed=int(self.seed),
            steps=int(self.steps or max(_LEAST_STEPS, math.ceil(_PASSES * num_rows / batch_size))),
            batch_size=batch_size,
            learning_rate=float(self.learning_rate),
            freeze=[self.freeze] if isinstance(self.freeze, str) else list(self.freeze),
        )

    def kernel_prior(self, built: BuiltFrom) -> Any:
        """Returns the prior of the kernels of the target, as a name, a config or an object."""
        if self.informed:
            return {"name": "informed", "mix": float(self.mix or 0.0)}
        is_default = isinstance(self.prior, str) and self.prior == DEFAULT
        return built.config.kernel_prior if is_default else self.prior


def source_of(model: Any, trust: bool) -> Any:
    """Returns the model to start from, given as a name, a folder or the model itself.

    Raises:
        ArtifactError: For an unknown name, a folder without `trust`, or damaged files.
        ValueError: For a model that is not of the zoo.
        TypeError: For a model without Bayesian layers.
    """
    is_stored = isinstance(model, str | os.PathLike)
    if is_stored:
        model = open_model(model, trust)
    if not isinstance(getattr(model, "architecture", None), BuiltFrom):
        named = f" {model.name!r}" if isinstance(model, keras.Model) else ""
        raise ValueError(
            "Only models of the zoo can be fine-tuned here, by their name, their folder or as objects, because the "
            f"target is built by its registry. Got {type(model).__name__}{named}; use tfp_bnn.transfer.informed_prior "
            "or update for a model of your own."
        )
    if not is_stored:
        require_bayesian_layers(model)
    return model


def examples_of(dataset: Any) -> tuple[Dataset | None, Split]:
    """Returns the dataset (None for rows only) and the training rows.

    Args:
        dataset: Dataset, its name, a pair `(x, y)` of arrays, nested lists or pandas frames, or a `tf.data.Dataset`, a
            `PyDataset` or a generator of such batches.

    Raises:
        ValueError: For anything else, or an unknown name.
        DataMissingError: If the data are not on this machine.
    """
    if isinstance(dataset, str):
        dataset = load_dataset(dataset)
    if isinstance(dataset, Dataset):
        return dataset, dataset.train
    rows = read_rows(dataset, "dataset")
    if rows is None:
        raise ValueError(
            "Expected a dataset, its name, a pair of arrays (x, y), or a tf.data.Dataset, a PyDataset or a generator "
            f"of batches of them, but got {type(dataset).__name__}."
        )
    x, y = rows
    if not np.issubdtype(x.dtype, np.number):
        raise ValueError(f"`x` holds {x.dtype} values; numbers were expected.")
    return None, Split(x, y)


def _check_choice(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(unknown_name_message(name, value, known))


def _candidates(name: str, value: Any, choices: Sequence[float]) -> Sequence[float]:
    if isinstance(value, str):
        _check_choice(f"{name} (or a number)", value, [AUTO])
        return choices
    check_field(StartFromRecipe, name, value)
    return [float(value)]


def _check_prior(prior: Any, mix: float | None) -> None:
    check_field(StartFromRecipe, "mix", mix)
    if isinstance(prior, str) and prior not in (POSTERIOR, DEFAULT, *PRIORS):
        raise ValueError(unknown_name_message("prior", prior, [POSTERIOR, DEFAULT, *PRIORS]))
    if mix is not None and prior != POSTERIOR:
        raise ValueError(f"Got mix={mix!r} with prior={prior!r}; a mixture is made of the prior 'posterior' only.")
