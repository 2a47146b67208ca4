"""Executing generated code: `SandboxExecutor` in, verdicts out. See `docs/sandbox.md`.

Lazy re-exports only; inside the package import the defining module.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "SandboxExecutor": "executor",
    "ScriptedExecutor": "executor",
    "Executor": "types",
    "Program": "types",
    "ExecutionResult": "types",
    "Trace": "types",
    "SandboxReport": "doctor",
    "extract_code": "extract",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
