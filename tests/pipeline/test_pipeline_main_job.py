"""The main job on a handful of tasks and a tiny model: what it leaves, resumes and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from modern_rlhf.config import ModernRLHFConfig
from modern_rlhf.config.io import apply_overrides
from modern_rlhf.errors import ConfigError, DataError, ModelError, OutputError, StopRequested
from modern_rlhf.pipeline.pipeline import ModernRLHFPipeline


def run(config: ModernRLHFConfig, **options: Any) -> Any:
    return ModernRLHFPipeline(config, progress=False, **options).run_full_pipeline()


def test_the_main_job_leaves_what_the_design_says(config: ModernRLHFConfig) -> None:
    results = run(config)
    out = results.output_dir
    for name in (
        "config.json", "training.log", "status.json", "metrics.jsonl", "rollouts.jsonl",
        "training_results.json", "pipeline_results.json", "samples.md", "report.html",
        "plots/evaluation_metrics_by_epoch.png", "plots/all_evaluation_metrics_by_epoch.png",
        "plots/rlhf_training_metrics.png", "plots/target_achievement.png",
        "sft/final_model/config.json", "reward_model/final_model/reward_model.json",
        "ppo/final_model/model.safetensors",
    ):  # fmt: skip
        assert (out / name).is_file(), name
    written = json.loads((out / "training_results.json").read_text())
    assert written["schema"] == 1 and set(written["models"]) == {"base", "sft", "rlhf"}
    for entry in written["models"]["rlhf"].values():
        assert {"value", "low", "high", "n", "reason"} <= set(entry)
        assert (entry["value"] is None) == (entry["reason"] is not None)
    hacking = written["honesty_assessment"]["reward_hacking"]
    assert hacking["flag"] is False
    assert {hacking["evidence"][m]["impossible_pass_rate"] for m in written["models"]} == {0.0}
    assert set(written["targets_met"]) == {"bertscore", "codebleu", "bleu", "rouge", "ruby"}
    assert json.loads((out / "status.json").read_text())["state"] == "done"
    episodes = (out / "rollouts.jsonl").read_text().splitlines()
    assert len(episodes) == 3 * 16  # 9 optimiser steps, 3 a rollout
    row = json.loads(episodes[0])
    assert {"prompt", "text", "reward", "components", "kl", "advantage", "verdict", "step"} <= set(
        row
    )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(out / "ppo" / "final_model")
    AutoTokenizer.from_pretrained(out / "ppo" / "final_model")
    # A second run into the same folder is refused and changes nothing.
    before = (out / "training_results.json").read_bytes()
    with pytest.raises(OutputError, match="not empty"):
        run(config)
    assert (out / "training_results.json").read_bytes() == before
    # Resuming a finished run trains nothing again.
    lines = (out / "metrics.jsonl").read_text().count('"kind": "train"')
    run(config, resume=True)
    assert (out / "metrics.jsonl").read_text().count('"kind": "train"') == lines
    # A stage whose folder was removed is trained again, and no line of it stands twice.
    before_removal = train_lines(out)
    shutil.rmtree(out / "ppo")
    run(config, resume=True)
    assert train_lines(out) == before_removal
    # Neither an evaluation nor a stage of other settings passes for this run's.
    with pytest.raises(ConfigError, match=r"sft was made with training\.seed = 42 \(now 5\)"):
        run(apply_overrides(config, ["training.seed=5"]), resume=True)
    assert json.loads((out / "config.json").read_text())["seed"] == 42
    fewer = out.parent / "fewer.jsonl"
    fewer.write_text("".join((out.parent / "eval.jsonl").read_text().splitlines(True)[:6]))
    run(apply_overrides(config, [f"data.eval_data_path={fewer}"]), stage="evaluate")
    written = json.loads((out / "training_results.json").read_text())
    assert {one["bleu"]["n"] for one in written["models"].values()} == {6}


class StopAfter:
    """A stop signal that fires at the n-th time it is polled."""

    def __init__(self, polls: int) -> None:
        self.left = polls

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def train_lines(out: Path) -> list[str]:
    return [x for x in (out / "metrics.jsonl").read_text().splitlines() if '"kind": "train"' in x]


@pytest.mark.parametrize("polls", [pytest.param(3, marks=pytest.mark.slow), 13])
def test_stopped_and_resumed_equals_uninterrupted(
    config: ModernRLHFConfig, tmp_path: Path, polls: int
) -> None:
    whole = apply_overrides(config, [f"data.output_path={tmp_path / 'whole'}"])
    run(whole)
    with pytest.raises(StopRequested, match="--resume"):
        run(config, stop=StopAfter(polls))
    out = Path(config.data.output_path)
    assert json.loads((out / "status.json").read_text())["state"] == "interrupted"
    run(config, resume=True)
    assert train_lines(out) == train_lines(tmp_path / "whole")
    final = "ppo/final_model/model.safetensors"
    assert (out / final).read_bytes() == (tmp_path / "whole" / final).read_bytes()


def test_a_later_stage_alone_asks_for_the_earlier_one(config: ModernRLHFConfig) -> None:
    with pytest.raises(ModelError, match="--stage sft"):
        run(config, stage="rlhf")


def test_bad_input_leaves_the_folder_alone(config: ModernRLHFConfig, tmp_path: Path) -> None:
    broken = apply_overrides(config, ["data.eval_data_path=./nothing.jsonl"])
    from modern_rlhf.errors import DataError

    with pytest.raises(DataError, match="nothing.jsonl"):
        run(broken)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("limits", "error", "line"),
    [
        ((4000, 12), ConfigError, "exceeds the context"),
        ((2, 12), DataError, "none of the"),
    ],
)
def test_lengths_that_cannot_work_are_found_before_anything_is_trained(
    config: ModernRLHFConfig,
    tmp_path: Path,
    limits: tuple[int, int],
    error: type[Exception],
    line: str,
) -> None:
    config.training.max_prompt_tokens, config.training.max_response_tokens = limits
    with pytest.raises(error, match=line):
        run(config)
    assert not (tmp_path / "out").exists()


def test_dry_run_writes_nothing(config: ModernRLHFConfig, tmp_path: Path) -> None:
    text = ModernRLHFPipeline(config, progress=False).dry_run()
    assert "one SFT step: loss" in text and "one ppo rollout and update" in text
    assert "memory of weights and optimiser" in text
    assert not (tmp_path / "out").exists()


def test_notebook_pieces(config: ModernRLHFConfig) -> None:
    """One object, piece by piece: each goes on in the folder, none removes what another made."""
    from modern_rlhf.pipeline.function_style import create_rlhf_pipeline

    config = apply_overrides(config, ["training.total_steps=2", "training.eval_steps=0"])
    out = Path(config.data.output_path)
    (out / "sft").mkdir(parents=True)
    (out / "sft" / "stage.json").write_text("of an earlier run")

    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((out / "status.json").read_text())
        return found

    pipeline = ModernRLHFPipeline(config, progress=False, overwrite=True)
    scores = pipeline.prepare_reward_model().score(["p"], ["r"])
    assert len(scores) == 1 and (status()["state"], status()["stage"]) == ("done", "reward")
    made = (out / "sft" / "stage.json").read_bytes()
    record = pipeline.train_rlhf(["Write alpha(x).", "Write beta(x)."] * 4, eval=["Write f."])
    assert record["steps"] >= 1 and status()["state"] == "done"
    with pytest.raises(ConfigError, match="prompts given to train_rlhf"):
        pipeline.train_rlhf(["Write gamma(x)."] * 8)
    assert len(pipeline.evaluate_model().answers) == 10
    assert status()["state"] == "done" and (out / "ppo" / "stage.json").is_file()
    assert (out / "sft" / "stage.json").read_bytes() == made
    assert create_rlhf_pipeline(config.to_dict(), progress=False).run_sft().success
