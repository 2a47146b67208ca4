"""Every public name of the package and of the short import paths can be imported."""

from __future__ import annotations

import importlib

import pytest

FACADES = (
    "",
    ".config",
    ".trainer",
    ".pipeline",
    ".utils",
    ".metrics",
    ".reward_model",
    ".data_loader",
    ".sandbox",
)

DESIGN_NAMES = [
    "ModernRLHFPipeline",
    "get_research_config",
    "get_production_config",
    "get_fast_config",
    "get_cpu_test_config",
    "run_multi_stage_pipeline",
    "ModernDataLoader",
    "DataSample",
    "ModernMetricsEvaluator",
    "CustomRewardModel",
    "RewardTrainer",
    "RewardModelEvaluator",
    "SFTTrainer",
    "PPOTrainer",
    "DPOTrainer",
    "KTOTrainer",
    "PolicyGradientTrainer",
    "create_rlhf_pipeline",
    "RLHFConfig",
    "RLHFPipeline",
    "create_trainer",
    "create_reward_model",
    "create_value_model",
    "create_preference_dataloader",
    "create_preference_loss",
    "ConversationDataset",
]


@pytest.mark.parametrize("facade", FACADES)
def test_all_names_import(facade: str) -> None:
    module = importlib.import_module(f"modern_rlhf{facade}")
    missing = []
    for name in module.__all__:
        try:
            getattr(module, name)
        except (AttributeError, ImportError) as error:
            missing.append(f"{name}: {error}")
    assert missing == []
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("name", DESIGN_NAMES)
def test_the_root_has_the_names_of_the_design(name: str) -> None:
    import modern_rlhf

    assert name in modern_rlhf.__all__
    assert getattr(modern_rlhf, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    import modern_rlhf

    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = modern_rlhf.Nothing


def test_the_methods_of_the_design() -> None:
    from modern_rlhf import ModernDataLoader, ModernRLHFPipeline, RLHFPipeline

    expected = {
        ModernRLHFPipeline: (
            "run_full_pipeline run_multi_stage_pipeline prepare_reward_model train_rlhf "
            "evaluate_model visualize_results dry_run"
        ),
        RLHFPipeline: (
            "run_sft run_reward_training run_ppo_training run_full_pipeline evaluate_model"
        ),
        ModernDataLoader: "load_training_data load_train_data load_eval_data",
    }
    for kind, names in expected.items():
        missing = [name for name in names.split() if not callable(getattr(kind, name, None))]
        assert missing == [], kind
