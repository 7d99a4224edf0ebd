"""Judging a model: the numbers of its card, their verification, the table of results, reports.

Names are imported when they are first used (PEP 562), so that the command line starts without TensorFlow.
"""

from __future__ import annotations

from zoo.core.lazy import lazy_names

_HOME = {
    "evaluate": "zoo.evaluation.card_numbers",
    "measure": "zoo.evaluation.card_numbers",
    "verify": "zoo.evaluation.verification",
    "write_evaluation_report": "zoo.evaluation.report.writing",
}

__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
