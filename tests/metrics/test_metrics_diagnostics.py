"""Complexity, style and safety of generated code."""

from __future__ import annotations

import pytest

from modern_rlhf.metrics import diagnostics
from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator

CODES = [
    "x = 1",
    "def f(a):\n    if a:\n        return 1\n    return 2",
    "import os\nx = undefined  # noqa",
    "eval(input())  # nosec",
    "x = (",
    "",
]


def report() -> dict[str, list[float | None]]:
    names = ["complexity", "style", "safety"]
    evaluator = ModernMetricsEvaluator(metrics=names, bootstrap_samples=0)
    found = evaluator.evaluate(CODES, CODES)
    return {name: found[name].per_item for name in names}


def test_values() -> None:
    found = report()
    assert found["complexity"] == [1.0, 2.0, 1.0, 1.0, None, None]
    # The unused import is one violation in two lines; `undefined` and `noqa` change nothing.
    assert found["style"] == [0.0, 0.0, 0.5, 0.0, None, None]
    # Bandit's B307 (eval) has medium severity; `nosec` does not hide it.
    assert found["safety"] == [0.0, 0.0, 0.0, 1.0, None, None]


def test_a_tool_that_is_missing_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "find_spec", lambda name: None)
    result = ModernMetricsEvaluator(metrics=["safety"]).evaluate(["x = 1"], ["x"])["safety"]
    assert result.value is None
    assert result.reason == "the package bandit is not installed"
