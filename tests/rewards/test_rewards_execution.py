"""Syntax and execution rewards: the ladder of verdicts, what does not apply, what cannot be scored."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modern_rlhf.errors import ConfigError
from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
from modern_rlhf.records import Prompt, Task
from modern_rlhf.rewards.base import Reward, RewardBatch
from modern_rlhf.rewards.execution import ExecutionReward, execution_score
from modern_rlhf.rewards.semantic import SemanticReward
from modern_rlhf.rewards.syntax import SyntaxReward, syntax_score
from modern_rlhf.sandbox.executor import SandboxExecutor, ScriptedExecutor
from modern_rlhf.sandbox.types import ExecutionResult

TASK = Task(
    "t",
    "Add.",
    "def add(a, b): return a + b",
    ("assert add(1, 2) == 3", "assert add(2, 2) == 4"),
    "add",
)
ANSWERS = [
    "def add(a, b) return",
    "import os\nos._exit(0)",
    "def add(a, b): return 0",
    "def add(a, b): return 3",
    "Sure!\n```python\ndef add(a, b):\n    return a + b\n```",
]  # fmt: skip


def batch(answers: list[str], task: Task | None = TASK) -> RewardBatch:
    return RewardBatch([Prompt("Add.", task=task)] * len(answers), answers)


def test_graded_is_a_ladder() -> None:
    with SandboxExecutor(workers=2) as executor:
        scores = ExecutionReward(executor).score(batch(ANSWERS))
    # no compile < dies < no test passes < 1 of 2 passes (0.2 + 0.6 / 2) < all
    assert scores.total == pytest.approx([0.0, 0.1, 0.2, 0.5, 1.0])
    assert scores.components["execution"] == scores.total
    assert scores.details["verdict"] == ["syntax", "crash", "fail", "fail", "pass"]
    assert scores.details["tests_passed"] == [0, 0, 0, 1, 2]
    assert scores.details["hack_signatures"][1] == ["exit"]


@pytest.mark.parametrize(
    ("kind", "expected"), [("all", [0.0, 0.0, 0.0, 1.0]), ("fraction", [0.0, 0.0, 0.5, 1.0])]
)
def test_the_other_kinds(kind: str, expected: list[float]) -> None:
    results = [
        ExecutionResult("syntax", 0, 2), ExecutionResult("crash", 1, 2, loaded=True),
        ExecutionResult("fail", 1, 2, loaded=True), ExecutionResult("pass", 2, 2, loaded=True),
    ]  # fmt: skip
    assert [execution_score(r, kind=kind) for r in results] == expected  # type: ignore[arg-type]


def test_not_applicable_and_unscorable_are_told_apart() -> None:
    reward: Reward = ExecutionReward(ScriptedExecutor(["infra_error"]))
    lost = reward.score(batch(ANSWERS[:1]))
    assert lost.total == [None] and lost.details["unscorable"] == [True]
    assert lost.details["verdict"] == ["infra_error"]
    for task in (None, Task("t", "", "", ())):
        absent = reward.score(batch(ANSWERS[:1], task))
        assert absent.total == [None] and absent.details["unscorable"] == [False]
        assert absent.details["verdict"] == [None]


def test_the_task_decides_the_transport_and_the_trace_comes_back() -> None:
    fake = ScriptedExecutor(["pass"])
    task = Task("t", "", "", ("assert f(1) == 1",), "f", metadata={"transport": "copy"})
    ExecutionReward(fake, trace_credit=True, timeout=1.5).score(batch(["def f(a): return a"], task))
    assert (fake.programs[0].transport, fake.programs[0].trace) == ("copy", True)
    assert fake.programs[0].timeout == 1.5
    with SandboxExecutor(workers=1) as executor:
        code = "def add(a, b):\n    if a == 99:\n        return 0\n    return a + b"
        scores = ExecutionReward(executor, trace_credit=True).score(batch([code]))
    assert scores.details["trace"][0]["unexecuted_lines"] == [3]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="execution_kind='best'"):
        ExecutionReward(ScriptedExecutor(["pass"]), kind="best")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "score"),
    [
        ("x = 1", 1.0),
        ("", 0.0),
        ("# only a remark", 0.0),
        # 2 of 3 counted lines parse: 0.5 * 2 / 3
        ("a = 1\nb = 2\nc = = 3", 1 / 3),
        # the header of a function whose body is broken counts: 0.5 * 1 / 2
        ("def f(a):\n    return a +", 0.25),
        ("def f(", 0.0),
    ],
)
def test_syntax_scores(code: str, score: float) -> None:
    assert syntax_score(code)[0] == pytest.approx(score)
    assert syntax_score(code, partial_credit=False)[0] == (1.0 if score == 1.0 else 0.0)


def test_syntax_reward_reads_through_a_fence() -> None:
    scores = SyntaxReward().score(batch(["```python\nx = 1\n```", "def f("], None))
    assert scores.total == [1.0, 0.0] and scores.details["extracted"][0] == "fence"
    assert scores.details["syntax_error"][0] is None


def test_an_answer_that_continues_its_task_is_judged_as_in_evaluation() -> None:
    """HumanEval shows the beginning of a program; its own solution is the rest."""
    shown = 'def add(a, b):\n    """Add."""\n'
    task = replace(TASK, metadata={"prefix": shown, "suffix": ""})
    answers = ["    return a + b\n", "    return a - b\n", "```python\n    return a + b\n```"]
    prompts = [Prompt(shown, reference=shown + answers[0], task=task)] * len(answers)
    rows = RewardBatch(prompts, answers)
    with SandboxExecutor(workers=1) as executor:
        scores = ExecutionReward(executor).score(rows)
        evaluated = ModernMetricsEvaluator(metrics=["pass_at_1"], executor=executor).evaluate(
            answers, [shown + answers[0]] * len(answers), tasks=[task] * len(answers)
        )
    assert scores.details["verdict"] == ["pass", "fail", "pass"]
    assert evaluated.results["pass_at_1"].per_item == [1.0, 0.0, 1.0]
    assert SyntaxReward().score(rows).total == [1.0, 1.0, 1.0]
    likeness = SemanticReward().score(rows).total
    assert likeness[0] == likeness[2] == 1.0 and likeness[1] < 1.0  # type: ignore[operator]
