"""Exact match, and whether an answer is Python at all.

Parsing is the one place where hostile text meets CPython's own parser: all it may raise on bad
input is caught here by name. The parser bounds its recursion itself (SyntaxError, MemoryError or
RecursionError, within the stack of a thread of 8 MB); text is cut to `texts.CHARACTER_LIMIT` before
it comes here.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Sequence

from modern_rlhf.metrics.results import ItemScores


def parse_python(code: str) -> ast.Module | None:
    """The syntax tree of `code`, or None when it is not valid Python (or nested beyond parsing)."""
    return parse_all([code])[code]


def parse_all(codes: Iterable[str]) -> dict[str, ast.Module | None]:
    """The syntax tree of each code by its text, None where there is none."""
    trees: dict[str, ast.Module | None] = {}
    with warnings.catch_warnings():
        # "\d" in generated code would print a SyntaxWarning for every such literal.
        warnings.simplefilter("ignore")
        for code in codes:
            try:
                trees[code] = ast.parse(code)
            except (SyntaxError, ValueError, MemoryError, RecursionError):
                trees[code] = None
    return trees


def literal_text(value: object) -> str:
    """`str(value)`, or hexadecimal digits for an integer too long for Python to print in decimal."""
    try:
        return str(value)
    except ValueError:
        return hex(value) if isinstance(value, int) else type(value).__name__


def syntax_items(trees: Sequence[ast.Module | None]) -> list[float | None]:
    """1 where a prediction parsed and holds at least one statement, else 0."""
    return [float(tree is not None and bool(tree.body)) for tree in trees]


def syntax_summary(scores: Sequence[float | None]) -> ItemScores:
    """The scores with what a reader must know about them."""
    return ItemScores(list(scores), {"implementation": "ast.parse", "empty": "0"})


def normal_form(code: str) -> str:
    """`code` with LF line ends, without trailing white space or outer blank lines."""
    lines = code.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def exact_match_items(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> list[float | None]:
    """1 where a prediction equals any reference after `normal_form`; None without references."""
    scores: list[float | None] = []
    for prediction, texts in zip(predictions, references, strict=True):
        mine = normal_form(prediction)
        equal = mine.strip() != "" and any(mine == normal_form(text) for text in texts)
        scores.append(float(equal) if texts else None)
    return scores


def exact_match_summary(scores: Sequence[float | None]) -> ItemScores:
    """The scores with what a reader must know about them."""
    details = {
        "normalisation": "line ends, trailing white space and outer blank lines",
        "references": "any of the references",
    }
    return ItemScores(list(scores), details)
