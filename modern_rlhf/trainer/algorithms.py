"""The table of online algorithms: an algorithm is an advantage, a policy loss and a few facts.

Adding one is a function or two here and a row in `ALGORITHMS`; no loop changes. Sources: PPO
1707.06347 with GAE 1506.02438; REINFORCE with a moving-average baseline and RLOO from "Back to
Basics" 2402.14740; GRPO 2402.03300 with Dr.GRPO 2503.20783 and DAPO 2503.14476.
Knows tensors and the training section; nothing of models, sampling or logging.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from modern_rlhf.advantages import (
    gae,
    group_advantages,
    leave_one_out,
    moving_average_baseline,
    token_rewards,
    whiten_advantages,
)
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.losses.policy import clipped_surrogate, kl_penalty, reinforce
from modern_rlhf.ops.kl import AdaptiveKLController, FixedKLController
from modern_rlhf.ops.masking import masked_sum, whiten
from modern_rlhf.trainer.pairs import best_and_worst

Metrics = dict[str, Tensor]


@dataclass(frozen=True)
class AdvantageInputs:
    """One rollout as tensors. B episodes, samples of one prompt adjacent, R response tokens.

    `scores` (B,) after clipping and the EOS rule, 0 where `valid` is False; `log_probs`,
    `ref_log_probs`, `values` (B, R); `mask` (B, R) excludes padding and unscorable episodes.
    `baseline` is what the last rollout left, for algorithms that keep one.
    """

    scores: Tensor
    valid: Tensor
    mask: Tensor
    log_probs: Tensor
    ref_log_probs: Tensor
    values: Tensor | None
    kl_coefficient: float
    group_size: int
    baseline: float | None
    training: TrainingConfig


@dataclass(frozen=True)
class Advantages:
    """(B, R) advantages, zeros on padding; (B, R) returns for a value loss; the new baseline."""

    advantages: Tensor
    returns: Tensor | None = None
    baseline: float | None = None


@dataclass(frozen=True)
class PolicyLossInputs:
    """One micro-batch: (B, R) tensors and the optimiser batch's denominator."""

    log_probs: Tensor
    old_log_probs: Tensor
    ref_log_probs: Tensor
    advantages: Tensor
    mask: Tensor
    denominator: Tensor
    how: str
    constant_length: int | None
    kl_coefficient: float
    training: TrainingConfig


@dataclass(frozen=True)
class Algorithm:
    """One row.

    Attributes:
        advantages: rollout -> advantages.
        policy_loss: micro-batch -> (loss, metrics).
        aggregation: training section -> (how, constant_length) of the token losses (D34).
        needs_value: trains a value function.
        reuses_rollout: takes `ppo_epochs` passes over a rollout (False: exactly one).
        in_pairs: learns from the best against the worst sample of a prompt (`trainer.pairs`), not
            from advantages; `policy_loss` and `aggregation` are then of no use.
    """

    name: str
    advantages: Callable[[AdvantageInputs], Advantages]
    policy_loss: Callable[[PolicyLossInputs], tuple[Tensor, Metrics]]
    aggregation: Callable[[TrainingConfig], tuple[str, int | None]]
    needs_value: bool
    reuses_rollout: bool
    in_pairs: bool = False


def sequence_kl(inputs: AdvantageInputs) -> Tensor:
    """(B,) summed log-ratio to the reference: the k1 estimate of a whole response's KL."""
    return masked_sum(inputs.log_probs - inputs.ref_log_probs, inputs.mask, dim=-1)


def ppo_advantages(inputs: AdvantageInputs) -> Advantages:
    """GAE on per-token rewards that carry the KL penalty (D14, D15, D18).

    With `ppo_group_baseline` each score first loses the mean score of the prompt's other samples: a
    control variate that does not depend on the sample's own actions, so the gradient's expectation
    is unchanged; the value network then learns what is left (it need not know how hard a prompt is).
    """
    training = inputs.training
    assert inputs.values is not None, "ppo needs values"
    scores = inputs.scores
    if training.ppo_group_baseline:
        grouped = scores.view(-1, inputs.group_size)
        scores = leave_one_out(grouped, inputs.valid.view(-1, inputs.group_size)).flatten()
    rewards = token_rewards(
        scores=scores,
        log_probs=inputs.log_probs,
        ref_log_probs=inputs.ref_log_probs,
        mask=inputs.mask,
        kl_coefficient=inputs.kl_coefficient,
        valid=inputs.valid,
    )
    if training.ppo_whiten_rewards:
        rewards = whiten(rewards, inputs.mask, center=False, unbiased=False)
    advantages, returns = gae(
        rewards=rewards,
        values=inputs.values,
        mask=inputs.mask,
        gamma=training.ppo_gamma,
        lam=training.ppo_lambda,
    )
    if training.ppo_whiten_advantages:
        advantages = whiten_advantages(advantages, inputs.mask, unbiased=False)
    return Advantages(advantages, returns=returns)


def reinforce_advantages(inputs: AdvantageInputs) -> Advantages:
    """Whole-completion reward with the KL inside, minus a moving average of past rewards (D31b)."""
    rewards = inputs.scores - inputs.kl_coefficient * sequence_kl(inputs)
    advantages, baseline = moving_average_baseline(
        rewards,
        baseline=inputs.baseline,
        decay=inputs.training.baseline_decay,
        valid=inputs.valid,
    )
    return Advantages(
        _broadcast(advantages, inputs.mask),
        baseline=None if baseline is None else float(baseline),
    )


def rloo_advantages(inputs: AdvantageInputs) -> Advantages:
    """Whole-completion reward with the KL inside, minus the mean of the other samples (D31)."""
    rewards = inputs.scores - inputs.kl_coefficient * sequence_kl(inputs)
    grouped = rewards.view(-1, inputs.group_size)
    valid = inputs.valid.view(-1, inputs.group_size)
    return Advantages(_broadcast(leave_one_out(grouped, valid).flatten(), inputs.mask))


def grpo_advantages(inputs: AdvantageInputs) -> Advantages:
    """Scores relative to their group; the KL is a loss term, not part of the reward."""
    grouped = inputs.scores.view(-1, inputs.group_size)
    advantages = group_advantages(
        grouped,
        kind=inputs.training.grpo_normalization,  # type: ignore[arg-type]
        valid=inputs.valid.view(-1, inputs.group_size),
    )
    return Advantages(_broadcast(advantages.flatten(), inputs.mask))


def pair_signs(inputs: AdvantageInputs) -> Advantages:
    """1 for the best sample of a prompt, -1 for the worst, 0 for others and where all are equal."""
    scores = inputs.scores.view(-1, inputs.group_size)
    best, worst, differ = best_and_worst(scores, inputs.valid.view(-1, inputs.group_size))
    signs = torch.zeros_like(scores)
    rows = torch.arange(len(scores))[differ]
    signs[rows, best[differ]] = 1.0
    signs[rows, worst[differ]] = -1.0
    return Advantages(_broadcast(signs.flatten(), inputs.mask))


def _broadcast(per_sequence: Tensor, mask: Tensor) -> Tensor:
    return per_sequence[:, None] * mask.to(per_sequence.dtype)


def kl_controller(training: TrainingConfig) -> FixedKLController | AdaptiveKLController:
    """What says the KL coefficient of each rollout (D20)."""
    if not training.ppo_adaptive_kl:
        return FixedKLController(training.ppo_kl_penalty)
    return AdaptiveKLController(
        training.ppo_kl_penalty, target=training.ppo_target_kl, horizon=training.ppo_kl_horizon
    )


def clipped_policy_loss(inputs: PolicyLossInputs) -> tuple[Tensor, Metrics]:
    """PPO's clipped surrogate (D19)."""
    training = inputs.training
    high = training.ppo_clip_ratio_high
    return clipped_surrogate(
        log_probs=inputs.log_probs,
        old_log_probs=inputs.old_log_probs,
        advantages=inputs.advantages,
        mask=inputs.mask,
        clip_low=training.ppo_clip_ratio,
        clip_high=training.ppo_clip_ratio if high is None else high,
        how=inputs.how,  # type: ignore[arg-type]
        denominator=inputs.denominator,
        constant_length=inputs.constant_length,
    )


def grpo_policy_loss(inputs: PolicyLossInputs) -> tuple[Tensor, Metrics]:
    """The clipped surrogate plus the k3 KL to the reference.

    Deviation from 2402.03300, which differentiates k3 as it stands: the ratio is put in front of it
    (D32), without which its gradient is that of KL(reference || policy), another optimum.
    """
    loss, metrics = clipped_policy_loss(inputs)
    if inputs.kl_coefficient > 0:
        kl, _ = kl_penalty(
            log_probs=inputs.log_probs,
            ref_log_probs=inputs.ref_log_probs,
            old_log_probs=inputs.old_log_probs,
            mask=inputs.mask,
            kind="k3",
            how=inputs.how,  # type: ignore[arg-type]
            denominator=inputs.denominator,
            constant_length=inputs.constant_length,
        )
        loss = loss + inputs.kl_coefficient * kl
    return loss, metrics


def reinforce_policy_loss(inputs: PolicyLossInputs) -> tuple[Tensor, Metrics]:
    """-A log pi, the whole completion as one action."""
    return reinforce(
        log_probs=inputs.log_probs,
        advantages=inputs.advantages,
        mask=inputs.mask,
        how=inputs.how,  # type: ignore[arg-type]
        denominator=inputs.denominator,
        constant_length=inputs.constant_length,
    )


def configured_aggregation(training: TrainingConfig) -> tuple[str, int | None]:
    """`training.loss_aggregation`; the constant length is the response limit."""
    constant = training.loss_aggregation == "constant_length"
    return training.loss_aggregation, training.max_response_tokens if constant else None


def whole_sequence(training: TrainingConfig) -> tuple[str, int | None]:
    """Sum over a response's tokens, mean over responses: the completion is one action."""
    return "constant_length", 1


def grpo_aggregation(training: TrainingConfig) -> tuple[str, int | None]:
    """Each GRPO variant's own: sequence mean, constant length (Dr.GRPO), token mean (DAPO)."""
    return {
        "grpo": ("sequence_mean", None),
        "dr_grpo": ("constant_length", training.max_response_tokens),
        "dapo": ("token_mean", None),
    }[training.grpo_normalization]


ALGORITHMS: dict[str, Algorithm] = {
    row.name: row
    for row in (
        Algorithm("ppo", ppo_advantages, clipped_policy_loss, configured_aggregation, True, True),
        Algorithm(
            "reinforce", reinforce_advantages, reinforce_policy_loss, whole_sequence, False, False
        ),
        Algorithm("rloo", rloo_advantages, reinforce_policy_loss, whole_sequence, False, False),
        Algorithm("grpo", grpo_advantages, grpo_policy_loss, grpo_aggregation, False, True),
        Algorithm(
            "dpo", pair_signs, clipped_policy_loss, whole_sequence, False, True, in_pairs=True
        ),
    )
}
