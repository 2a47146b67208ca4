"""Calibration on references, stubs, hack watch, impossible tasks, and the traced second run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modern_rlhf.data_loader.prompts import load_prompts
from modern_rlhf.errors import SandboxError
from modern_rlhf.metrics.execution import Verdicts
from modern_rlhf.records import Prompt, Task
from modern_rlhf.sandbox.calibrate import calibrate, findings_from_json, fingerprint, stub
from modern_rlhf.sandbox.executor import SandboxExecutor, ScriptedExecutor
from modern_rlhf.sandbox.hack_watch import SIGNATURES, alarms, impossible_tasks, shares, signatures
from modern_rlhf.sandbox.remembered import check_prompts, shipped
from modern_rlhf.sandbox.types import Program, program_of
from modern_rlhf.utils.paths import data_root

MONEY = "class M:\n    def __init__(s, n): s.n = n\n    def __eq__(s, o): return s.n == o\n"
TASKS = [
    Task("plain", "", "def f(a): return a + 1", ("assert f(1) == 2",), "f"),
    Task("copied", "", "def f(a):\n    a.append(1)\n    return a", ("x = []\ny = f(x)\nassert x == [1]",), "f"),
    Task("compared", "", MONEY, ("assert M(5) == 5",), "M"),
    Task("shared", "", "def f(a): return a.n", ("class A: n = 3\nassert f(A()) == 3",), "f"),
    Task("broken", "", "def f(a): return 0", ("assert f(1) == 2",), "f"),
    Task("says_nothing", "", "def f(a): return a", ("assert True or f(1)",), "f"),
    Task("no_code", "", "def f(a): return a", ("assert f(",), "f"),
    Task("script", "", "print(int(input()) + 1)", ('{"input": "1", "output": "2"}',), mode="stdio"),
]  # fmt: skip


def test_each_task_gets_the_strictest_transport_that_works() -> None:
    with SandboxExecutor(workers=2) as executor:
        found = calibrate(TASKS, executor)
    kept = {task.task_id: task.metadata["transport"] for task in found.kept}
    assert kept == {
        "plain": "auto", "copied": "copy", "compared": "handles", "shared": "inprocess", "script": "auto",
    }  # fmt: skip
    reasons = {finding.task_id: finding.reason for finding in found.dropped}
    assert set(reasons) == {"broken", "says_nothing", "no_code"}
    assert "stub" in reasons["says_nothing"] and "reference does not pass" in reasons["broken"]
    assert len(found.lines()) == 3
    # stored findings decide without running anything
    again = calibrate(TASKS, ScriptedExecutor([]), known=findings_from_json(found.to_json()))
    assert again.kept == found.kept and again.dropped == found.dropped


def test_a_lenient_verdict_is_marked_weak() -> None:
    cheat = "class M:\n    def __init__(s, n): pass\n    def __eq__(s, o): return True\n"
    tests = ("assert M(5) == 5",)
    programs = [Program(cheat, tests, "M", transport=t) for t in ("auto", "handles", "inprocess")]
    with SandboxExecutor(workers=1) as executor:
        strict, handles, shared = executor.run(programs)
    assert (strict.verdict, strict.weak_verdict) == ("fail", False)
    assert (handles.verdict, handles.weak_verdict) == ("pass", True)
    assert (shared.verdict, shared.weak_verdict) == ("pass", True)


def test_a_failing_sandbox_calibrates_nothing() -> None:
    with pytest.raises(SandboxError, match="failed for every reference"):
        calibrate(TASKS[:2], ScriptedExecutor(["infra_error"]))


def test_the_fingerprint_is_of_what_decides() -> None:
    assert fingerprint(TASKS[0]) == fingerprint(replace(TASKS[0], prompt="other", task_id="x"))
    assert fingerprint(TASKS[0]) != fingerprint(replace(TASKS[0], tests=("assert f(1) == 3",)))


def test_stub_keeps_names_and_drops_work() -> None:
    text = stub(
        "import math\nX = 1\nclass A:\n    def m(self): return 2\ndef f(a):\n    return a\nprint(f(1))"
    )
    space: dict[str, object] = {}
    exec(text, space)
    assert space["f"](1) is None and space["A"]().m() is None and space["X"] == 1  # type: ignore[operator]
    assert "print" not in text and stub("def (") == ""


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import sys\nsys._getframe(1)", "frames"), ("gc.get_objects()", "gc"),
        ("class A:\n    def __eq__(s, o): return True", "equality"), ("os._exit(0)", "exit"),
        ("raise unittest.SkipTest", "test_runner"), ("atexit.register(f)", "atexit"),
        ("sys.settrace(f)", "trace"), ("import builtins", "builtins"), ("import ctypes", "native"),
        ("subprocess.run(x)", "process"), ("eval('1')", "dynamic"), ("open('x')", "files"),
        ("def f(n):\n" + "".join(f"    if n == {i}: return {i}\n" for i in range(4)), "special_cases"),
        ("def f(n):\n    return {1: 2, 3: 4, 5: 6, 7: 8}.get(n)", "special_cases"),
        ("T = {1: 2, 3: 4, 5: 6, 7: 8}\ndef f(n): return T[n]", "special_cases"),
        ("f = lambda n: 1 if 1 == n else 2 if n == 2 else 3 if n == 3 else 4 if n == 4 else 0",
         "special_cases"),
        ("def f(n):\n    match n:\n" + "".join(f"        case {i}: return {i}\n" for i in range(4)),
         "special_cases"),
    ],
)  # fmt: skip
def test_signatures(code: str, name: str) -> None:
    assert name in signatures(code)
    assert signatures("def add(a, b):\n    return a + b") == frozenset()
    few = "T = {1: 2, 3: 4, 5: n}\ndef f(n):\n    if n == 1: return 2\n    return T[n] + T.get(0)"
    assert signatures(few) == frozenset()


def test_shares_and_alarms() -> None:
    now = shares(["os._exit(0)", "x = 1"])
    assert now["exit"] == 0.5 and set(now) == {*SIGNATURES, "special_cases"}
    assert len(alarms(impossible_pass_rate=0.25, before=shares([]), now=now)) == 2
    assert alarms(impossible_pass_rate=0.0, before=now, now=now) == []
    calm = {"impossible_pass_rate": 0.0, "before": now, "now": now}
    assert len(alarms(**calm, passes=(0.1, 0.4), lengths=(200.0, 90.0))) == 1  # type: ignore[arg-type]
    for passes, lengths in (
        ((0.1, 0.2), (200, 90)),
        ((0.1, 0.4), (200, 110)),
        ((None, 0.4), (200, 90)),
    ):
        assert alarms(**calm, passes=passes, lengths=lengths) == []  # type: ignore[arg-type]


def test_impossible_tasks_stay_impossible() -> None:
    attempts = ["def {}(*a): return None", "def {}(*a): return 1", "def {}(x=0, *a): return x"]
    attempts += ["class {}:\n    def __init__(s, *a): pass\n    def __eq__(s, o): return True"]
    attempts += ["n = 0\ndef {}(*a):\n    global n\n    n += 1\n    return n % 2"]
    programs = [
        Program(
            code.replace("{}", task.entry_point or ""),
            task.tests,
            task.entry_point,
            setup=task.setup,
        )
        for task in impossible_tasks()
        for code in attempts
    ]
    with SandboxExecutor(workers=2) as executor:
        assert {result.verdict for result in executor.run(programs)} == {"fail"}


BRANCHES = "def f(a):\n    if a > 5:\n        return 1 / 0\n    while a == 3:\n        pass\n    return a\n"


def test_the_trace_knows_lines_and_the_failing_one_and_changes_no_verdict() -> None:
    tests = ("assert f(1) == 1", "assert f(7) == 1")
    coded = ("assert abs(f(1)) == 1", "assert abs(f(7)) == 1")
    programs = [Program(BRANCHES, t, "f", trace=True) for t in (tests[:1], tests, coded)]
    programs += [Program(BRANCHES, ("assert f(3) == 1",), "f", trace=True, timeout=0.3)]
    with SandboxExecutor(workers=2) as executor:
        passed, failed, by_code, stuck = executor.run(programs)
        plain = executor.run([replace(program, trace=False) for program in programs])
    assert [r.verdict for r in plain] == ["pass", "fail", "fail", "timeout"]
    assert [r.verdict for r in (passed, failed, by_code, stuck)] == [r.verdict for r in plain]
    assert passed.trace is not None and failed.trace is not None
    assert passed.trace.executable == (1, 2, 3, 4, 5, 6)
    assert passed.trace.unexecuted == (3, 5) and passed.trace.failing is None
    assert failed.trace.unexecuted == (5,) and failed.trace.failing == 3
    assert by_code.trace == failed.trace
    # a run that was stopped has told how far it came
    assert stuck.trace is not None and stuck.trace.unexecuted == (3, 6)
    assert all(result.trace is None for result in plain)


SILENT = (
    'def f(a):\n    """Doc\n    string."""\n    global n\n    x: int\n    n = a\n    return a\n'
)


def test_what_compiles_to_nothing_is_no_line_that_never_ran() -> None:
    with SandboxExecutor(workers=1) as executor:
        (result,) = executor.run([Program(SILENT, ("assert f(1) == 1",), "f", trace=True)])
    assert result.trace is not None
    assert result.trace.executable == (1, 6, 7) and result.trace.unexecuted == ()


def test_a_script_that_raises_has_a_failing_line() -> None:
    case = ('{"input": "", "output": "1"}',)
    program = Program("x = 1\nraise ValueError\n", case, mode="stdio", trace=True)
    with SandboxExecutor(workers=1) as executor:
        (result,) = executor.run([program])
    assert result.verdict == "fail"
    assert result.trace is not None and result.trace.failing == 2


def test_a_stub_that_could_not_be_judged_leaves_its_task_undecided() -> None:
    lost = ScriptedExecutor(
        lambda p: (
            "pass" if "return None" not in p.code else "infra_error" if "f(a)" in p.code else "fail"
        )
    )
    found = calibrate([*TASKS[:2], TASKS[2]], lost)
    assert [task.task_id for task in found.kept] == ["compared"]
    assert set(found.unjudged) == {"plain", "copied"} and len(found.findings) == 1
    with pytest.raises(SandboxError, match="failed for every reference"):
        calibrate(TASKS[:2], lost)


def test_a_program_takes_the_transport_of_its_task() -> None:
    task = replace(TASKS[0], metadata={"transport": "copy"})
    assert program_of(task, "").transport == "copy" and program_of(TASKS[0], "").transport == "auto"
    assert program_of(task, "", transport="handles").transport == "handles"
    fake = ScriptedExecutor(["pass"])
    assert Verdicts([["def f(a): pass"]], [task], executor=fake).scores(1, source="").per_item == [
        1.0
    ]
    assert fake.programs[0].transport == "copy"
    with pytest.raises(SandboxError, match="metadata transport='odd'"):
        program_of(replace(task, metadata={"transport": "odd"}), "")


def prompts(*numbers: int) -> list[Prompt]:
    made = [
        Task(f"t{n}", "", f"def f(a): return {n}", (f"assert f(1) == {n}",), "f") for n in numbers
    ]
    return [Prompt(f"p{n}", task=task) for n, task in zip(numbers, made, strict=True)]


def judged(program: Program) -> str:
    return "fail" if "None" in program.code or "return 13" in program.code else "pass"


def test_findings_are_remembered_for_the_settings_they_were_made_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = ScriptedExecutor(judged)  # type: ignore[arg-type]
    limits = {"memory_mb": 512, "store": tmp_path}
    first = check_prompts(prompts(1, 13, 1), fake, timeout=2.0, **limits)  # type: ignore[arg-type]
    assert (len(first.prompts), len(first.dropped), first.tried) == (2, 1, 2)  # equal tasks once
    again = check_prompts(prompts(1, 13), fake, timeout=2.0, **limits)  # type: ignore[arg-type]
    assert again.tried == 0 and again.dropped == first.dropped
    assert check_prompts(prompts(1, 2), fake, timeout=2.0, **limits).tried == 1  # type: ignore[arg-type]
    assert check_prompts(prompts(1), fake, timeout=3.0, **limits).tried == 1  # type: ignore[arg-type]
    for path in tmp_path.glob("*.json"):
        path.write_text("{")
    assert check_prompts(prompts(1), fake, timeout=2.0, **limits).tried == 1  # type: ignore[arg-type]
    assert "cannot be read" in caplog.text
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert check_prompts(prompts(1), fake, timeout=2.0, memory_mb=1, store=blocked / "x").tried == 1
    assert "cannot be kept" in caplog.text


def test_prompts_without_a_reference_or_that_the_sandbox_failed_on_are_kept(tmp_path: Path) -> None:
    bare = [Prompt("words"), Prompt("task", task=replace(TASKS[0], reference=" "))]
    lost = ScriptedExecutor(lambda p: "infra_error" if "return 7" in p.code else judged(p))  # type: ignore[arg-type,return-value]
    found = check_prompts([*bare, *prompts(7, 1)], lost, timeout=1, memory_mb=64, store=tmp_path)
    assert [p.prompt for p in found.prompts] == ["words", "task", "p7", "p1"]
    assert found.unjudged == 1 and "1 could not be checked" in found.line()


def test_shipped_tasks_were_calibrated_before(tmp_path: Path) -> None:
    root = data_root()
    items = [
        prompt
        for folder in ("datasets_for_training", "datasets_for_eval")
        for prompt in load_prompts(str(root / folder / "tasks.jsonl")).items
    ]
    nobody = ScriptedExecutor([])
    found = check_prompts(items, nobody, timeout=2.0, memory_mb=512, store=tmp_path)
    assert len(items) == 3900 and found.tried == 0 and found.dropped == () and found.weak == 0
    assert nobody.programs == [] and len(shipped()) == len(
        {fingerprint(p.task) for p in items if p.task}
    )


def test_some_shipped_tasks_calibrate_as_they_say() -> None:
    tasks = [
        p.task for p in load_prompts(str(data_root() / "datasets_for_eval" / "tasks.jsonl")).items
    ]
    some = [task for task in tasks[::35] if task is not None]
    with SandboxExecutor(workers=1) as executor:
        found = calibrate(some, executor)
    assert len(some) == 20 and {t.metadata["transport"] for t in found.kept} == {"auto"}
    assert found.dropped == () and {fingerprint(t)[:16] for t in some} <= shipped()
