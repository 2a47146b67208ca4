"""Trains a tiny model with checkpoints in a folder; started, killed and resumed by the resume tests.

    python resume_worker.py KIND FOLDER [--resume] [--pause-after N] [--die-after N]
        [--kill-after SECONDS] [--lora]

`--pause-after N`: touch FOLDER/paused after step N and sleep there, to be killed. `--die-after N`: SIGKILL
itself after step N, in the process of rank 1 where there are several. `--kill-after`: SIGKILL itself
after so many seconds of training. `--lora`: adapters, and the
merged model in FOLDER/final_model. Under several processes all get the same arguments.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import build_byte_tokenizer

from modern_rlhf.checkpoint.store import CheckpointStore
from modern_rlhf.config.reward import RewardConfig
from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.models.loading import Backbone
from modern_rlhf.pipeline.function_style import create_trainer
from modern_rlhf.records import PreferencePair, Rating
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.rewards.base import RewardBatch, RewardScores
from modern_rlhf.tracking import RunTracker
from modern_rlhf.trainer.runtime import Runtime

PROMPTS = ["a", "b", "c", "d", "e", "f"]
PAIRS = [{"prompt": p, "chosen": f"good {p}", "rejected": f"bad {p}"} for p in PROMPTS]


class LetterReward:
    name = "letters"

    def score(self, batch: RewardBatch) -> RewardScores:
        return RewardScores(
            [sum(c.isascii() for c in text) / max(1, len(text)) for text in batch.responses]
        )

    def close(self) -> None:
        pass


def reward_model(lm: Any, tokenizer: Any) -> CustomRewardModel:
    """Heads with dropout on a backbone that trains too: all that a resume could get wrong."""
    backbone = Backbone(
        model=lm.model,
        tokenizer=tokenizer,
        kind="decoder",
        name="tiny",
        hidden_size=16,
        fingerprint="tiny",
    )
    return CustomRewardModel(
        backbone, ("correct",), freeze_backbone=False, generator=torch.Generator().manual_seed(0)
    )


def build(kind: str, runtime: Runtime, *, lora: bool = False) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_byte_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=258,
    )
    lm = LlamaForCausalLM(config).eval()
    training = TrainingConfig(
        algorithm={"sft": "ppo", "reward": "ppo", "online_dpo": "dpo"}.get(kind, kind),
        dpo_online=kind == "online_dpo",
        batch_size=2,
        sft_epochs=4,
        sft_learning_rate=1e-2,
        learning_rate=1e-3,
        rlhf_epochs=8,
        rollout_batch_size=8,
        samples_per_prompt=4,
        ppo_epochs=2,
        self_imitation_steps=int(kind == "ppo"),
        total_steps=24,
        max_response_tokens=4,
        save_steps=3,
        ppo_adaptive_kl=True,
        ppo_normalize_scores=True,
        ppo_value_model="shared" if lora else "separate",
    )
    options: dict[str, Any] = {
        "runtime": runtime,
        "config": training,
        "model_config": ModelConfig(prompt_style="plain", use_lora=lora, lora_r=4),
    }
    if kind == "reward":
        return create_trainer(
            "reward",
            reward_model(lm, tokenizer),
            pairs=[
                PreferencePair(p, f"good {p}", f"bad {p}", group_id=p)
                for p in PROMPTS
                for _ in "12"
            ],
            ratings=[
                Rating(p, f"{w} {p}", scores={"correct": v}, group_id=p)
                for p in PROMPTS
                for w, v in (("good", 2), ("bad", -1))
            ],
            config=RewardConfig(reward_batch_size=4),
            training=dataclasses.replace(training, reward_modeling_epochs=8),
            runtime=runtime,
            validation_fraction=0.0,
        )
    if kind == "sft":
        rows = [{"prompt": p, "response": f"{p}{p}!"} for p in PROMPTS]
        return create_trainer("sft", lm, tokenizer, train_data=rows, **options)
    if kind in ("dpo", "kto"):
        return create_trainer(kind, lm, tokenizer, train_data=PAIRS, **options)
    return create_trainer(kind, lm, tokenizer, prompts=PROMPTS, reward=LetterReward(), **options)


def number(arguments: list[str], flag: str) -> float:
    return float(arguments[arguments.index(flag) + 1]) if flag in arguments else 0


def train(arguments: list[str]) -> None:
    kind, folder = arguments[0], Path(arguments[1])
    rank = int(os.environ.get("RANK", "0"))
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)
    pause, die = number(arguments, "--pause-after"), number(arguments, "--die-after")
    with RunTracker(folder) as tracker:
        runtime = Runtime(
            tracker=tracker,
            store=CheckpointStore(folder / kind),
            resume="--resume" in arguments,
        )
        trainer = build(kind, runtime, lora="--lora" in arguments)
        names = {"reward": "model"}
        policy = (
            trainer.loop.updater.policy
            if hasattr(trainer, "loop")
            else getattr(trainer, names.get(kind, "policy"))
        )
        cut = [p for p in policy.parameters() if type(p).__name__ == "DTensor"]
        whole = not {"--fsdp", "--zero"} & set(arguments)
        assert len(cut) == (not whole) * len(list(policy.parameters()))
        keeper = trainer.loop.keeper if hasattr(trainer, "loop") else trainer.keeper
        original = keeper.after_step

        def after_step(step: int, *args: Any, **options: Any) -> bool:
            go_on = original(step, *args, **options)
            if step == die and rank == runtime.processes.count - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if step == pause:
                (folder / f"paused{rank or ''}").touch()
                time.sleep(600)
            return go_on

        keeper.after_step = after_step
        if seconds := number(arguments, "--kill-after"):
            timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()
        trainer.train()
        if (
            "--zero" in arguments
        ):  # stage 2: sampling in between must not change how weights are cut
            units = [m for m in policy.modules() if hasattr(m, "set_reshard_after_forward")]
            groups = [unit._get_fsdp_state()._fsdp_param_group for unit in units]
            assert groups and not any(g._reshard_after_forward for g in groups if g)
        if "--lora" in arguments:
            trainer.save_model(folder)
    (folder / "finished").touch()


def main() -> None:
    train(sys.argv[1:])


if __name__ == "__main__":
    main()
