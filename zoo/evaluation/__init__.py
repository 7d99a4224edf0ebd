"""Evaluation of models: the numbers of cards, their verification, the suite, the results table, and reports.

Names are imported on first use (PEP 562), so the command line starts without TensorFlow.
"""

from __future__ import annotations

from zoo.core.lazy import lazy_names

_HOME = {
    "evaluate": "zoo.evaluation.card_numbers",
    "evaluate_suite": "zoo.evaluation.suite",
    "measure": "zoo.evaluation.card_numbers",
    "verify": "zoo.evaluation.verification",
    "write_evaluation_report": "zoo.evaluation.report.writing",
}

__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
