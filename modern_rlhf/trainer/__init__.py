"""The trainers: one loop each, no loss written inside a loop. Names are loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modern_rlhf.trainer.dpo import DPOTrainer
    from modern_rlhf.trainer.kto import KTOTrainer
    from modern_rlhf.trainer.policy_gradient import PolicyGradientTrainer
    from modern_rlhf.trainer.ppo import PPOTrainer
    from modern_rlhf.trainer.reward import RewardTrainer
    from modern_rlhf.trainer.sft import SFTTrainer

_HOMES = {
    "DPOTrainer": "modern_rlhf.trainer.dpo",
    "KTOTrainer": "modern_rlhf.trainer.kto",
    "PPOTrainer": "modern_rlhf.trainer.ppo",
    "PolicyGradientTrainer": "modern_rlhf.trainer.policy_gradient",
    "RewardTrainer": "modern_rlhf.trainer.reward",
    "SFTTrainer": "modern_rlhf.trainer.sft",
}

__all__ = [
    "DPOTrainer",
    "KTOTrainer",
    "PPOTrainer",
    "PolicyGradientTrainer",
    "RewardTrainer",
    "SFTTrainer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
