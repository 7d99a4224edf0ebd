"""Training by a recipe, and fine-tuning: runs that survive being killed.

Names are imported when they are first used (PEP 562), so that the command line starts without TensorFlow.
"""

from __future__ import annotations

from zoo.core.lazy import lazy_names

_HOME = {
    "CheckpointError": "zoo.training.checkpoints",
    "NonFiniteError": "zoo.training.engine",
    "TrainingInterrupted": "zoo.training.signals",
    "FineTuning": "zoo.training.fine_tuning_run",
    "TrainingRun": "zoo.training.results",
    "build": "zoo.training.by_recipe",
    "fine_tune": "zoo.training.fine_tuning",
    "train": "zoo.training.by_recipe",
}

__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
