"""The evaluation of policies: answers, what is measured of them, what is kept and compared.

The names below are loaded on first use (PEP 562); inside the package the defining module is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modern_rlhf.evaluation.evaluator import METRICS, PERIODIC_METRICS, Evaluator
    from modern_rlhf.evaluation.results import (
        PolicyEvaluation,
        compare,
        known_evaluation,
        read_evaluation,
    )

__all__ = [
    "METRICS",
    "PERIODIC_METRICS",
    "Evaluator",
    "PolicyEvaluation",
    "compare",
    "known_evaluation",
    "read_evaluation",
]

_HOMES = {
    "METRICS": "modern_rlhf.evaluation.evaluator",
    "PERIODIC_METRICS": "modern_rlhf.evaluation.evaluator",
    "Evaluator": "modern_rlhf.evaluation.evaluator",
    "PolicyEvaluation": "modern_rlhf.evaluation.results",
    "compare": "modern_rlhf.evaluation.results",
    "known_evaluation": "modern_rlhf.evaluation.results",
    "read_evaluation": "modern_rlhf.evaluation.results",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
