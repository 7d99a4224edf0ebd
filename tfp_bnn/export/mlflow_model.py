"""Export to MLflow, whose server and registry then work with the predictive."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.export.input_signature import input_specs, written_name

_LOADER = "mlflow_loader"


def save_mlflow_model(model: Any, path: Any, *, seed: int = 0, input_signature: Any = None, **kwargs: Any) -> None:
    """Writes the predictive of a model as an MLflow model of the flavour `pyfunc`.

    `mlflow models serve --model-uri PATH --env-manager local` then answers requests, and `mlflow.pyfunc.load_model`
    loads it in Python. In the folder is a SavedModel, and no code of this library: what serves it needs TensorFlow and
    MLflow. The answer to `{"inputs": ..., "params": {"seed": 3}}` has `mean`, `entropy`, `aleatoric`, `epistemic`,
    `lower` and `upper`, each with the batch on the first axis. Inputs of the wrong shape, and NaN, are refused.

    Args:
        model: A built `PredictiveModel`.
        path: Folder to write, which must not exist or be empty.
        seed: Integer, the seed of the draws of requests that name none.
        input_signature: As in `PredictiveModel.export`.
        **kwargs: `num_samples`, `calibrated` and `level`, as in `PredictiveModel.export`.

    Raises:
        ValueError: As for `PredictiveModel.export`, or if the folder has files in it.
        ImportError: If MLflow is not installed; the message has the line that installs it.
    """
    mlflow = _mlflow()
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{str(path)!r} exists and is not an empty folder. Give the path of a new one.")
    with _arguments(mlflow, model, seed, input_signature, kwargs) as arguments:
        try:
            mlflow.pyfunc.save_model(path=str(path), **arguments)
        except OSError as error:
            raise ValueError(
                f"The model could not be written to {str(path)!r}: {error}. Expected the path of a new folder that "
                "can be written to."
            ) from error


def log_mlflow_model(
    model: Any,
    name: str,
    *,
    registered_model_name: str | None = None,
    seed: int = 0,
    input_signature: Any = None,
    **kwargs: Any,
) -> Any:
    """Logs what `save_mlflow_model` writes to the active run of MLflow, and registers it if it is given a name there.

    Args:
        model: As in `save_mlflow_model`, like all arguments that are not described here.
        name: Name of the model in the run.
        registered_model_name: Name in the model registry; None not to register it.
        seed: As there.
        input_signature: As there.
        **kwargs: As there.

    Returns:
        MLflow's `ModelInfo`.

    Raises:
        ValueError: As for `PredictiveModel.export`.
        ImportError: If MLflow is not installed.
    """
    mlflow = _mlflow()
    with _arguments(mlflow, model, seed, input_signature, kwargs) as arguments:
        return mlflow.pyfunc.log_model(name=name, registered_model_name=registered_model_name, **arguments)


@contextlib.contextmanager
def _arguments(
    mlflow: Any, model: Any, seed: int, input_signature: Any, kwargs: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """What both functions of MLflow take, with a SavedModel in a temporary folder."""
    specs = keras.tree.flatten(input_specs(model, input_signature))
    names = [written_name(spec.name) for spec in specs]
    with tempfile.TemporaryDirectory() as folder:
        saved_model = str(Path(folder) / "saved_model")
        model.export(saved_model, seed=seed, input_signature=input_signature, verbose=False, **kwargs)
        types = importlib.import_module("mlflow.types")
        inputs = [
            # MLflow lets an input without a name be an array or a frame.
            types.TensorSpec(
                np.dtype(str if spec.dtype == tf.string else spec.dtype.as_numpy_dtype),
                tuple(-1 if size is None else size for size in spec.shape),
                name=name if len(specs) > 1 else None,
            )
            for name, spec in zip(names, specs, strict=True)
        ]
        default = types.ParamSpec("seed", "long", seed)
        # MLflow tries the model on it, and keeps it to show the form of a request.
        zeros = [np.zeros([1 if size < 0 else size for size in given.shape], given.type) for given in inputs]
        yield {
            "loader_module": _LOADER,
            "code_paths": [str(Path(__file__).with_name(f"{_LOADER}.py"))],
            "data_path": saved_model,
            "signature": mlflow.models.ModelSignature(inputs=types.Schema(inputs), params=types.ParamSchema([default])),
            "input_example": dict(zip(names, zeros, strict=True)) if len(specs) > 1 else zeros[0],
            "pip_requirements": [
                f"mlflow=={mlflow.__version__}",
                f"numpy=={np.__version__}",
                f"tensorflow=={tf.__version__}",
            ],
        }


def _mlflow() -> Any:
    if importlib.util.find_spec("mlflow") is None:
        raise ImportError("MLflow is not installed. Use `pip install 'tfp_bnn[mlflow]'`.")
    return importlib.import_module("mlflow")
