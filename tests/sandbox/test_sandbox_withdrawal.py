"""No program takes itself, or another one, out of judgement; what the judge needs is not its fault."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox_hostile_set import ADD, CODED, WRONG, raw

from modern_rlhf.sandbox.executor import SandboxExecutor
from modern_rlhf.sandbox.runtime import guard, lower, scratch
from modern_rlhf.sandbox.runtime.judge import Judge
from modern_rlhf.sandbox.runtime.outcome import Outcome
from modern_rlhf.sandbox.runtime.processes import ZygoteLost
from modern_rlhf.sandbox.runtime.values import Decoder, Encoder, ValueRefused
from modern_rlhf.sandbox.types import Program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors as Linux passes them")
RIGHT = "def add(a, b):\n    return a + b\n"


@pytest.fixture(scope="module")
def executor() -> Iterator[SandboxExecutor]:
    with SandboxExecutor(workers=1) as made:
        yield made


@pytest.fixture(scope="module")
def spawning() -> Iterator[SandboxExecutor]:
    with SandboxExecutor(workers=1, fork=False) as made:
        yield made


@pytest.mark.parametrize(
    "report",
    ['{"unusable":"x"}', '{"run":0,"passed":0}', '{"dead":true,"run":1}', '{"passed":"1","run":1}',
     '{}', '{"load":{}}'],
)  # fmt: skip
def test_a_shared_interpreter_cannot_report_itself_away(
    executor: SandboxExecutor, report: str
) -> None:
    code = raw(report) + "import time\ntime.sleep(9)\n"
    (result,) = executor.run([Program(code, CODED, "add", transport="inprocess")])
    assert result.verdict in ("crash", "fail")


NOTICES = "import sys\nif sys.gettrace() is not None:\n    {}\n" + RIGHT


@pytest.mark.parametrize(
    "does",
    ["raise SystemExit", "import os; os._exit(70)", "print('x' * (2 << 20))",
     "import os; os.write(4, b'\\xff' * 99)", "import signal; signal.raise_signal(9)",
     "import resource as r; r.setrlimit(r.RLIMIT_CPU, (0, 0)); [0 for _ in iter(int, 1)]"],
)  # fmt: skip
@pytest.mark.parametrize("tests", [ADD, CODED], ids=["data", "code"])
def test_the_second_run_of_a_trace_touches_no_verdict(
    executor: SandboxExecutor, does: str, tests: Any
) -> None:
    (result,) = executor.run([Program(NOTICES.format(does), tests, "add", trace=True)])
    assert result.verdict == "pass"


@pytest.mark.parametrize("trouble", [ValueError("malformed"), ZygoteLost("gone")])
def test_a_second_run_that_loses_a_helper_touches_no_verdict(trouble: Exception) -> None:
    judge = object.__new__(Judge)
    judge.spoilt = False

    def stumble(*_: object) -> None:
        raise trouble

    def settle(job: Any, outcome: Outcome, tests: Any) -> None:
        outcome.run = outcome.passed = 1
        outcome.settle("pass")

    judge.__dict__.update(candidates=type("C", (), {"level": 2}), plans={}, _run=settle)
    judge.__dict__["_traced"] = stumble
    job = {"mode": "call", "tests": ['{"expected": 1}'], "setup": "", "entry_point": "f",
           "transport": "auto", "trace": True}  # fmt: skip
    assert judge.judge(job)["verdict"] == "pass" and judge.spoilt


def test_what_makes_the_judge_stumble_is_an_infra_error_once_and_a_crash_twice() -> None:
    judge = object.__new__(Judge)
    judge.spoilt = False

    def stumble(*_: object) -> None:
        raise RecursionError("too deep")

    judge.__dict__.update(candidates=type("C", (), {"level": 2}), plans={}, _run=stumble)
    job = {"mode": "call", "tests": ['{"expected": 1}'], "setup": "", "entry_point": "f",
           "transport": "auto"}  # fmt: skip
    told = judge.judge(job)
    assert (told["verdict"], told["again"]) == ("infra_error", "crash") and judge.spoilt


def test_time_the_judge_takes_is_not_the_programs(executor: SandboxExecutor) -> None:
    # two values of 4 MiB: to read and decode them takes the judge more than a second, in which the
    # program lies idle for longer than it may (0.1 + 0.5 s)
    head = "p = '{\"v\":[' + '[],' * 1390000 + '[]]}'\n"
    code = raw(head=head).replace("for m in []", "for m in [p.encode()] * 2")
    tests = ("assert add(1, 3) != 5", "assert add(2, 3) != 5")
    (result,) = executor.run([Program(code, tests, "add", timeout=0.1)])
    assert result.verdict == "pass"


@pytest.mark.parametrize("number", [5, 400])
def test_a_program_that_does_not_read_holds_nobody_up(
    spawning: SandboxExecutor, number: int
) -> None:
    """Where the worker relays, it must neither wait for a reader nor be left with one."""
    deaf = raw(*['{"v":true}'] * number).replace("os.close(4)\n", "import time\ntime.sleep(60)\n")
    long = "text = 'x' * (1 << 20)\nassert add(text, '') == text"
    found = spawning.run([Program(deaf, long, "add", timeout=0.5), Program(RIGHT, ADD)])
    assert found[0].verdict in ("timeout", "fail", "crash") and found[1].verdict == "pass"


def test_names_taken_in_the_scratch_keep_nothing_in_it(tmp_path: Path) -> None:
    for above in range(5):
        for index in range(5):
            os.makedirs(tmp_path / f".{above}.{index}.{os.getpid()}" / "full" / "er")
    os.makedirs(tmp_path / "d" / "x" / "y")
    (tmp_path / "d" / "x" / "secret").write_text("s")
    assert scratch.empty(str(tmp_path)) and os.listdir(tmp_path) == []


@pytest.mark.parametrize("layer", [2, 1, 0])
def test_nothing_is_left_for_the_next_program(layer: int) -> None:
    leave = "import os\nfor k in range(5):\n    for i in range(5):\n        for p in (1, os.getppid()):\n"
    leave += (
        "            os.makedirs(f'.{k}.{i}.{p}/full/er')\n" if layer != 2 else "            pass\n"
    )
    leave += "os.makedirs('d/x/y')\nopen('d/x/secret', 'w').close()\n" + RIGHT
    look = "import os\ndef add(a, b): return a + b if not os.listdir('.') else None\n"
    with SandboxExecutor(workers=1, max_layer=layer) as made:
        found = made.run([Program(leave, ADD), Program(look, ADD)])
    assert [result.verdict for result in found] == ["pass", "pass"]


def test_files_are_counted_however_deep_they_lie(tmp_path: Path) -> None:
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(20):
            os.mkdir("d" * 250)
            os.chdir("d" * 250)
        Path("f").write_bytes(bytes(1 << 16))
        # what cannot be looked into counts as too much
        assert scratch.usage(str(tmp_path), entries=2048, size=1 << 30)[0] > 2048
    finally:
        os.chdir(here)
        scratch.empty(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_keys_may_share_a_hash_but_not_many_of_them() -> None:
    honest = {(-1, i) for i in range(3000)} | {(-2, i) for i in range(3000)}
    assert Decoder()(Encoder()(honest)) == honest  # hash(-1) == hash(-2)
    colliding = {"set": [{"int": hex(i * (2**61 - 1))} for i in range(1, 2000)]}
    with pytest.raises(ValueRefused, match="collide"):
        Decoder()(colliding)
    few = {"set": [{"int": hex(i * (2**61 - 1))} for i in range(1, 1200)]}
    assert len(Decoder()(few)) == 1199
    with pytest.raises(ValueRefused, match="collide"):  # the bound is the whole value's
        Decoder()([few, few])


def test_the_guard_rests_on_nothing_that_can_be_changed() -> None:
    """Every name in the hook is its own: a global, a module or a Python function could be replaced."""
    hook: Any = getattr(guard, "_hook")  # noqa: B009 - not the name under test
    code = hook.__code__
    assert set(code.co_names) <= {"__name__", "__globals__", "get", "st_mode"}
    assert code.co_freevars == () and not any(type(c).__name__ == "code" for c in code.co_consts)
    plain = (str, int, tuple, type(None), type, type(len), type(str.find), type(str.__add__))
    assert all(isinstance(value, plain) for value in hook.__kwdefaults__.values())


def test_a_judgement_reads_its_tests_before_it_runs_anything() -> None:
    assert lower.lower("assert add(", "", "add", "assert") is None
    with SandboxExecutor(workers=1) as made:
        found = made.run([Program(WRONG, "assert add("), Program(WRONG, ("{}",), mode="call")])
    assert [r.verdict for r in found] == ["infra_error", "infra_error"]
    assert all("tests cannot be used" in r.message for r in found)
