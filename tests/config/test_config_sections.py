"""The frozen names and defaults, the presets, and what validation refuses."""

from __future__ import annotations

import dataclasses
import math

import pytest

from modern_rlhf.config import (
    PRESETS,
    ModernRLHFConfig,
    config_from_dict,
    get_cpu_test_config,
    get_preset,
)
from modern_rlhf.config.io import apply_overrides
from modern_rlhf.errors import ConfigError

FROZEN = {
    "model": {
        "base_model_name": "microsoft/CodeGPT-small-py",
        "reward_model_name": "microsoft/codebert-base",
    },
    "training": {
        "ppo_epochs": 4,
        "ppo_clip_ratio": 0.2,
        "ppo_value_loss_coef": 0.1,
        "ppo_entropy_coef": 0.01,
        "ppo_kl_penalty": 0.02,
        "use_multi_stage": True,
        "sft_learning_rate": 5e-5,
        "sft_epochs": 1,
        "reward_modeling_epochs": 2,
        "rlhf_epochs": 3,
        "early_stopping_patience": 7,
        "use_dpo": False,
        "dpo_beta": 0.1,
        "dpo_loss_type": "sigmoid",
    },
    "reward": {
        "custom_reward_heads": 3,
        "human_feedback_weight": 0.3,
        "syntax_reward_weight": 0.2,
        "execution_reward_weight": 0.3,
        "semantic_reward_weight": 0.3,
        "human_preference_weight": 0.2,
        "reward_epochs": 5,
    },
    "data": {"conala_local_path": "./conala-corpus", "synth_feedback_model_name": "gpt2"},
    "evaluation": {
        "target_bertscore": 0.7,
        "target_codebleu": 0.6,
        "target_bleu": 0.4,
        "target_rouge": 0.5,
        "target_ruby": 0.3,
    },
}
"""The defaults the design freezes."""

FROZEN_NAMES = {
    "training": (
        "learning_rate batch_size gradient_accumulation_steps total_steps save_steps eval_steps "
        "mixed_precision gradient_checkpointing seed"
    ),
    "reward": (
        "use_custom_reward custom_reward_backbone custom_reward_pretrain "
        "custom_reward_freeze_backbone use_human_logits human_logits_layer"
    ),
    "data": (
        "train_data_path eval_data_path human_feedback_path output_path "
        "use_model_for_synth_feedback"
    ),
    "evaluation": "eval_samples",
    "hardware": "device",
}
"""The names it freezes without a value."""


@pytest.mark.parametrize("section", FROZEN)
def test_frozen_defaults(section: str) -> None:
    values = ModernRLHFConfig().to_dict()[section]
    assert {name: values[name] for name in FROZEN[section]} == FROZEN[section]


@pytest.mark.parametrize("section", FROZEN_NAMES)
def test_frozen_names(section: str) -> None:
    assert set(FROZEN_NAMES[section].split()) <= set(ModernRLHFConfig().to_dict()[section])


def test_every_field_has_a_help_line() -> None:
    config = ModernRLHFConfig()
    for section in ("model", "training", "reward", "data", "evaluation", "hardware"):
        for field in dataclasses.fields(getattr(config, section)):
            assert field.metadata["help"], f"{section}.{field.name}"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_validate_and_carry_their_name(name: str) -> None:
    config = get_preset(name).validate()
    assert config.tags == [name]


@pytest.mark.parametrize("name", ["fast", "research", "production"])
def test_gpu_presets_ask_for_cuda(name: str) -> None:
    hardware = get_preset(name).hardware
    assert (hardware.device, hardware.require_cuda) == ("cuda", True)


def test_cpu_test_needs_neither_gpu_nor_network() -> None:
    config = get_cpu_test_config()
    assert (config.hardware.device, config.hardware.require_cuda) == ("cpu", False)
    shipped = [
        config.model.base_model_name,
        config.model.reward_model_name,
        config.evaluation.bertscore_model,
        config.data.train_data_path,
        config.data.prompts_path,
        config.data.eval_data_path,
        config.data.human_feedback_path,
    ]
    assert [name for name in shipped if not str(name).startswith("builtin:")] == []


def test_presets_are_fresh_copies() -> None:
    get_preset("fast").training.seed = 7
    assert get_preset("fast").training.seed == 42


REFUSED = [
    ("training", "batch_size", 0, "out of range"),
    ("training", "batch_size", 8.0, "wrong type: expected int"),
    ("training", "batch_size", True, "wrong type: expected int"),
    ("training", "learning_rate", "fast", "wrong type: expected float"),
    ("training", "learning_rate", math.nan, "out of range"),
    ("training", "algorithm", "pp", "did you mean 'ppo'"),
    ("training", "dpo_label_smoothing", 0.5, "expected 0.0 to 0.49"),
    ("training", "dpo_beta", 0, "out of range"),
    ("training", "kto_beta", 0.0, "out of range"),
    ("training", "ppo_score_clip", 0, "out of range"),
    ("training", "ppo_target_kl", 0.0, "out of range"),
    ("training", "adam_beta2", 1.0, "out of range"),
    ("training", "baseline_decay", 1, "out of range"),
    ("training", "keep_checkpoints", 1, "expected 2 to inf"),
    ("training", "dpo_loss_type", "sigmoidal", "did you mean 'sigmoid'"),
    ("training", "use_dpo", 1, "wrong type: expected true or false"),
    ("training", "top_p", 0.9, "D9"),
    ("training", "rollout_batch_size", 4, "too small to whiten"),
    ("evaluation", "target_bleu", 40, "expected 0.0 to 1.0"),
    ("reward", "human_logits_layer", "first", "not one of"),
    ("data", "train_data_path", None, "wrong type: expected str"),
    ("hardware", "device", "gpu", "not auto, cpu, cuda, cuda:N or mps"),
    ("model", "system_prompt", 3, "expected str or null"),
]


@pytest.mark.parametrize(("section", "field", "value", "message"), REFUSED)
def test_a_bad_value_is_named(section: str, field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict({section: {field: value}})
    text = str(caught.value)
    assert f"{section}.{field} = {value!r}" in text
    assert message in text
    assert "\n" not in text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"algorithm": "rloo"}}, "needs at least 2"),
        ({"training": {"samples_per_prompt": 3}}, "not a multiple"),
        (
            {"training": {"ppo_adaptive_kl": True, "ppo_kl_penalty": 0}},
            "training.ppo_kl_penalty = 0 stays 0",
        ),
        (
            {"training": {"algorithm": "kto", "loss_aggregation": "sequence_mean"}},
            "training.loss_aggregation = 'sequence_mean' acts in ppo only",
        ),
        (
            {"training": {"use_dpo": True, "dpo_loss_type": "ipo", "dpo_label_smoothing": 0.1}},
            "training.dpo_label_smoothing = 0.1 has no meaning for training.dpo_loss_type = 'ipo'",
        ),
        (
            {
                "reward": dict.fromkeys(
                    (
                        "syntax_reward_weight",
                        "execution_reward_weight",
                        "semantic_reward_weight",
                        "human_preference_weight",
                    ),
                    0,
                )
            },
            "nothing to learn from",
        ),
        ({"tags": "one"}, "list of str"),
        ({"training": [1]}, "must be a mapping"),
        ([1], "must be a mapping"),
        ({"trainer": {}}, "did you mean 'training'"),
        ({"training": {"lerning_rate": 1e-4}}, "did you mean 'learning_rate'"),
    ],
)
def test_what_must_hold_between_fields(values: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_dict(values)


def test_sampling_filters_are_fine_off_policy() -> None:
    """D9 concerns on-policy algorithms; DPO may keep a top-p for its samples."""
    config = config_from_dict({"training": {"algorithm": "dpo", "top_p": 0.9}})
    assert config.training.top_p == 0.9


def test_an_integer_is_a_float() -> None:
    assert config_from_dict({"training": {"learning_rate": 1}}).training.learning_rate == 1


def test_the_best_model_needs_a_checkpoint_at_every_evaluation() -> None:
    settings = ["training.load_best_model_at_end=true", "training.eval_steps=6"]
    config = apply_overrides(ModernRLHFConfig(), [*settings, "training.save_steps=3"])
    assert config.validate().training.load_best_model_at_end
    for saves in (0, 4):
        with pytest.raises(ConfigError, match="needs a checkpoint at every evaluation"):
            apply_overrides(config, [f"training.save_steps={saves}"]).validate()
