"""Export of predictions to ONNX and LiteRT, files that programs without TensorFlow answer from."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.batches import as_arrays, num_rows, rows_of
from tfp_bnn.core.draws import Draws
from tfp_bnn.export.baked_draws import baked_draws
from tfp_bnn.export.input_signature import input_specs, require_names_of_signatures
from tfp_bnn.export.onnx_operations import check_onnx_file, register_onnx_operations
from tfp_bnn.export.served_draws import ServedDraws, require_predictive_arguments

_LETTERS_OF_REASON = 400
# No operation is missing then, and no output is to be left out. The second one is TensorFlow's for a full disk.
_OF_DISKS = (OSError, tf.errors.ResourceExhaustedError)


@dataclass(frozen=True)
class _Format:
    """A format of `keras.Model.export` whose files do not need TensorFlow.

    Attributes:
        suffix: What Keras wants file names to end with.
        packages: The packages that it needs, besides TensorFlow.
        extra: The extra of this package that installs them.
        settings: Arguments of `keras.Model.export`.
        of_signature: Whether it is made from a signature of TensorFlow, which does not take every name of an input.
        prepare: What to do before.
        check: Refuses a file that is not valid, though it was written.
    """

    suffix: str
    packages: tuple[str, ...] = ()
    extra: str = ""
    settings: Mapping[str, Any] | None = None
    of_signature: bool = False
    prepare: Callable[[], None] = lambda: None
    check: Callable[[Path], None] = lambda path: None


PORTABLE_FORMATS = {
    "onnx": _Format(".onnx", ("onnx", "tf2onnx"), "onnx", {}, prepare=register_onnx_operations, check=check_onnx_file),
    # Other operations of TensorFlow would need its whole runtime.
    "litert": _Format(
        ".tflite", settings={"target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}}, of_signature=True
    ),
}
"""The formats of `export_portable` by name."""


class ServedNetwork(keras.Model):
    """A function as a Keras model, for the exporters of Keras.

    Args:
        function: Function of inputs that returns tensors by name.
        name: Name of the model.
    """

    def __init__(self, function: Callable[[Any], dict[str, tf.Tensor]], name: str) -> None:
        super().__init__(name=name)
        # A function, so that Keras does not track the model behind it, which refuses it.
        self._function = function
        self.built = True

    def call(self, x: Any) -> dict[str, tf.Tensor]:
        """Arrays by name, each with the batch on the first axis."""
        return self._function(x)


def plug_in_network(model: Any, specs: Any, nan_for_nan: bool = True) -> ServedNetwork:
    """The plug-in mean of a model, as a Keras model: no draws, no uncertainty of the weights, and no calibration."""
    draws = model.plug_in_draws()
    served = _served(model, draws, specs, draws.num_draws or 1, None, 0.9, names=("mean",), nan_for_nan=nan_for_nan)
    return ServedNetwork(lambda x: served.mean(x, 0), model.name)


class _Export:
    """Writes networks to a file of a format.

    Args:
        format: Name of the format.
        path: Path of the file, with the suffix of the format.
        settings: Further arguments of `keras.Model.export`.
    """

    def __init__(self, format: str, path: Path, settings: Mapping[str, Any]) -> None:
        self.name, self.path = format, path
        self._format = PORTABLE_FORMATS[format]
        self._settings = {**(self._format.settings or {}), **settings}

    def try_to_write(self, network: ServedNetwork, specs: Any) -> Exception | None:
        """Writes a network. Returns what the exporter raised, of which there are many kinds, or None.

        Raises:
            OSError, tf.errors.ResourceExhaustedError: If the disk is full, or cannot be written to otherwise.
        """
        try:
            with _third_parties_silenced():
                self._format.prepare()
                network.export(self.path, format=self.name, input_signature=[specs], verbose=False, **self._settings)
                self._format.check(self.path)
        except _OF_DISKS:
            raise
        except Exception as error:
            return error
        return None

    def write(self, network: ServedNetwork, specs: Any) -> None:
        """Writes a network. A ValueError says why it cannot be."""
        error = self.try_to_write(network, specs)
        if error is not None:
            reason = " ".join(str(error).split())[:_LETTERS_OF_REASON]
            raise ValueError(
                f"The model {network.name!r} cannot be exported with format={self.name!r}: {reason}. Use layers whose "
                "operations the format has, or format='tf_saved_model'."
            ) from error

    def write_predictive(self, model: Any, served: ServedDraws, specs: Any) -> list[str]:
        """Writes the outputs that the format has operations for. Returns the names of the others."""
        network = ServedNetwork(lambda x: served.predictive(x, 0), model.name)
        if self.try_to_write(network, specs) is None:
            return []
        before = served.left_out

        def fits(head: str, name: str) -> bool:
            def of_raw_outputs(outputs: tf.Tensor) -> dict[str, tf.Tensor]:
                return served.of_raw_outputs(head, outputs, (name,))

            return self.try_to_write(ServedNetwork(of_raw_outputs, model.name), served.raw_specs[head]) is None

        # Each by itself, from raw outputs: graphs without the network are small.
        served.names = {
            head: tuple(name for name in names if name == "mean" or fits(head, name))
            for head, names in served.names.items()
        }
        self.write(network, specs)
        return [name for name in served.left_out if name not in before]


def export_portable(
    model: Any,
    filepath: Any,
    format: str,
    *,
    num_samples: int,
    seed: int,
    calibrated: bool,
    level: float,
    plug_in: bool,
    int8_from: Any,
    input_signature: Any,
    verbose: bool,
    **kwargs: Any,
) -> None:
    """Writes the predictive of a model, or its plug-in mean; see `PredictiveModel.export` for arguments and errors."""
    _require_packages(format)
    require_predictive_arguments(num_samples, seed, level)
    model._check_weights()
    specs = input_specs(model, input_signature)
    if PORTABLE_FORMATS[format].of_signature:
        require_names_of_signatures(specs, model.name)
    if int8_from is not None:
        if format != "litert" or not plug_in:
            raise ValueError(
                "`int8_from` is for the plug-in mean in LiteRT: eight bits are too few for the differences between "
                "draws. Pass format='litert' and plug_in=True, or leave it out."
            )
        x = as_arrays(int8_from, "int8_from")
        model._check_inputs(x)
        kwargs = {**kwargs, **_settings_of_int8(_in_order_of_inputs(x, model), specs)}
    with _folder_beside(filepath) as folder, _writing(filepath):
        path = Path(folder) / f"model{PORTABLE_FORMATS[format].suffix}"
        export = _Export(format, path, kwargs)
        # Ranges of eight bits, which such rows determine, have no room for the bounds of what is finite.
        nan_for_nan = "representative_dataset" not in kwargs
        if plug_in:
            export.write(plug_in_network(model, specs, nan_for_nan), specs)
            description = "The answers are those of the plug-in mean."
        else:
            calibration = model.calibration if calibrated else None
            served = _served(model, model.draws(seed), specs, num_samples, calibration, level, nan_for_nan=nan_for_nan)
            lost = export.write_predictive(model, served, specs)
            description = f"The answers are those of {served.num_samples} draws, which are in the file."
            if served.left_out:
                description += f" Left out: {', '.join(served.left_out)}."
            if lost:
                description += f" {format} has no operations for {', '.join(lost)}."
        os.replace(path, filepath)
    if verbose:
        print(f"Saved {str(filepath)!r}, {Path(filepath).stat().st_size / 1e6:.1f} MB. {description}")


def export_with_keras(
    model: Any, filepath: Any, format: str, input_signature: Any, verbose: bool = True, **kwargs: Any
) -> None:
    """Writes the plug-in mean in any format of `keras.Model.export`, with its own arguments and errors.

    All files are written first, and take the places of those of an earlier export then.
    """
    model._check_weights()
    specs = input_specs(model, input_signature)
    with _folder_beside(filepath) as folder:
        path = Path(folder) / Path(filepath).name
        # Keras would print this path.
        plug_in_network(model, specs).export(str(path), format=format, input_signature=[specs], verbose=False, **kwargs)
        with _writing(filepath):
            # Readers open the one that was asked for, which refers to the others: it is the last.
            for written in sorted(Path(folder).iterdir(), key=lambda written: written == path):
                os.replace(written, Path(filepath).parent / written.name)
    if verbose:
        print(f"Saved {str(filepath)!r}. The answers are those of the plug-in mean.")


def _served(
    model: Any, draws: Draws, specs: Any, num_samples: int, calibration: Any, level: float, **kwargs: Any
) -> ServedDraws:
    baked = baked_draws(draws, num_samples, specs)
    return ServedDraws(model, lambda seed: baked, specs, num_samples, calibration, level, **kwargs)


def _require_packages(format: str) -> None:
    of_format = PORTABLE_FORMATS[format]
    missing = [name for name in of_format.packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"The export with format={format!r} needs {' and '.join(missing)}. Use `pip install "
            f"'tfp_bnn[{of_format.extra}]'`."
        )


def _in_order_of_inputs(x: Any, model: Any) -> list[Any]:
    """The arrays of a structure, in the order of the inputs of a model.

    Models whose inputs are a list take a dict too, by the names of the inputs, whose order is not that of the keys.
    """
    inputs = getattr(model, "input", None)
    if inputs is None or not isinstance(x, Mapping) or isinstance(inputs, Mapping):
        return keras.tree.flatten(x)
    names = [each.name for each in keras.tree.flatten(inputs)]
    if missing := [name for name in names if name not in x]:
        raise ValueError(
            f"`int8_from` has the keys {list(x)}, but the model {model.name!r} takes the inputs {names}: {missing} "
            "missing. Pass a dict with these inputs."
        )
    return [x[name] for name in names]


def _settings_of_int8(x: list[Any], specs: Any) -> dict[str, Any]:
    """Settings of Keras' exporter for weights and activations of eight bits, with ranges from rows like these."""
    names = [spec.name for spec in keras.tree.flatten(specs)]
    dtypes = [spec.dtype.as_numpy_dtype for spec in keras.tree.flatten(specs)]

    def rows() -> Iterator[dict[str, np.ndarray]]:
        for row in range(num_rows(x)):
            leaves = rows_of(x, slice(row, row + 1))
            yield {n: np.asarray(leaf, dtype) for n, leaf, dtype in zip(names, leaves, dtypes, strict=True)}

    return {
        "optimizations": [tf.lite.Optimize.DEFAULT],
        "representative_dataset": rows,
        "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
    }


@contextlib.contextmanager
def _third_parties_silenced() -> Iterator[None]:
    """Exporters warn of one another's versions, and print what they cannot convert before they raise it."""
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), _stderr_silenced():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _stderr_silenced() -> Iterator[None]:
    """Silences the descriptor: code that is not written in Python does not know of `sys.stderr`."""
    stderr = None
    # It is closed in some services.
    with contextlib.suppress(OSError):
        stderr = os.dup(2)
    if stderr is None:
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@contextlib.contextmanager
def _folder_beside(filepath: Any) -> Iterator[str]:
    """A temporary folder on the disk of a file, which replaces an earlier one at once or not at all."""
    with contextlib.ExitStack() as stack:
        with _writing(filepath):
            if Path(filepath).is_dir():
                raise OSError("it is a folder")
            Path(filepath).parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=Path(filepath).parent))
        yield folder


@contextlib.contextmanager
def _writing(filepath: Any) -> Iterator[None]:
    try:
        yield
    except _OF_DISKS as error:
        raise ValueError(
            f"The model could not be written to {str(filepath)!r}: {error}. Expected the path of a file, new or "
            "existing, in a folder that can be written to."
        ) from error
