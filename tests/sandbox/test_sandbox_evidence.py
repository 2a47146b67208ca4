"""What the judge takes for evidence: no death, frame, text or value of a program takes it out of judgement."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from test_sandbox_executor import ADD, TESTS, descendants, role

from modern_rlhf.sandbox.executor import SandboxExecutor
from modern_rlhf.sandbox.runtime import lower, processes, scratch
from modern_rlhf.sandbox.runtime.values import Decoder, Encoder, ValueRefused
from modern_rlhf.sandbox.types import ExecutionResult, Program

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def executor() -> Iterator[SandboxExecutor]:
    with SandboxExecutor(workers=1) as made:
        yield made


@pytest.fixture(scope="module")
def bare() -> Iterator[SandboxExecutor]:
    with SandboxExecutor(workers=1, max_layer=0) as made:
        yield made


@LINUX
def test_killed_once_a_program_is_judged_again(executor: SandboxExecutor) -> None:
    results: list[ExecutionResult] = []
    program = Program("import time\ntime.sleep(0.4)\n" + ADD, TESTS)
    thread = threading.Thread(target=lambda: results.extend(executor.run([program])))
    thread.start()
    time.sleep(0.2)
    zygotes = [pid for pid in descendants(os.getpid()) if role(pid) == "zygote"]
    children = [(pid, descendants(pid)) for pid in zygotes]
    running = next(found[0] for _, found in children if len(found) >= 2)  # the oldest one runs
    os.kill(running, signal.SIGKILL)
    thread.join(timeout=60)
    assert [result.verdict for result in results] == ["pass"]


@pytest.mark.parametrize(
    "death",
    ["import signal\nsignal.raise_signal(9)", "import resource as r\n"
     "r.setrlimit(r.RLIMIT_CPU, (0, 0))\nwhile True: pass"],
)  # fmt: skip
def test_killed_twice_it_was_the_program(bare: SandboxExecutor, death: str) -> None:
    coded = "total = add(2, 3)\nassert abs(total - 5) < 1e-9"
    inside = "def add(a, b):\n" + "".join(f"    {line}\n" for line in death.split("\n"))
    programs = [Program(death, TESTS), Program(inside, coded), Program(ADD, coded)]
    assert [r.verdict for r in bare.run(programs)] == ["crash", "crash", "pass"]


def test_a_test_that_swallows_everything_does_not_count_after_a_death(
    executor: SandboxExecutor,
) -> None:
    tests = ("try:\n    add(1, 2)\nexcept:\n    pass", "try:\n    add(1, 2)\nexcept:\n    pass")
    result = executor.run([Program("import os\ndef add(a, b): os._exit(0)", tests)])[0]
    assert (result.verdict, result.tests_passed, result.tests_run) == ("crash", 0, 2)


@pytest.mark.parametrize(
    "harm", ["os.rmdir('.')", "os.chmod('.', 0o500)", "os.chmod('.', 0)", "os.rename('.', '../x')"]
)
def test_a_program_cannot_spoil_the_folder_of_the_next(bare: SandboxExecutor, harm: str) -> None:
    spoil = f"import os\ntry: {harm}\nexcept OSError: pass\n" + ADD
    write = "open('x', 'w').write('y')\nassert open('x').read() == 'y'\n" + ADD
    spoilt, next_one = bare.run([Program(spoil, TESTS), Program(write, TESTS)])
    assert (spoilt.verdict, next_one.verdict) == ("pass", "pass")


@pytest.mark.parametrize("state", ["missing", "file", "link", "read_only"])
def test_a_scratch_folder_is_made_again(tmp_path: Any, state: str) -> None:
    folder = tmp_path / "scratch"
    if state == "file":
        folder.write_text("x")
    elif state == "link":
        folder.symlink_to(tmp_path)
    elif state == "read_only":
        folder.mkdir(mode=0o500)
    scratch.restore(str(folder))
    assert folder.is_dir() and not folder.is_symlink() and folder.stat().st_mode & 0o777 == 0o700


def test_text_of_a_program_can_be_written_anywhere(executor: SandboxExecutor) -> None:
    tests = ("assert f(1) == 1",)
    lone = "def f(a): raise ValueError('\\ud800' + 'x' * 10**6)"
    named = "E = type('\\udfff' * 10**5, (ValueError,), {})\ndef f(a): raise E"
    for result in executor.run([Program(lone, tests), Program(named, tests)]):
        assert result.verdict == "fail"
        assert (
            len(result.message.encode("utf-8")) <= 2000 and len(result.error_type.encode()) <= 800
        )


def test_values_of_call_mode_are_data_under_every_transport(executor: SandboxExecutor) -> None:
    tests = ('{"args": [1], "expected": 2}',)
    wrong = "class E:\n    def __eq__(s, o): return True\ndef f(a): return E()"
    for transport in ("auto", "copy", "handles", "inprocess"):
        found = executor.run(
            [Program(code, tests, "f", mode="call", transport=transport)  # type: ignore[arg-type]
             for code in ("def f(a): return a + 1", "def f(a): return 0", wrong)]
        )  # fmt: skip
        assert [r.verdict for r in found] == ["pass", "fail", "fail"]
        assert not any(r.weak_verdict for r in found)


def test_containers_of_other_types_compare_as_json_in_call_mode(executor: SandboxExecutor) -> None:
    named = "from collections import *\nP = namedtuple('P', 'x y')\ndef f(a): return P(*a)"
    cases = [
        ("from collections import *\ndef f(a): return Counter(a)", '"aab"', '{"a": 2, "b": 1}'),
        ("from collections import *\ndef f(a): return OrderedDict(a)", '[["a", 1]]', '{"a": 1}'),
        ("from collections import *\ndef f(a): return defaultdict(int, a)", '{"a": 1}', '{"a": 1}'),
        (named, "[1, 2]", "[1, 2]"),
    ]
    for code, given, expected in cases:
        right = '{"args": [' + given + '], "expected": ' + expected + "}"
        wrong = '{"args": [' + given + '], "expected": [3]}'
        found = executor.run([Program(code, (t,), "f", mode="call") for t in (right, wrong)])
        assert [r.verdict for r in found] == ["pass", "fail"], code


@pytest.mark.parametrize(
    "tests",
    [
        "import random\nrandom.seed(0)\ndef test_a(): assert f(1) == 2",
        "def test_a(): assert f(1) == 2\nif __name__ == '__main__':\n    test_a()",
        "from unittest import *\nclass T(TestCase):\n"
        "    def test_a(self): self.assertEqual(f(1), 2)\nif __name__ == '__main__':\n    main()",
    ],
)
def test_what_stands_beside_test_functions_is_no_test(
    executor: SandboxExecutor, tests: str
) -> None:
    programs = [Program(f"def f(a): return {value}", tests, "f") for value in ("999", "a + 1")]
    found = executor.run(programs)
    assert [(r.verdict, r.tests_passed, r.tests_run) for r in found] == [
        ("fail", 0, 1), ("pass", 1, 1),
    ]  # fmt: skip


def test_tests_that_held_before_a_late_death_are_counted(executor: SandboxExecutor) -> None:
    code = "def f(a):\n    while a == 3: pass\n    return a"
    tests = tuple(f"assert f({n}) == {n}" for n in (1, 2, 3))
    (result,) = executor.run([Program(code, tests, "f", timeout=0.3)])
    assert (result.verdict, result.tests_passed, result.tests_run) == ("timeout", 2, 3)


FIXTURES = """
import unittest
log = []
def setUpModule(): log.append('module')
class T(unittest.TestCase):
    @classmethod
    def setUpClass(cls): cls.box = [1]
    def test_a(self): self.assertEqual(f(self.box), 1)
    def test_b(self): self.assertEqual(log, ['module'])
    @unittest.expectedFailure
    def test_c(self): self.assertEqual(f([2]), 3)
"""


def test_class_and_module_fixtures_of_unittest_run(executor: SandboxExecutor) -> None:
    code = "def f(a): return a[0]"
    fails = FIXTURES + "    @classmethod\n    def tearDownClass(cls): raise OSError('left open')\n"
    breaks = FIXTURES.replace("cls.box = [1]", "cls.box = f(None)")
    skips = FIXTURES.replace("cls.box = [1]", "raise unittest.SkipTest('no')")
    dies = "import os\ndef f(a): os._exit(0)"
    found = executor.run(
        [Program(code, tests, "f", mode="unittest") for tests in (FIXTURES, fails, breaks, skips)]
        + [Program("def f(a): return 0", FIXTURES, "f", mode="unittest")]
        + [Program(dies, breaks, "f", mode="unittest")]
        + [Program(code, FIXTURES, "f", mode="unittest", transport="inprocess")]
    )
    counts = [(r.verdict, r.tests_passed, r.tests_run) for r in found]
    assert counts == [
        ("pass", 3, 3), ("fail", 2, 3), ("fail", 0, 3), ("fail", 0, 3), ("fail", 2, 3),
        ("crash", 0, 3), ("pass", 3, 3),
    ]  # fmt: skip
    assert "left open" in found[1].message and found[2].error_type == "TypeError"


# -- tests as data -----------------------------------------------------------------------------------

CHECK = (
    "METADATA = {'author': 'x'}\n\ndef check(candidate):\n    assert candidate([1]) == 1, 'one'\n"
    "    assert True, 'by hand'\n    assert abs(candidate([2.5]) - 2.5) < 1e-6\n    assert candidate([3]) == 3\n"
)
AS_CODE = CHECK.replace("    assert True", "    x = 1\n    assert True")
ODD = {
    "right": "def f(a): return a[0]", "wrong": "def f(a): return 1", "first": "def f(a): return 0",
    "none": "def f(a): return None", "object": "def f(a): return object()",
    "raises": "def f(a): raise ValueError(a)", "missing": "def g(a): return a",
    "dies": "import os\ndef f(a): os._exit(0)", "syntax": "def f(", "body": "1 / 0",
    "dies_late": "import os\ndef f(a): return 1 if a == [1] else os._exit(0)",
    "words": "def f(a): return 'x'", "true": "def f(a): return True", "complex": "def f(a): return a[0] + 0j",
}  # fmt: skip


def test_human_evals_check_is_data_and_stays_one_test(executor: SandboxExecutor) -> None:
    plan = lower.lower(CHECK, "", "f", "assert")
    assert plan is not None and plan.together and len(plan.calls) == 3
    assert lower.lower(CHECK + "\ncheck(f)\n", "", "f", "assert") is not None
    assert lower.lower(AS_CODE, "", "f", "assert") is None
    data = executor.run([Program(code, CHECK, "f") for code in ODD.values()])
    coded = executor.run([Program(code, AS_CODE, "f") for code in ODD.values()])

    def seen(result: ExecutionResult) -> tuple[Any, ...]:
        loaded = result.loaded and result.verdict != "crash"  # a dead one may not have said so
        return result.verdict, result.tests_passed, result.tests_run, loaded

    assert {n: seen(r) for n, r in zip(ODD, data, strict=True)} == {
        n: seen(r) for n, r in zip(ODD, coded, strict=True)
    }
    assert [r.verdict for r in data].count(
        "pass"
    ) == 2  # right, and complex numbers equal real ones


@pytest.mark.parametrize(
    "tests",
    [
        "def check(candidate, x=1):\n    assert candidate(1) == 1",
        "@g\ndef check(candidate):\n    assert candidate(1) == 1",
        "def check(candidate):\n    import math\n    assert candidate(1) == 1",
        "def check(candidate):\n    assert other(1) == 1",
        "def check(candidate):\n    assert False\n    assert candidate(1) == 1",
        "def check(candidate):\n    for i in range(2):\n        assert candidate(i) == i",
        "def check(candidate):\n    assert candidate(1) == 1\nassert f(1) == 1",
        "def check(candidate):\n    assert candidate(1) == 1\ncheck(g)",
        "def check(candidate):\n    assert candidate(1) == 1\ndef check(candidate):\n    assert True",
        "candidate = 1\ndef check(candidate):\n    assert candidate(1) == 1",
        "def check(candidate):\n    assert abs(len(candidate(1)) - 1) < 1",
    ],
)
def test_a_check_that_does_more_is_code(tests: str) -> None:
    assert lower.lower(tests, "", "f", "assert") is None


@pytest.mark.parametrize(
    ("test", "lowered"),
    [
        ("assert abs(f(1) - 2) < 1e-6", True), ("assert abs(2.0 - f(1)) <= 0.1", True),
        ("assert abs(f(1) - g(2)) < 1", False), ("assert abs(f(1) - 2) == 0", False),
        ("assert abs(f(1) + 2) < 1", False), ("assert abs(f(1) - x) < 1", False),
        ("assert abs(f(1) - 2) < [1]", False), ("assert abs(len(f(1)) - 2) < 1", False),
        ("assert 0.1 > abs(f(1) - 2)", False),
    ],
)  # fmt: skip
def test_distances_are_data(test: str, lowered: bool) -> None:
    assert (lower.lower(test, "", "f", "assert") is not None) is lowered


# -- values, clocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        {"Fraction": ["1e300000000", 1]},
        {"Fraction": [{"int": "0x" + "f1" * 500_000}, {"int": "0x" + "e3" * 500_000}]},
        [{"namedtuple": [f"n{i}", ["x"], [1]]} for i in range(5000)],
    ],
    ids=["power", "long", "shapes"],
)
def test_what_costs_the_judge_too_much_is_refused_at_once(data: Any) -> None:
    started = time.process_time()
    with pytest.raises(ValueRefused):
        Decoder()(data)
    assert time.process_time() - started < 1  # the first two took minutes


def test_named_tuples_of_one_shape_share_a_class() -> None:
    one, two = Decoder()([{"namedtuple": ["p", ["x"], [n]]} for n in (1, 2)])
    assert type(one) is type(two) and (one.x, two.x) == (1, 2)
    import fractions

    kept = fractions.Fraction(2**1000 + 1, 3**600)
    assert Decoder()(Encoder()(kept)) == kept


@dataclass
class FakeChild:
    started: float
    pid: int = 1
    watched: processes.Watched = field(default_factory=processes.Watched)

    @property
    def reader(self) -> Any:
        return type("R", (), {"excused": 0.0})

    def printed_size(self) -> int:
        return 0

    @property
    def zygote(self) -> Any:
        return type("Z", (), {"level": 2, "folder": ""})


LIMITS = processes.Limits(cpu=3.0, output=1, scratch_bytes=1, scratch_entries=1)


def look(monkeypatch: pytest.MonkeyPatch, seconds: float, waits: list[float], ready: bool) -> str:
    """The verdict of a look `seconds` after the start at a program of 0.5 s of CPU time."""
    clock = processes.Clock(0.5, {str(i): w for i, w in enumerate(waits)}, ready)
    monkeypatch.setattr(processes, "clocks", lambda pid: clock)
    child: Any = FakeChild(started=time.monotonic() - seconds)
    return processes.overrun([child], LIMITS)[0]


@pytest.mark.parametrize(
    ("seconds", "waited", "ready", "expected"),
    # the fence of a program of 3 s lies at 20 x 3 + 20 = 80, and thrice that is 240
    [(241, 240.0, True, "starved"), (241, 0.0, True, "timeout"), (241, 0.0, False, "timeout"),
     (241, 240.0, False, "timeout"),  # it waited for its own threads: it was not ready itself
     (10, 10.0, False, ""), (10, 0.0, True, ""), (10, 0.0, False, "timeout"),
     (81, 81.0, True, ""), (81, 0.0, True, "timeout")],
)  # fmt: skip
def test_a_machine_too_busy_is_no_verdict_on_the_program(
    monkeypatch: pytest.MonkeyPatch, seconds: float, waited: float, ready: bool, expected: str
) -> None:
    assert look(monkeypatch, seconds, [waited], ready) == expected


def test_threads_that_wait_together_wait_once() -> None:
    watched = processes.Watched()
    # 100 threads of which each was ready for 0.9 s of the second: at most that second was waited
    watched.add(processes.Clock(0.0, {str(i): 0.9 for i in range(100)}, False), 1.0)
    assert watched.waited == 1.0
    # half of them are gone, the other half waited 0.002 s more: 50 x 0.002 = 0.1
    watched.add(processes.Clock(0.0, {str(i): 0.902 for i in range(50)}, True), 2.0)
    assert watched.waited == pytest.approx(1.1) and (watched.looks, watched.ready) == (2, 1)


@LINUX
def test_threads_that_come_and_go_do_not_hide_the_clock() -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            threading.Thread(target=int).start()

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        assert all(processes.clocks(os.getpid()) is not None for _ in range(40))
    finally:
        stop.set()
        churning.join()
