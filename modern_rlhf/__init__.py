"""From demonstrations and human ratings to a measured, better Python code generator.

SFT -> reward model -> PPO (or DPO, KTO, REINFORCE, RLOO, GRPO). The public names below are loaded on
first use (PEP 562): importing the package loads no torch. Inside the package the defining module is
imported, never this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modern_rlhf.version import __version__

if TYPE_CHECKING:
    from modern_rlhf.config.presets import (
        get_cpu_test_config,
        get_fast_config,
        get_production_config,
        get_research_config,
    )
    from modern_rlhf.config.sections import ModernRLHFConfig
    from modern_rlhf.config.training import TrainingConfig
    from modern_rlhf.data_loader.modern import ModernDataLoader
    from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
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
    from modern_rlhf.pipeline.pipeline import ModernRLHFPipeline, run_multi_stage_pipeline
    from modern_rlhf.records import DataSample
    from modern_rlhf.reward_model.evaluator import RewardModelEvaluator
    from modern_rlhf.reward_model.model import CustomRewardModel
    from modern_rlhf.sandbox.executor import SandboxExecutor
    from modern_rlhf.sandbox.types import Program
    from modern_rlhf.trainer.dpo import DPOTrainer
    from modern_rlhf.trainer.kto import KTOTrainer
    from modern_rlhf.trainer.policy_gradient import PolicyGradientTrainer
    from modern_rlhf.trainer.ppo import PPOTrainer
    from modern_rlhf.trainer.reward import RewardTrainer
    from modern_rlhf.trainer.sft import SFTTrainer

_HOMES = {
    "ConversationDataset": "modern_rlhf.pipeline.function_style",
    "CustomRewardModel": "modern_rlhf.reward_model.model",
    "DPOTrainer": "modern_rlhf.trainer.dpo",
    "DataSample": "modern_rlhf.records",
    "KTOTrainer": "modern_rlhf.trainer.kto",
    "ModernDataLoader": "modern_rlhf.data_loader.modern",
    "ModernMetricsEvaluator": "modern_rlhf.metrics.evaluator",
    "ModernRLHFConfig": "modern_rlhf.config.sections",
    "ModernRLHFPipeline": "modern_rlhf.pipeline.pipeline",
    "PPOTrainer": "modern_rlhf.trainer.ppo",
    "PolicyGradientTrainer": "modern_rlhf.trainer.policy_gradient",
    "Program": "modern_rlhf.sandbox.types",
    "RLHFConfig": "modern_rlhf.pipeline.function_style",
    "RLHFPipeline": "modern_rlhf.pipeline.function_style",
    "RewardModelEvaluator": "modern_rlhf.reward_model.evaluator",
    "RewardTrainer": "modern_rlhf.trainer.reward",
    "SFTTrainer": "modern_rlhf.trainer.sft",
    "SandboxExecutor": "modern_rlhf.sandbox.executor",
    "TrainingConfig": "modern_rlhf.config.training",
    "create_preference_dataloader": "modern_rlhf.pipeline.function_style",
    "create_preference_loss": "modern_rlhf.pipeline.function_style",
    "create_reward_model": "modern_rlhf.pipeline.function_style",
    "create_rlhf_pipeline": "modern_rlhf.pipeline.function_style",
    "create_trainer": "modern_rlhf.pipeline.function_style",
    "create_value_model": "modern_rlhf.pipeline.function_style",
    "get_cpu_test_config": "modern_rlhf.config.presets",
    "get_fast_config": "modern_rlhf.config.presets",
    "get_production_config": "modern_rlhf.config.presets",
    "get_research_config": "modern_rlhf.config.presets",
    "run_multi_stage_pipeline": "modern_rlhf.pipeline.pipeline",
}

__all__ = [
    "ConversationDataset",
    "CustomRewardModel",
    "DPOTrainer",
    "DataSample",
    "KTOTrainer",
    "ModernDataLoader",
    "ModernMetricsEvaluator",
    "ModernRLHFConfig",
    "ModernRLHFPipeline",
    "PPOTrainer",
    "PolicyGradientTrainer",
    "Program",
    "RLHFConfig",
    "RLHFPipeline",
    "RewardModelEvaluator",
    "RewardTrainer",
    "SFTTrainer",
    "SandboxExecutor",
    "TrainingConfig",
    "__version__",
    "create_preference_dataloader",
    "create_preference_loss",
    "create_reward_model",
    "create_rlhf_pipeline",
    "create_trainer",
    "create_value_model",
    "get_cpu_test_config",
    "get_fast_config",
    "get_production_config",
    "get_research_config",
    "run_multi_stage_pipeline",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
