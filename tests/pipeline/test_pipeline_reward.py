"""The reward stage: synthetic raters beside people, a saved reward model, heads by configuration."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from modern_rlhf.config import ModernRLHFConfig
from modern_rlhf.config.io import apply_overrides
from modern_rlhf.errors import ConfigError, DataError, ModelError
from modern_rlhf.feedback.store import load_feedback
from modern_rlhf.models.adapters import has_adapters
from modern_rlhf.pipeline.artifacts import Artifacts
from modern_rlhf.pipeline.data import load_run_data
from modern_rlhf.pipeline.pipeline import ModernRLHFPipeline
from modern_rlhf.pipeline.workspace import Workspace
from modern_rlhf.records import Prompt
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.rewards.base import RewardBatch
from modern_rlhf.utils.device import resolve_device


def run(config: ModernRLHFConfig, stage: str, *overrides: str) -> Any:
    config = apply_overrides(config, list(overrides))
    return ModernRLHFPipeline(config, progress=False, stage=stage).run_full_pipeline()


def evaluation(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return found


def test_a_model_rates_and_is_measured_against_people(
    config: ModernRLHFConfig, tiny_model_folder: Path
) -> None:
    overrides = [
        "data.use_model_for_synth_feedback=true",
        f"data.synth_feedback_model_name={tiny_model_folder}",
        "data.synth_feedback_samples=10",
        "training.sft_epochs=1",
    ]
    run(config, "sft", *overrides)
    run(config, "reward", *overrides)
    folder = Path(config.data.output_path) / "reward_model"
    (path,) = folder.glob("model_synthetic_human_feedback_*.json")
    rows = json.loads(path.read_text())
    assert [row["purpose"] for row in rows] == ["training"] * 10 + ["agreement"] * 10
    for row in rows:  # the expectation over the digits' probabilities, nothing else
        shares = row["probabilities"]
        assert row["rating"] == pytest.approx(sum(k * p for k, p in enumerate(shares, start=1)))
    read = load_feedback(path)  # the same loader as people's, and all of it marked
    assert len(read.ratings) == 20 and all(rating.synthetic for rating in read.ratings)

    report = evaluation(folder)["synthetic_rater"]
    assert (report["file"], report["rated_answers"]) == (path.name, 10)
    people = {
        (r.prompt, r.response): r for r in load_feedback(config.data.human_feedback_path).ratings
    }
    checked = rows[10:]
    assert report["agreement"]["n"] == len(checked) == 10
    errors = [
        abs(row["rating"] - 3 - people[row["prompt"], row["response"]].scores["overall"])
        for row in checked
    ]
    assert report["agreement"]["mean_absolute_error"] == pytest.approx(sum(errors) / 10)
    log = (folder.parent / "training.log").read_text()
    assert f"synthetic rater {tiny_model_folder}: 10 answers" in log
    # 24 people's ratings and 10 synthetic ones, of which held-out questions lose theirs.
    held_out = evaluation(folder)["rating_correlation"]["score"]["n"]
    taught = next(line for line in log.splitlines() if "ratings to train on" in line)
    count = int(taught.split(" pairs and ")[1].split()[0])
    assert 24 - held_out < count <= 34 - held_out

    # A stage that is made again reads the ratings it left.
    before = path.read_bytes()
    (folder / "stage.json").unlink()
    run(config, "reward", *overrides)
    assert [p.read_bytes() for p in folder.glob("model_synthetic_*.json")] == [before]


def test_a_saved_reward_model_is_used_as_it_is(config: ModernRLHFConfig, tmp_path: Path) -> None:
    heads = ['reward.custom_reward_head_names=["syntax","semantics","preference"]']
    ensemble = ["reward.custom_reward_ensemble=2", "reward.reward_uncertainty_penalty=0.5"]
    run(config, "sft")
    run(config, "reward", *heads, *ensemble)
    first = Path(config.data.output_path) / "reward_model"
    model = CustomRewardModel.from_pretrained(first / "final_model")
    assert model.settings.heads == ("syntax", "semantics", "preference")
    assert (model.settings.ensemble, model.settings.human_feedback_weight) == (2, 0.3)
    raw = model.score_heads(["p"], ["r"])

    other = tmp_path / "other"
    shutil.copytree(Path(config.data.output_path) / "sft", other / "sft")
    run(
        config,
        "reward",
        "reward.custom_reward_pretrain=false",
        f"reward.custom_reward_backbone={first / 'final_model'}",
        f"data.output_path={other}",
    )
    again = CustomRewardModel.from_pretrained(other / "reward_model" / "final_model")
    assert again.score_heads(["p"], ["r"]) == raw  # not trained, only calibrated
    assert evaluation(other / "reward_model")["rating_correlation"]["score"]["n"] == 24


def test_lora_is_the_reward_models_too_where_its_backbone_trains(
    config: ModernRLHFConfig, tmp_path: Path
) -> None:
    lora = ["model.use_lora=true", "model.lora_r=2", "training.sft_epochs=1"]
    run(config, "sft", *lora)
    run(config, "reward", *lora)
    first = Path(config.data.output_path)
    model = CustomRewardModel.from_pretrained(first / "reward_model" / "final_model")
    assert model.frozen and not has_adapters(model.backbone)
    assert "adapters are the policy's alone" in (first / "training.log").read_text()

    other = tmp_path / "other"
    shutil.copytree(first / "sft", other / "sft")
    trained = ["reward.custom_reward_freeze_backbone=false", f"data.output_path={other}"]
    run(config, "reward", *lora, *trained)
    folder = other / "reward_model" / "final_model"
    model = CustomRewardModel.from_pretrained(folder)
    assert has_adapters(model.backbone) and (folder / "adapter").is_dir()


def test_the_configured_components_make_the_reward(
    config: ModernRLHFConfig, tiny_model_folder: Path
) -> None:
    config = apply_overrides(
        config,
        [
            "reward.semantic_kind=embedding",
            f"reward.semantic_model_name={tiny_model_folder}",
            "reward.reward_uncertainty_penalty=0.5",
            "reward.custom_reward_ensemble=2",
            "reward.execution_reward_weight=0",
        ],
    )
    workspace = Workspace(
        config=config,
        device=resolve_device(config.hardware, mixed_precision="no"),
        artifacts=Artifacts(Path(config.data.output_path)),
        data=load_run_data(config),
        tracker=None,
    )
    model = CustomRewardModel(str(tiny_model_folder), ensemble=2)
    reward = workspace.reward(model)
    batch = RewardBatch([Prompt("p", reference="x = 1")] * 2, ["x = 1", "y"])
    found = reward.score(batch)
    semantic = found.components["semantic"]
    assert semantic[0] == pytest.approx(1.0, abs=1e-5) and semantic[1] < 1.0
    predicted = model.predict(["p"] * 2, ["x = 1", "y"])
    for i, learned in enumerate(found.components["human_preference"]):
        taken_off = predicted.scores[i] - 0.5 * predicted.uncertainty[i]
        assert learned == pytest.approx(1 / (1 + math.exp(-taken_off)), rel=1e-5)
    reward.close()
    workspace.close()


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("reward.custom_reward_pretrain=false", ModelError, "folder of none"),
        ("reward.custom_reward_heads=4", ConfigError, "custom_reward_head_names"),
        ('reward.custom_reward_head_names=["one"]', ConfigError, "set that to 1"),
        ("reward.reward_uncertainty_penalty=1", ConfigError, "custom_reward_ensemble"),
        ("data.synth_feedback_model_name=./nowhere", ModelError, "nowhere"),
        ('data.rater_weights={"ann": -1}', ConfigError, "rater_weights.ann"),
        ('data.rater_weights={"ann": 2}', DataError, "'ann', who rated nothing"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(
    config: ModernRLHFConfig, override: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(config, "all", override, "data.use_model_for_synth_feedback=true")
    assert not Path(config.data.output_path).exists()
