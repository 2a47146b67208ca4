"""What generated code is like, apart from being right: complexity, style, safety.

Diagnostics describe a text and compare it with nothing; on all three less is better:
* `complexity`: mean cyclomatic complexity (McCabe, IEEE TSE 1976) of a program's functions and
  methods, or of the program itself when it has none, by radon; 1 is code without a branch.
* `style`: violations of pycodestyle's rules E and W and pyflakes' rules F a line, by ruff. Undefined
  names (F821) do not count: a snippet uses names it was only told of.
* `safety`: 1 where bandit finds something of medium severity or more, else 0, so that the mean is
  the share of answers flagged.
Code that is blank or does not parse is None. The code is only looked at, never executed; comments
that silence a tool (`noqa`, `nosec`) are ignored.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from modern_rlhf.metrics.results import ItemScores

Trees = Mapping[str, "ast.Module | None"]

TIMEOUT_SECONDS = 120
_UNSCORED = "blank or not valid Python"
# The folder of generated files must not lead the module path of the tool that reads them.
_START = (
    "import runpy, sys; sys.path.pop(0); sys.argv.pop(0); "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


def complexity_scores(codes: Sequence[str], trees: Trees) -> ItemScores:
    """Mean cyclomatic complexity of each code; `trees` are syntax trees by text."""
    from radon.visitors import ComplexityVisitor

    def score(tree: ast.Module) -> float | None:
        try:
            visitor = ComplexityVisitor.from_ast(tree)
        except RecursionError:
            return None
        methods = [method for one in visitor.classes for method in one.methods]
        found = [block.complexity for block in (*visitor.functions, *methods)]
        return sum(found) / len(found) if found else float(visitor.complexity)

    kept = [_usable(trees.get(code)) for code in codes]
    details = {"implementation": "radon", "direction": "lower is simpler", "unscored": _UNSCORED}
    return ItemScores([None if tree is None else score(tree) for tree in kept], details)


def style_scores(codes: Sequence[str], trees: Trees) -> ItemScores:
    """Style violations a non-blank line of each code."""
    details: dict[str, Any] = {
        "implementation": "ruff, rules E W F without F821",
        "direction": "lower is cleaner",
        "unit": "violations a line",
        "unscored": _UNSCORED,
    }
    flags = ["check", "--isolated", "--no-cache", "--ignore-noqa", "--exit-zero"]
    rules = ["--select=E,W,F", "--ignore=F821", "--output-format=json", "."]
    found = _inspect("ruff", [*flags, *rules], codes, trees)
    if isinstance(found, str):
        return ItemScores([None] * len(codes), details, found)
    counts = Counter(Path(one["filename"]).name for report in found.reports for one in report)
    details["tool_failed"] = len(found.failed)
    scores: list[float | None] = []
    for place, code in enumerate(codes):
        lines = sum(bool(line.strip()) for line in code.splitlines())
        usable = _usable(trees.get(code)) is not None and place not in found.failed
        scores.append(counts[_file_name(place)] / lines if usable else None)
    return ItemScores(scores, details)


def safety_scores(codes: Sequence[str], trees: Trees) -> ItemScores:
    """1 for each code that bandit flags at medium severity or above, else 0."""
    details: dict[str, Any] = {
        "implementation": "bandit, medium severity and above",
        "direction": "lower is safer",
        "unit": "share of answers flagged",
        "unscored": _UNSCORED,
    }
    flags = ["-q", "-r", "-ll", "-f", "json", "--ignore-nosec", "--exit-zero", "."]
    found = _inspect("bandit", flags, codes, trees)
    if isinstance(found, str):
        return ItemScores([None] * len(codes), details, found)
    flagged = {Path(one["filename"]).name for report in found.reports for one in report["results"]}
    failed = {Path(one["filename"]).name for report in found.reports for one in report["errors"]}
    failed |= {_file_name(place) for place in found.failed}
    details["tool_failed"] = len(failed)
    scores: list[float | None] = []
    for place, code in enumerate(codes):
        name = _file_name(place)
        usable = _usable(trees.get(code)) is not None and name not in failed
        scores.append(float(name in flagged) if usable else None)
    return ItemScores(scores, details)


class Inspection(NamedTuple):
    """The JSON reports of a tool over the usable codes, and the places of those it failed on."""

    reports: list[Any]
    failed: set[int]


def _inspect(tool: str, flags: list[str], codes: Sequence[str], trees: Trees) -> Inspection | str:
    """What `python -m tool` says of the usable codes as files, or why it says nothing at all.

    A code that brings the tool down (nested too deep for its stack) is found by halving the set.

    Raises:
        ImportError: the tool is not installed.
    """
    if find_spec(tool) is None:
        raise ImportError(f"No module named {tool!r}", name=tool)
    usable = [place for place, code in enumerate(codes) if _usable(trees.get(code)) is not None]
    found = Inspection([], set())
    waiting = [usable] if usable else []
    deadline = time.monotonic() + TIMEOUT_SECONDS
    said = ""
    while waiting:
        places = waiting.pop()
        left = deadline - time.monotonic()
        if left <= 0:
            return f"{tool} did not finish in {TIMEOUT_SECONDS} s"
        report = _report(tool, flags, {_file_name(place): codes[place] for place in places}, left)
        if not isinstance(report, str):
            found.reports.append(report)
        elif len(places) == 1:
            said = report
            found.failed.update(places)
        else:
            half = len(places) // 2
            waiting += [places[:half], places[half:]]
    return f"{tool} failed: {said}" if usable and len(found.failed) == len(usable) else found


def _report(tool: str, flags: list[str], files: Mapping[str, str], timeout: float) -> Any:
    """The JSON report of one run of the tool over `files`, or the last it said when it failed."""
    with tempfile.TemporaryDirectory(prefix="modern-rlhf-lint-") as folder:
        for name, code in files.items():
            text = code if code.endswith("\n") else code + "\n"
            Path(folder, name).write_text(text, encoding="utf-8")
        try:
            done = subprocess.run(
                [sys.executable, "-c", _START, tool, *flags],
                cwd=folder,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "it did not finish"
    try:
        return json.loads(done.stdout)
    except ValueError:
        said = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
        return said[-1] if said else f"exit code {done.returncode}"


def _usable(tree: ast.Module | None) -> ast.Module | None:
    return tree if tree is not None and tree.body else None


def _file_name(place: int) -> str:
    return f"answer_{place}.py"
