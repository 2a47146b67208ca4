"""Which lines of a program ran: `sys.settrace` in a second run whose results judge nothing.

Lines are reported as they are first reached, so that a run that is killed has told what it did.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

FILENAME = "<candidate>"
MAX_LINES = 20000


def executable_lines(source: str) -> list[int]:
    """1-based lines that carry a statement or code, also where the compiler dropped it as dead.

    Statements that compile to nothing anywhere (docstrings, `global`, bare annotations) can't run, so
    they are not among them.

    Raises:
        SyntaxError and what else `compile` raises.
    """
    tree = ast.parse(source)
    found = {
        node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt) and not _silent(node)
    }
    waiting = [compile(tree, FILENAME, "exec")]
    while waiting:
        item = waiting.pop()
        found |= {line for _, _, line in item.co_lines() if line}
        waiting += [const for const in item.co_consts if isinstance(const, CodeType)]
    return sorted(found)[:MAX_LINES]


def _silent(node: ast.stmt) -> bool:
    return (
        isinstance(node, (ast.Global, ast.Nonlocal))
        or (isinstance(node, ast.AnnAssign) and node.value is None)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    )


def start(source: str, send: Callable[[dict[str, Any]], None]) -> None:
    """Report the executable lines now, and each line when it first runs, from here on."""
    try:
        send({"trace": "executable", "lines": executable_lines(source)})
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return  # the judged run has said so already
    seen: set[int] = set()

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        line = frame.f_lineno
        if event == "line" and line and line not in seen:
            seen.add(line)
            send({"trace": "line", "line": line})
        return local

    def outer(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != FILENAME:
            return None
        return local(frame, "line", argument) if event == "call" else local

    sys.settrace(outer)
