"""The fake executor for tests: verdicts from a script, no processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from modern_rlhf.errors import SandboxError
from modern_rlhf.sandbox.types import ExecutionResult, Program, Progress, Verdict


class ScriptedExecutor:
    """The fake: verdicts from a list (repeated) or from a function of the program. No processes.

    A verdict is a name or a whole `ExecutionResult`. `programs` records all that was asked.
    """

    def __init__(
        self,
        verdicts: Sequence[Verdict | ExecutionResult]
        | Callable[[Program], Verdict | ExecutionResult],
    ) -> None:
        self._verdicts = verdicts
        self.programs: list[Program] = []
        self.closed = False

    def run(
        self, programs: Sequence[Program], *, progress: Progress | None = None
    ) -> list[ExecutionResult]:
        """One result a program, in order.

        Raises:
            SandboxError: the executor was closed.
        """
        if self.closed:
            raise SandboxError("the executor is closed; make a new one")
        results = []
        for done, program in enumerate(programs, start=1):
            if callable(self._verdicts):
                verdict = self._verdicts(program)
            else:
                verdict = self._verdicts[len(self.programs) % len(self._verdicts)]
            self.programs.append(program)
            results.append(self._expand(verdict, program))
            if progress is not None:
                progress(done, len(programs))
        return results

    def _expand(self, verdict: Verdict | ExecutionResult, program: Program) -> ExecutionResult:
        if isinstance(verdict, ExecutionResult):
            return verdict
        count = 1 if isinstance(program.tests, str) else max(1, len(program.tests))
        passed = count if verdict == "pass" else 0
        return ExecutionResult(verdict, passed, count, layer=0, loaded=verdict in ("pass", "fail"))

    def close(self) -> None:
        """Nothing to free."""
        self.closed = True

    def __enter__(self) -> ScriptedExecutor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
