"""placeholder"""

from __future__ import annotations

from typing import Any


def run_all(libc: Any, job: dict[str, Any]) -> dict[str, Any]:
    return {}
