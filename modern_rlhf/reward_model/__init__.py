"""The reward model: frozen (or trained) backbone, named heads, feature cache, calibration, evaluation.

Import the defining module inside the package; these names are the ones people use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modern_rlhf.reward_model.evaluator import RewardModelEvaluator
    from modern_rlhf.reward_model.model import CustomRewardModel

_HOMES = {
    "CustomRewardModel": "modern_rlhf.reward_model.model",
    "RewardModelEvaluator": "modern_rlhf.reward_model.evaluator",
}

__all__ = ["CustomRewardModel", "RewardModelEvaluator"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
