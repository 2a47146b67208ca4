"""The executor as its callers see it: verdicts, order, threads, kills, refusals, no leaks."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modern_rlhf.errors import SandboxError
from modern_rlhf.sandbox.executor import SandboxExecutor, ScriptedExecutor
from modern_rlhf.sandbox.types import ExecutionResult, Executor, Program

ADD = "def add(a, b):\n    return a + b\n"
TESTS = ("assert add(1, 2) == 3", "assert add('a', 'b') == 'ab'", "assert add(1, 1) == 2")
LINUX = sys.platform == "linux"


@pytest.fixture(scope="module")
def executor() -> Iterator[SandboxExecutor]:
    with SandboxExecutor(workers=2) as made:
        yield made


def descendants(pid: int) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        for thread in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                children = [int(number) for number in thread.read_text().split()]
            except OSError:
                continue
            found += children
            waiting += children
    return found


def born(pid: int) -> str:
    """When a process started: its number alone is soon given to another one."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def survivors(family: list[tuple[int, str]]) -> list[int]:
    """Who of the family still runs after a while; a zombie nobody reaped counts as gone."""
    deadline = time.monotonic() + 90  # of a machine that may be very busy
    left = [pid for pid, start in family]
    while left and time.monotonic() < deadline:
        left = [pid for pid, start in family if start and born(pid) == start and role(pid)]
        time.sleep(0.05)
    return left


def role(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    known = (b"coordinator", b"worker", b"zygote")
    return next((word.decode() for word in words if word in known), "")


def need_layer(executor: SandboxExecutor, layer: int) -> None:
    """Skip where the machine lacks what the layer is made of; fail where it has it and it leaks."""
    if executor.layer == layer:
        return
    reasons = [gap for gap in executor.report.gaps if gap.startswith("no ")]
    assert reasons, f"layer {layer} was built but does not hold: {executor.report.gaps}"
    pytest.skip(f"this machine offers layer {executor.layer}, not {layer}: {reasons}")


def test_verdicts_in_order_with_counts(executor: SandboxExecutor) -> None:
    right, off, broken = executor.run(
        [Program(ADD, TESTS), Program("def add(a, b): return 3", TESTS), Program("def add(", TESTS)]
    )
    assert (right.verdict, right.tests_passed, right.tests_run) == ("pass", 3, 3)
    assert right.first_failing is None and right.loaded and not right.weak_verdict
    # 3 is right for the first test only
    assert (off.verdict, off.tests_passed, off.tests_run) == ("fail", 1, 3)
    assert off.first_failing == TESTS[1]
    assert (broken.verdict, broken.error_type, broken.loaded) == ("syntax", "SyntaxError", False)


def test_output_is_captured_and_cut() -> None:
    with SandboxExecutor(workers=1, output_limit=1000) as small:
        code = "import sys\nprint('hello')\nprint('oops', file=sys.stderr)\n" + ADD
        said, flood = small.run([Program(code, TESTS), Program("print('x' * 5000)\n" + ADD, TESTS)])
    assert said.verdict == "pass" and "hello" in said.output and "oops" in said.output
    assert flood.verdict == "output" and len(flood.output) == 1000


def test_no_tests_is_no_verdict_on_the_program(executor: SandboxExecutor) -> None:
    nothing, unreadable = executor.run([Program(ADD, ()), Program(ADD, "assert add(")])
    assert nothing.verdict == unreadable.verdict == "infra_error"
    assert not nothing.scorable and "tests cannot be used" in unreadable.message


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (Program("while True: pass", TESTS, timeout=0.3), "timeout"),
        (Program("import time\ntime.sleep(60)", TESTS, timeout=0.3), "timeout"),
        (Program("x = bytearray(1 << 34)\n" + ADD, TESTS), "memory"),
        (Program("import os\nos._exit(0)", TESTS), "crash"),
        (Program("", TESTS), "fail"),
    ],
)
def test_limits_and_deaths(executor: SandboxExecutor, program: Program, expected: str) -> None:
    assert executor.run([program])[0].verdict == expected


def test_cpu_time_of_the_program_is_measured(executor: SandboxExecutor) -> None:
    code = "import time\nt = time.process_time()\nwhile time.process_time() - t < 0.2: pass\n" + ADD
    result = executor.run([Program(code, TESTS)])[0]
    assert result.verdict == "pass" and 0.2 <= result.cpu_seconds < 0.5


def test_hash_seed_and_random_numbers_are_the_same_each_time(executor: SandboxExecutor) -> None:
    code = "import random\nprint(hash('x'), list({'a', 'b', 'c'}), random.random())\n" + ADD
    outputs = {result.output for result in executor.run([Program(code, TESTS)] * 6)}
    assert len(outputs) == 1


def test_a_program_leaves_nothing_to_the_next(executor: SandboxExecutor) -> None:
    leave = (
        "import os, builtins\nopen('m', 'w').write('1')\nos.environ['M'] = '1'\nbuiltins.M = 1\n"
    )
    look = "import os, builtins\nassert not os.listdir('.') and 'M' not in os.environ\n"
    look += "assert not hasattr(builtins, 'M')\n"
    results = executor.run([Program(leave + ADD, TESTS), Program(look + ADD, TESTS)] * 4)
    assert {result.verdict for result in results} == {"pass"}


def test_usable_from_threads_and_progress_reaches_the_end(executor: SandboxExecutor) -> None:
    found: dict[int, list[ExecutionResult]] = {}
    seen: list[tuple[int, int]] = []

    def work(index: int) -> None:
        code = f"def add(a, b): return {index}"
        tests = [f"assert add(0, 0) == {k}" for k in range(4)]
        found[index] = executor.run(
            [Program(code, (test,)) for test in tests],
            progress=(lambda done, of: seen.append((done, of))) if index == 0 else None,
        )

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for index, results in found.items():
        assert [r.verdict == "pass" for r in results] == [k == index for k in range(4)]
    assert seen[-1] == (4, 4) and seen == sorted(seen)


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_an_interrupted_batch_is_withdrawn() -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with SandboxExecutor(workers=1, timeout=0.5) as executor:
        with pytest.raises(KeyboardInterrupt):
            executor.run([Program("while True: pass", TESTS)] * 40, progress=interrupt)
        began = time.monotonic()
        assert executor.run([Program(ADD, TESTS)])[0].verdict == "pass"
        assert time.monotonic() - began < 8  # the whole batch would take 20 s


@pytest.mark.parametrize("victim", ["worker", "zygote", "coordinator"])
def test_a_killed_helper_costs_at_most_what_was_in_flight(victim: str) -> None:
    with SandboxExecutor(workers=2) as executor:
        programs = [Program("import time\ntime.sleep(0.02)\n" + ADD, TESTS)] * 30
        results: list[ExecutionResult] = []
        thread = threading.Thread(target=lambda: results.extend(executor.run(programs)))
        thread.start()
        time.sleep(0.2)
        killed = next(pid for pid in descendants(os.getpid()) if role(pid) == victim)
        os.kill(killed, signal.SIGKILL)
        thread.join(timeout=240)
        assert not thread.is_alive() and len(results) == 30
        lost = [result for result in results if result.verdict != "pass"]
        assert len(lost) <= 1 and all(result.verdict == "infra_error" for result in lost)
        assert executor.run([Program(ADD, TESTS)])[0].verdict == "pass"


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_a_coordinator_that_dies_again_and_again_ends_the_batch_and_not_the_executor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SandboxExecutor(workers=1) as executor:
        start = SandboxExecutor._start

        def start_and_die(self: SandboxExecutor) -> None:
            start(self)
            assert self._process is not None
            self._process.kill()

        monkeypatch.setattr(SandboxExecutor, "_start", start_and_die)
        assert executor._process is not None
        executor._process.kill()
        lost = executor.run([Program("def f(): return 1", ("assert f() == 1",), "f")])
        assert [r.verdict for r in lost] == ["infra_error"]
        assert "again and again" in lost[0].message
        monkeypatch.setattr(SandboxExecutor, "_start", start)
        found = executor.run([Program("def f(): return 1", ("assert f() == 1",), "f")])
        assert [r.verdict for r in found] == ["pass"]


def test_a_job_too_large_to_send_is_no_verdict_and_harms_no_other(
    executor: SandboxExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modern_rlhf.sandbox import executor as module

    monkeypatch.setattr(module, "_LARGEST", 5000)
    found = executor.run(
        [
            Program("def f(): return 1\n#" + "x" * 5000, ("assert f() == 1",), "f"),
            Program("def f(): return 1", ("assert f() == 1",), "f"),
        ]
    )
    assert [r.verdict for r in found] == ["infra_error", "pass"]


def test_a_killed_trainer_takes_everything_along(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom modern_rlhf.sandbox.executor import SandboxExecutor, Program\n"
        "e = SandboxExecutor(workers=2)\nprint('up', flush=True)\n"
        "e.run([Program('while True: pass', ('assert f() == 1',), timeout=60)] * 4)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    trainer = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment
    )
    assert trainer.stdout is not None and trainer.stdout.readline() == b"up\n"
    time.sleep(0.3)
    family = [(pid, born(pid)) for pid in descendants(trainer.pid)]
    assert len(family) >= 5
    trainer.kill()
    trainer.wait()
    assert survivors(family) == []
    deadline = time.monotonic() + 90  # the coordinator removes the scratch last
    while os.listdir(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_closing_leaves_no_process_and_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    others = set(descendants(os.getpid()))  # the module's shared executor is meant to live on
    family: list[tuple[int, str]] = []
    for _ in range(3):
        with SandboxExecutor(workers=2) as executor:
            executor.run([Program(ADD, TESTS)] * 4)
            mine = set(descendants(os.getpid())) - others
            assert sum(role(pid) == "worker" for pid in mine) >= 1
            family += [(pid, born(pid)) for pid in mine if role(pid)]
        executor.close()
    assert survivors(family) == []
    assert len(os.listdir("/proc/self/fd")) <= before


def test_refusals_name_the_field_and_the_remedy() -> None:
    with pytest.raises(SandboxError, match="workers=0"):
        SandboxExecutor(workers=0)
    with pytest.raises(SandboxError, match="timeout=-1"):
        SandboxExecutor(timeout=-1)
    with pytest.raises(SandboxError, match="min_layer"):
        SandboxExecutor(workers=1, max_layer=0, min_layer=1)
    executor = SandboxExecutor(workers=1)
    with pytest.raises(SandboxError, match="mode='odd'"):
        executor.run([Program(ADD, TESTS, mode="odd")])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(executor)
    executor.close()
    executor.close()
    with pytest.raises(SandboxError, match="closed"):
        executor.run([Program(ADD, TESTS)])


@pytest.mark.parametrize("layer", [2, 1, 0])
def test_each_layer_reports_what_its_probes_found(layer: int) -> None:
    with SandboxExecutor(workers=1, max_layer=layer) as executor:
        need_layer(executor, layer)
        report = executor.report
        assert executor.run([Program(ADD, TESTS)])[0].layer == layer
    assert "reading files of the host" in report.holds
    assert any("filling a disk" in gap for gap in report.gaps) == (layer < 2)
    assert report.lines()[0].startswith(f"Sandbox: layer {layer} of 2")


def test_without_fork_the_verdicts_are_the_same() -> None:
    coded = "total = add(2, 3)\nassert abs(total - 5) < 1e-9"
    programs = [
        Program(ADD, TESTS), Program(ADD, coded), Program("def add(a, b): return 0", coded),
        Program("def add(", TESTS), Program("import os\nos._exit(0)", coded),
        Program("print(input())", ('{"input": "a", "output": "a"}',), mode="stdio"),
    ]  # fmt: skip
    with SandboxExecutor(workers=2, fork=False) as spawned, SandboxExecutor(workers=2) as forked:
        slow, fast = spawned.run(programs), forked.run(programs)
    assert [r.verdict for r in slow] == [r.verdict for r in fast]
    assert [r.verdict for r in slow] == ["pass", "pass", "fail", "syntax", "crash", "pass"]
    assert {r.layer for r in slow} == {0}


def test_scripted_executor_keeps_to_its_script() -> None:
    fake: Executor = ScriptedExecutor(["pass", "fail"])
    results = fake.run([Program(ADD, TESTS)] * 3)
    assert [r.verdict for r in results] == ["pass", "fail", "pass"]
    assert (results[0].tests_passed, results[1].tests_passed) == (3, 0)
    by_code = ScriptedExecutor(lambda program: "pass" if "a + b" in program.code else "infra_error")
    assert [r.verdict for r in by_code.run([Program(ADD), Program("")])] == ["pass", "infra_error"]
    by_code.close()
    with pytest.raises(SandboxError):
        by_code.run([])
