"""Tests of scripts: what goes in on standard input and what must come out."""

from __future__ import annotations

import json
from typing import Any


def cases(tests: Any) -> list[tuple[str, str]]:
    """(input, expected output) pairs of stdio tests.

    Raises:
        ValueError: not JSON of a known shape.
    """
    pairs: list[tuple[str, str]] = []
    for source in [tests] if isinstance(tests, str) else tests:
        case = json.loads(source)
        if "inputs" in case:
            if len(case["inputs"]) != len(case["outputs"]):
                raise ValueError("as many outputs as inputs are needed")
            pairs += list(zip(case["inputs"], case["outputs"], strict=True))
        else:
            pairs.append((case.get("input", ""), case["output"]))
    if not pairs:
        raise ValueError("there are none")
    return [(str(given), str(expected)) for given, expected in pairs]


def same_text(printed: bytes, expected: str) -> bool:
    """Equal lines, with blanks at line ends and empty lines at the end forgiven."""
    try:
        text = printed.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return _lines(text) == _lines(expected)


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines
