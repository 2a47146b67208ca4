"""Benchmarks, scripts and examples follow the package: what they import of it is there."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

FOLDERS = ("benchmarks", "scripts", "examples")


def imported(path: Path) -> list[tuple[str, str]]:
    """(module, name) of every `from modern_rlhf... import name` in the file, also inside functions."""
    return [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("modern_rlhf")
        for alias in node.names
        if node.module is not None
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_they_import_exists(repository: Path, folder: str) -> None:
    files = sorted((repository / folder).glob("*.py"))
    assert files
    for path in files:
        for module, name in imported(path):
            found = importlib.import_module(module)
            if not hasattr(found, name):
                importlib.import_module(f"{module}.{name}")
