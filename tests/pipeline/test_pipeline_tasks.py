"""Tasks are tried on their references when a run starts; what cannot be judged is left out and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modern_rlhf.config import get_cpu_test_config
from modern_rlhf.config.reward import RewardConfig
from modern_rlhf.data_loader.evaluation_set import EvaluationSet
from modern_rlhf.errors import DataError
from modern_rlhf.pipeline.data import RunData
from modern_rlhf.pipeline.workspace import Workspace
from modern_rlhf.records import Prompt, Task
from modern_rlhf.rewards import execution
from modern_rlhf.sandbox import remembered
from modern_rlhf.sandbox.executor import ScriptedExecutor
from modern_rlhf.sandbox.types import Program, Verdict


def prompt(name: str) -> Prompt:
    tests = (f"assert {name}(1) == 1",)
    task = Task(name, f"Write {name}.", f"def {name}(a): return a", tests, name)
    return Prompt(task.prompt, task=task)


def judge(program: Program) -> Verdict:
    """References of `bad...` fail and stubs of `idle...` pass."""
    if "return None" in program.code:
        return "pass" if "idle" in program.code else "fail"
    return "fail" if "bad" in program.code else "pass"


def workspace(prompts: list[Prompt], evaluation: list[Prompt], executor: Any) -> Workspace:
    data = RunData(
        [], prompts, EvaluationSet([], "none"), EvaluationSet(evaluation, "eval"), [], []
    )
    made: Any = {"device": None, "artifacts": None, "tracker": None}
    return Workspace(config=get_cpu_test_config(), data=data, _executor=executor, **made)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "STORE", tmp_path / "calibration")


def test_what_cannot_be_judged_is_left_out_everywhere_and_counted() -> None:
    executor = ScriptedExecutor(judge)
    made = workspace(
        [prompt("good"), prompt("bad"), prompt("idle"), Prompt("only words")],
        [prompt("fine"), prompt("bad2"), prompt("bad3")],
        executor,
    )
    made.check_tasks()
    assert [p.prompt for p in made.data.prompts] == ["Write good.", "only words"]
    assert [p.prompt for p in made.data.evaluation.items] == ["Write fine."]
    assert made.data.prompts[0].task is not None
    assert made.data.prompts[0].task.metadata["transport"] == "auto"
    first, second = made.data.lines
    assert first.startswith(
        "prompts: 3 tasks checked on their references (3 executed now); 1 dropped"
    )
    assert "a stub that returns None passes its tests (idle)" in first
    assert "2 dropped: its reference does not pass (bad2, bad3)" in second
    # a second run knows all of it and executes nothing
    asked = len(executor.programs)
    again = workspace([prompt("good"), prompt("bad")], [prompt("fine")], executor)
    again.check_tasks()
    assert [p.prompt for p in again.data.prompts] == ["Write good."]
    assert len(executor.programs) == asked and "(0 executed now)" in again.data.lines[0]


def test_a_run_without_a_task_that_can_be_judged_stops() -> None:
    made = workspace([prompt("bad")], [prompt("fine")], ScriptedExecutor(judge))
    with pytest.raises(DataError, match="none of the 1 tasks of prompts can be judged"):
        made.check_tasks()


def test_the_executor_has_the_limits_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(execution, "SandboxExecutor", lambda **options: given.update(options))
    section = RewardConfig(execution_timeout=1.5, execution_memory_mb=256, execution_min_layer=1)
    execution.make_executor(section, workers=3)
    assert given == {"workers": 3, "timeout": 1.5, "memory_mb": 256, "min_layer": 1}


def test_fields_of_the_configuration_reach_the_rewards() -> None:
    made = workspace([], [], ScriptedExecutor(judge))
    for wanted in (False, True):
        made.config.reward.execution_trace_credit = wanted
        made.config.reward.syntax_partial_credit = wanted
        made.config.reward.execution_kind = "all" if wanted else "fraction"
        parts: Any = {reward.name: reward for reward, _ in made.reward(None).components}
        assert parts["execution"].trace_credit is wanted
        assert parts["syntax"].partial_credit is wanted
        assert parts["execution"].kind == ("all" if wanted else "fraction")
