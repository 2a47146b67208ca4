"""Programs a second and latency of the sandbox, beside the usual ways of judging generated code.

    python benchmarks/sandbox.py [--programs 200] [--rounds 3] [--trainer-gib 4] [--scaling]

All methods judge the same programs in one run, in short interleaved rounds, so that other load on the
machine falls on all of them alike; the ratio of the medians is the number to look at. Processor time a
program, of this process and all its descendants (Linux), hardly depends on other load: on a busy machine
its ratios are the ones to trust. The usual ways are written here from their published descriptions: *one process a check* forks with
`multiprocessing`, reads the verdict from a `Manager` list and alarms by `signal.setitimer` (as
human-eval's `check_correctness` does); *one interpreter a program* is a `subprocess.run` of program
and tests together. Both judge in the candidate's own interpreter, and a forged program is counted to
show what that costs. They run on a thread pool of as many workers as the sandbox has.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from modern_rlhf.sandbox.executor import SandboxExecutor  # noqa: E402
from modern_rlhf.sandbox.types import Program  # noqa: E402
from modern_rlhf.utils.hardware import usable_cores  # noqa: E402

CODE = "def add(a, b):\n    total = a + b\n    return total\n"
TESTS = ("assert add(1, 2) == 3", "assert add('a', 'b') == 'ab'", "assert add([1], [2]) == [1, 2]")
CODED = tuple(test.replace("assert ", "assert (lambda: True)() and ", 1) for test in TESTS)
FORGED = "class E:\n    def __eq__(s, o): return True\ndef add(a, b): return E()\n"

Judge = Callable[[list[str]], list[bool]]


def _checked(source: str, verdicts: Any) -> None:
    """The child of one check: its own folder, an alarm, and the verdict in a shared list."""

    def alarm(*_: object) -> None:
        raise TimeoutError

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, 3.0)
        try:
            exec(source, {})
            verdicts.append(True)
        except BaseException:  # noqa: BLE001 - whatever the program raises is its verdict
            verdicts.append(False)
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.chdir("/")


def process_a_check(source: str) -> bool:
    """One forked process and one manager a check."""
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        verdicts = manager.list()
        process = context.Process(target=_checked, args=(source, verdicts))
        process.start()
        process.join(timeout=4.0)
        if process.is_alive():
            process.kill()
        return bool(verdicts and verdicts[0])


def interpreter_a_program(source: str) -> bool:
    """One `subprocess.run` a program."""
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", source], capture_output=True, timeout=10, check=False
    )
    return run.returncode == 0


def pooled(judge: Callable[[str], bool], workers: int) -> Judge:
    """Judge a list with some at a time."""

    def run(codes: list[str]) -> list[bool]:
        sources = [code + "\n" + "\n".join(TESTS) for code in codes]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(judge, sources))

    return run


def sandboxed(executor: SandboxExecutor, tests: tuple[str, ...]) -> Judge:
    """Judge a list in the sandbox."""

    def run(codes: list[str]) -> list[bool]:
        return [result.passed for result in executor.run([Program(c, tests) for c in codes])]

    return run


def processor_seconds(pid: int) -> float:
    """User and system time of a process, of the children it has reaped, and of its descendants."""
    ticks = 0
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks = sum(int(field) for field in fields[11:15])
    found = ticks / os.sysconf("SC_CLK_TCK")
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += sum(processor_seconds(int(child)) for child in listing.read_text().split())
    return found


def measure(
    methods: dict[str, Judge], programs: int, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Median programs a second, and milliseconds of processor time a program, over interleaved rounds."""
    rates: dict[str, list[float]] = {name: [] for name in methods}
    spent: dict[str, float] = dict.fromkeys(methods, 0.0)
    judged: dict[str, int] = dict.fromkeys(methods, 0)
    for _ in range(rounds):
        for name, judge in methods.items():
            count = programs if name.startswith("sandbox") else max(8, programs // 8)
            before, started = processor_seconds(os.getpid()), time.perf_counter()
            assert all(judge([CODE] * count)), f"{name} failed a right program"
            rates[name].append(count / (time.perf_counter() - started))
            spent[name] += processor_seconds(os.getpid()) - before
            judged[name] += count
    return (
        {name: statistics.median(found) for name, found in rates.items()},
        {name: 1e3 * spent[name] / judged[name] for name in methods},
    )


def latency_ms(executor: SandboxExecutor, tests: tuple[str, ...], count: int) -> float:
    """Median milliseconds from handing in one program to its result."""
    found = []
    for _ in range(count):
        started = time.perf_counter()
        executor.run([Program(CODE, tests)])
        found.append((time.perf_counter() - started) * 1e3)
    return statistics.median(found)


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trainer-gib", type=float, default=0.0, help="memory this process holds")
    parser.add_argument("--scaling", action="store_true", help="also 1, 2, 4 ... workers")
    options = parser.parse_args()
    held = bytearray(int(options.trainer_gib * 2**30))
    held[::4096] = b"\1" * len(held[::4096])
    workers = usable_cores() or 1
    started = time.perf_counter()
    with SandboxExecutor() as executor:
        seconds = time.perf_counter() - started
        executor.run([Program(CODE, TESTS), Program(CODE, CODED)] * 8 * workers)
        methods: dict[str, Judge] = {
            "sandbox": sandboxed(executor, TESTS),
            "sandbox, tests run as code": sandboxed(executor, CODED),
            "process a check": pooled(process_a_check, workers),
            "interpreter a program": pooled(interpreter_a_program, workers),
        }
        rates, spent = measure(methods, options.programs, options.rounds)
        report: dict[str, Any] = {
            "workers": workers,
            "layer": executor.layer,
            "load_average": round(os.getloadavg()[0], 1),
            "trainer_gib": options.trainer_gib,
            "start_seconds": round(seconds, 3),
            "programs_per_second": {name: round(rate, 1) for name, rate in rates.items()},
            "times_process_a_check": round(rates["sandbox"] / rates["process a check"], 1),
            "times_interpreter": round(rates["sandbox"] / rates["interpreter a program"], 1),
            "processor_ms_a_program": {name: round(ms, 2) for name, ms in spent.items()},
            "times_less_processor_time": {
                name: round(ms / max(spent["sandbox"], 1e-9), 1) for name, ms in spent.items()
            },
            "latency_ms": {
                "sandbox": round(latency_ms(executor, TESTS, 100), 2),
                "tests run as code": round(latency_ms(executor, CODED, 50), 2),
            },
            "forged_program_passes": {name: judge([FORGED])[0] for name, judge in methods.items()},
        }
    if options.scaling:
        report["scaling"] = {}
        count = 1
        while count <= workers:
            with SandboxExecutor(workers=count) as executor:
                judge = sandboxed(executor, TESTS)
                judge([CODE] * 20 * count)
                rate, _ = measure({"sandbox": judge}, options.programs * count, options.rounds)
            report["scaling"][count] = round(rate["sandbox"], 1)
            count *= 2
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
