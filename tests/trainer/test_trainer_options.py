"""What each option of the online loop changes: one property each, on one rollout of the tiny model."""

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
from modern_rlhf.rewards.base import RewardBatch, RewardScores
from modern_rlhf.trainer.policy_gradient import PolicyGradientTrainer
from modern_rlhf.trainer.ppo import PPOTrainer

PROMPTS = list("abcd")
CONFIG = TrainingConfig(
    learning_rate=1e-2,
    rollout_batch_size=16,
    samples_per_prompt=4,
    rlhf_epochs=1,
    ppo_epochs=1,
    max_response_tokens=4,
    ppo_entropy_coef=0.0,
    save_steps=0,
    eval_steps=0,
)


class Letters:
    """The number of different characters; None where `dead` says so."""

    name = "letters"

    def __init__(self, dead: bool = False) -> None:
        self.dead = dead

    def score(self, batch: RewardBatch) -> RewardScores:
        found = [float(len(set(text))) for text in batch.responses]
        return RewardScores([None] * len(batch) if self.dead else found)

    def close(self) -> None:
        pass


Build = Callable[..., Any]


@pytest.fixture
def build(tiny_llama: Callable[..., Any], byte_tokenizer: Any) -> Build:
    """`build(algorithm="ppo", lm=..., reward=..., sft_data=..., **training options)`."""

    def make(algorithm: str = "ppo", **changes: Any) -> Any:
        rest = {key: changes.pop(key) for key in ("reward", "sft_data") if key in changes}
        options: dict[str, Any] = {
            "prompts": PROMPTS,
            "reward": Letters(),
            "config": dataclasses.replace(
                CONFIG, **{"algorithm": algorithm, **changes.pop("config", {}), **changes}
            ),
            "model_config": ModelConfig(prompt_style="plain"),
            **rest,
        }
        trainer = PPOTrainer if algorithm == "ppo" else PolicyGradientTrainer
        return trainer(tiny_llama(), byte_tokenizer, **options)

    return make


def weights(module: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: Any, before: dict[str, Tensor]) -> set[str]:
    return {n for n, value in module.state_dict().items() if not torch.equal(value, before[n])}


# --- what trains ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_a_value_warm_up_moves_the_value_function_alone(build: Build, kind: str) -> None:
    # Not the policy: not through a trunk it shares, not by weight decay, not by the SFT term.
    trainer = build(
        ppo_value_model=kind,
        ppo_value_warmup_rollouts=9,
        weight_decay=0.1,
        ppo_sft_coef=1.0,
        sft_data=[{"prompt": "a", "response": "b"}],
    )
    updater = trainer.loop.updater
    value = updater.value_model if kind == "separate" else updater.policy.value_head
    policy, critic = weights(trainer.policy), weights(value)
    trainer.train()
    assert changed(trainer.policy, policy) == set()
    assert changed(value, critic)


def test_after_the_warm_up_both_train(build: Build) -> None:
    trainer = build(ppo_value_warmup_rollouts=1, rlhf_epochs=2)
    before = weights(trainer.policy)
    trainer.train()
    assert changed(trainer.policy, before)


def test_a_value_rate_of_zero_is_zero(build: Build) -> None:
    for kind in ("separate", "shared"):
        trainer = build(ppo_value_model=kind, value_learning_rate=0.0)
        updater = trainer.loop.updater
        value = updater.value_model if kind == "separate" else updater.policy.value_head
        policy, critic = weights(trainer.policy), weights(value)
        trainer.train()
        assert changed(trainer.policy, policy) and changed(value, critic) == set(), kind


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "ppo"},
        {"algorithm": "dpo", "dpo_online": True, "dpo_loss_type": "orpo"},
    ],
    ids=["ppo", "online orpo"],
)
def test_an_sft_term_without_demonstrations_is_refused(
    build: Build, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"training\.ppo_sft_coef = 0\.5 .* demonstrations"):
        build(ppo_sft_coef=0.5, **options)


def test_the_sft_term_lowers_the_loss_of_the_demonstrations(build: Build) -> None:
    rows = [{"prompt": p, "response": f"{p}!"} for p in PROMPTS]

    def loss(coefficient: float) -> float:
        trainer = build(
            "rloo", rlhf_epochs=12, ppo_sft_coef=coefficient, sft_data=rows, ppo_kl_penalty=0.0
        )
        trainer.train()
        assert bool(trainer.parts.sft_rows) == (coefficient > 0)
        lm = trainer.policy
        total = 0.0
        for row in build("rloo", ppo_sft_coef=1.0, sft_data=rows).parts.sft_rows:
            ids, start = torch.tensor([row.input_ids]), row.prompt_length
            logits = lm(input_ids=ids).logits[0, start - 1 : -1].log_softmax(-1)
            total -= logits.gather(1, ids[0, start:, None]).mean().item()
        return total / len(rows)

    assert loss(1.0) < loss(0.0) - 1.0


# --- when it stops --------------------------------------------------------------------------------


def test_inner_epochs_end_above_the_kl_limit(build: Build) -> None:
    for limit, updates in ((None, 4), (1e9, 4), (0.0, 2)):  # at the first one nothing has moved yet
        trainer = build(ppo_epochs=4, ppo_early_stop_kl=limit)
        trainer.train()
        assert trainer.loop.updater.optimizer_steps == updates, limit


def test_a_policy_that_runs_away_is_stopped(build: Build) -> None:
    trainer = build("rloo", rlhf_epochs=50, learning_rate=0.1, ppo_kl_penalty=0.0, abort_kl=2.0)
    with pytest.raises(TrainingError, match=r"abort_kl = 2\.0"):
        trainer.train()


def test_a_gradient_that_is_not_finite_reaches_no_weight(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build("rloo")
    updater = trainer.loop.updater
    accumulate = updater.accumulate

    def poison(*arguments: Any) -> None:
        accumulate(*arguments)
        updater.trainable[0].grad[0] = float("inf")  # the loss itself is finite

    monkeypatch.setattr(updater, "accumulate", poison)
    before = weights(trainer.policy)
    with pytest.raises(TrainingError, match="gradient"):
        trainer.train()
    assert changed(trainer.policy, before) == set()


def test_gradients_are_clipped_to_the_norm(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    # D29: the logged norm is that before clipping; what the optimiser sees has at most the limit's.
    trainer = build("rloo", max_grad_norm=1e-3)
    optimizer, seen = trainer.loop.updater.optimizer, []
    step = optimizer.step

    def spy(*arguments: Any, **options: Any) -> None:
        gradients = [p.grad for g in optimizer.param_groups for p in g["params"]]
        seen.append(float(torch.stack([g.norm() for g in gradients if g is not None]).norm()))
        step(*arguments, **options)

    monkeypatch.setattr(optimizer, "step", spy)
    result = trainer.train()
    assert result.metrics["gradient_norm"] > 1e-2
    assert seen == [pytest.approx(1e-3, rel=1e-3)]


def test_the_rate_changes_once_a_rollout_and_ends_near_zero(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    # D22, D6, D21: two inner epochs of two mini-batches share the rate of their rollout.
    trainer = build(rlhf_epochs=2, ppo_epochs=2, ppo_mini_batches=2)
    optimizer, rates = trainer.loop.updater.optimizer, []
    step = optimizer.step
    monkeypatch.setattr(
        optimizer, "step", lambda *a, **k: rates.append(optimizer.param_groups[0]["lr"]) or step()
    )
    trainer.train()
    assert rates == [pytest.approx(1e-2)] * 4 + [pytest.approx(5e-3)] * 4
    assert {group["eps"] for group in optimizer.param_groups} == {1e-5}


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_every_log_probability_is_that_of_the_sampling_temperature(
    build: Build, algorithm: str
) -> None:
    # D10: sampler, old, new and reference log-probs agree at T = 0.7 before the first step.
    metrics = build(algorithm, temperature=0.7).train().metrics
    assert metrics["sampler_log_prob_gap"] < 1e-5
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-5)
    if algorithm != "rloo":
        assert metrics["ratio_mean"] == pytest.approx(1.0, abs=1e-5)


# --- scores and rewards ---------------------------------------------------------------------------


def scored(trainer: Any) -> tuple[Any, Tensor, Tensor]:
    """A rollout of which half did not end; raw and shaped scores."""
    batch = trainer.loop.rollout(0)
    batch.finished = [row % 2 == 0 for row in range(len(batch))]
    raw = torch.tensor(batch.scores.total)
    return batch, raw, trainer.loop.shape_scores(batch)


def test_answers_that_did_not_end_are_scored_as_the_rule_says(build: Build) -> None:
    _, raw, shaped = scored(build())
    assert torch.equal(shaped, raw)
    _, raw, shaped = scored(build(missing_eos_rule="replace"))  # worse than any answer by default
    assert torch.equal(shaped[::2], raw[::2]) and (shaped[1::2] == -1).all()
    _, raw, shaped = scored(build(missing_eos_rule="replace", missing_eos_value=0.25))
    assert (shaped[1::2] == 0.25).all()
    _, raw, shaped = scored(build(missing_eos_rule="subtract"))
    assert torch.equal(shaped[1::2], raw[1::2] - 1)


def test_scores_are_divided_by_their_running_deviation_and_clipped(build: Build) -> None:
    trainer = build(ppo_normalize_scores=True, ppo_score_clip=1.5)
    _, raw, shaped = scored(trainer)
    assert torch.allclose(shaped, (raw / raw.std()).clamp(-1.5, 1.5))
    assert trainer.loop.moments.count == len(raw)
    assert trainer.loop.state()["trainer"]["moments"]["count"] == len(raw)  # D26


def test_whitened_rewards_keep_their_mean(build: Build) -> None:
    def found(**options: Any) -> tuple[Tensor, Tensor]:
        trainer = build(ppo_lambda=1.0, ppo_whiten_advantages=False, **options)
        batch = trainer.loop.rollout(0)
        trainer.loop.fill_log_probs(batch)
        returns = trainer.loop.advantages(batch)[0].returns
        assert returns is not None
        return returns[:, 0], batch.mask

    plain, mask = found()
    white, _ = found(ppo_whiten_rewards=True)
    # V = 0 and lambda = 1, so the first return is the sum of a row's rewards; all but the last are 0.
    rewards = torch.zeros(mask.shape)
    rewards[torch.arange(len(mask)), mask.sum(1) - 1] = plain
    real = rewards[mask]
    expected = (real - real.mean()) / real.std(unbiased=False) + real.mean()
    assert torch.allclose(white.sum(), expected.sum(), atol=1e-4)
    assert not torch.allclose(white, plain)


def test_the_kl_coefficient_follows_the_kl_and_nothing_else(build: Build) -> None:
    trainer = build("rloo", ppo_adaptive_kl=True, ppo_kl_horizon=100, ppo_kl_penalty=0.1)
    trainer.train()  # one rollout of 16 episodes, KL 0: as far below the target as counts
    assert trainer.loop.kl_controller.value == pytest.approx(0.1 * (1 - 0.2 * 16 / 100))
    dead = build(
        "rloo",
        ppo_adaptive_kl=True,
        ppo_kl_horizon=100,
        ppo_kl_penalty=0.1,
        max_unscorable_share=1.0,
        reward=Letters(dead=True),
    )
    dead.train()  # nothing was measured, so nothing is steered (D38)
    assert dead.loop.kl_controller.value == 0.1


# --- advantages and losses by name ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "how", "constant"),
    [
        ("grpo", "sequence_mean", None),
        ("dr_grpo", "constant_length", 4),
        ("dapo", "token_mean", None),
    ],
)
def test_each_grpo_normalises_as_its_paper(
    build: Build, name: str, how: str, constant: int | None
) -> None:
    trainer = build("grpo", grpo_normalization=name)
    loop = trainer.loop
    assert loop.algorithm.aggregation(loop.training) == (how, constant)
    batch = loop.rollout(0)
    loop.fill_log_probs(batch)
    found, scores = loop.advantages(batch)
    grouped = scores.view(4, 4)
    expected = grouped - grouped.mean(1, keepdim=True)
    if name != "dr_grpo":
        expected = expected / (grouped.std(1, keepdim=True) + 1e-4)
    assert torch.allclose(found.advantages[:, 0].view(4, 4), expected, atol=1e-6)


@pytest.mark.parametrize("how", ["token_mean", "sequence_mean", "constant_length"])
def test_the_loss_is_averaged_as_configured(build: Build, how: str) -> None:
    # D34 in the loop: the first loss is -mean(A) under each average, since every ratio is 1.
    trainer = build(loss_aggregation=how, ppo_whiten_advantages=False)
    loop = trainer.loop
    result = {}
    advantages = loop.advantages

    def spy(batch: Any) -> Any:
        found = advantages(batch)
        lengths, a = batch.response_lengths.float(), found[0].advantages
        result["expected"] = {
            "token_mean": a.sum() / lengths.sum(),
            "sequence_mean": (a.sum(1) / lengths).mean(),
            "constant_length": a.sum() / (4 * len(a)),
        }[how]
        return found

    loop.advantages = spy
    metrics = trainer.train().metrics
    assert metrics["policy_loss"] == pytest.approx(-float(result["expected"]), rel=1e-4)


def test_the_upper_clip_is_its_own(build: Build) -> None:
    def clipped(**options: Any) -> dict[str, float]:
        trainer = build("grpo", ppo_epochs=4, learning_rate=3e-2, **options)
        return dict(trainer.train().metrics)

    same, wide = clipped(), clipped(ppo_clip_ratio_high=1e6)
    assert same["clip_fraction_high"] > 0
    assert wide["clip_fraction_high"] == 0 < wide["clip_fraction_low"]
