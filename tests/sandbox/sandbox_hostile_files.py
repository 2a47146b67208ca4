"""The programs of `hostile_programs.txt`: kinds of attack, and of honest work, beside `sandbox_hostile_set.py`.

They stand in a text file because a program is easier to read as one. The file's head explains its form.
"""

from __future__ import annotations

import json
from pathlib import Path

from sandbox_hostile_set import ADD, ALWAYS, CASE, CODED, Hostile

FILE = Path(__file__).with_name("hostile_programs.txt")
NUMBERS = [str(number) for number in range(30000)]
LINES = (json.dumps({"input": "\n".join(NUMBERS), "output": "\n".join(reversed(NUMBERS))}),)
TESTS: dict[str, str | tuple[str, ...]] = {
    "@add": ADD, "@coded": CODED, "@case": CASE, "@lines": LINES,
}  # fmt: skip
MOCK = (
    f"class M:\n{ALWAYS}"
    """\
    def __getattr__(s, n): return M()
    def __call__(s, *a, **k): return M()
    def __iter__(s): return iter(())
    def __len__(s): return 5
    def __int__(s): return 5
    __index__ = __int__
    def __float__(s): return 5.0
    def __sub__(s, o): return 0
    __rsub__ = __add__ = __radd__ = __mod__ = __truediv__ = __sub__
    def __lt__(s, o): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __round__(s, n=0): return M()
    def __abs__(s): return 0
    def __str__(s): return '5'
    __repr__ = __str__
    def __format__(s, f): return '5'
    def __bool__(s): return True
"""
)
"""An object that agrees to everything; `@mock` in a program."""


def _read(entry: str) -> Hostile:
    head, rest = entry.split("\n", 1)
    name, kind, accepted, mode, entry_point = head.split()
    given, code = rest.split("\n---\n", 1)
    lines = given.split("\n")
    if given.startswith("- "):
        tests: str | tuple[str, ...] = tuple(line[2:] for line in lines)
    else:
        tests = TESTS.get(given, given)
    code = code.replace("@mock\n", MOCK, 1)
    named = None if entry_point == "-" else entry_point
    return Hostile(name, kind, code, tests, named, tuple(accepted.split(",")), mode)


MORE = [_read(entry) for entry in FILE.read_text(encoding="utf-8").split("\n=== ")[1:]]
MORE_HOSTILE = [case for case in MORE if case.kind != "benign"]
MORE_BENIGN = [case for case in MORE if case.kind == "benign"]
