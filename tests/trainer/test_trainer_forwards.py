"""The forward passes inside a trainer: no dropout, bf16 named, other tokenizers, accumulated gradients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.models.forward import make_sequences
from modern_rlhf.models.loading import Backbone
from modern_rlhf.pipeline.function_style import create_trainer
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.rewards.learned import LearnedReward
from modern_rlhf.trainer.ppo import PPOTrainer
from modern_rlhf.trainer.runtime import Runtime

PLAIN = ModelConfig(prompt_style="plain")
CONFIG = TrainingConfig(
    learning_rate=1e-3,
    rollout_batch_size=16,
    samples_per_prompt=4,
    rlhf_epochs=1,
    ppo_epochs=1,
    max_response_tokens=6,
)


def ppo(lm: Any, tokenizer: Any, reward: Any, runtime: Any = None, **changes: Any) -> PPOTrainer:
    return PPOTrainer(
        lm,
        tokenizer,
        prompts=list("abcd"),
        reward=reward,
        config=dataclasses.replace(CONFIG, **changes),
        model_config=PLAIN,
        runtime=runtime,
    )


def lengths(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(len(text)) for text in responses]


def dropping(kind: str) -> Any:
    """A model that drops half of what it can, in attention and in its layers."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    if kind == "gpt2":
        rates = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=259, n_embd=32, n_layer=1, n_head=2, n_positions=64, **rates)
        )
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=259,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            attention_dropout=0.5,
        )
    )


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_what_trains_and_what_compares_has_no_dropout(byte_tokenizer: Any, kind: str) -> None:
    # D11, also where recomputed activations need the train mode, and in the value network's copy.
    trainer = ppo(dropping(kind), byte_tokenizer, lengths, gradient_checkpointing=True)
    sequences = make_sequences([[5, 6, 7]], [[8, 9, 10, 11]], pad_id=258)
    updater, reference = trainer.loop.updater, trainer.parts.reference
    assert updater.value_model is not None and reference is not None
    with torch.no_grad():
        torch.nn.init.normal_(updater.value_model.value_head.weight)
    for module in (updater.policy, reference, updater.value_model):
        module.train()
        first, second = module(sequences), module(sequences)
        if not isinstance(first, Tensor):
            first, second = first.log_probs, second.log_probs
        assert torch.equal(first, second) and bool(first.any())


def test_under_bf16_the_gap_is_logged_and_small(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    # D33: sampling and training round differently in bf16; parameters and log-softmax stay float32.
    runtime = Runtime(dtype="bf16")
    trainer = ppo(tiny_llama(), byte_tokenizer, lengths, runtime, tokens_per_micro_batch=64)
    metrics = trainer.train().metrics
    assert 0 < metrics["sampler_log_prob_gap"] < 0.05
    assert metrics["ratio_mean"] == pytest.approx(1.0, abs=0.01)
    assert {p.dtype for p in trainer.policy.parameters()} == {torch.float32}
    sequences = make_sequences([[5, 6, 7]], [[8, 9, 10, 11]], pad_id=258)
    with runtime.autocast():
        out = trainer.parts.policy(sequences, with_entropy=True)
    assert out.log_probs.dtype == torch.float32 and out.entropy is not None
    # Entropy of the float32 softmax over logits of bf16: within what rounding the logits can do.
    assert out.entropy.dtype == torch.float32 and float(out.entropy.max()) <= math.log(259) + 1e-4


def encoder_of_its_own() -> Backbone:
    """A RoBERTa with 26 letters and its special tokens: no id means to it what it means to the policy."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    letters = ["<s>", "<pad>", "</s>", "<unk>", *"zyxwvutsrqponmlkjihgfedcba"]
    backend = Tokenizer(models.WordLevel({t: i for i, t in enumerate(letters)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(letters),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=258,
        type_vocab_size=1,
        initializer_range=0.3,
        pad_token_id=1,
    )
    return Backbone(RobertaModel(config).eval(), tokenizer, "own", 16, "encoder", "own")


def test_a_policy_learns_from_a_reward_model_with_another_tokenizer(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    # D39: the reward model gets text and reads it in its own tokens.
    model = CustomRewardModel(encoder_of_its_own(), generator=torch.Generator().manual_seed(0))
    reward = LearnedReward(model.eval(), squash=False)
    trainer = ppo(tiny_llama(), byte_tokenizer, reward, rlhf_epochs=2)
    batch = trainer.loop.rollout(0)
    prompts = [prompt.prompt for prompt in batch.prompts]
    assert batch.scores.total == pytest.approx(model.score(prompts, batch.texts), abs=1e-4)
    assert len({round(score, 4) for score in batch.scores.total if score is not None}) > 4
    before = torch.cat([p.detach().flatten().clone() for p in trainer.policy.parameters()])
    trainer.train()
    after = torch.cat([p.detach().flatten() for p in trainer.policy.parameters()])
    assert not torch.equal(before, after)


ROWS: dict[str, list[dict[str, Any]]] = {
    "sft": [{"prompt": p, "response": p * n} for n, p in enumerate("abcdefgh", 1)],
    "dpo": [
        {"prompt": p, "chosen": p * n, "rejected": "no" * (9 - n)}
        for n, p in enumerate("abcdefgh", 1)
    ],
    "kto": [
        {"prompt": p, "completion": p * n, "label": n % 3 == 0} for n, p in enumerate("abcdefgh", 1)
    ],
}


@pytest.mark.parametrize("kind", list(ROWS))
def test_gradient_accumulation_is_one_larger_batch(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, kind: str
) -> None:
    # D34 in the trainers: rows of very different lengths, one pass a batch or a pass a row.
    def trained(batch: int, accumulated: int, budget: int) -> tuple[Tensor, float]:
        config = TrainingConfig(
            algorithm="ppo" if kind == "sft" else kind,
            batch_size=batch,
            gradient_accumulation_steps=accumulated,
            tokens_per_micro_batch=budget,
            learning_rate=1e-3,
            sft_learning_rate=1e-3,
            sft_epochs=2,
            rlhf_epochs=2,
            dpo_sft_coef=0.5,
        )
        lm = tiny_llama()
        trainer = create_trainer(
            kind, lm, byte_tokenizer, train_data=ROWS[kind], config=config, model_config=PLAIN
        )
        metrics = trainer.train().metrics
        return torch.cat([p.detach().flatten() for p in lm.parameters()]), metrics["loss"]

    whole, loss = trained(8, 1, 4096)
    parts, same = trained(2, 4, 16)
    assert torch.allclose(whole, parts, atol=1e-5, rtol=0)
    assert same == pytest.approx(loss, abs=1e-5)
