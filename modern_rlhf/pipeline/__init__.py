"""The order of stages, what each reads and leaves. Names are loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modern_rlhf.pipeline.function_style import (
        ConversationDataset,
        RLHFConfig,
        RLHFPipeline,
        create_preference_dataloader,
        create_preference_loss,
        create_reward_model,
        create_rlhf_pipeline,
        create_trainer,
        create_value_model,
    )
    from modern_rlhf.pipeline.pipeline import (
        ModernRLHFPipeline,
        run_multi_stage_pipeline,
    )
    from modern_rlhf.pipeline.results import PipelineResults

_HOMES = {
    "ConversationDataset": "modern_rlhf.pipeline.function_style",
    "ModernRLHFPipeline": "modern_rlhf.pipeline.pipeline",
    "PipelineResults": "modern_rlhf.pipeline.results",
    "RLHFConfig": "modern_rlhf.pipeline.function_style",
    "RLHFPipeline": "modern_rlhf.pipeline.function_style",
    "create_preference_dataloader": "modern_rlhf.pipeline.function_style",
    "create_preference_loss": "modern_rlhf.pipeline.function_style",
    "create_reward_model": "modern_rlhf.pipeline.function_style",
    "create_rlhf_pipeline": "modern_rlhf.pipeline.function_style",
    "create_trainer": "modern_rlhf.pipeline.function_style",
    "create_value_model": "modern_rlhf.pipeline.function_style",
    "run_multi_stage_pipeline": "modern_rlhf.pipeline.pipeline",
}

__all__ = [
    "ConversationDataset",
    "ModernRLHFPipeline",
    "PipelineResults",
    "RLHFConfig",
    "RLHFPipeline",
    "create_preference_dataloader",
    "create_preference_loss",
    "create_reward_model",
    "create_rlhf_pipeline",
    "create_trainer",
    "create_value_model",
    "run_multi_stage_pipeline",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
