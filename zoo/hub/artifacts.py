"""Artifacts: a folder with a weight distribution and all it takes to trust it, rebuild it and measure it again.

    config.json            architecture, its config, the way to the posterior, N, what the data are, the calibration
    weights.safetensors    the weight distributions, in natural units; of an ensemble those of all members
    recipe.yaml            how it was trained
    log.csv                the training, epoch by epoch
    metrics.json           what was measured, with the number of samples and the seed
    golden.safetensors     a few inputs and the predictive mean for them
    README.md              the model card, made from the others
    manifest.json          length and SHA-256 of all of them

Loading runs no code from the folder: the network is rebuilt by the registry from a bounded config.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt
import safetensors.numpy

from tfp_bnn.calibration import CALIBRATIONS
from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.inference import Ensemble, members_of
from tfp_bnn.models.weight_record import WeightRecord
from zoo.architectures import ARCHITECTURES, Architecture, ArchitectureConfig
from zoo.architectures.base import BuiltFrom
from zoo.core.files import written_whole
from zoo.core.names import check_name
from zoo.core.validation import validate
from zoo.hub.cards import model_card
from zoo.hub.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    bundled_models,
    describe_files,
    locate,
    parse_json,
    read_verified,
    require,
    saved_models_folder,
    to_json,
)
from zoo.hub.members import (
    ZooModel,
    arrays_of,
    check_way,
    count_all_weights,
    inference_config,
    number_of_members,
    records_of,
    split_records,
)
from zoo.hub.reading import parse_tensors
from zoo.recipes import FineTuneRecipe, Recipe, recipe_text

LOG_NAME = "log.csv"
GOLDEN_SAMPLES = 16
GOLDEN_SEED = 0


class Run(Protocol):
    """What is saved of a training: `zoo.train` and `zoo.fine_tune` give it."""

    @property
    def model(self) -> ZooModel:
        """The trained model."""

    @property
    def recipe(self) -> Recipe | FineTuneRecipe | None:
        """How it was trained."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What was measured; may be empty."""

    @property
    def about(self) -> Mapping[str, Any]:
        """What the data are."""

    @property
    def golden_inputs(self) -> npt.NDArray[Any] | None:
        """A few inputs."""

    @property
    def log(self) -> str:
        """The training as CSV; may be empty."""


def save_artifact(
    model: ZooModel | Run,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    recipe: Recipe | FineTuneRecipe | None = None,
    metrics: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    golden_inputs: npt.NDArray[Any] | None = None,
    log: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes an artifact, whole or not at all.

    When an artifact is replaced, a process killed at the wrong moment leaves the old one under a hidden name beside it.

    Args:
        model: A model made by `zoo.create_model`, `zoo.train` or `zoo.load_model`, or a `tfp_bnn.inference.ensemble`
            of such models; or what `zoo.train` or
            `zoo.fine_tune` gave, which has everything below but the name. What is passed here comes first.
        path: the folder to make.
        name: of the model in the card; by default that of the recipe, or of the folder.
        recipe: how it was trained.
        metrics: what was measured, as in `TrainingRun.metrics`.
        data: what the data are: `dataset`, `task`, `class_names`, `feature_names`.
        golden_inputs: a few raw inputs; by default four of `some_inputs` of the config, uniform noise as a rule.
        log: of the training, as CSV: a row for each epoch.
        overwrite: whether an existing artifact may be replaced.

    Returns:
        The folder.

    Raises:
        ValueError: for a model that is not of the zoo, or a folder that exists and may not be replaced.
    """
    if not isinstance(model, ZooModel) and hasattr(model, "golden_inputs"):
        run = model
        recipe, log = recipe or run.recipe, log or run.log or None
        metrics, data = metrics or run.metrics or None, data or run.about
        golden_inputs = run.golden_inputs if golden_inputs is None else golden_inputs
        model = run.model
    built = _built_from(model)
    if not isinstance(model, ZooModel) or built is None:
        named = f" {model.name!r}" if isinstance(model, ZooModel) else ""
        raise ValueError(
            "Only models made by zoo.create_model, zoo.train or zoo.load_model can be saved as artifacts, because an "
            f"artifact is rebuilt from the registry. Got {type(model).__name__}{named}; use model.save('x.keras') for "
            "it."
        )
    target = check_target(path, overwrite)
    if metrics is not None and not {"test", "num_examples", "num_samples", "seed"} <= set(metrics):
        raise ValueError(
            f"`metrics` has the keys {sorted(metrics)}; expected those of TrainingRun.metrics, at least 'test' (a "
            "mapping of names and numbers), 'num_examples', 'num_samples' and 'seed'."
        )
    name = name or (recipe.name if recipe else target.name)
    with written_whole(target) as working:
        _write_files(working, model, built, name, recipe, dict(metrics or {}), dict(data or {}), golden_inputs, log)
    return target


def check_target(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """The folder that an artifact is to be written to.

    Raises:
        ValueError: when it exists and may not be replaced; a folder that is no artifact never may.
    """
    target = Path(path).absolute()
    is_artifact = (target / MANIFEST_NAME).is_file()
    if target.exists() and not (overwrite and is_artifact):
        hint = (
            "Pass overwrite=True (on the command line: --overwrite) to replace it"
            if is_artifact
            else "It is not an artifact; choose another folder"
        )
        raise ValueError(f"The folder {str(target)!r} exists. {hint}.")
    return target


def load_artifact(path: str | os.PathLike[str], trust: bool = False) -> ZooModel:
    """Loads a model from a folder.

    The manifest in the folder shows that the files are whole, not who wrote them; `trust=True` says that you know where
    they come from. No code from the folder is run either way.

    Args:
        path: of the folder.
        trust: must be True.

    Returns:
        The model, ready to predict on raw inputs. `model.card` maps `config`, `metrics` and `text` to what the artifact
        says of it; `model.class_names` has a name for each class, or is None.

    Raises:
        ValueError: without `trust`, or when any file is missing, changed or malformed.
    """
    folder = Path(path)
    if trust is not True:
        raise ValueError(
            f"{str(folder)!r} is a folder outside of the package. If you know where it comes from, load it with "
            "load_artifact(path, trust=True); a bundled model is loaded by its name with load_model."
        )
    if not folder.is_dir():
        raise ValueError(f"There is no folder {str(folder)!r}. Expected a folder written by save_artifact.")
    return _load(*locate(folder))


def load_model(name: str) -> ZooModel:
    """Loads a bundled pretrained model.

    Its files are checked against the hashes in the package before anything is parsed.

    Args:
        name: of `list_models(pretrained=True)`, such as `"lenet5_flipout.digits"`.

    Returns:
        The model, ready to predict on raw inputs; compile it to train it. `model.card` and `model.class_names` are
        those of `load_artifact`.

    Raises:
        ValueError: for an unknown name (names the nearest), a path, or a file that is not the published one.

    Example:
        >>> import numpy as np, zoo
        >>> model = zoo.load_model("mlp_flipout.iris")
        >>> model.posterior_predictive(np.array([[5.1, 3.5, 1.4, 0.2]]), num_samples=20).mean().argmax()
        np.int64(0)
        >>> model.class_names, model.card["metrics"]["num_examples"]
        (('setosa', 'versicolor', 'virginica'), 30)
    """
    models = bundled_models()
    if check_name(name) not in models:
        if name in ARCHITECTURES:
            tags = ", ".join(known for known in models if known.startswith(f"{name}.")) or "none"
            raise ValueError(
                f"{name!r} is an architecture without weights. Pretrained: {tags}. For fresh weights use create_model."
            )
        raise ValueError(unknown_name_message("pretrained model", name, models))
    return _load(saved_models_folder() / name, models[name])


def open_model(name_or_path: str | os.PathLike[str], trust: bool = False) -> ZooModel:
    """Loads a bundled model by its name, or an artifact by its folder; see `load_model` and `load_artifact`."""
    if str(name_or_path) not in bundled_models() and Path(name_or_path).is_dir():
        return load_artifact(name_or_path, trust)
    return load_model(str(name_or_path))


def _write_files(
    folder: Path,
    model: ZooModel,
    built: BuiltFrom,
    name: str,
    recipe: Recipe | FineTuneRecipe | None,
    metrics: dict[str, Any],
    data: dict[str, Any],
    golden_inputs: npt.NDArray[Any] | None,
    log: str | None,
) -> None:
    records = records_of(model)
    config = {
        "schema": SCHEMA_VERSION,
        "name": name,
        "architecture": built.name,
        "config": built.config.model_dump(mode="json"),
        **inference_config(model),
        "num_examples": model.num_examples,
        "num_weights": count_all_weights(model),
        "data": data,
        "calibration": _calibration_config(model),
    }
    if golden_inputs is None:
        golden_inputs = built.config.some_inputs(4)
    golden = np.asarray(golden_inputs, np.float32)
    mean = model.posterior_predictive(golden, num_samples=GOLDEN_SAMPLES, seed=GOLDEN_SEED).mean()
    (folder / "config.json").write_text(to_json(config), "utf-8")
    (folder / "metrics.json").write_text(to_json(metrics), "utf-8")
    (folder / "recipe.yaml").write_text(recipe_text(recipe) if recipe else "", "utf-8")
    if log is not None:
        (folder / LOG_NAME).write_text(log, "utf-8")
    safetensors.numpy.save_file(
        {
            key: np.array(value, order="C")
            for key, value in sorted(arrays_of(records, isinstance(model, Ensemble)).items())
        },
        folder / "weights.safetensors",
    )
    safetensors.numpy.save_file({"inputs": golden, "mean": mean}, folder / "golden.safetensors")
    (folder / "README.md").write_text(
        model_card(config, metrics, recipe_text(recipe) if recipe else "", *records), "utf-8"
    )
    manifest = {
        "schema": SCHEMA_VERSION,
        "architecture": built.name,
        "dataset": data.get("dataset"),
        "task": data.get("task"),
        "num_weights": config["num_weights"],
        "metrics": metrics.get("test", {}),
        "files": describe_files(folder),
    }
    (folder / MANIFEST_NAME).write_text(to_json(manifest), "utf-8")


def _load(folder: Path, entry: Any) -> ZooModel:
    if not isinstance(entry, dict):
        raise ValueError(f"The manifest of {str(folder)!r} holds {type(entry).__name__}; a mapping was expected.")
    files = read_verified(folder, entry)
    config = parse_json(require(files, "config.json", folder), f"{folder / 'config.json'}")
    if (
        not isinstance(config, dict)
        or not isinstance(config.get("config"), dict)
        or config.get("schema") != SCHEMA_VERSION
    ):
        raise ValueError(f"{folder / 'config.json'} is not the config of an artifact of schema {SCHEMA_VERSION}.")
    architecture = ARCHITECTURES[config.get("architecture")]  # type: ignore[index]
    settings = validate(architecture.config, config["config"], f"{folder / 'config.json'}")
    weights = folder / "weights.safetensors"
    num_members = number_of_members(config, f"{folder / 'config.json'}")
    arrays = parse_tensors(require(files, weights.name, folder), str(weights))
    try:
        records = split_records(arrays, num_members)
        _check_number_of_weights(folder, architecture, settings, records, entry)
        members = [architecture.build(settings) for _ in records]
        for member, record in zip(members, records, strict=True):
            record.assign_to(member)
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from None
    for member in members:
        if isinstance(config.get("num_examples"), int):
            member.num_examples = config["num_examples"]
    model = members[0] if num_members is None else Ensemble(members, name=architecture.name)
    check_way(model, config, f"{folder / 'config.json'}")
    _set_calibration(model, config.get("calibration"), f"{folder / 'config.json'}")
    _tell_of_card(model, config, files, folder)
    return model


def _built_from(model: Any) -> BuiltFrom | None:
    """How the model, or each member of an ensemble, can be built again; None where it cannot."""
    found = [getattr(member, "architecture", None) for member in members_of(model)]
    return found[0] if found and isinstance(found[0], BuiltFrom) and found == found[:1] * len(found) else None


def _tell_of_card(model: Any, config: Mapping[str, Any], files: Mapping[str, bytes], folder: Path) -> None:
    """Lets the model know its card: `model.card` and `model.class_names`."""
    metrics = parse_json(require(files, "metrics.json", folder), str(folder / "metrics.json"))
    text = require(files, "README.md", folder).decode("utf-8", errors="replace")
    # Keras would track a plain dictionary.
    card = MappingProxyType({"config": config, "metrics": metrics, "text": text})
    data = config.get("data")
    names = data.get("class_names") if isinstance(data, dict) else None
    model.card = card
    model.class_names = tuple(map(str, names)) if isinstance(names, list) else None


def _calibration_config(model: ZooModel) -> dict[str, Any] | None:
    calibration = model.calibration
    return None if calibration is None else {"name": CALIBRATIONS.name_of(calibration), **calibration.get_config()}


def _set_calibration(model: ZooModel, value: Any, what: str) -> None:
    """Only what `_calibration_config` writes is taken: neither a bare name nor a config of Keras."""
    if value is None:
        return
    try:
        if isinstance(value, dict) and "class_name" not in value:
            model.calibration = value
        if _calibration_config(model) != value:
            raise ValueError("expected null, or a mapping of 'name' and the number of that calibration")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: 'calibration' got {value!r}: {error}") from None


def _check_number_of_weights(
    folder: Path,
    architecture: Architecture,
    settings: ArchitectureConfig,
    records: list[WeightRecord],
    entry: Any,
) -> None:
    """Before any memory is taken: the tensors, the config and the manifest must be about the same network."""
    stored = sum(record.num_weights for record in records)
    if stored != entry.get("num_weights"):
        raise ValueError(
            f"{str(folder)!r} holds {stored} weights, but its manifest says {entry.get('num_weights')}. "
            "Restore the folder."
        )
    with keras.StatelessScope(initialize_variables=False):
        model = architecture.build(settings)
        shapes = [weight.shape for weight in [*model.trainable_variables, *model.network.non_trainable_weights]]
    needed = sum(math.prod(shape) for shape in shapes)
    for record in records:
        if needed != record.num_parameters:
            raise ValueError(
                f"{folder / 'config.json'} describes a network of {needed} parameters, but "
                f"{folder / 'weights.safetensors'} holds {record.num_parameters}. Restore the folder."
            )
