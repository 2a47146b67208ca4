"""The records of the execution room: a program and its tests in, a verdict with its evidence out.

Plain frozen dataclasses of plain values. They know nothing of processes; `executor.py` turns them
into frames and back. The verdict is the only thing a reward may be made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, get_args, runtime_checkable

from modern_rlhf.errors import SandboxError
from modern_rlhf.records import Task, TestMode

Verdict = Literal["pass", "fail", "timeout", "memory", "output", "crash", "syntax", "infra_error"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""All verdicts. `infra_error` says nothing about the program: mask the sample, never score it 0."""

Transport = Literal["auto", "copy", "handles", "inprocess"]
TRANSPORTS: tuple[Transport, ...] = get_args(Transport)
"""How values cross between candidate and tests, from strict to lenient.

`auto`: by value; a mutated argument is copied back where the test drops the call's result; objects
of the candidate's classes are opaque handles that are never compared with the tests' plain data (an
object the tests construct and use as one is asked for truth, membership and arithmetic).
`copy`: as auto, and mutated arguments are always copied back. `handles`: as copy, and every
operator of a handle runs in the candidate. `inprocess`: tests and candidate share one interpreter.
Under the last two a hostile candidate can forge the result, which is marked `weak_verdict`. The modes
`stdio` and `call` always go by value, whatever is asked for.
"""


@dataclass(frozen=True)
class Program:
    """One judgement to make.

    Attributes:
        code: the candidate's source, as extracted from the completion.
        tests: one string (each top-level assert is a test) or a sequence of strings (each element
            is one test; a sequence of one is read as a string). For `mode="stdio"` and `"call"` each
            is a JSON object, see `records.Task`; stdio also reads `{"inputs": [...], "outputs": [...]}`.
        entry_point: the function or class under test; None when the tests name what they call.
        mode: how the tests are written.
        setup: source executed before the tests, on the tester's side only.
        timeout: CPU seconds for this program (load and all calls together; per case in stdio mode);
            None takes the executor's.
        transport: how values cross, see `TRANSPORTS`.
        trace: also run the candidate a second time under `sys.settrace` and report the lines.
    """

    code: str
    tests: str | Sequence[str] = ()
    entry_point: str | None = None
    mode: TestMode = "assert"
    setup: str = ""
    timeout: float | None = None
    transport: Transport = "auto"
    trace: bool = False


def program_of(
    task: Task,
    code: str,
    *,
    timeout: float | None = None,
    transport: Transport | None = None,
    trace: bool = False,
) -> Program:
    """`code` as an answer to `task`.

    `transport` None takes what calibration found (`metadata["transport"]`), `auto` where it found none.
    """
    found = task.metadata.get("transport", "auto") if transport is None else transport
    if found not in TRANSPORTS:
        raise SandboxError(
            f"task {task.task_id}: metadata transport={found!r}, expected one of {', '.join(TRANSPORTS)}"
        )
    return Program(
        code=code,
        tests=task.tests,
        entry_point=task.entry_point,
        mode=task.mode,
        setup=task.setup,
        timeout=timeout,
        transport=found,
        trace=trace,
    )


@dataclass(frozen=True)
class Trace:
    """Which lines of the candidate ran, from a second and unjudged run.

    `executable` are the 1-based lines that carry code, `executed` those that ran, and `failing` the
    line of the candidate that raised first, or None. The candidate could lie about its own lines;
    nothing but the masking of its own tokens hangs on them.
    """

    executable: tuple[int, ...] = ()
    executed: tuple[int, ...] = ()
    failing: int | None = None

    @property
    def unexecuted(self) -> tuple[int, ...]:
        """Executable lines that never ran."""
        ran = set(self.executed)
        return tuple(line for line in self.executable if line not in ran)


@dataclass(frozen=True)
class ExecutionResult:
    """The verdict on one program.

    Attributes:
        verdict: `pass` (all tests held), `fail` (wrong value, an exception, too many files, threads or
            too large a value), `timeout` (CPU limit, or stalled), `memory`, `output` (too much printed
            or replied), `crash` (the process died, left or broke the protocol), `syntax` (does not
            compile), `infra_error` (no judgement could be made: not scorable).
        tests_passed: tests that held.
        tests_run: tests there are; a test that could not be reached counts as not passed. Where the
            tests run as code and did not come to their end, 0 of 1.
        first_failing: source of the first test that did not hold, or None.
        cpu_seconds: CPU time of the candidate's process(es); 0.0 where it could not be read.
        wall_seconds: wall time of the judgement.
        output: what the candidate printed (stdout and stderr), cut to the executor's limit.
        weak_verdict: the transport was `handles` or `inprocess`: the result could have been forged.
        layer: isolation the program ran under (0, 1 or 2; -1 when it did not run).
        message: one line on why the verdict is not `pass`.
        error_type: name of the exception that decided, e.g. `NameError`; empty otherwise.
        loaded: the module body ran to its end, so the tests were reached.
        trace: lines executed, where `Program.trace` asked for it.
    """

    verdict: Verdict
    tests_passed: int = 0
    tests_run: int = 0
    first_failing: str | None = None
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    output: str = field(default="", repr=False)
    weak_verdict: bool = False
    layer: int = -1
    message: str = ""
    error_type: str = ""
    loaded: bool = False
    trace: Trace | None = None

    @property
    def passed(self) -> bool:
        """True for the verdict `pass` only."""
        return self.verdict == "pass"

    @property
    def scorable(self) -> bool:
        """False when the executor, not the program, failed: such a sample is masked."""
        return self.verdict != "infra_error"


Progress = Callable[[int, int], None]
"""Called with (programs done, programs in the batch)."""


@runtime_checkable
class Executor(Protocol):
    """What rewards, metrics and evaluation need of an executor; the second seam with a fake."""

    def run(
        self, programs: Sequence[Program], *, progress: Progress | None = None
    ) -> list[ExecutionResult]:
        """Judge each program; results in the order of `programs`."""
        ...

    def close(self) -> None:
        """Free all processes; safe to call twice."""
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
