"""Tasks: prompts whose answers are decided by executing tests.

Four published shapes are read, and any mixture of their columns: MBPP (`text`, `code`, `test_list`,
`test_setup_code`), HumanEval (`prompt`, `canonical_solution`, `test` with `check(candidate)`,
`entry_point`), ODEX (`prompt`, `canonical_solution`, `suffix`, `test_start`, a list of `test`
bodies) and the project's own (MBPP's columns plus `task_id`, `entry_point`, `family`, `split`).
Nothing is executed here.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from modern_rlhf.data_loader.columns import (
    check_cap,
    check_roles,
    find_column,
    need_column,
    text_of,
)
from modern_rlhf.data_loader.formats import Table
from modern_rlhf.data_loader.sources import SYNTHETIC, fitting_tables, source_name
from modern_rlhf.data_loader.synthetic import synthetic_tasks
from modern_rlhf.errors import ConfigError
from modern_rlhf.records import Demonstration, Task, TestMode
from modern_rlhf.utils.load_report import Loaded, LoadReport, Tally

PROMPT = ("text", "prompt", "intent", "instruction", "question")
REFERENCE = ("code", "canonical_solution", "reference", "solution")
TESTS = ("test_list", "tests", "test")
ROLES = ("prompt", "reference", "tests")

_MODES: tuple[TestMode, ...] = get_args(TestMode)
_FIELDS = {  # columns with a field of their own; the others become metadata
    "task_id",
    "entry_point",
    "mode",
    "test_setup_code",
    "test_imports",
    "test_start",
    "suffix",
    "family",
    "split",
}
_CHECK = re.compile(r"^check\s*\(", re.MULTILINE)


@dataclass(frozen=True)
class TaskColumns:
    """Where the parts of a task stand in one table."""

    prompt: str
    reference: str
    tests: str

    @property
    def names(self) -> tuple[str, str, str]:
        return self.prompt, self.reference, self.tests


def load_tasks(
    path: str,
    *,
    columns: Mapping[str, str] | None = None,
    max_rows: int | None = None,
    show_tests: int = 0,
) -> Loaded[Task]:
    """Read tasks from a file, a folder, a hub id, or `synthetic`.

    The entry point is taken from the row, else found in the tests (`find_entry_point`). HumanEval's
    reference is prompt + canonical solution, and its tests end with `check(<entry_point>)`.

    Args:
        columns: role (`prompt`, `reference`, `tests`) -> column, where no known name fits.
        max_rows: stop after this many tasks.
        show_tests: append this many tests to the prompt, as the MBPP paper does; without any, an MBPP
            prompt does not say how the function is to be called.

    Raises:
        DataError: unreadable, no such columns, or no usable row.
    """
    check_roles(columns, ROLES)
    check_cap(max_rows)
    if show_tests < 0:
        raise ConfigError(f"show_tests={show_tests}: expected 0 or more")
    if path == SYNTHETIC:
        tasks = synthetic_tasks()[:max_rows]
        return Loaded(tasks, LoadReport(path, "builtin", len(tasks), len(tasks)))
    tally = Tally(path)
    tasks = []
    seen: set[str] = set()
    for table, plan in fitting_tables(path, tally, lambda table: plan_tasks(table, columns)):
        for task in read_tasks(table, plan, tally, show_tests=show_tests):
            if task.task_id in seen:
                tally.skip("repeated task_id", task.task_id)
                continue
            seen.add(task.task_id)
            tally.rows_kept += 1
            tasks.append(task)
            if len(tasks) == max_rows:
                tally.note(f"stopped after {max_rows} tasks as asked")
                break
        if len(tasks) == max_rows:
            break
    tally.require_rows("a prompt, a reference program and tests")
    nameless = sum(t.entry_point is not None and t.entry_point not in t.prompt for t in tasks)
    if nameless:
        tally.note(f"{nameless} prompts do not name the function that their tests call")
    return Loaded(tasks, tally.report())


def is_task_table(table: Table) -> bool:
    """Whether a table has what makes a task: tests and a reference program."""
    tests, code = find_column(table, "tests", TESTS), find_column(table, "reference", REFERENCE)
    return tests is not None and code is not None


def plan_tasks(table: Table, columns: Mapping[str, str] | None = None) -> TaskColumns:
    """Find the columns of a task table; `DataError` names what is missing."""
    return TaskColumns(
        prompt=need_column(table, "prompt", PROMPT, columns),
        reference=need_column(table, "reference", REFERENCE, columns),
        tests=need_column(table, "tests", TESTS, columns),
    )


def read_tasks(
    table: Table, plan: TaskColumns, tally: Tally, *, show_tests: int = 0
) -> Iterator[Task]:
    """The tasks of one table; rows that are none are counted in `tally` with the reason.

    The rows that are kept are for the caller to count.
    """
    tally.columns.update(prompt=plan.prompt, reference=plan.reference, tests=plan.tests)
    name = source_name(table)
    for position, row in enumerate(table.rows):
        task = _task(row.values, plan, f"{name}/{position}", show_tests)
        if isinstance(task, str):
            tally.skip(task, row.where)
        else:
            yield task


def as_demonstration(task: Task, source: str) -> Demonstration:
    """The task's prompt and reference program as something to imitate."""
    metadata = {"tests": task.tests, "entry_point": task.entry_point, "family": task.family}
    return Demonstration(
        task.prompt, task.reference, group_id=task.task_id, source=source, metadata=metadata
    )


def find_entry_point(tests: Sequence[str], code: str) -> str | None:
    """The name defined in `code` that most of `tests` call; the earliest called wins a tie.

    None when no test calls a name that the code defines.
    """
    defined = _defined_names(code)
    calls: Counter[str] = Counter()
    for test in tests:
        calls.update({name: None for name in _called_names(test) if name in defined}.keys())
    return calls.most_common(1)[0][0] if calls else None


def _defined_names(code: str) -> set[str]:
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError):
        # Old references (print statements, mixed tabs) do not parse on a current Python.
        return set(re.findall(r"^(?:async\s+)?(?:def|class)\s+(\w+)", code, re.MULTILINE))
    names = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):  # f = lambda x: ...
            names.update(t.id for t in node.targets if isinstance(t, ast.Name))
    return names


def _called_names(test: str) -> list[str]:
    return re.findall(r"(\w+)\s*\(", test)


def _task(
    values: Mapping[str, Any], plan: TaskColumns, fallback_id: str, show_tests: int
) -> Task | str:
    """The task of one row, or why there is none."""
    prompt = text_of(values.get(plan.prompt))
    reference = text_of(values.get(plan.reference))
    if prompt is None or not prompt.strip():
        return "row without a prompt"
    if reference is None or not reference.strip():
        return "row without a reference program"
    raw_tests = _strings(values.get(plan.tests))
    if not raw_tests:
        return "row without tests"
    entry_point = text_of(values.get("entry_point")) or None
    metadata = {k: v for k, v in values.items() if k not in _FIELDS and k not in plan.names}
    if plan.reference == "canonical_solution":
        suffix = text_of(values.get("suffix")) or ""
        metadata.update(prefix=prompt, suffix=suffix)
        reference = prompt + reference + suffix
        intent = text_of(values.get("intent"))
        if intent and plan.prompt == "prompt":  # ODEX: the prompt is a bare signature
            prompt = f"{intent.strip()}\n\n{prompt}"
    if entry_point is None:
        entry_point = find_entry_point(raw_tests, reference)
    tests = _complete_tests(raw_tests, text_of(values.get("test_start")) or "", entry_point)
    if tests is None:
        return "row whose check() has no entry_point"
    named = values.get("mode") or ("unittest" if "unittest.TestCase" in tests[0] else "assert")
    mode = next((known for known in _MODES if known == named), None)
    if mode is None:
        return f"row of unknown mode {named!r}"
    if show_tests:
        shown = "\n".join(tests[:show_tests])
        prompt = f"{prompt.rstrip()}\nYour code should pass these tests:\n{shown}"
    task_id = values.get("task_id")
    if isinstance(task_id, float) and not math.isfinite(task_id):
        task_id = None  # a gap in a column of numbers
    setup = [text_of(values.get("test_setup_code")) or "", *_strings(values.get("test_imports"))]
    return Task(
        task_id=fallback_id if task_id is None or task_id == "" else str(task_id),
        prompt=prompt,
        reference=reference,
        tests=tests,
        entry_point=entry_point,
        mode=mode,
        setup="\n".join(part for part in setup if part.strip()),
        family=str(values.get("family") or ""),
        split=str(values.get("split") or ""),
        metadata=metadata,
    )


def _complete_tests(
    raw: Sequence[str], start: str, entry_point: str | None
) -> tuple[str, ...] | None:
    """Tests that run on their own: a `check(candidate)` gets the call that runs it."""
    tests = []
    for body in raw:
        test = start + body
        if "def check(" in test and not _CHECK.search(test):
            if entry_point is None:
                return None
            test = f"{test.rstrip()}\n\ncheck({entry_point})"
        tests.append(test)
    return tuple(tests)


def _strings(value: object) -> list[str]:
    """A list of tests or imports: a list of strings, a JSON array of them in a cell, or one string."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return [value] if isinstance(value, str) else []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)):
        return []
    return [text for item in value if (text := text_of(item)) and text.strip()]
