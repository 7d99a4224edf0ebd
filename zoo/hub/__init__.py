"""Artifacts of pretrained models: writing, verification and loading.

Names are imported on first use (PEP 562), so the command line starts without TensorFlow.
"""

from __future__ import annotations

from zoo.core.lazy import lazy_names

_HOME = {
    "bundled_models": "zoo.hub.manifest",
    "create_model": "zoo.hub.catalog",
    "list_models": "zoo.hub.catalog",
    "load_artifact": "zoo.hub.loading",
    "load_model": "zoo.hub.loading",
    "prune": "zoo.hub.pruning",
    "push": "zoo.hub.remote.pushing",
    "save_artifact": "zoo.hub.artifacts",
    "shrink": "zoo.hub.pruning",
    "write_index": "zoo.hub.remote.index",
}

__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
