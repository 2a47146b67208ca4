"""The notebook in examples/: it is one, its code compiles, and (slow) it runs from top to bottom."""

from __future__ import annotations

import ast
import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def cells(repository: Path) -> list[str]:
    """The code of every code cell, in order."""
    text = (repository / "examples" / "whole_job.ipynb").read_text(encoding="utf-8")
    notebook: dict[str, Any] = json.loads(text)
    assert notebook["nbformat"] == 4
    found = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in found)
    return ["".join(cell["source"]) for cell in found]


def test_every_name_it_imports_is_there(cells: list[str]) -> None:
    imports = [
        (node.module, alias.name)
        for cell in cells
        for node in ast.walk(ast.parse(cell))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("modern_rlhf")
        for alias in node.names
    ]
    assert len(imports) >= 3
    for module, name in imports:
        assert hasattr(importlib.import_module(str(module)), name), (module, name)


@pytest.mark.slow
@pytest.mark.timeout(3600)  # of a machine that may be very busy
def test_it_runs(cells: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    display = types.ModuleType("IPython.display")
    display.Image = lambda filename: filename  # type: ignore[attr-defined]
    display.display = shown.append  # type: ignore[attr-defined]
    shell = types.ModuleType("IPython")
    shell.version_info = (8, 24, 0)  # type: ignore[attr-defined]  # matplotlib asks for it
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile(cell, "whole_job.ipynb", "exec"), names)
    assert any("rlhf_training_metrics" in name for name in shown)
    assert names["results"].success and (tmp_path / "notebook_outputs" / "report.html").is_file()
