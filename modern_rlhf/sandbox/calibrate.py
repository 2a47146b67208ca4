"""Which tasks can be judged, and how: every task is tried on its own reference first.

For each task the reference runs with the strictest transport, then with laxer ones (`auto`, `copy`,
`handles`, `inprocess`) until it passes; a task whose reference passes with none is dropped. Then a
*stub* - the reference with every function returning None - runs the same way; a task that a stub
passes tests nothing and is dropped. The outcome is plain data under a fingerprint of the task, so
that a caller can keep it beside its data and calibrate only what is new.
"""

from __future__ import annotations

import ast
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_args

from modern_rlhf.errors import SandboxError
from modern_rlhf.records import Task
from modern_rlhf.sandbox.runtime.outcome import UNUSABLE
from modern_rlhf.sandbox.types import ExecutionResult, Executor, Progress, Transport, program_of

_ORDER: tuple[Transport, ...] = get_args(Transport)


@dataclass(frozen=True)
class Finding:
    """What calibration found for one task.

    `transport` is the strictest that works, None when the task is to be dropped for `reason`.
    `seconds` is the reference's CPU time.
    """

    fingerprint: str
    task_id: str
    transport: Transport | None
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """Tasks that can be used, with their transport in `metadata["transport"]`, and those dropped.

    `findings` by fingerprint are what a caller may store (`to_json`) and hand in again; a task that
    could not be judged because the executor failed is in `unjudged` and not in `findings`.
    """

    kept: tuple[Task, ...]
    dropped: tuple[Finding, ...]
    unjudged: tuple[str, ...] = ()
    findings: Mapping[str, Finding] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """One line a dropped task, for the log."""
        return [f"task {f.task_id} dropped: {f.reason}" for f in self.dropped] + [
            f"task {task_id} could not be judged: the sandbox failed" for task_id in self.unjudged
        ]

    def to_json(self) -> str:
        """The findings as JSON."""
        return to_json(self.findings)


def to_json(findings: Mapping[str, Finding]) -> str:
    """Findings as text for `findings_from_json`."""
    rows = [asdict(finding) for finding in findings.values()]
    return json.dumps({"schema": 1, "findings": rows}, indent=1)


def findings_from_json(text: str) -> dict[str, Finding]:
    """Findings stored by `Calibration.to_json`; an unknown schema gives none."""
    stored = json.loads(text)
    if not isinstance(stored, dict) or stored.get("schema") != 1:
        return {}
    return {row["fingerprint"]: Finding(**row) for row in stored["findings"]}


def fingerprint(task: Task) -> str:
    """SHA-256 of all that decides a judgement of the task."""
    parts = [task.reference, list(task.tests), task.entry_point, task.mode, task.setup]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def stub(code: str) -> str:
    """The program with every function's body replaced by `return None`; empty if it cannot parse.

    Module-level statements other than imports, definitions and assignments are left out, so a
    script becomes a program that prints nothing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    kept: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.Expr | ast.If | ast.For | ast.While | ast.With | ast.Try):
            continue
        kept.append(_Hollow().visit(node))
    return ast.unparse(ast.fix_missing_locations(ast.Module(body=kept, type_ignores=[])))


class _Hollow(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.body = [ast.Return(value=ast.Constant(value=None))]
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        node.body = [ast.Return(value=ast.Constant(value=None))]
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.Lambda:
        node.body = ast.Constant(value=None)
        return node


def calibrate(
    tasks: Sequence[Task],
    executor: Executor,
    *,
    known: Mapping[str, Finding] | None = None,
    timeout: float | None = None,
    allow_in_process: bool = True,
    progress: Progress | None = None,
) -> Calibration:
    """Try every task on its reference and on a stub.

    Args:
        tasks: what to calibrate; order is kept.
        executor: runs the programs.
        known: findings of earlier calls by fingerprint; those tasks run nothing.
        timeout: CPU seconds a program; None takes the executor's.
        allow_in_process: accept tasks that only work in one shared interpreter, whose verdicts are
            weak; False drops them.
        progress: called with (tasks decided, tasks).

    Raises:
        SandboxError: no task could be judged at all because the executor failed.
    """
    prints = [fingerprint(task) for task in tasks]
    findings: dict[str, Finding] = dict(known or {})
    todo = {key: task for key, task in zip(prints, tasks, strict=True) if key not in findings}
    unjudged: set[str] = set()
    reasons: dict[str, str] = {}
    orders = _ORDER if allow_in_process else _ORDER[:-1]
    for transport in orders:
        waiting = [(k, t) for k, t in todo.items() if k not in findings and k not in unjudged]
        waiting = [(k, t) for k, t in waiting if transport == "auto" or _laxer_may_help(t)]
        if not waiting:
            continue
        found = executor.run(
            [program_of(t, t.reference, transport=transport, timeout=timeout) for _, t in waiting]
        )
        passed = []
        for (key, task), result in zip(waiting, found, strict=True):
            if result.verdict == "infra_error" and not _unusable(result):
                unjudged.add(key)
            elif result.verdict == "pass":
                passed.append((key, task, result))
            else:
                reasons.setdefault(key, _why(result))
        stubs = executor.run(
            [
                program_of(t, stub(t.reference), transport=transport, timeout=timeout)
                for _, t, _ in passed
            ]
        )
        for (key, task, result), empty in zip(passed, stubs, strict=True):
            if empty.verdict == "infra_error":
                unjudged.add(key)
            else:
                findings[key] = _decide(key, task, transport, result, empty)
        if progress is not None:
            progress(len(tasks) - len(todo) + sum(k in findings for k in todo), len(tasks))
    for key, task in todo.items():
        if key not in findings and key not in unjudged:
            reason = f"its reference does not pass: {reasons.get(key, 'no transport works')}"
            findings[key] = Finding(key, task.task_id, None, reason)
    if tasks and unjudged and len(unjudged) == len(todo) == len(tasks):
        raise SandboxError("no task could be calibrated: the sandbox failed for every reference")
    return _sort(tasks, prints, findings, unjudged)


def _sort(
    tasks: Sequence[Task], prints: list[str], findings: dict[str, Finding], unjudged: set[str]
) -> Calibration:
    kept: list[Task] = []
    dropped: list[Finding] = []
    for key, task in zip(prints, tasks, strict=True):
        if key in unjudged:
            continue
        finding = replace(findings[key], task_id=task.task_id)
        if finding.transport is None:
            dropped.append(finding)
            continue
        metadata: dict[str, Any] = {**task.metadata, "transport": finding.transport}
        kept.append(replace(task, metadata=metadata))
    lost = [task.task_id for key, task in zip(prints, tasks, strict=True) if key in unjudged]
    return Calibration(tuple(kept), tuple(dropped), tuple(lost), findings)


def _laxer_may_help(task: Task) -> bool:
    return task.mode in ("assert", "unittest")


def _unusable(result: ExecutionResult) -> bool:
    """Tests that cannot be run are the task's fault, not the executor's."""
    return result.message.startswith(UNUSABLE)


def _why(result: ExecutionResult) -> str:
    text = f"{result.verdict}"
    return f"{text} ({result.message})" if result.message else text


def _decide(
    key: str, task: Task, transport: Transport, result: ExecutionResult, empty: ExecutionResult
) -> Finding:
    if empty.verdict == "pass":
        reason = "a stub that returns None passes its tests"
        return Finding(key, task.task_id, None, reason, result.cpu_seconds)
    return Finding(key, task.task_id, transport, "", result.cpu_seconds)
