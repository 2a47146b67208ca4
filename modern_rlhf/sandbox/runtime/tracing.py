"""Which lines of a program ran: `sys.settrace` in a second run whose results judge nothing.

Lines are reported as they are first reached, so that a run that is killed has told what it did.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

FILENAME = "<candidate>"
MAX_LINES = 20000


def executable_lines(code: CodeType) -> list[int]:
    """1-based lines that carry code, of a module and all functions and classes in it."""
    found: set[int] = set()
    waiting = [code]
    while waiting:
        item = waiting.pop()
        found |= {line for _, _, line in item.co_lines() if line}
        waiting += [const for const in item.co_consts if isinstance(const, CodeType)]
    return sorted(found)[:MAX_LINES]


def start(source: str, send: Callable[[dict[str, Any]], None]) -> None:
    """Report executable lines now, and each line when it first runs or raises, from here on."""
    try:
        send({"trace": "executable", "lines": executable_lines(compile(source, FILENAME, "exec"))})
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return
    seen: set[int] = set()
    raised: set[int] = set()

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        line = frame.f_lineno
        if event == "line" and line not in seen:
            seen.add(line)
            send({"trace": "line", "line": line})
        elif event == "exception" and line not in raised and argument[0] is not StopIteration:
            raised.add(line)
            send({"trace": "raised", "line": line})
        return local

    def outer(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != FILENAME:
            return None
        return local(frame, "line", argument) if event == "call" else local

    sys.settrace(outer)
