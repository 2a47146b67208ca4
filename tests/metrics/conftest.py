"""Shared helpers of the metric tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FIXTURE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "metric_fixture"


@pytest.fixture(scope="session")
def graded_rows() -> list[dict[str, Any]]:
    """The 1,180 human-graded CoNaLa answers with stored metric values."""
    path = FIXTURE / "conala_metric_fixture.jsonl"
    if not path.is_file():
        pytest.skip(f"the metric fixture is not here: {path}")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def ruby_examples() -> list[dict[str, Any]]:
    """Worked values of RUBY and its parts."""
    path = FIXTURE / "ruby_worked_examples.json"
    if not path.is_file():
        pytest.skip(f"the worked examples are not here: {path}")
    examples: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return examples
