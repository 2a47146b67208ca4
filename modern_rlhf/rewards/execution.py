"""Reward from running the program against its task's tests, in the sandbox.

The prompt's record brings the tests (`Prompt.task`); a prompt without tests has no execution
component (None: it does not apply). A judgement that the executor could not make is None as well,
but marked in `details["unscorable"]`: the trainer masks and counts it, it is never 0.

Kinds, all in 0..1:
    all       1 when every test passed, else 0
    fraction  share of the tests that passed; 0 unless the program ended by itself
    graded    0.0 does not compile < 0.1 does not run (crash, limit, error before a test could tell)
              < 0.2 + 0.6 x share passed < 1.0 all passed
"""

from __future__ import annotations

from typing import Any, Literal

from modern_rlhf.config.reward import RewardConfig
from modern_rlhf.errors import ConfigError, SandboxError
from modern_rlhf.rewards.base import RewardBatch, RewardScores
from modern_rlhf.sandbox.executor import SandboxExecutor
from modern_rlhf.sandbox.extract import answer_code
from modern_rlhf.sandbox.hack_watch import signatures
from modern_rlhf.sandbox.types import ExecutionResult, Executor, Program, program_of

Kind = Literal["all", "fraction", "graded"]
RUNTIME_ERROR = 0.1
FAILED_TESTS, FAILED_RANGE = 0.2, 0.6
_DEAD = ("crash", "timeout", "memory", "output")


class ExecutionReward:
    """Scores responses by their verdicts; see the module.

    Args:
        executor: what runs programs; closed by this reward's `close`.
        kind: how a verdict becomes a number.
        trace_credit: run each program a second time under a tracer and report, in
            `details["trace"]`, the code and which of its lines ran and which raised, so that the
            trainer can mask what was never executed.
        timeout: CPU seconds a program; None takes the executor's.

    Raises:
        ConfigError: an unknown `kind`.
    """

    name = "execution"

    def __init__(
        self,
        executor: Executor,
        *,
        kind: Kind = "graded",
        trace_credit: bool = False,
        timeout: float | None = None,
    ) -> None:
        if kind not in ("all", "fraction", "graded"):
            raise ConfigError(
                f"reward.execution_kind={kind!r}: expected 'all', 'fraction' or 'graded'"
            )
        self.executor = executor
        self.kind: Kind = kind
        self.trace_credit = trace_credit
        self.timeout = timeout

    def score(self, batch: RewardBatch) -> RewardScores:
        """B numbers in 0..1 or None, and per-sample details (None where no test applies):

        `verdict`, `tests_passed`, `tests_run`, `first_failing`, `message`, `unscorable` (bool),
        `weak_verdict` (bool), `hack_signatures` (sorted list), `trace`.
        """
        codes = [
            answer_code(response, prompt.task).code if prompt.task is not None else ""
            for prompt, response in zip(batch.prompts, batch.responses, strict=True)
        ]
        programs: list[Program] = []
        places: list[int] = []
        for index, (prompt, code) in enumerate(zip(batch.prompts, codes, strict=True)):
            if prompt.task is not None and prompt.task.tests:
                programs.append(
                    program_of(prompt.task, code, timeout=self.timeout, trace=self.trace_credit)
                )
                places.append(index)
        found = self.executor.run(programs) if programs else []
        results: list[ExecutionResult | None] = [None] * len(batch)
        for index, result in zip(places, found, strict=True):
            results[index] = result
        values = [
            None if result is None else execution_score(result, kind=self.kind)
            for result in results
        ]
        return RewardScores(
            total=list(values),
            components={self.name: values},
            details=self._details(codes, results),
        )

    def _details(
        self, codes: list[str], results: list[ExecutionResult | None]
    ) -> dict[str, list[Any]]:
        details: dict[str, list[Any]] = {
            name: [None if r is None else getattr(r, name) for r in results]
            for name in ("verdict", "tests_passed", "tests_run", "first_failing", "message")
        }
        details["unscorable"] = [r is not None and not r.scorable for r in results]
        details["weak_verdict"] = [r is not None and r.weak_verdict for r in results]
        details["hack_signatures"] = [
            None if r is None else sorted(signatures(code))
            for code, r in zip(codes, results, strict=True)
        ]
        if self.trace_credit:
            details["trace"] = [
                None if r is None else trace_detail(code, r)
                for code, r in zip(codes, results, strict=True)
            ]
        return details

    def close(self) -> None:
        """End the executor's processes; safe to call twice."""
        self.executor.close()


def make_executor(section: RewardConfig, *, workers: int | None = None) -> SandboxExecutor:
    """The executor with the limits of the configuration.

    Raises:
        SandboxError: this machine offers less isolation than `execution_min_layer`, or it cannot start.
    """
    try:
        return SandboxExecutor(
            workers=workers,
            timeout=section.execution_timeout,
            memory_mb=section.execution_memory_mb,
            min_layer=section.execution_min_layer,
        )
    except OSError as error:
        raise SandboxError(f"the executor of generated code cannot start: {error}") from error


def execution_score(result: ExecutionResult, *, kind: Kind) -> float | None:
    """The number of one result; None when it says nothing about the program."""
    if result.verdict == "infra_error":
        return None
    if result.verdict == "pass":
        return 1.0
    share = result.tests_passed / result.tests_run if result.tests_run else 0.0
    if kind == "all":
        return 0.0
    if kind == "fraction":
        return share if result.verdict == "fail" else 0.0
    if result.verdict == "syntax":
        return 0.0
    if result.verdict in _DEAD or not result.loaded:
        return RUNTIME_ERROR
    if result.error_type and not result.tests_passed and result.error_type != "AssertionError":
        return RUNTIME_ERROR
    return FAILED_TESTS + FAILED_RANGE * share


def trace_detail(code: str, result: ExecutionResult) -> dict[str, Any] | None:
    """What the credit assignment needs: the code as run, its lines never reached, the failing
    one."""
    if result.trace is None:
        return None
    return {
        "code": code,
        "unexecuted_lines": list(result.trace.unexecuted),
        "executed_lines": list(result.trace.executed),
        "failing_line": result.trace.failing,
    }
