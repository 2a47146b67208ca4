"""What users hand to trainers: rows as dicts or a `datasets.Dataset`, plain functions, odd tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.errors import DataError
from modern_rlhf.models.forward import Policy, make_sequences
from modern_rlhf.pipeline.function_style import create_trainer
from modern_rlhf.trainer.kto import KTOTrainer
from modern_rlhf.trainer.sft import SFTTrainer

PLAIN = ModelConfig(prompt_style="plain")
ROWS = {
    "sft": [{"prompt": p, "response": f"{p}{p}!"} for p in "abcdefgh"],
    "dpo": [{"prompt": p, "chosen": f"good {p}", "rejected": f"bad {p}"} for p in "abcdefgh"],
    "kto": [{"prompt": p, "completion": f"{p}!", "label": p < "e"} for p in "abcdefgh"],
}
ONLINE = ("ppo", "reinforce", "rloo", "grpo")
ROWS |= {kind: [{"prompt": p} for p in ("a", "bb", "ccc", "d", "ee", "fff")] for kind in ONLINE}


def trained(kind: str, lm: Any, tokenizer: Any, rows: Any, **settings: Any) -> Any:
    """The language model (with its adapters) after two steps."""
    config = TrainingConfig(
        algorithm="ppo" if kind == "sft" else kind,
        learning_rate=1e-3,
        batch_size=4,
        rlhf_epochs=1,
        total_steps=2,
        ppo_epochs=1,
        rollout_batch_size=8,
        samples_per_prompt=2,
        max_response_tokens=4,
    )
    data: dict[str, Any] = {"train_data": rows}
    if kind in ONLINE:
        data = {"prompts": rows, "reward": lambda prompts, responses: [len(r) for r in responses]}
    options = {"config": config, "model_config": ModelConfig(prompt_style="plain", **settings)}
    trainer = create_trainer(kind, lm, tokenizer, **data, **options)
    trainer.train()
    return trainer.policy if kind in ONLINE else trainer.lm


def flat(lm: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in lm.parameters()])


@pytest.mark.parametrize("kind", list(ROWS))
def test_a_dataset_a_list_and_a_tokenizer_without_padding_train_the_same(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, kind: str
) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    first = flat(trained(kind, tiny_llama(), byte_tokenizer, ROWS[kind]))
    table = datasets.Dataset.from_list(ROWS[kind])
    byte_tokenizer.pad_token = None  # as GPT-2's: padding may be anything, masks come from lengths
    second = flat(trained(kind, tiny_llama(), byte_tokenizer, table))
    assert torch.equal(first, second)
    assert byte_tokenizer.pad_token is None  # D37
    assert not torch.equal(first, flat(tiny_llama()))


def test_the_end_token_has_loss_though_it_equals_the_padding(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    # D7: two padded rows have the loss of each alone, unpadded, over the answer and its end token.
    byte_tokenizer.pad_token = byte_tokenizer.eos_token
    lm, answers = tiny_llama(), ("xy", "xxxxx")
    rows = [{"prompt": "p", "response": answer} for answer in answers]
    trainer = SFTTrainer(
        lm, byte_tokenizer, train_data=rows, config=TrainingConfig(), model_config=PLAIN
    )
    found = trainer.accumulate(trainer.encoded.examples)["loss"]
    prompt, total, tokens = list(b'"""p"""\n'), 0.0, 0
    for text in answers:
        answer = [*text.encode(), byte_tokenizer.eos_token_id]
        logits = lm(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        total -= float(logits.detach().log_softmax(-1)[range(len(answer)), answer].sum())
        tokens += len(answer)
    assert found == pytest.approx(total / tokens, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_loaded_in_half_precision_is_trained_in_float32(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, dtype: torch.dtype
) -> None:
    # transformers loads a model as it was saved; a step of 1e-5 is lost in the rounding of bf16
    lm = tiny_llama().to(dtype)
    before = flat(lm).float()
    found = trained("dpo", lm, byte_tokenizer, ROWS["dpo"])
    assert found is lm and {p.dtype for p in lm.parameters()} == {torch.float32}
    assert 0 < float((flat(lm) - before).abs().median()) < 1e-2


def test_adapters_on_the_head_itself_take_part(tiny_llama_config: Any, byte_tokenizer: Any) -> None:
    from transformers import LlamaForCausalLM

    tiny_llama_config.tie_word_embeddings = False
    lora: dict[str, Any] = {"use_lora": True, "lora_r": 4, "lora_target_modules": "lm_head"}
    lm = LlamaForCausalLM(tiny_llama_config).eval()
    lm = trained("sft", lm, byte_tokenizer, ROWS["sft"], **lora)
    adapters = [p for name, p in lm.named_parameters() if "lora_B" in name]
    assert len(adapters) == 1 and bool(adapters[0].detach().any())  # it started at 0
    # and a forward of training sees them
    sequences = make_sequences([[1, 2]], [[3, 4]], pad_id=0)
    found = Policy(lm)(sequences).log_probs[0]
    logits = lm(input_ids=torch.tensor([[1, 2, 3]])).logits[0, 1:].log_softmax(-1)
    assert torch.allclose(found, logits[torch.arange(2), [3, 4]], atol=1e-5)


def kto(lm: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> KTOTrainer:
    config = TrainingConfig(algorithm="kto", batch_size=4)
    return KTOTrainer(lm, tokenizer, train_data=rows, config=config, model_config=PLAIN)


def test_the_kl_of_kto_reads_answers_under_other_prompts(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    # Pairs become two rows with one prompt, next to each other: neither may serve the other.
    trainer = kto(tiny_llama(), byte_tokenizer, ROWS["dpo"][:3])  # type: ignore[arg-type]
    own = {tuple(row.prompt_ids): set() for row in trainer.rows}
    for row in trainer.rows:
        own[tuple(row.prompt_ids)].add(tuple(row.answer_ids))
    assert len(own) == 3 and len(trainer.mismatched) == len(trainer.rows) == 6
    for row, other in zip(trainer.rows, trainer.mismatched, strict=True):
        assert other.prompt_ids == row.prompt_ids
        assert tuple(other.answer_ids) not in own[tuple(row.prompt_ids)]


def test_kto_on_one_prompt_is_refused(tiny_llama: Callable[..., Any], byte_tokenizer: Any) -> None:
    rows = [{"prompt": "a", "completion": c, "label": c == "x"} for c in "xy"]
    with pytest.raises(DataError, match="one prompt"):
        kto(tiny_llama(), byte_tokenizer, rows)
