"""Export of a predictive distribution as a SavedModel, which TensorFlow and its servers answer from."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfp_bnn.core.layer_tree import has_sublayers, sublayers
from tfp_bnn.export.input_signature import input_specs, require_names_of_signatures
from tfp_bnn.export.served_draws import ServedDraws, require_predictive_arguments
from tfp_bnn.layers.base import VariationalLayer

# Operations that call back into the Python process that made them.
_PYTHON_OPERATIONS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")
# What TensorFlow writes into the folder of a SavedModel.
_ENTRIES = ("saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra")


def export_saved_model(
    model: Any,
    filepath: Any,
    *,
    num_samples: int,
    seed: int,
    calibrated: bool,
    level: float,
    input_signature: Any,
    verbose: bool,
) -> None:
    """Writes the predictive of a model as a SavedModel; see `PredictiveModel.export` for arguments and errors."""
    # TensorFlow writes to stores of objects too, where folders have no names to change.
    target = None if "://" in str(filepath) else Path(filepath).resolve()
    with _writing(filepath):
        if target is not None:
            _check_target(target)
    functions, description = served_functions(model, num_samples, seed, calibrated, level, input_signature)
    archive = keras.export.ExportArchive()
    networks = [model] if isinstance(model, keras.Model) else getattr(model, "networks", ())
    for layer in (layer for network in networks for layer in sublayers(network)):
        # For lookup tables: variables are found in the graphs, and informed priors are not needed.
        if layer.built and not isinstance(layer, keras.Model | VariationalLayer) and not has_sublayers(layer):
            archive.track(layer)
    for name, function in functions.items():
        archive.add_endpoint(name, function)
    with _writing(filepath):
        if target is None:
            archive.write_out(str(filepath), verbose=False)
        else:
            _write_whole(archive, target)
    if verbose:
        endpoints = "\n".join(f"* Endpoint '{name}'" for name in functions)
        print(f"Saved {str(filepath)!r}, a SavedModel.\n{endpoints}\n{description}")


@contextlib.contextmanager
def _writing(filepath: Any) -> Iterator[None]:
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(
            f"The SavedModel could not be written to {str(filepath)!r}: {error}. Expected the path of a folder, new or "
            "existing, that can be written to."
        ) from error


def _check_target(target: Path) -> None:
    """Raises an OSError for a folder whose place could not be taken after all is traced."""
    if target.exists() and not target.is_dir():
        raise OSError("it is a file")
    if target.is_dir() and os.path.ismount(target):
        raise OSError("a file system is mounted there, and a new folder takes its place. Give a folder below it")
    if target.is_dir() and _is_around(target):
        # A shell would be left in a folder that is deleted.
        raise OSError("the current folder is there, and a new folder takes its place. Give a folder below it")
    parent = next(folder for folder in target.parents if os.path.lexists(folder))
    if not parent.is_dir():
        raise OSError(f"{str(parent)!r} is no folder")
    if not os.access(parent, os.W_OK):
        raise OSError(f"the folder {str(parent)!r} cannot be written to")


def _is_around(folder: Path) -> bool:
    """Whether the current folder is this one or below it; not if it is deleted already."""
    with contextlib.suppress(FileNotFoundError):
        return Path.cwd().is_relative_to(folder)
    return False


def _write_whole(archive: keras.export.ExportArchive, target: Path) -> None:
    """Writes a SavedModel next to its place first, so a reader finds an earlier export whole, or the new one.

    Between two renames there is none. In a process that is killed there, the earlier one stays beside, as
    `.<name>.<letters>.old`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as beside:
        # The earlier one is not in a folder that is removed whatever happens.
        new, old = Path(beside) / "new", Path(f"{beside}.old")
        # Keras would list the addresses of all variables in memory.
        archive.write_out(str(new), verbose=False)
        if not target.exists():
            new.rename(target)
            return
        _keep_others(target, new)
        target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _keep_others(earlier: Path, new: Path) -> None:
    """Gives a folder what another one has that is not of a SavedModel, without moving it."""

    def link_or_copy(source: str, copy: str) -> None:
        try:
            os.link(source, copy)
        except OSError:
            shutil.copy2(source, copy)

    shutil.copymode(earlier, new)
    for entry in earlier.iterdir():
        if entry.name in _ENTRIES:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, new / entry.name, symlinks=True, copy_function=link_or_copy)
        elif entry.is_symlink():
            (new / entry.name).symlink_to(os.readlink(entry))
        else:
            link_or_copy(str(entry), str(new / entry.name))


def served_functions(
    model: Any,
    num_samples: int = 100,
    seed: int = 0,
    calibrated: bool = True,
    level: float = 0.9,
    input_signature: Any = None,
) -> tuple[dict[str, Any], str]:
    """The functions of an exported model, traced and checked, before anything is written.

    Returns:
        The functions by the name of their endpoint, and a sentence on what they answer.

    Raises:
        ValueError: As for `PredictiveModel.export`.
    """
    require_predictive_arguments(num_samples, seed, level)
    model._check_weights()
    inputs = input_specs(model, input_signature)
    require_names_of_signatures(inputs, model.name, ("seed",))
    posterior = ServedDraws(model, model.draws, inputs, num_samples, model.calibration if calibrated else None, level)
    at_means = model.plug_in_draws()
    plug_in = ServedDraws(model, lambda seed: at_means, inputs, at_means.num_draws or 1, None, level, ("mean",))
    default = tf.constant(seed, tf.int64)

    # A server fills in the default, as TensorFlow does in calls of the loaded functions.
    def predict(x: Any, seed: tf.Tensor = default) -> dict[str, tf.Tensor]:
        return posterior.predictive(x, seed)

    def draws(x: Any, seed: tf.Tensor = default) -> dict[str, tf.Tensor]:
        return posterior.samples(x, seed)

    def serving_default(x: Any) -> dict[str, tf.Tensor]:
        return functions["predict"](x, default)

    def serve(x: Any) -> Any:
        answer = functions["predict"](x, default)
        return {name: answer[f"{name}/mean"] for name in model.likelihood.heads} or answer["mean"]

    def mean(x: Any) -> dict[str, tf.Tensor]:
        return plug_in.mean(x, default)

    functions: dict[str, Any] = {}
    with_seed = [inputs, tf.TensorSpec([], tf.int64, name="seed")]
    for function, signature in (
        (predict, with_seed),
        (draws, with_seed),
        (serving_default, [inputs]),
        (serve, [inputs]),
        (mean, [inputs]),
    ):
        traced = tf.function(function, signature, autograph=False)
        _refuse_python(traced.get_concrete_function(), model.name)
        functions[function.__name__] = traced
    description = f"The answers are those of {posterior.num_samples} draws."
    if posterior.left_out:
        description += (
            f" Left out: {', '.join(posterior.left_out)}, which the likelihood {model.likelihood!r} cannot compute by "
            "TensorFlow operations alone."
        )
    return functions, description


def _refuse_python(function: Any, model: str) -> None:
    """Refuses a graph that calls Python functions, which do not exist where it is loaded."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for of_function in graph.library.function for node in of_function.node_def)]
    names = sorted({node.name for node in nodes if node.op in _PYTHON_OPERATIONS})
    if names:
        raise ValueError(
            f"The model {model!r} cannot be exported: it calls Python functions, which only exist in this process, in "
            f"{', '.join(names)}. Write these layers with TensorFlow or Keras operations, without tf.py_function and "
            "tf.numpy_function."
        )
