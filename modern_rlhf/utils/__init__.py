"""Small tools every floor may use: atomic files, the folder lock, paths, devices, stop signals.

The names below are loaded on first use (PEP 562). Inside the package the defining module is
imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modern_rlhf.utils.device import DeviceChoice, resolve_device
    from modern_rlhf.utils.hardware import hardware_facts, peak_memory_mb
    from modern_rlhf.utils.paths import resolve_path
    from modern_rlhf.utils.stop import StopFlag

_HOMES = {
    "DeviceChoice": "modern_rlhf.utils.device",
    "StopFlag": "modern_rlhf.utils.stop",
    "hardware_facts": "modern_rlhf.utils.hardware",
    "peak_memory_mb": "modern_rlhf.utils.hardware",
    "resolve_device": "modern_rlhf.utils.device",
    "resolve_path": "modern_rlhf.utils.paths",
}

__all__ = [
    "DeviceChoice",
    "StopFlag",
    "hardware_facts",
    "peak_memory_mb",
    "resolve_device",
    "resolve_path",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
