"""Every detail of the list has its row in docs/equations.md, and the tests named there exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ABSENT = {27, 30}
"""Numbers that the list of details leaves out."""


def rows(page: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """(number or nothing, the (folder, test) pairs) of each row of the table of details."""
    table = page.split("## Details, and the test that holds each")[1].split("\nWhat a reader")[0]
    found = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")]
    return [
        (cells[0].strip(), re.findall(r"`(\w+)` `(test_\w+)`", cells[-1])) for cells in found[1:]
    ]


def test_every_detail_names_tests_that_exist(repository: Path) -> None:
    listed = rows((repository / "docs" / "equations.md").read_text(encoding="utf-8"))
    numbers = {f"D{n}" for n in range(1, 40) if n not in ABSENT} | {"D31b", ""}
    assert {number for number, _ in listed} == numbers
    known: dict[str, set[str]] = {}
    for path in (repository / "tests").rglob("test_*.py"):
        functions = ast.parse(path.read_text(encoding="utf-8")).body
        names = {f.name for f in functions if isinstance(f, ast.FunctionDef)}
        known.setdefault(path.parent.name, set()).update(names)
    for number, tests in listed:
        assert tests, f"no test in the row {number}"
        for folder, name in tests:
            assert name in known[folder], (number, folder, name)
