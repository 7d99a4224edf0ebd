"""The model zoo of tfp_bnn: architectures, recipes, datasets and pretrained weight distributions.

Names are imported when they are first used (PEP 562), so that the command line starts without TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "create_model": "zoo.registry",
    "evaluate": "zoo.evaluation",
    "fine_tune": "zoo.fine_tuning",
    "list_datasets": "zoo.datasets",
    "list_models": "zoo.registry",
    "list_recipes": "zoo.recipes",
    "load_artifact": "zoo.artifacts",
    "load_dataset": "zoo.datasets",
    "load_model": "zoo.artifacts",
    "load_recipe": "zoo.recipes",
    "save_artifact": "zoo.artifacts",
    "train": "zoo.training",
    "verify": "zoo.verification",
    "write_evaluation_report": "zoo.evaluation_report",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
