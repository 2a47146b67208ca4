"""Shared helpers of the metric tests."""

from __future__ import annotations

import importlib
import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FIXTURE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "metric_fixture"


@dataclass(frozen=True)
class _Extracted:
    code: str
    changed: bool
    how: str


def _extract_code(text: str, *, prompt_code: Any = None, entry_point: Any = None) -> _Extracted:
    if text.startswith("```python\n") and text.rstrip().endswith("```"):
        return _Extracted(text[10:].rstrip().removesuffix("```").rstrip("\n"), True, "fence")
    return _Extracted(text, False, "whole")


@pytest.fixture(autouse=True)
def extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real extractor; a thin one that knows a single fence only where it is not built yet."""
    try:
        importlib.import_module("modern_rlhf.sandbox.extract")
    except ImportError:
        stub = types.ModuleType("modern_rlhf.sandbox.extract")
        stub.extract_code = _extract_code  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "modern_rlhf.sandbox.extract", stub)


@pytest.fixture(scope="session")
def graded_rows() -> list[dict[str, Any]]:
    """The 1,180 human-graded CoNaLa answers with stored metric values."""
    path = FIXTURE / "conala_metric_fixture.jsonl"
    if not path.is_file():
        pytest.skip(f"the metric fixture is not here: {path}")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
