"""Metrics of generated code: pure functions over texts, and one evaluator that runs them all.

The names below are loaded on first use (PEP 562), so importing a single metric costs nothing else.
Definitions, limits and deviations from published ones: `docs/metrics_definitions.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
    from modern_rlhf.metrics.results import MetricResult, MetricsReport

__all__ = ["MetricResult", "MetricsReport", "ModernMetricsEvaluator"]

_HOMES = {
    "ModernMetricsEvaluator": "modern_rlhf.metrics.evaluator",
    "MetricResult": "modern_rlhf.metrics.results",
    "MetricsReport": "modern_rlhf.metrics.results",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
