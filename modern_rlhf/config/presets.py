"""The four presets. A preset is a complete configuration; the CLI only overrides fields of it.

`fast`, `research` and `production` ask for CUDA; `cpu-test` needs neither GPU nor network: it runs the
whole job on the model and the tasks that ship with the package.
"""

from __future__ import annotations

from collections.abc import Callable

from modern_rlhf.config.fields import nearest
from modern_rlhf.config.reward import RewardConfig
from modern_rlhf.config.sections import (
    DataConfig,
    EvaluationConfig,
    HardwareConfig,
    ModelConfig,
    ModernRLHFConfig,
)
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.errors import ConfigError

BUILTIN_MODEL = "builtin:tiny-code-lm"


def get_research_config() -> ModernRLHFConfig:
    """Careful settings for one GPU: CodeGPT-small-py, separate value network, frequent evaluation."""
    return ModernRLHFConfig(
        training=TrainingConfig(
            batch_size=16,
            tokens_per_micro_batch=8192,
            rollout_batch_size=128,
            samples_per_prompt=4,
            ppo_mini_batches=2,
            ppo_adaptive_kl=True,
        ),
        tags=["research"],
    )


def get_production_config() -> ModernRLHFConfig:
    """Long runs on one or several GPUs: larger batches, LoRA off, checkpoints kept more sparsely."""
    return ModernRLHFConfig(
        training=TrainingConfig(
            batch_size=64,
            tokens_per_micro_batch=16384,
            rollout_batch_size=512,
            samples_per_prompt=4,
            ppo_mini_batches=4,
            ppo_adaptive_kl=True,
            sft_epochs=3,
            rlhf_epochs=5,
            save_steps=200,
            eval_steps=200,
        ),
        reward=RewardConfig(execution_min_layer=1),
        tags=["production"],
    )


def get_fast_config() -> ModernRLHFConfig:
    """A short GPU run to see everything work: few steps, small rollouts."""
    return ModernRLHFConfig(
        training=TrainingConfig(
            batch_size=8,
            rollout_batch_size=64,
            samples_per_prompt=4,
            total_steps=40,
            rlhf_epochs=1,
            eval_steps=5,
            save_steps=5,
        ),
        evaluation=EvaluationConfig(eval_samples=100, periodic_eval_samples=50),
        tags=["fast"],
    )


def get_cpu_test_config() -> ModernRLHFConfig:
    """The embedded model and tasks on a laptop CPU: the whole job in a few minutes."""
    return ModernRLHFConfig(
        model=ModelConfig(base_model_name=BUILTIN_MODEL, reward_model_name=BUILTIN_MODEL),
        training=TrainingConfig(
            batch_size=32,
            sft_batch_size=16,
            sft_learning_rate=2e-3,
            sft_epochs=7,
            sft_warmup_steps=10,
            # Few episodes and much noise: Adam's epsilon is about the size of a weight's gradient,
            # so that weights with small gradients move little (docs/LOG.md).
            learning_rate=3e-4,
            warmup_steps=4,
            adam_beta2=0.99,
            adam_epsilon=3e-4,
            temperature=1.0,
            tokens_per_micro_batch=2048,
            rollout_batch_size=384,
            samples_per_prompt=8,
            rlhf_epochs=2,
            total_steps=180,
            ppo_epochs=1,
            ppo_mini_batches=2,
            ppo_lambda=1.0,
            ppo_kl_penalty=0.005,
            ppo_entropy_coef=0.0,
            ppo_value_model="shared",
            ppo_group_baseline=True,
            self_imitation_steps=4,
            max_prompt_tokens=128,
            max_response_tokens=96,
            save_steps=15,
            eval_steps=100,
            early_stopping_patience=0,
        ),
        reward=RewardConfig(
            syntax_reward_weight=0.1,
            execution_reward_weight=0.6,
            semantic_reward_weight=0.2,
            human_preference_weight=0.1,
            execution_timeout=1.0,
        ),
        data=DataConfig(
            train_data_path="builtin:datasets_for_training/sft_dataset.csv",
            prompts_path="builtin:datasets_for_training/tasks.jsonl",
            eval_data_path="builtin:datasets_for_eval/tasks.jsonl",
            human_feedback_path="builtin:evaluation_results_server",
            skip_demonstrated_prompts=True,
            validation_fraction=0.02,
        ),
        evaluation=EvaluationConfig(
            eval_samples=500, periodic_eval_samples=48, bertscore_model=BUILTIN_MODEL
        ),
        hardware=HardwareConfig(device="cpu", require_cuda=False),
        tags=["cpu-test"],
    )


PRESETS: dict[str, Callable[[], ModernRLHFConfig]] = {
    "fast": get_fast_config,
    "research": get_research_config,
    "production": get_production_config,
    "cpu-test": get_cpu_test_config,
}


def get_preset(name: str) -> ModernRLHFConfig:
    """A fresh copy of a preset by name.

    Raises:
        ConfigError: unknown name.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}{nearest(name, PRESETS)}")
    return PRESETS[name]()
