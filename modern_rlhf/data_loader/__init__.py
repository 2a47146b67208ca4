"""Data in: files, folders and hub datasets become records, records become batches.

The names below are loaded on first use (PEP 562); reading data needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modern_rlhf.data_loader.demonstrations import load_demonstrations, stream_demonstrations
    from modern_rlhf.data_loader.modern import ModernDataLoader
    from modern_rlhf.data_loader.preferences import load_labelled, load_preferences
    from modern_rlhf.data_loader.prompts import load_prompts
    from modern_rlhf.data_loader.splits import remove_overlap, split_by_group
    from modern_rlhf.data_loader.tasks import load_tasks
    from modern_rlhf.records import DataSample
    from modern_rlhf.utils.load_report import Loaded, LoadReport

_HOMES = {
    "DataSample": "modern_rlhf.records",
    "LoadReport": "modern_rlhf.utils.load_report",
    "Loaded": "modern_rlhf.utils.load_report",
    "ModernDataLoader": "modern_rlhf.data_loader.modern",
    "load_demonstrations": "modern_rlhf.data_loader.demonstrations",
    "load_labelled": "modern_rlhf.data_loader.preferences",
    "load_preferences": "modern_rlhf.data_loader.preferences",
    "load_prompts": "modern_rlhf.data_loader.prompts",
    "load_tasks": "modern_rlhf.data_loader.tasks",
    "remove_overlap": "modern_rlhf.data_loader.splits",
    "split_by_group": "modern_rlhf.data_loader.splits",
    "stream_demonstrations": "modern_rlhf.data_loader.demonstrations",
}

__all__ = [
    "DataSample",
    "LoadReport",
    "Loaded",
    "ModernDataLoader",
    "load_demonstrations",
    "load_labelled",
    "load_preferences",
    "load_prompts",
    "load_tasks",
    "remove_overlap",
    "split_by_group",
    "stream_demonstrations",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
