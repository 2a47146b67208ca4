"""Does everything run on the accelerator that is here, and do its first losses match the CPU's?

    python -m benchmarks.gpu_check [--steps N] [--out FILE.json]

Runs the `fast` preset's stages on the embedded model and data on whatever accelerator there is: SFT,
reward model, PPO with a separate value network (four models on the device), evaluation. Before that
it takes the first SFT steps and the first PPO rollout's update on both devices in float32 and
compares losses. Prints tokens a second, peak device memory, and writes them as JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from modern_rlhf.config import get_preset
from modern_rlhf.config.io import apply_overrides
from modern_rlhf.data_loader.demonstrations import load_demonstrations
from modern_rlhf.models.loading import BUILTIN, load_causal_lm, load_tokenizer
from modern_rlhf.pipeline.pipeline import ModernRLHFPipeline
from modern_rlhf.rewards.base import RewardBatch, RewardScores
from modern_rlhf.trainer.ppo import PPOTrainer
from modern_rlhf.trainer.runtime import Runtime
from modern_rlhf.trainer.sft import SFTTrainer
from modern_rlhf.utils.hardware import hardware_facts
from modern_rlhf.utils.paths import resolve_path

TOLERANCE = 2e-3


class LengthReward:
    """A deterministic reward, so that only the devices differ."""

    name = "length"

    def score(self, batch: RewardBatch) -> RewardScores:
        return RewardScores([len(text) / 100 for text in batch.responses])

    def close(self) -> None:
        """Nothing to free."""


def first_losses(device: str) -> dict[str, float]:
    """Losses of the first SFT steps and of one greedy-free PPO update, float32."""
    data = resolve_path("builtin:datasets_for_training/sft_dataset.csv")
    rows = load_demonstrations(data, max_rows=64).items
    training = dataclasses.replace(
        get_preset("cpu-test").training,
        sft_epochs=1,
        batch_size=16,
        total_steps=1,
        rollout_batch_size=32,
        ppo_epochs=1,
        ppo_value_model="separate",
    )
    lm, tokenizer = load_causal_lm(BUILTIN, device=device), load_tokenizer(BUILTIN)
    sft = SFTTrainer(
        lm, tokenizer, train_data=rows, config=training, runtime=Runtime(device=device)
    )
    losses: dict[str, float] = {}
    original = sft.accumulate

    def record(examples: Any) -> dict[str, float]:
        metrics = original(examples)
        losses[f"sft step {len(losses) + 1}"] = metrics["loss"]
        return metrics

    sft.accumulate = record  # type: ignore[method-assign]
    sft.train()
    lm = load_causal_lm(BUILTIN, device=device)
    ppo = PPOTrainer(
        lm,
        tokenizer,
        prompts=rows,
        reward=LengthReward(),
        config=training,
        runtime=Runtime(device=device),
    )
    done = ppo.train()
    losses["ppo value loss"] = done.metrics["value_loss"]
    losses["ppo reward"] = done.metrics["reward"]
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40, help="PPO optimiser steps of the main run")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    device = (
        "cuda"
        if torch.cuda.is_available()
        else "mps"
        if torch.backends.mps.is_available()
        else "cpu"
    )
    facts: dict[str, Any] = {"device": device, "hardware": hardware_facts()}
    if device == "cpu":
        print("no accelerator here: only the CPU column can be made")
    facts["first_losses"] = {name: first_losses(name) for name in dict.fromkeys(("cpu", device))}
    mine, theirs = facts["first_losses"][device], facts["first_losses"]["cpu"]
    sft = [name for name in mine if name.startswith("sft")]
    worst = max(abs(mine[name] - theirs[name]) for name in sft)
    facts["worst_sft_difference"] = worst
    print(f"first SFT losses, {device} against cpu: largest difference {worst:.2e}")
    with tempfile.TemporaryDirectory() as folder:
        cpu = get_preset("cpu-test")
        config = apply_overrides(
            get_preset("fast"),
            [
                f"model.base_model_name={BUILTIN}",
                f"model.reward_model_name={BUILTIN}",
                f"evaluation.bertscore_model={BUILTIN}",
                f"data.train_data_path={cpu.data.train_data_path}",
                f"data.prompts_path={cpu.data.prompts_path}",
                f"data.eval_data_path={cpu.data.eval_data_path}",
                f"data.human_feedback_path={cpu.data.human_feedback_path}",
                f"hardware.device={device}",
                "hardware.require_cuda=false",
                f"training.total_steps={args.steps}",
                f"data.output_path={folder}/run",
            ],
        )
        results = ModernRLHFPipeline(config).run_full_pipeline()
        facts["stages"] = results.stages
        facts["metrics"] = results.evaluation_metrics
    for name, record in facts["stages"].items():
        print(
            f"{name}: {record.get('tokens_per_second')} tokens/s, "
            f"peak {record.get('peak_gpu_memory_mb')} MB on the device"
        )
    if args.out is not None:
        args.out.write_text(json.dumps(facts, indent=2, default=str) + "\n", encoding="utf-8")
    if worst > TOLERANCE:
        raise SystemExit(f"first losses differ by {worst:.2e}, more than {TOLERANCE}")


if __name__ == "__main__":
    main()
