"""LoRA in every trainer: only adapters train, the reference is the model without them, export merges."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.models.loading import fingerprint
from modern_rlhf.pipeline.function_style import create_trainer
from modern_rlhf.trainer.answers import reference_sums
from modern_rlhf.trainer.inputs import adapters_off

LORA = ModelConfig(prompt_style="plain", use_lora=True, lora_r=4)
PROMPTS = ["a", "b", "c", "d"]
PAIRS = [{"prompt": p, "chosen": f"good {p}", "rejected": f"bad {p}"} for p in PROMPTS]
TRAINING = TrainingConfig(
    learning_rate=2e-2,
    sft_learning_rate=2e-2,
    batch_size=4,
    sft_epochs=2,
    rlhf_epochs=2,
    total_steps=2,
    rollout_batch_size=8,
    samples_per_prompt=2,
    max_response_tokens=4,
)


def reward(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(len(text)) for text in responses]


def build(kind: str, lm: Any, tokenizer: Any) -> Any:
    config = dataclasses.replace(TRAINING, algorithm="ppo" if kind == "sft" else kind)
    options: dict[str, Any] = {"config": config, "model_config": LORA}
    if kind == "sft":
        options["train_data"] = [{"prompt": p, "response": f"{p}!"} for p in PROMPTS]
    elif kind in ("dpo", "kto"):
        options["train_data"] = PAIRS
    else:
        options |= {"prompts": PROMPTS, "reward": reward}
    return create_trainer(kind, lm, tokenizer, **options)


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto", "ppo", "reinforce", "rloo", "grpo"])
def test_adapters_train_and_the_export_is_the_trained_model(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, tmp_path: Path, kind: str
) -> None:
    from transformers import AutoModelForCausalLM

    original = fingerprint(tiny_llama())
    trainer = build(kind, tiny_llama(), byte_tokenizer)
    lm = trainer.policy if hasattr(trainer, "parts") else trainer.lm
    trainer.train()
    ids = torch.arange(12)[None]
    trained = lm(input_ids=ids).logits
    with adapters_off(lm):
        untouched = lm(input_ids=ids).logits
    plain = tiny_llama()
    plain.set_attn_implementation("eager")
    assert torch.allclose(untouched, plain(input_ids=ids).logits, atol=1e-6)  # D36
    assert not torch.allclose(trained, untouched, atol=1e-4)
    saved = AutoModelForCausalLM.from_pretrained(trainer.save_model(tmp_path))
    assert torch.allclose(saved(input_ids=ids).logits, trained, atol=1e-5)
    assert fingerprint(saved) != original
    assert any("lora_" in name for name, _ in lm.named_parameters())  # merged into a copy


def test_the_reference_of_dpo_is_the_model_without_adapters(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    trainer = build("dpo", tiny_llama(), byte_tokenizer)
    before = {name: sums.clone() for name, sums in trainer.reference.items()}
    trainer.train()
    for name, rows in (("chosen", trainer.chosen), ("rejected", trainer.rejected)):
        again = reference_sums(
            trainer.policy, rows, pad_id=258, runtime=trainer.runtime, max_tokens=4096
        )
        assert torch.allclose(before[name], again, atol=1e-5)
