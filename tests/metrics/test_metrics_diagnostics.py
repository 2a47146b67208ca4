"""Complexity, style and safety of generated code."""

from __future__ import annotations

import pytest

from modern_rlhf.metrics import diagnostics
from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
from modern_rlhf.metrics.results import ItemScores

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


def test_a_code_that_brings_the_tool_down_costs_no_other_its_score(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fragile(tool: str, flags: list[str], files: dict[str, str], timeout: float) -> object:
        return "stack overflow" if any("deep" in code for code in files.values()) else []

    monkeypatch.setattr(diagnostics, "_report", fragile)
    codes = ["x = 1", "y = 2", "deep = 3", "(", "z = 4"]
    evaluator = ModernMetricsEvaluator(metrics=["style"], bootstrap_samples=0)
    found = evaluator.evaluate(codes, codes)["style"]
    assert found.per_item == [0.0, 0.0, None, None, 0.0]
    assert found.details["tool_failed"] == 1
    alone = evaluator.evaluate(["deep = 3"], ["x"])["style"]
    assert (alone.value, alone.reason) == (None, "ruff failed: stack overflow")


def test_a_tool_that_is_missing_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "find_spec", lambda name: None)
    result = ModernMetricsEvaluator(metrics=["safety"]).evaluate(["x = 1"], ["x"])["safety"]
    assert result.value is None
    assert result.reason == "the package bandit is not installed"


def test_nothing_flagged_of_few_is_no_certainty(monkeypatch: pytest.MonkeyPatch) -> None:
    def flags(codes: object, trees: object) -> ItemScores:
        return ItemScores([0.0] * 20)

    monkeypatch.setattr(diagnostics, "safety_scores", flags)
    result = ModernMetricsEvaluator(metrics=["safety"]).evaluate(["x = 1"] * 20, ["x"] * 20)
    # Clopper and Pearson: 1 - 0.025 ** (1 / 20).
    assert (result["safety"].low, result["safety"].high) == (0.0, pytest.approx(0.1684, abs=1e-4))
