"""The model zoo of tfp_bnn: architectures, recipes, datasets and pretrained weight distributions.

Names are imported on first use (PEP 562), so the command line starts without TensorFlow.
"""

from __future__ import annotations

from zoo.core.lazy import lazy_names

_HOME = {
    "ArtifactError": "zoo.core.untrusted",
    "compare": "zoo.training.comparing",
    "create_model": "zoo.hub.catalog",
    "evaluate": "zoo.evaluation.card_numbers",
    "evaluate_suite": "zoo.evaluation.suite",
    "fine_tune": "zoo.training.fine_tuning",
    "list_datasets": "zoo.datasets",
    "list_models": "zoo.hub.catalog",
    "list_recipes": "zoo.recipes",
    "load_artifact": "zoo.hub.loading",
    "load_dataset": "zoo.datasets",
    "load_model": "zoo.hub.loading",
    "load_plugins": "tfp_bnn.core.plugins",
    "load_recipe": "zoo.recipes",
    "prune": "zoo.hub.pruning",
    "push": "zoo.hub.remote.pushing",
    "register_architecture": "zoo.architectures",
    "register_dataset": "zoo.datasets",
    "register_recipes": "zoo.recipes",
    "save_artifact": "zoo.hub.artifacts",
    "shrink": "zoo.hub.pruning",
    "train": "zoo.training.by_recipe",
    "verify": "zoo.evaluation.verification",
    "write_comparison_report": "zoo.evaluation.report.comparison",
    "write_index": "zoo.hub.remote.index",
    "write_evaluation_report": "zoo.evaluation.report.writing",
}

__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
