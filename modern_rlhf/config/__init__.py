"""Configuration: sections, presets, files. Importing this loads no torch."""

from modern_rlhf.config.io import apply_overrides, config_from_dict, dump_config, load_config
from modern_rlhf.config.presets import (
    PRESETS,
    get_cpu_test_config,
    get_fast_config,
    get_preset,
    get_production_config,
    get_research_config,
)
from modern_rlhf.config.reward import RewardConfig
from modern_rlhf.config.sections import (
    DataConfig,
    EvaluationConfig,
    HardwareConfig,
    ModelConfig,
    ModernRLHFConfig,
)
from modern_rlhf.config.training import TrainingConfig

__all__ = [
    "PRESETS",
    "DataConfig",
    "EvaluationConfig",
    "HardwareConfig",
    "ModelConfig",
    "ModernRLHFConfig",
    "RewardConfig",
    "TrainingConfig",
    "apply_overrides",
    "config_from_dict",
    "dump_config",
    "get_cpu_test_config",
    "get_fast_config",
    "get_preset",
    "get_production_config",
    "get_research_config",
    "load_config",
]
