"""Artifacts: a folder with a weight distribution and everything needed to verify, rebuild and evaluate it.

    config.json            architecture, its config, inference method, N, description of the data, calibration,
                           conformal prediction
    weights.safetensors    the weight distributions, in natural units; for an ensemble, those of all members
    posterior.safetensors  the posterior beside these weights, for SWAG, Laplace and Markov chains
    recipe.yaml            how it was trained
    log.csv                log of the training, one row per epoch
    metrics.json           measured numbers, with the number of samples and the seed
    golden.safetensors     a few inputs and their predictive mean
    reference.safetensors  predictions of Markov chains for the test split, of some models only
    README.md              the model card, made from the others
    manifest.json          length and SHA-256 of all files

Loading runs no code from the folder. The registry rebuilds the network from a bounded config.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import safetensors.numpy

import tfp_bnn
from tfp_bnn.calibration import CALIBRATIONS
from tfp_bnn.core.expected_inputs import any_inputs
from tfp_bnn.inference import members_of
from tfp_bnn.models.weight_record import WeightRecord
from tfp_bnn.predictive import CONFORMALS
from zoo.architectures import ARCHITECTURES
from zoo.architectures.base import BuiltFrom
from zoo.core.files import written_whole
from zoo.core.validation import validate
from zoo.hub.cards import model_card
from zoo.hub.manifest import (
    MANIFEST_NAME,
    MAX_FILE_BYTES,
    SCHEMA_VERSION,
    check_target,
    describe_files,
    to_json,
)
from zoo.hub.members import (
    ZooModel,
    arrays_of,
    count_all_weights,
    inference_config,
    number_of_members,
    own_arrays,
    records_of,
)
from zoo.hub.reading import check_header, parse_json_file
from zoo.hub.schemas import ArtifactConfig, DataDescription, Metrics
from zoo.recipes import FineTuneRecipe, Recipe, recipe_text

LOG_NAME = "log.csv"
POSTERIOR_NAME = "posterior.safetensors"
GOLDEN_ROWS = 4
GOLDEN_SAMPLES = 16
GOLDEN_SEED = 0
_WEIGHTS_NAME = "weights.safetensors"
_OWN_PACKAGE = __name__.partition(".")[0]


class Run(Protocol):
    """What `save_artifact` needs of a training run, as returned by `zoo.train` and `zoo.fine_tune`."""

    @property
    def model(self) -> ZooModel:
        """Trained model."""

    @property
    def recipe(self) -> Recipe | FineTuneRecipe | None:
        """Recipe of the training, or None."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Measured numbers for the card. May be empty."""

    @property
    def about(self) -> Mapping[str, Any]:
        """Description of the data."""

    @property
    def golden_inputs(self) -> npt.NDArray[Any] | None:
        """A few inputs for the golden outputs, or None."""

    @property
    def log(self) -> str:
        """Log of the training as CSV. May be empty."""


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
    license: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes an artifact, completely or not at all.

    Whenever the process is killed, the folder holds the old artifact or the new one, each whole. Only where the system
    cannot exchange two folders in one step, which Linux can, is there none between two renames; the old one is next to
    it then, under a hidden name that ends in `.old`.

    Args:
        model: Model made by `zoo.create_model`, `zoo.train` or `zoo.load_model`, or a result of `tfp_bnn.inference`
            whose networks are such models. Or the result of `zoo.train` or `zoo.fine_tune`, which includes everything
            below except the name. Arguments passed here take precedence.
        path: Folder to create.
        name: Name of the model on the card. Default: that of the recipe, or of the folder.
        recipe: Recipe of the training.
        metrics: Measured numbers, as in `TrainingRun.metrics`.
        data: Description of the data: `dataset`, `task`, `class_names`, `feature_names`, and `inputs`, the config of a
            `tfp_bnn.ExpectedInputs`, and `source`, `license`, `citation` and `target_units`. Default for `inputs`:
            `model.inputs_expected`.
        golden_inputs: A few raw inputs. Default: four from `some_inputs` of the config, usually uniform noise.
        log: Log of the training as CSV, one row per epoch.
        license: Licence of the model for the card, as an identifier of SPDX, such as `"Apache-2.0"`.
        overwrite: Whether to replace an existing artifact.

    Returns:
        The folder.

    Raises:
        ValueError: If the model is not from the zoo, its posterior is too large, its conformal prediction does not fit
            its outputs, `metrics`, `data` or `license` could not be loaded again, or the folder exists and must not be
            replaced.
        OSError: If the folder cannot be written. Nothing is left behind, and an existing artifact stays as it is.
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
        _write_files(
            working, model, built, name, recipe, dict(metrics or {}), dict(data or {}), golden_inputs, log, license
        )
    return target


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
    license: str | None,
) -> None:
    records, beside = records_of(model), own_arrays(model)
    if model.inputs_expected is not None:
        data.setdefault("inputs", model.inputs_expected.get_config())
    config = {
        "schema": SCHEMA_VERSION,
        "name": name,
        "architecture": built.name,
        "config": built.config.model_dump(mode="json"),
        **inference_config(model),
        "num_examples": model.num_examples,
        "num_weights": count_all_weights(model),
        "data": data,
        "calibration": calibration_config(model),
    }
    if model.conformal is not None:
        # What does not fit could not be loaded.
        model.conformal.check_outputs(model.likelihood, members_of(model)[0].output_shape[1:])
        config["conformal"] = {"name": CONFORMALS.name_of(model.conformal), **model.conformal.get_config()}
    if (package := ARCHITECTURES.package_of(built.name)) != _OWN_PACKAGE:
        config["package"] = package
    if license is not None:
        config["license"] = license
    config_text = to_json(config)
    # What does not fit could not be loaded.
    written = parse_json_file(config_text.encode("utf-8"), "What config.json would say")
    validate(ArtifactConfig, written, "The artifact")
    validate(ARCHITECTURES[built.name].config, written["config"], f"The architecture {built.name!r}")
    metrics_text = to_json(metrics)
    if metrics:
        validate(Metrics, parse_json_file(metrics_text.encode("utf-8"), "What `metrics` would say"), "`metrics`")
    if golden_inputs is None:
        golden_inputs = built.config.some_inputs(GOLDEN_ROWS)
    golden = np.asarray(golden_inputs, np.float32)
    with any_inputs():
        mean = model.posterior_predictive(golden, num_samples=GOLDEN_SAMPLES, seed=GOLDEN_SEED).mean()
    (folder / "config.json").write_text(config_text, "utf-8")
    (folder / "metrics.json").write_text(metrics_text, "utf-8")
    (folder / "recipe.yaml").write_text(recipe_text(recipe) if recipe else "", "utf-8")
    if log is not None:
        (folder / LOG_NAME).write_text(log, "utf-8")
    _write_tensors(folder / _WEIGHTS_NAME, arrays_of(records, number_of_members(config, name)))
    if beside:
        _write_tensors(folder / POSTERIOR_NAME, beside)
    _write_tensors(folder / "golden.safetensors", {"inputs": golden, "mean": mean})
    card = model_card(config, metrics, recipe_text(recipe) if recipe else "", *records)
    # Names of the user's files may be no text.
    (folder / "README.md").write_text(card.encode("utf-8", "backslashreplace").decode("utf-8"), "utf-8")
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


def _write_tensors(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    # Errors of `save_file` are no OSError.
    path.write_bytes(_tensors(path.name, arrays))


def _tensors(name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Returns arrays as a file of an artifact. A ValueError if it could not be loaded again."""
    data = safetensors.numpy.save({key: np.array(value, order="C") for key, value in sorted(arrays.items())})
    _require_small_file(name, len(data))
    check_header(data, f"{name} of the artifact")
    return data


def check_description(data: Mapping[str, Any]) -> None:
    """Refuses a description of data that does not fit into an artifact, before a model is trained on them.

    Args:
        data: As in `save_artifact`.

    Raises:
        ValueError: If `save_artifact` would refuse it, for example because a name has more than 200 characters.
    """
    what = "What the artifact would say of the data"
    validate(DataDescription, parse_json_file(to_json(data).encode("utf-8"), what), what)


def check_size(network: tfp_bnn.VariationalModel, members: int = 1) -> None:
    """Refuses a network whose weights are too large for an artifact, before it is trained.

    Args:
        network: Network, trained or not.
        members: Number of such networks in the artifact.

    Raises:
        ValueError: If `save_artifact` would refuse them.
    """
    record = WeightRecord.of(network)
    # First, because all members together may not fit into memory.
    _require_small_file(_WEIGHTS_NAME, members * sum(array.nbytes for array in arrays_of([record], None).values()))
    _tensors(_WEIGHTS_NAME, arrays_of([record] * members, members))


def _require_small_file(name: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise ValueError(
            f"{name} would have {size / 2**20:.1f} MiB, but a file of an artifact has at most "
            f"{MAX_FILE_BYTES / 2**20:.4g} MiB. Use a smaller network, make fewer layers Bayesian, or save the model "
            "with model.save('x.keras')."
        )


def _built_from(model: Any) -> BuiltFrom | None:
    """Returns how to rebuild the model, or each member of an ensemble, or None if that is impossible."""
    found = [getattr(member, "architecture", None) for member in members_of(model)]
    return found[0] if found and isinstance(found[0], BuiltFrom) and found == found[:1] * len(found) else None


def calibration_config(model: ZooModel) -> dict[str, Any] | None:
    """Returns the calibration of a model in the form of an artifact's config, or None."""
    calibration = model.calibration
    return None if calibration is None else {"name": CALIBRATIONS.name_of(calibration), **calibration.get_config()}
