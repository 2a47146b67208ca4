"""Online DPO: which samples become a pair, and that the loss is DPO's on exactly those."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig, check_training
from modern_rlhf.errors import ConfigError
from modern_rlhf.trainer.loop import MetricSums
from modern_rlhf.trainer.pairs import best_and_worst
from modern_rlhf.trainer.policy_gradient import PolicyGradientTrainer

CONFIG = TrainingConfig(
    algorithm="dpo",
    dpo_online=True,
    dpo_beta=0.2,
    learning_rate=2e-2,
    rollout_batch_size=16,
    samples_per_prompt=4,
    rlhf_epochs=100,
    total_steps=24,
    ppo_epochs=1,
    max_response_tokens=6,
)


def ascii_share(prompts: list[str], responses: list[str]) -> list[float]:
    return [sum(c.isascii() for c in text) / max(1, len(text)) for text in responses]


def build(lm: Any, tokenizer: Any, reward: Any = ascii_share) -> PolicyGradientTrainer:
    return PolicyGradientTrainer(
        lm,
        tokenizer,
        prompts=["a", "b", "c", "d"],
        reward=reward,
        config=CONFIG,
        model_config=ModelConfig(prompt_style="plain"),
    )


def test_the_best_meets_the_worst_and_equal_scores_meet_nobody() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0], [0.0, 9.0, 1.0], [4.0, 9.0, 9.0]])
    valid = torch.tensor(
        [[True, True, True], [True, True, True], [True, False, True], [True, False, False]]
    )
    best, worst, differ = best_and_worst(scores, valid)
    # prompt 2: the 9 could not be scored, so 1 (column 2) is its best; prompt 3 has a single score
    assert differ.tolist() == [True, False, True, False]
    assert best[differ].tolist() == [1, 2] and worst[differ].tolist() == [0, 0]


def test_the_first_loss_is_ln_2_on_the_ranked_pairs(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    trainer = build(tiny_llama(), byte_tokenizer)
    loop = trainer.loop
    batch = loop.rollout(0)
    loop.fill_log_probs(batch)
    batch.scores.total[:] = [0.0, 1.0, 2.0, 3.0] * 3 + [1.0] * 4  # the last prompt has no pair
    advantages, _ = loop.advantages(batch)
    assert advantages.advantages[:, 0].tolist() == [-1.0, 0.0, 0.0, 1.0] * 3 + [0.0] * 4
    sums = MetricSums()
    loop.updater.accumulate(batch, advantages, list(range(16)), sums, 0.0)
    metrics = sums.own()
    assert metrics["policy_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["pair_share"] == 0.75
    # policy = reference: the gradient is -beta/2 (grad log p(chosen) - grad log p(rejected)) a pair
    found = torch.cat([p.grad.flatten() for p in loop.updater.trainable if p.grad is not None])
    loop.updater.optimizer.zero_grad(set_to_none=True)
    rows = [3, 7, 11, 0, 4, 8]
    out = loop.updater.policy(loop.updater.sequences(batch, rows)).log_probs.sum(1)
    (-0.2 / 2 * (out[:3] - out[3:]).mean()).backward()
    expected = torch.cat([p.grad.flatten() for p in loop.updater.trainable if p.grad is not None])
    assert expected.abs().max() > 1e-4
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_reward_rises(tiny_llama: Callable[..., Any], byte_tokenizer: Any) -> None:
    trainer = build(tiny_llama(), byte_tokenizer)
    before = sum(trainer.loop.rollout(0).scores.total)  # type: ignore[arg-type]
    result = trainer.train()
    after = sum(trainer.loop.rollout(0).scores.total)  # type: ignore[arg-type]
    assert after > before + 0.15 * 16
    assert result.metrics["rewards_margin"] > 0 and result.metrics["kl"] > 0


@pytest.mark.parametrize("scaled", [False, True])  # fp16's scaler takes no step without gradients
def test_what_cannot_be_ranked_teaches_nothing(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, scaled: bool
) -> None:
    trainer = build(
        tiny_llama(), byte_tokenizer, reward=lambda prompts, responses: [1.0] * len(prompts)
    )
    trainer.runtime.scaler = torch.amp.GradScaler("cpu", enabled=scaled)
    before = [p.detach().clone() for p in trainer.policy.parameters()]
    metrics = trainer.train().metrics
    assert metrics["pair_share"] == 0
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.policy.parameters(), strict=True))


def test_online_belongs_to_dpo_and_needs_two_samples() -> None:
    with pytest.raises(ConfigError, match="dpo_online"):
        check_training(TrainingConfig(algorithm="ppo", dpo_online=True))
    with pytest.raises(ConfigError, match="samples_per_prompt"):
        check_training(TrainingConfig(algorithm="dpo", dpo_online=True))
    with pytest.raises(ConfigError, match="top_k"):
        check_training(
            TrainingConfig(algorithm="dpo", dpo_online=True, samples_per_prompt=2, top_k=3)
        )
