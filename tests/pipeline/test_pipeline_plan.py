"""A dry run answers the question of the run; the views for notebooks go on in the folder they began."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modern_rlhf.config import ModernRLHFConfig
from modern_rlhf.config.io import apply_overrides
from modern_rlhf.errors import ConfigError, DataError
from modern_rlhf.pipeline.artifacts import Artifacts
from modern_rlhf.pipeline.function_style import create_rlhf_pipeline
from modern_rlhf.pipeline.pipeline import ModernRLHFPipeline
from modern_rlhf.pipeline.plan import memory_line
from modern_rlhf.pipeline.settings import remember_settings


def test_what_a_run_can_do_a_dry_run_does_not_refuse(
    config: ModernRLHFConfig, tmp_path: Path
) -> None:
    """--stage sft reads no feedback, rows that do not fit are left out, and use_dpo is an algorithm."""
    path = tmp_path / "train.jsonl"
    long = [{"text": "p" * 300, "code": "r", "test_list": ["assert 1"], "task_id": "l"}] * 9
    path.write_text("".join(json.dumps(row) + "\n" for row in long) + path.read_text())
    can = ["data.human_feedback_path=null", "training.use_dpo=true", "training.dpo_online=true"]
    can += ["model.use_lora=true", "data.validation_fraction=0"]
    dry = ModernRLHFPipeline(apply_overrides(config, can), stage="sft", progress=False).dry_run()
    assert "one SFT step: loss" in dry and "one dpo rollout and update: loss" in dry
    assert not Path(config.data.output_path).exists()


def test_what_stops_a_run_stops_its_dry_run(config: ModernRLHFConfig) -> None:
    def dry(*overrides: str, stage: str = "all") -> str:
        given = apply_overrides(config, list(overrides))
        return ModernRLHFPipeline(given, stage=stage, progress=False).dry_run()

    with pytest.raises(ConfigError, match="tracker 'nope' is unknown"):
        dry("trackers=nope")
    with pytest.raises(Exception, match="run --stage sft first"):
        dry(stage="reward")
    artifacts = Artifacts(Path(config.data.output_path))
    remember_settings(artifacts, "sft", {"training.seed": 1})
    with pytest.raises(ConfigError, match="sft was made with training.seed"):
        dry(stage="sft")


def test_adapters_cost_adapters(config: ModernRLHFConfig) -> None:
    """2**28 weights are 1 GiB; all trained they cost 4, with 2**26 in adapters 1 + 4/4 = 2."""
    assert "(policy 4.00, reference 1.00" in memory_line(config, 2**28, 2**28)
    config.model.use_lora = True
    assert "(policy 2.00, reference 0.00" in memory_line(config, 2**28, 2**26)
    value = "value 4.00"
    config.training.ppo_value_model = "separate"
    assert value in memory_line(config, 2**28, 2**26)
    config.training.use_dpo = True  # and algorithm is still ppo
    assert value not in memory_line(config, 2**28, 2**26)


def test_one_object_goes_on_where_it_began(config: ModernRLHFConfig) -> None:
    config = apply_overrides(config, ["training.sft_epochs=0.1", "training.eval_steps=0"])
    out = Path(config.data.output_path)
    out.mkdir()
    (out / "status.json").write_text("of an earlier run")
    overwrite = create_rlhf_pipeline(config.to_dict(), progress=False, overwrite=True)
    overwrite.run_sft()
    made = (out / "sft" / "stage.json").read_bytes()
    assert overwrite.run_reward_training().success
    assert (out / "sft" / "stage.json").read_bytes() == made


def test_all_stages_of_a_call_are_checked_before_the_first(config: ModernRLHFConfig) -> None:
    config = apply_overrides(config, ["data.human_feedback_path=null"])
    with pytest.raises(DataError, match="nothing to learn from"):
        ModernRLHFPipeline(config, progress=False).train_rlhf()
    assert not Path(config.data.output_path).exists()
