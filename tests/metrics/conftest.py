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
