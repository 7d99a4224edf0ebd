"""A model handler of Apache Beam's `RunInference` for exported models."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_bnn.core.arguments import require_bool, require_integer
from tfp_bnn.export.mlflow_loader import ServedPredictive

_INSTALLED = importlib.util.find_spec("apache_beam") is not None
_base: Any = importlib.import_module("apache_beam.ml.inference.base") if _INSTALLED else None
_ModelHandler: Any = _base.ModelHandler if _INSTALLED else object


class PredictiveHandler(_ModelHandler):
    """Predicts by a SavedModel of `PredictiveModel.export` on the workers of Apache Beam.

    It is for pipelines of your own, `blocks | RunInference(PredictiveHandler("served"))`; `predict_files` is one that
    is made. An example is a block of rows: inputs by name, each with the batch on the first axis, or one array where
    the model has one input. Its inference is `{"mean": ..., "entropy": ..., ...}`, each with the batch on the first
    axis, and `samples`, `(batch, S, ...)`, if draws are asked for; see `docs/serving.md`.

    All workers have the same S draws, which are functions of the seed. Blocks are never joined or split, so the answer
    to one does not depend on the others, on the number of workers, or on which of them has it.

    Args:
        model: Folder of the SavedModel, which each worker can read; also `gs://...`.
        seed: Integer, the seed of the draws. Default: None, which is that of the export.
        draws: Whether to answer with the predictions of each draw too, which takes twice the time.

    Raises:
        ImportError: If Apache Beam is not installed; the message has the line that installs it.
        ValueError: If `seed` is no integer. On a worker: if a block has other inputs or shapes than the model, or
            values that are no finite numbers of its types.
    """

    def __init__(self, model: Any, *, seed: int | None = None, draws: bool = False) -> None:
        require_beam()
        super().__init__(max_batch_size=1)
        self._model = str(model)
        self._seed = None if seed is None else require_integer("seed", seed)
        self._draws = require_bool("draws", draws)

    def load_model(self) -> ServedPredictive:
        """Loads the SavedModel."""
        return load_served(self._model, self._draws)

    def run_inference(
        self,
        batch: Sequence[Any],
        model: ServedPredictive,
        inference_args: Mapping[str, Any] | None = None,
    ) -> Iterator[Any]:
        """Yields a `PredictionResult` for each block. The seed can be another: `inference_args={"seed": 3}`."""
        for block in batch:
            answer = model.predict(block, {"seed": self._seed, **(inference_args or {})})
            yield _base.PredictionResult(block, answer, self._model)

    def get_num_bytes(self, batch: Sequence[Any]) -> int:
        """Bytes of the inputs, for the metrics of Beam."""
        return sum(np.asarray(array).nbytes for block in batch for array in _arrays(block))

    def get_metrics_namespace(self) -> str:
        """The name under which Beam has the numbers of inferences, their times and the memory of the model."""
        return "tfp_bnn"


def load_served(model: str, draws: bool) -> ServedPredictive:
    """Loads an exported model. ValueError if the folder has none that can be read."""
    try:
        return ServedPredictive(model, draws)
    except (OSError, tf.errors.OpError, KeyError, ValueError) as error:
        raise ValueError(
            f"{model!r} cannot be read as an exported model: {error} Write one by `model.export(folder)`, or by "
            "`tfp-bnn export NAME --output FOLDER`."
        ) from error


def require_beam() -> None:
    """Raises an ImportError with the line that installs Apache Beam, if it is missing."""
    if not _INSTALLED:
        raise ImportError("Apache Beam is not installed. Use `pip install 'tfp_bnn[beam]'`.")


def _arrays(block: Any) -> Iterable[Any]:
    return block.values() if isinstance(block, Mapping) else [block]
