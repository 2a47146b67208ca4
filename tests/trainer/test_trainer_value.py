"""How the value network starts (D4), and that every preference loss trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import DPO_LOSSES, TrainingConfig
from modern_rlhf.errors import ConfigError
from modern_rlhf.models.forward import Sequences
from modern_rlhf.models.loading import Backbone
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.trainer.dpo import DPOTrainer
from modern_rlhf.trainer.kto import KTOTrainer
from modern_rlhf.trainer.ppo import PPOTrainer, value_of_reward_model

PLAIN = ModelConfig(prompt_style="plain")


def reward_model(lm: Any, tokenizer: Any, **options: Any) -> CustomRewardModel:
    backbone = Backbone(
        model=lm.model,
        tokenizer=tokenizer,
        name="tiny",
        hidden_size=32,
        kind="decoder",
        fingerprint="tiny",
    )
    return CustomRewardModel(backbone, generator=torch.Generator().manual_seed(0), **options).eval()


def test_a_value_network_from_the_reward_model_says_its_score(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    model = reward_model(tiny_llama(seed=3), byte_tokenizer)
    batch = model.encode_pairs(["one", "another one"], ["a long answer", "no"])
    scores = model(batch).scores
    # V reads the state before each token: the state of the last one comes before a token put after it.
    ids = torch.cat([batch.input_ids, torch.zeros(2, 1, dtype=torch.long)], dim=1)
    sequences = Sequences(ids, torch.ones(2, dtype=torch.long), batch.lengths)
    value = value_of_reward_model(model, byte_tokenizer)
    found = value(sequences)[torch.arange(2), batch.lengths - 1]
    assert torch.allclose(found, scores, atol=1e-5) and (scores[0] - scores[1]).abs() > 1e-3
    assert all(p.requires_grad for p in value.parameters())
    assert not any(p is q for p in value.parameters() for q in model.parameters())


def test_ppo_starts_from_it_and_refuses_what_does_not_fit(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    def build(model: CustomRewardModel | None) -> PPOTrainer:
        return PPOTrainer(
            tiny_llama(),
            byte_tokenizer,
            prompts=list("abcd"),
            reward=lambda prompts, responses: [1.0] * len(prompts),
            config=TrainingConfig(
                ppo_value_init="reward",
                rollout_batch_size=8,
                samples_per_prompt=2,
                max_response_tokens=4,
                total_steps=1,
                ppo_epochs=1,
            ),
            model_config=PLAIN,
            reward_value=model,
        )

    trainer = build(reward_model(tiny_llama(seed=3), byte_tokenizer))
    batch = trainer.loop.rollout(0)
    trainer.loop.fill_log_probs(batch)
    assert batch.values is not None and batch.values.abs().max() > 1e-3
    trainer.train()
    with pytest.raises(ConfigError, match="needs a trained reward model"):
        build(None)
    with pytest.raises(ConfigError, match="pooling"):
        build(reward_model(tiny_llama(), byte_tokenizer, pooling="mean"))


PAIRS = [{"prompt": p, "chosen": f"good {p}", "rejected": f"bad {p}"} for p in "abcd"]
DPO = TrainingConfig(
    algorithm="dpo", learning_rate=3e-3, batch_size=4, rlhf_epochs=12, dpo_beta=0.5
)


@pytest.mark.parametrize("loss", DPO_LOSSES)
def test_every_preference_loss_widens_the_margin(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, loss: str
) -> None:
    config = dataclasses.replace(
        DPO,
        dpo_loss_type=loss,
        dpo_label_smoothing=0.1 if loss in ("sigmoid", "robust") else 0.0,
        dpo_sft_coef=1.0 if loss == "orpo" else 0.0,
    )
    trainer = DPOTrainer(
        tiny_llama(), byte_tokenizer, train_data=PAIRS, config=config, model_config=PLAIN
    )
    assert bool(trainer.reference) == (loss not in ("simpo", "orpo"))
    before = trainer.accumulate([0, 1, 2, 3])
    trainer.optimizer.zero_grad()
    after = trainer.train().metrics
    assert after["rewards_margin"] > before["rewards_margin"] + 0.02
    assert after["preference_loss"] < before["preference_loss"]


def test_orpo_without_its_sft_term_is_refused() -> None:
    with pytest.raises(ConfigError, match="dpo_sft_coef=1"):
        DPOTrainer("unused", train_data=PAIRS, config=TrainingConfig(dpo_loss_type="orpo"))


@pytest.mark.parametrize("trainer", [DPOTrainer, KTOTrainer])
def test_offline_trainers_are_checked_as_what_they_are(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, trainer: Any
) -> None:
    # PPO's whitening, which a rollout of 4 is too small for, is none of their business.
    online = trainer is DPOTrainer
    config = TrainingConfig(rollout_batch_size=4, dpo_online=online, use_dpo=not online)
    found = trainer(
        tiny_llama(), byte_tokenizer, train_data=PAIRS, config=config, model_config=PLAIN
    )
    assert found.training.rlhf_algorithm == ("dpo" if trainer is DPOTrainer else "kto")
    assert not found.training.dpo_online
