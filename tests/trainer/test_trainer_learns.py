"""Does it learn: every trainer on the tiny in-memory model, and what must hold while it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.errors import ConfigError, TrainingError
from modern_rlhf.models.forward import Policy
from modern_rlhf.models.loading import fingerprint
from modern_rlhf.rewards.base import RewardBatch, RewardScores
from modern_rlhf.trainer.dpo import DPOTrainer
from modern_rlhf.trainer.inputs import SHORT_SEQUENCE, resolve_model_and_tokenizer
from modern_rlhf.trainer.kto import KTOTrainer
from modern_rlhf.trainer.loop import MetricSums
from modern_rlhf.trainer.policy_gradient import PolicyGradientTrainer
from modern_rlhf.trainer.ppo import PPOTrainer
from modern_rlhf.trainer.sft import SFTTrainer
from modern_rlhf.trainer.update import MicroBatch

PLAIN = ModelConfig(prompt_style="plain")
PROMPTS = ["a", "b", "c", "d"]
ONLINE = TrainingConfig(
    learning_rate=2e-2,
    value_learning_rate=1e-2,
    rollout_batch_size=32,
    samples_per_prompt=4,
    rlhf_epochs=200,
    total_steps=24,
    ppo_epochs=2,
    max_response_tokens=6,
    ppo_kl_penalty=0.0,
    ppo_entropy_coef=0.0,
)


class LetterReward:
    """The share of bytes below 128 among the response's characters: learnable in a few steps."""

    name = "letters"

    def __init__(self, dead: bool = False) -> None:
        self.dead = dead

    def score(self, batch: RewardBatch) -> RewardScores:
        if self.dead:
            return RewardScores([None] * len(batch))
        return RewardScores(
            [sum(c.isascii() for c in text) / max(1, len(text)) for text in batch.responses]
        )

    def close(self) -> None:
        pass


def online(
    tiny_llama: Callable[..., Any], tokenizer: Any, algorithm: str, **changes: Any
) -> PPOTrainer | PolicyGradientTrainer:
    options: dict[str, Any] = {
        "prompts": PROMPTS,
        "reward": changes.pop("reward", LetterReward()),
        "config": dataclasses.replace(ONLINE, algorithm=algorithm, **changes),
        "model_config": PLAIN,
    }
    if algorithm == "ppo":
        return PPOTrainer(tiny_llama(), tokenizer, **options)
    return PolicyGradientTrainer(tiny_llama(), tokenizer, **options)


def mean_reward(trainer: PPOTrainer | PolicyGradientTrainer) -> float:
    batch = trainer.loop.rollout(0)
    return sum(s for s in batch.scores.total if s is not None) / len(batch)


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce", "rloo", "grpo"])
def test_the_reward_rises(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, algorithm: str
) -> None:
    trainer = online(tiny_llama, byte_tokenizer, algorithm)
    before = mean_reward(trainer)
    trainer.train()
    assert mean_reward(trainer) > before + 0.15


def test_the_value_function_finds_the_level_of_the_returns(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    for kind in ("separate", "shared"):
        trainer = online(
            tiny_llama, byte_tokenizer, "ppo", ppo_value_model=kind, learning_rate=1e-4
        )
        metrics = trainer.train().metrics
        # Returns are near .5 and V starts at 0 everywhere (D4).
        assert metrics["return_mean"] > 0.4, kind
        assert abs(metrics["value_mean"] - metrics["return_mean"]) < 0.15, kind


def test_reference_tokenizer_and_first_ratio_stay_as_promised(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    before_tokenizer = byte_tokenizer.backend_tokenizer.to_str(), byte_tokenizer.padding_side
    trainer = online(tiny_llama, byte_tokenizer, "ppo", total_steps=1, ppo_epochs=1)
    reference = trainer.parts.reference
    assert reference is not None
    frozen = fingerprint(reference)
    result = trainer.train()
    # D33: one inner epoch, so the only ratio taken is the first: 1 within 1e-5, nothing clipped.
    assert result.metrics["ratio_mean"] == pytest.approx(1.0, abs=1e-5)
    assert result.metrics["clip_fraction"] == 0
    assert result.metrics["kl"] == pytest.approx(0.0, abs=1e-5)
    assert fingerprint(reference) == frozen  # D36
    after = byte_tokenizer.backend_tokenizer.to_str(), byte_tokenizer.padding_side
    assert after == before_tokenizer  # D37


def test_micro_batching_leaves_the_update_unchanged(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    # D34: one update with all rows at once and one split by a small token budget.
    weights = []
    for budget in (100000, 64):
        trainer = online(
            tiny_llama, byte_tokenizer, "ppo", total_steps=1, tokens_per_micro_batch=budget
        )
        trainer.train()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.policy.parameters()]))
    assert torch.allclose(weights[0], weights[1], atol=2e-5)


@pytest.mark.parametrize("value_model", ["shared", "separate"])
def test_a_text_sampled_twice_is_computed_once_and_counts_twice(
    tiny_llama: Callable[..., Any],
    byte_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    value_model: str,
) -> None:
    def gradients(*, apart: bool) -> tuple[Tensor, int]:
        trainer = online(tiny_llama, byte_tokenizer, "ppo", ppo_value_model=value_model)
        loop, group = trainer.loop, ONLINE.samples_per_prompt
        batch = loop.rollout(0)
        for row in range(0, len(batch), group):  # the first two samples of every prompt are one
            for column in (batch.response_ids, batch.texts, batch.scores.total):
                column[row + 1] = column[row]  # type: ignore[index]
        read: list[int] = []
        forward = Policy.forward
        monkeypatch.setattr(
            Policy,
            "forward",
            lambda self, sequences, **k: (
                read.append(len(sequences)) or forward(self, sequences, **k)
            ),
        )
        if apart:
            monkeypatch.setattr(
                loop.updater,
                "micro",
                lambda rows, batch: [
                    MicroBatch([row], [row], torch.zeros(1, dtype=torch.long)) for row in rows
                ],
            )
        loop.fill_log_probs(batch)
        advantages, _ = loop.advantages(batch)
        read.clear()
        loop.updater.accumulate(batch, advantages, range(len(batch)), MetricSums(), 0.1)
        monkeypatch.setattr(Policy, "forward", forward)
        found = [p.grad.flatten() for p in loop.updater.trainable if p.grad is not None]
        return torch.cat(found), sum(read)

    once, few = gradients(apart=False)
    each, all_rows = gradients(apart=True)
    assert all_rows == ONLINE.rollout_batch_size
    assert few <= all_rows - all_rows // ONLINE.samples_per_prompt
    assert torch.allclose(once, each, atol=1e-6) and each.abs().max() > 1e-4


def test_each_sample_is_used_ppo_epochs_times(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = online(
        tiny_llama, byte_tokenizer, "ppo", total_steps=6, ppo_epochs=3, ppo_mini_batches=2
    )
    used: list[list[int]] = []
    original = trainer.loop.updater.accumulate

    def spy(batch: Any, advantages: Any, rows: Any, *rest: Any) -> None:
        used.append(list(rows))
        original(batch, advantages, rows, *rest)

    monkeypatch.setattr(trainer.loop.updater, "accumulate", spy)
    trainer.train()
    group = ONLINE.samples_per_prompt
    for rows in used:  # the samples of a prompt stay in one mini-batch
        assert {rows.count(row // group * group + k) for row in rows for k in range(group)} == {1}
    flat = [row for rows in used for row in rows]
    assert len(used) == 6 and {flat.count(i) for i in range(32)} == {3}  # D23
    assert used[0] + used[1] != used[2] + used[3]  # a fresh permutation each epoch


def test_total_steps_caps_optimiser_steps(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    trainer = online(tiny_llama, byte_tokenizer, "ppo", total_steps=5, ppo_epochs=2)
    trainer.train()
    assert trainer.loop.updater.optimizer_steps == 5


def test_a_dead_reward_stops_the_run_and_never_pushes(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    trainer = online(tiny_llama, byte_tokenizer, "ppo", reward=LetterReward(dead=True))
    before = fingerprint(trainer.policy)
    with pytest.raises(TrainingError, match="could not be scored"):
        trainer.train()
    assert fingerprint(trainer.policy) == before
    # Even where the configuration tolerates it, the policy part gets no gradient (D38).
    tolerant = online(
        tiny_llama,
        byte_tokenizer,
        "rloo",
        reward=LetterReward(dead=True),
        max_unscorable_share=1.0,
        total_steps=2,
    )
    before = fingerprint(tolerant.policy)
    tolerant.train()
    assert fingerprint(tolerant.policy) == before


@pytest.mark.parametrize(
    ("field", "value"), [("top_k", 5), ("top_p", 0.9), ("repetition_penalty", 1.1)]
)
def test_sampling_that_the_loss_does_not_know_is_refused(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, field: str, value: float
) -> None:
    with pytest.raises(ConfigError, match=field):  # D9
        online(tiny_llama, byte_tokenizer, "ppo", **{field: value})


def test_too_few_samples_to_whiten_are_refused(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    with pytest.raises(ConfigError, match="rollout_batch_size"):  # D17
        online(tiny_llama, byte_tokenizer, "ppo", rollout_batch_size=4)


@pytest.mark.parametrize(
    ("longest", "kind"), [(SHORT_SEQUENCE, "eager"), (SHORT_SEQUENCE + 1, "sdpa")]
)
def test_attention_on_a_cpu_follows_the_length(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, longest: int, kind: str
) -> None:
    lm = tiny_llama()
    lm.set_attn_implementation("sdpa")
    found, _ = resolve_model_and_tokenizer(lm, byte_tokenizer, device="cpu", longest=longest)
    assert found.config._attn_implementation == kind


def test_lora_trains_adapters_only_and_compares_with_them_off(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    lm = tiny_llama()
    trainer = PPOTrainer(
        lm,
        byte_tokenizer,
        prompts=PROMPTS,
        reward=LetterReward(),
        config=dataclasses.replace(
            ONLINE, algorithm="ppo", total_steps=8, learning_rate=2e-2, ppo_value_model="shared"
        ),
        model_config=ModelConfig(prompt_style="plain", use_lora=True, lora_r=4),
    )
    assert trainer.parts.reference is None
    names = [n for n, p in trainer.policy.named_parameters() if p.requires_grad]
    assert names and all("lora_" in n for n in names)
    result = trainer.train()
    assert result.metrics["kl"] != 0


def test_sft_learns_a_small_table_by_heart(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    rows = [{"prompt": p, "response": f"{p}{p}!"} for p in PROMPTS]
    trainer = SFTTrainer(
        tiny_llama(),
        byte_tokenizer,
        train_data=rows,
        model_config=PLAIN,
        config=TrainingConfig(sft_epochs=60, batch_size=4, sft_learning_rate=1e-2),
    )
    result = trainer.train()
    assert result.metrics["loss"] < 0.2
    # D7: the end token was trained, so the model stops by itself.
    prompt = byte_tokenizer('"""a"""\n', add_special_tokens=False)["input_ids"]
    out = trainer.lm.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)
    assert byte_tokenizer.decode(out[0, len(prompt) :]).startswith("aa!<|eos|>")


def test_sft_loss_does_not_depend_on_micro_batches(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    rows = [{"prompt": "x" * i, "response": "y" * (9 - i)} for i in range(1, 9)]
    losses = []
    for budget in (16, 64, 100000):
        trainer = SFTTrainer(
            tiny_llama(),
            byte_tokenizer,
            train_data=rows,
            model_config=PLAIN,
            config=TrainingConfig(batch_size=8, tokens_per_micro_batch=budget, sft_epochs=2),
        )
        losses.append(trainer.train().metrics["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) == pytest.approx(losses[2], abs=1e-5)


def test_dpo_and_kto_widen_the_margin(tiny_llama: Callable[..., Any], byte_tokenizer: Any) -> None:
    pairs = [{"prompt": p, "chosen": f"good {p}", "rejected": f"bad {p}"} for p in PROMPTS]
    config = TrainingConfig(
        algorithm="dpo", learning_rate=3e-3, batch_size=4, rlhf_epochs=30, dpo_beta=0.5
    )
    dpo = DPOTrainer(
        tiny_llama(), byte_tokenizer, train_data=pairs, config=config, model_config=PLAIN
    )
    first = dpo.accumulate([0, 1, 2, 3])
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-5)  # policy = reference: ln 2
    assert dpo.train().metrics["rewards_margin"] > 1.0
    kto = KTOTrainer(
        tiny_llama(),
        byte_tokenizer,
        train_data=pairs,
        config=dataclasses.replace(config, algorithm="kto", kto_beta=0.5),
        model_config=PLAIN,
    )
    assert kto.accumulate([0, 1, 2, 3])["loss"] == pytest.approx(0.5, abs=1e-5)
    result = kto.train()
    assert result.metrics["rewards_desirable"] > result.metrics["rewards_undesirable"]
