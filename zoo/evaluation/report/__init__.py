"""Evaluation reports: a page, a CSV and figures that show how good a model is, and how well it knows it.

Names are imported on first use (PEP 562), so the command line starts without TensorFlow.
"""

from __future__ import annotations

from zoo.core.lazy import lazy_names

_HOME = {
    "EvaluationReport": "zoo.evaluation.report.writing",
    "write_comparison_report": "zoo.evaluation.report.comparison",
    "write_evaluation_report": "zoo.evaluation.report.writing",
}

__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
