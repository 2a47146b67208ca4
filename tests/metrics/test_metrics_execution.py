"""pass@k: the estimator, and the account of verdicts with a fake executor."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from modern_rlhf.errors import MetricError
from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
from modern_rlhf.metrics.execution import pass_at_k
from modern_rlhf.records import Task
from modern_rlhf.sandbox.types import ExecutionResult, Program


class FakeExecutor:
    """Judges by the text of the code; remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[Program]] = []

    def run(self, programs: Sequence[Program], **_: Any) -> list[ExecutionResult]:
        self.calls.append(list(programs))
        verdicts = {"good": ("pass", 2), "half": ("fail", 1), "infra": ("infra_error", 0)}
        found = [
            next((v for k, v in verdicts.items() if k in p.code), ("fail", 0)) for p in programs
        ]
        return [ExecutionResult(verdict, passed, 2) for verdict, passed in found]  # type: ignore[arg-type]


TASK = Task("t", "do", "good = 1", ("assert 1", "assert 2"), entry_point="f", setup="import os")


def evaluate(predictions: list[str], tasks: list[Task | None], **more: Any) -> Any:
    names = more.pop("metrics", ["pass_at_1"])
    executor = FakeExecutor()
    evaluator = ModernMetricsEvaluator(metrics=names, executor=executor)
    samples = more.pop("samples", None)
    references = [None] * len(predictions)
    return evaluator.evaluate(predictions, references, tasks=tasks, samples=samples), executor


@pytest.mark.parametrize("n", range(1, 7))
def test_estimator_equals_counting_all_subsets(n: int) -> None:
    for c in range(n + 1):
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(range(n), k))
            hits = sum(any(one < c for one in subset) for subset in subsets)
            assert pass_at_k(n, c, k) == pytest.approx(hits / len(subsets), abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(0, 0, 1), (3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_estimator_refuses_impossible_counts(n: int, c: int, k: int) -> None:
    with pytest.raises(MetricError, match="pass@k needs"):
        pass_at_k(n, c, k)


def test_infrastructure_failure_is_left_out_and_counted() -> None:
    report, _ = evaluate(["good = 1", "half = 1", "infra = 1"], [TASK, TASK, TASK])
    result = report["pass_at_1"]
    assert result.per_item == [1.0, 0.0, None]
    assert (result.value, result.n) == (0.5, 2)
    assert result.details["verdicts"] == {"fail": 1, "infra_error": 1, "pass": 1}
    # Tests passed: 2 of 2 and 1 of 2; the infrastructure failure has no share.
    assert result.details["tests_passed"] == pytest.approx(0.75)


def test_program_carries_the_task() -> None:
    _, executor = evaluate(["good = 1"], [TASK])
    (program,) = executor.calls[0]
    assert (program.code, program.tests, program.entry_point) == ("good = 1", TASK.tests, "f")
    assert (program.mode, program.setup) == ("assert", "import os")


def test_blank_answers_fail_without_being_run() -> None:
    report, executor = evaluate(["", " \n"], [TASK, TASK])
    assert report["pass_at_1"].per_item == [0.0, 0.0]
    assert report["pass_at_1"].details["verdicts"] == {"empty": 2}
    assert executor.calls == []


def test_items_without_a_task_are_none() -> None:
    report, _ = evaluate(["good = 1", "good = 1"], [TASK, None])
    assert report["pass_at_1"].per_item == [1.0, None]
    assert report["pass_at_1"].details["without_tests"] == 1


def test_samples_are_run_once_for_every_k() -> None:
    report, executor = evaluate(
        ["bad = 1"],
        [TASK],
        metrics=["pass_at_1", "pass_at_2", "pass_at_3"],
        samples=[["good = 1", "bad = 1", "infra = 1", "bad = 2"]],
    )
    assert len(executor.calls) == 2
    assert report["pass_at_1"].per_item == [0.0]
    # 3 judged samples, 1 right: 1 - C(2, 2) / C(3, 2); and 1.
    assert report["pass_at_2"].per_item == [pytest.approx(2 / 3)]
    assert report["pass_at_3"].per_item == [pytest.approx(1.0)]


def test_too_few_samples_is_none_with_a_reason() -> None:
    report, _ = evaluate(["x"], [TASK], metrics=["pass_at_3"], samples=[["good", "bad"]])
    assert report["pass_at_3"].value is None
    assert report["pass_at_3"].reason
    report, _ = evaluate(["x"], [TASK], metrics=["pass_at_3"])
    assert "needs 3 samples" in report["pass_at_3"].reason


def test_default_set_adds_pass_at_k_when_samples_are_given() -> None:
    evaluator = ModernMetricsEvaluator(executor=FakeExecutor(), bootstrap_samples=0)
    report = evaluator.evaluate(["x = 1"], ["x = 1"], tasks=[TASK], samples=[["good", "bad"]])
    assert list(report)[:2] == ["pass_at_1", "pass_at_2"]
    assert report["pass_at_2"].value == 1.0


@pytest.mark.parametrize(
    ("tasks", "executor", "reason"),
    [(None, FakeExecutor(), "no item has tests"), ([TASK], None, "no executor")],
)
def test_reasons_when_nothing_can_be_run(tasks: Any, executor: Any, reason: str) -> None:
    evaluator = ModernMetricsEvaluator(metrics=["pass_at_1"], executor=executor)
    result = evaluator.evaluate(["x"], ["x"], tasks=tasks)["pass_at_1"]
    assert result.value is None
    assert reason in str(result.reason)


def test_all_right_on_few_items_is_not_certainty() -> None:
    report, _ = evaluate(["good = 1"] * 5, [TASK] * 5)
    # Clopper-Pearson: 0.025 ** (1 / 5).
    assert report["pass_at_1"].low == pytest.approx(0.025 ** (1 / 5))
    assert report["pass_at_1"].high == 1.0


def test_answers_that_continue_a_program_are_completed() -> None:
    humaneval = Task(
        "h", "p", "r", ("assert f(1)",), "f", metadata={"prefix": "def f(x):\n", "suffix": ""}
    )
    odex = Task(
        "o",
        "p",
        "r",
        ("assert f(1)",),
        "f",
        metadata={"prefix": "def f(x):\n\treturn ", "suffix": "\n"},
    )
    _, executor = evaluate(
        ["    return x", "x + 1", "def f(x):\n    return 2"], [humaneval, odex, odex]
    )
    codes = [program.code for program in executor.calls[0]]
    assert codes[0].strip("\n") == "def f(x):\n    return x"
    assert codes[1] == "def f(x):\n\treturn x + 1\n"
    assert codes[2] == "def f(x):\n    return 2"
