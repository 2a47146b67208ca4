"""Reward for text that is Python at all: 1 when it parses, optionally a share for a good beginning.

The extractor is the shared one (`sandbox/extract.py`), so a fence or chat prose costs nothing here.
Parsing executes nothing; text longer than the extractor parses counts as not parsable.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

from modern_rlhf.rewards.base import RewardBatch, RewardScores
from modern_rlhf.sandbox.extract import MAX_PARSED, answer_code

PARTIAL_CEILING = 0.5
"""What a broken program gets at most: half of what a parsable one does."""
_FAILURES = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
_DEF_HEADER = re.compile(r"(?:async\s+def|def|class)\s+\w+\s*(?:\([^()]*\))?[^:\n]*:\s*$")


class SyntaxReward:
    """1.0 for code that parses and says something, else 0.0 or, with `partial_credit`, up to 0.5.

    The partial credit is `PARTIAL_CEILING` x (lines before the first error that parse by
    themselves) / (lines), counted without blank lines and comments. Empty code scores 0. The
    component always applies.
    """

    name = "syntax"

    def __init__(self, partial_credit: bool = True) -> None:
        self.partial_credit = partial_credit

    def score(self, batch: RewardBatch) -> RewardScores:
        """B numbers in 0..1; details `syntax_error` (text or None) and `extracted` (how)."""
        values: list[float | None] = []
        errors: list[Any] = []
        ways: list[Any] = []
        for prompt, response in zip(batch.prompts, batch.responses, strict=True):
            found = answer_code(response, prompt.task)
            value, error = syntax_score(found.code, partial_credit=self.partial_credit)
            values.append(value)
            errors.append(error)
            ways.append(found.how)
        return RewardScores(
            total=list(values),
            components={self.name: values},
            details={"syntax_error": errors, "extracted": ways},
        )

    def close(self) -> None:
        """Nothing to free."""


def syntax_score(code: str, *, partial_credit: bool = True) -> tuple[float, str | None]:
    """(score in 0..1, the error in one line or None) of one program's text."""
    if not _says_something(code):
        return 0.0, "no code"
    line, error = _first_error(code)
    if error is None:
        return 1.0, None
    if not partial_credit:
        return 0.0, error
    return PARTIAL_CEILING * _good_share(code, line), error


def _says_something(code: str) -> bool:
    return any(_counts(line) for line in code.splitlines())


def _counts(line: str) -> bool:
    text = line.strip()
    return bool(text) and not text.startswith("#")


def _first_error(code: str) -> tuple[int, str | None]:
    """(1-based line, message) of the first syntax error; message None when it parses."""
    if len(code) > MAX_PARSED:
        return 1, f"longer than {MAX_PARSED} characters"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except SyntaxError as error:
        return error.lineno or 1, f"{type(error).__name__}: {error.msg} (line {error.lineno})"
    except _FAILURES as error:
        return 1, f"{type(error).__name__}: {error}"[:200]
    return 0, None


def _good_share(code: str, error_line: int) -> float:
    """Share of the counted lines that form a parsable prefix, ending before the error's line."""
    lines = code.splitlines()
    total = sum(_counts(line) for line in lines)
    end = max(0, min(error_line, len(lines)) - 1)
    for _ in range(8):
        prefix = lines[:end]
        while prefix and not _counts(prefix[-1]):
            prefix.pop()
        if not prefix:
            return 0.0
        body = "\n".join(prefix)
        if _DEF_HEADER.search(prefix[-1]) or prefix[-1].rstrip().endswith(":"):
            indent = len(prefix[-1]) - len(prefix[-1].lstrip()) + 1
            body += "\n" + " " * indent + "pass"  # a header whose body is the broken line
        line, error = _first_error(body)
        if error is None:
            return sum(_counts(kept) for kept in prefix) / total
        end = min(len(prefix) - 1, max(0, line - 1))
    return 0.0
