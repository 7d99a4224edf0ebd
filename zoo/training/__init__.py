"""Training from recipes and fine-tuning, as runs that can be killed and resumed.

Names are imported on first use (PEP 562), so the command line starts without TensorFlow.
"""

from __future__ import annotations

from zoo.core.lazy import lazy_names

_HOME = {
    "CheckpointError": "zoo.training.checkpoints",
    "NonFiniteError": "zoo.training.engine",
    "TrainingInterrupted": "zoo.training.signals",
    "FineTuning": "zoo.training.fine_tuning_run",
    "TrainingRun": "zoo.training.results",
    "WorkerMissingError": "zoo.training.workers",
    "Workers": "zoo.training.workers",
    "build": "zoo.training.by_recipe",
    "fine_tune": "zoo.training.fine_tuning",
    "run_on_workers": "zoo.training.several_workers",
    "train": "zoo.training.by_recipe",
}

__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
