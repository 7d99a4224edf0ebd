"""Loads models from artifacts: the files are verified, then the registry rebuilds the network."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfp_bnn.core.expected_inputs import ExpectedInputs
from tfp_bnn.core.library_state import without_allocation
from tfp_bnn.core.plugins import VARIABLE, load_plugins
from tfp_bnn.core.registry import unknown_name_message
from tfp_bnn.models.weight_record import WeightRecord
from zoo.architectures import ARCHITECTURES, Architecture, ArchitectureConfig
from zoo.core.names import check_name
from zoo.core.shown import printable, shown
from zoo.core.untrusted import artifact_errors
from zoo.core.validation import validate
from zoo.hub.artifacts import POSTERIOR_NAME, calibration_config
from zoo.hub.loaded_card import LoadedCard
from zoo.hub.locating import fetched, read_files
from zoo.hub.manifest import (
    bundled_models,
    read_verified,
    require,
    saved_models_folder,
)
from zoo.hub.members import (
    ZooModel,
    check_way,
    joined,
    number_of_members,
    split_records,
    way_in,
)
from zoo.hub.networks import build_network
from zoo.hub.reading import parse_tensors, read_texts
from zoo.hub.remote.addresses import Address, is_address, parse_address
from zoo.hub.remote.index import find_in_index


def load_artifact(
    path: str | os.PathLike[str], trust: bool = False, *, revision: str | None = None, sha256: str | None = None
) -> ZooModel:
    """Loads a model from a folder, or from the network.

    The manifest in the folder proves that the files are intact, not who wrote them. Pass `trust=True` to confirm that
    you know where they come from. No code from the folder is run in either case.

    From the network, `https://host/folder` is a folder with the files of an artifact, and `hf://user/name` a repository
    of the Hugging Face Hub, which needs `pip install 'tfp_bnn[hub]'`. They are kept in the folder of `TFP_BNN_CACHE`.

    Args:
        path: Folder of the artifact, or its address.
        trust: Must be True.
        revision: Branch, tag or commit of a repository. Default: its main branch. `hf://user/name@revision` says it in
            the address.
        sha256: SHA-256 that its `manifest.json` must have, and so all files theirs. Default: any. `#sha256=...` at the
            end says it in an address.

    Returns:
        The model, ready to predict on raw inputs. `model.card` is a mapping with the `config`, `metrics`, `recipe` and
        card `text` of the artifact; `print(model.card)` prints the text. `model.class_names` is a tuple with one name
        per class, or None.
        `model.inputs_expected` describes the training inputs; predictions for inputs far from them warn with
        `tfp_bnn.UnlikelyInputsWarning`.

    Raises:
        ArtifactError: Without `trust`, if a file is missing, changed or malformed, or if an address cannot be reached
            and is not in the cache. It is a `ValueError`.
        PluginError: If a plug-in fails to load.
    """
    load_plugins()
    with artifact_errors():
        if trust is not True:
            kind = "an address" if is_address(path) else "a folder"
            raise ValueError(
                f"{str(path)!r} is {kind} outside of the package. If you know where it comes from, load it with "
                "load_artifact(path, trust=True); a bundled model is loaded by its name with load_model."
            )
        # A folder can be pinned as an address can: to a hash, but to no revision.
        address = (parse_address(path) if is_address(path) else Address(str(path))).pinned(revision, sha256)
        folder = fetched(address) if is_address(path) else Path(path)
        if not folder.is_dir():
            raise ValueError(f"There is no folder {str(folder)!r}. Expected a folder written by save_artifact.")
        return _load(*read_files(folder, address.sha256))


def load_model(name: str, *, index: str | os.PathLike[str] | None = None, trust: bool = False) -> ZooModel:
    """Loads a pretrained model by its name: a bundled one, or one of an index.

    Its files are checked against the hashes in the package, or in the index, before anything is parsed.

    Args:
        name: Name from `list_models(pretrained=True)`, such as `"lenet5_flipout.digits"`.
        index: Path or address of an index file, by which others publish their models; see `zoo.write_index`.
        trust: With an index, must be True: confirms that you know who wrote it. Bundled models need no trust.

    Returns:
        The model, ready to predict on raw inputs. Compile it to train it. `model.card` and `model.class_names` are as
        in `load_artifact`.

    Raises:
        ArtifactError: For an unknown name (the message gives the nearest), a path, an index without `trust` or that
            cannot be read, or a file that is not the published one. It is a `ValueError`.
        PluginError: If a plug-in fails to load.

    Example:
        >>> import numpy as np, zoo
        >>> model = zoo.load_model("mlp_flipout.iris")
        >>> model.posterior_predictive(np.array([[5.1, 3.5, 1.4, 0.2]]), num_samples=20).mean().argmax()
        np.int64(0)
        >>> model.class_names, model.card["metrics"]["num_examples"]
        (('setosa', 'versicolor', 'virginica'), 30)
    """
    load_plugins()
    models = bundled_models()
    if index is not None:
        entry = find_in_index(name, index)
        return load_artifact(entry.address, trust, sha256=entry.sha256)
    with artifact_errors():
        if check_name(name) not in models:
            raise ValueError(_unknown(name, models))
        folder = saved_models_folder() / name
        return _load(folder, models[name], read_verified(folder, models[name]))


def open_model(name_or_path: str | os.PathLike[str], trust: bool = False) -> ZooModel:
    """Loads a bundled model by its name, or an artifact by its folder or address; see `load_model`, `load_artifact`."""
    if is_address(name_or_path):
        return load_artifact(name_or_path, trust)
    # As in `locate`, a path is a folder, even if it is called like a model.
    is_name = isinstance(name_or_path, str) and name_or_path in bundled_models()
    if not is_name and Path(name_or_path).is_dir():
        return load_artifact(name_or_path, trust)
    return load_model(str(name_or_path))


def _unknown(name: str, models: Mapping[str, Any]) -> str:
    if name not in ARCHITECTURES:
        return unknown_name_message("pretrained model", name, models)
    tags = ", ".join(known for known in models if known.startswith(f"{name}.")) or "none"
    return f"{name!r} is an architecture without weights. Pretrained: {tags}. For fresh weights use create_model."


def _load(folder: Path, entry: Any, files: Mapping[str, bytes]) -> ZooModel:
    texts = read_texts(files, folder)
    config, what = texts["config"], str(folder / "config.json")
    architecture = _architecture(config, what)
    settings = validate(architecture.config, config["config"], what)
    weights = folder / "weights.safetensors"
    way = way_in(config, what)
    num_members = number_of_members(config, what)
    arrays = parse_tensors(require(files, weights.name, folder), str(weights))
    try:
        records = split_records(arrays, num_members)
        _check_number_of_weights(folder, architecture, settings, way, records, entry)
        members = [build_network(architecture, settings, way) for _ in records]
        for member, record in zip(members, records, strict=True):
            record.assign_to(member)
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from None
    for member in members:
        if config.get("num_examples") is not None:
            member.num_examples = config["num_examples"]
    model = _joined(members, config, files, folder)
    check_way(model, config, what)
    _set_calibration(model, config.get("calibration"), what)
    _set_conformal(model, config.get("conformal"), members[0].output_shape[1:], what)
    _tell_of_card(model, texts)
    model.inputs_expected = _inputs_expected(config, settings.input_shape, what)
    return model


def _joined(networks: list[Any], config: Mapping[str, Any], files: Mapping[str, bytes], folder: Path) -> ZooModel:
    """Returns the posterior of networks and of the arrays beside them."""
    path = folder / POSTERIOR_NAME
    arrays = parse_tensors(files[path.name], str(path)) if path.name in files else {}
    try:
        return joined(networks, config, arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _architecture(config: Mapping[str, Any], what: str) -> Architecture:
    """Returns the architecture that a config names; one that is not registered can only come from a plug-in."""
    try:
        return ARCHITECTURES[config.get("architecture")]  # type: ignore[index]
    except ValueError as error:
        package = config.get("package")
        known = isinstance(package, str) and package.isidentifier() and len(package) <= 100
        origin = f"the package {package!r}" if known else "another package"
        module = package if known else "MODULE"
        raise ValueError(
            f"{what}: {error} If the architecture comes from {origin}, install that package, import it first, or name "
            f"it as a plug-in: tfp-bnn --plugin {module}, or the environment variable {VARIABLE}={module}."
        ) from None


def _tell_of_card(model: Any, texts: Mapping[str, Any]) -> None:
    """Sets `model.card`, `model.class_names` and `model.target_units`."""
    # Keras would track a plain dictionary.
    model.card = LoadedCard(texts["config"], texts["metrics"], printable(texts["card"]), printable(texts["recipe"]))
    data = texts["config"].get("data", {})
    for key in ("class_names", "target_units"):
        setattr(model, key, None if data.get(key) is None else tuple(data[key]))


def _inputs_expected(config: Mapping[str, Any], input_shape: tuple[int, ...], what: str) -> ExpectedInputs | None:
    """Returns what an artifact says about the inputs; artifacts of earlier versions say nothing."""
    described = config.get("data", {}).get("inputs")
    if described is None:
        return None
    try:
        expected = ExpectedInputs.from_config(described)
        if len(expected.low) != input_shape[-1]:
            raise ValueError(f"Expected inputs: {len(expected.low)} columns, but the model takes {input_shape}.")
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    return expected


def _set_calibration(model: ZooModel, value: Any, what: str) -> None:
    """Sets the calibration. Only accepts what `calibration_config` writes, not a bare name or a Keras config."""
    if value is None:
        return
    try:
        if isinstance(value, dict) and "class_name" not in value:
            model.calibration = value
        if calibration_config(model) != value:
            raise ValueError("expected null, or a mapping of 'name' and the number of that calibration")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: 'calibration' got {shown(value)}: {error}") from None


def _set_conformal(model: ZooModel, value: Any, output_shape: tuple[int, ...], what: str) -> None:
    """Sets the conformal prediction, which must fit the outputs of the network, of this shape for one input."""
    if value is None:
        return
    try:
        model.conformal = value
        model.conformal.check_outputs(model.likelihood, output_shape)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: 'conformal' got {shown(value)}: {error}") from None


def _check_number_of_weights(
    folder: Path,
    architecture: Architecture,
    settings: ArchitectureConfig,
    way: str,
    records: list[WeightRecord],
    entry: Any,
) -> None:
    """Checks, before any memory is allocated, that tensors, config and manifest describe the same network."""
    stored = sum(record.num_weights for record in records)
    if stored != entry.get("num_weights"):
        raise ValueError(
            f"{str(folder)!r} holds {stored} weights, but its manifest says {entry.get('num_weights')}. "
            "Restore the folder."
        )
    with without_allocation():
        model = build_network(architecture, settings, way)
        shapes = [weight.shape for weight in [*model.trainable_variables, *model.network.non_trainable_weights]]
    needed = sum(math.prod(shape) for shape in shapes)
    for record in records:
        if needed != record.num_parameters:
            raise ValueError(
                f"{folder / 'config.json'} describes a network of {needed} parameters, but "
                f"{folder / 'weights.safetensors'} holds {record.num_parameters}. Restore the folder."
            )
