"""Trains a tiny model with checkpoints in a folder; started, killed and resumed by the resume tests.

    python resume_worker.py KIND FOLDER [--resume] [--pause-after N]

With `--pause-after N` it touches FOLDER/paused after step N and sleeps there to be killed.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import build_byte_tokenizer

from modern_rlhf.checkpoint.store import CheckpointStore
from modern_rlhf.config.sections import ModelConfig, TrainingConfig
from modern_rlhf.pipeline.function_style import create_trainer
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


def build(kind: str, runtime: Runtime) -> Any:
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
        algorithm=kind if kind not in ("sft", "reward") else "ppo",
        batch_size=2,
        sft_epochs=4,
        sft_learning_rate=1e-2,
        learning_rate=1e-3,
        rlhf_epochs=8,
        rollout_batch_size=8,
        samples_per_prompt=4,
        ppo_epochs=2,
        total_steps=24,
        max_response_tokens=4,
        save_steps=3,
        ppo_adaptive_kl=True,
        ppo_normalize_scores=True,
    )
    options: dict[str, Any] = {
        "runtime": runtime,
        "config": training,
        "model_config": ModelConfig(prompt_style="plain"),
    }
    if kind == "sft":
        rows = [{"prompt": p, "response": f"{p}{p}!"} for p in PROMPTS]
        return create_trainer("sft", lm, tokenizer, train_data=rows, **options)
    if kind in ("dpo", "kto"):
        return create_trainer(kind, lm, tokenizer, train_data=PAIRS, **options)
    return create_trainer(kind, lm, tokenizer, prompts=PROMPTS, reward=LetterReward(), **options)


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)
    pause = int(sys.argv[sys.argv.index("--pause-after") + 1]) if "--pause-after" in sys.argv else 0
    with RunTracker(folder) as tracker:
        runtime = Runtime(
            tracker=tracker,
            store=CheckpointStore(folder / kind),
            resume="--resume" in sys.argv,
        )
        trainer = build(kind, runtime)
        keeper = trainer.loop.keeper if hasattr(trainer, "loop") else trainer.keeper
        original = keeper.after_step

        def after_step(step: int, *args: Any, **options: Any) -> bool:
            go_on = original(step, *args, **options)
            if step == pause:
                (folder / "paused").touch()
                time.sleep(600)
            return go_on

        keeper.after_step = after_step
        trainer.train()
    (folder / "finished").touch()


if __name__ == "__main__":
    main()
