"""From scores to advantages: what pushes each sampled token up or down.

Pure functions of tensors. `B` samples, `R` response tokens, `P` prompts, `G` samples a prompt.
A score that could not be computed is marked False in `valid` (and may hold anything, NaN included):
it takes no part in any baseline, its advantage is exactly 0, and `scorable_mask` takes its tokens
out of the loss (D38). Nothing here knows models, rewards or configuration.

Sources: GAE arXiv 1506.02438; RLOO and the moving-average baseline arXiv 2402.14740; GRPO
2402.03300; Dr. GRPO 2503.20783; DAPO 2503.14476; the missing-EOS rule arXiv 2403.17031.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from modern_rlhf.errors import ConfigError
from modern_rlhf.ops.masking import assert_same_shape, fill_padding, real_positions, whiten

EosRule = Literal["replace", "subtract", "none"]
GroupKind = Literal["grpo", "dr_grpo", "dapo"]


def scorable_mask(mask: Tensor, valid: Tensor) -> Tensor:
    """`mask` (B, R) without the tokens of unscorable samples (`valid` (B,) False), as bool."""
    return real_positions(mask) & real_positions(valid)[:, None]


def missing_eos(scores: Tensor, has_eos: Tensor, *, rule: EosRule, value: float = 0.0) -> Tensor:
    """Make a response that never stopped worse (D13).

    Args:
        scores: (B,).
        has_eos: (B,) bool, whether the *completion* (not the prompt) holds a stop token.
        rule: `replace` puts `value` in the score's place, `subtract` takes `value` off it (a
            positive penalty), `none` leaves it.
        value: in the units of the score.

    Returns:
        (B,). NaN, an unscorable sample's mark, stays NaN under every rule.

    Raises:
        ConfigError: unknown `rule`.
    """
    assert_same_shape(scores=scores, has_eos=has_eos)
    stopped = real_positions(has_eos)
    if rule == "replace":
        return torch.where(stopped | scores.isnan(), scores, torch.full_like(scores, value))
    if rule == "subtract":
        return torch.where(stopped, scores, scores - value)
    if rule == "none":
        return scores
    raise ConfigError(f"rule={rule!r}: expected 'replace', 'subtract' or 'none'")


def token_rewards(
    *,
    scores: Tensor,
    log_probs: Tensor,
    ref_log_probs: Tensor,
    mask: Tensor,
    kl_coefficient: float,
    valid: Tensor | None = None,
) -> Tensor:
    """Rewards per token: the KL penalty everywhere, the score on the last action (D14).

    r_t = -kl_coefficient * (log_probs_t - ref_log_probs_t) + [t is the last real token] * score,
    so a row sums to `score - kl_coefficient * sum_t KL_t`.

    Args:
        scores: (B,).
        log_probs: (B, R) of the policy that sampled; no gradient is kept.
        ref_log_probs: (B, R) of the reference.
        mask: (B, R), the sampled tokens. A row without any gets no score: there was no action.
        kl_coefficient: beta, reward per nat.
        valid: (B,), False for unscorable samples, whose row is 0.

    Returns:
        (B, R), 0 at padding.
    """
    assert_same_shape(log_probs=log_probs, ref_log_probs=ref_log_probs, mask=mask)
    assert scores.shape == mask.shape[:1], f"{tuple(scores.shape)} scores for {tuple(mask.shape)}"
    real = real_positions(mask)
    scores = scores.detach()
    if valid is not None:
        real = scorable_mask(real, valid)
        scores = fill_padding(scores, valid)
    rewards = fill_padding(-kl_coefficient * (log_probs - ref_log_probs).detach(), real)
    positions = torch.arange(real.shape[1], device=real.device)
    last = real & (positions == (real * positions).amax(1, keepdim=True))
    return rewards + torch.where(last, scores[:, None].to(rewards.dtype), torch.zeros_like(rewards))


def gae(
    *,
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    gamma: float,
    lam: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over the real tokens (D18), eq. 16 of 1506.02438.

    delta_t = r_t + gamma * V_{t+1} - V_t,   A_t = delta_t + gamma * lam * A_{t+1},   both 0 after
    the last real token: a response is an episode, and one cut at the length limit ends there.
    Positions the mask excludes are stepped over, so padding may be anywhere.

    Args:
        rewards: (B, R).
        values: (B, R), V of the state before each token.
        mask: (B, R).
        gamma: discount, 1 for language.
        lam: 1 is the Monte Carlo return minus V, 0 the one-step error.

    Returns:
        `(advantages, returns)`, each (B, R), detached, 0 at padding; returns = advantages + values.
    """
    assert_same_shape(rewards=rewards, values=values, mask=mask)
    real = real_positions(mask)
    rewards = fill_padding(rewards.detach(), mask)
    values = fill_padding(values.detach(), mask)
    # time first: each step of the loop then reads and writes contiguous memory
    reward_t, value_t, real_t = (x.T.contiguous() for x in (rewards, values, real))
    advantages_t = torch.zeros_like(value_t)
    following = next_value = value_t.new_zeros(value_t.shape[1])
    for t in reversed(range(len(value_t))):
        delta = reward_t[t] + gamma * next_value - value_t[t]
        following = torch.where(real_t[t], delta + gamma * lam * following, following)
        next_value = torch.where(real_t[t], value_t[t], next_value)
        advantages_t[t] = following
    advantages = fill_padding(advantages_t.T.contiguous(), mask)
    return advantages, advantages + values


def whiten_advantages(
    advantages: Tensor,
    mask: Tensor,
    *,
    unbiased: bool,
) -> Tensor:
    """Advantages with mean 0 and variance 1 over the real tokens (D15), (B, R), 0 at padding."""
    return whiten(advantages, mask, center=True, unbiased=unbiased)


def leave_one_out(scores: Tensor, valid: Tensor | None = None) -> Tensor:
    """RLOO: each score minus the mean of the other samples of its prompt (D31), 2402.14740.

    A_i = r_i - mean_{j != i} r_j = k / (k - 1) * (r_i - mean r), k the number of scorable samples.

    Args:
        scores: (P, G).
        valid: (P, G), False for unscorable samples.

    Returns:
        (P, G): rows sum to 0; equal scores give exactly 0; so does a prompt with k < 2, which has
        no baseline.
    """
    centred, count = _centred(scores, valid)
    return centred * (count / (count - 1).clamp(min=1))


def group_advantages(
    scores: Tensor,
    *,
    kind: GroupKind,
    eps: float = 1e-4,
    valid: Tensor | None = None,
) -> Tensor:
    """Advantages relative to the group of samples of one prompt.

    `grpo`: (r - mean) / (std + eps), std unbiased (GRPO section 4.1). `dapo`: the same (DAPO eq. 9; what
    it changes is clipping, aggregation and sampling). `dr_grpo`: r - mean: dividing by the group's
    std weighs prompts by their difficulty and moves the optimum.

    Args:
        scores: (P, G).
        kind: which of the three.
        eps: added to the standard deviation; unused by `dr_grpo`.
        valid: (P, G), False for unscorable samples.

    Returns:
        (P, G); a group of equal scores, or with fewer than two scorable ones, gives exactly 0.

    Raises:
        ConfigError: unknown `kind`.
    """
    centred, count = _centred(scores, valid)
    if kind == "dr_grpo":
        return centred
    if kind in ("grpo", "dapo"):
        variance = (centred**2).sum(1, keepdim=True) / (count - 1).clamp(min=1)
        return centred / (variance.sqrt() + eps)
    raise ConfigError(f"kind={kind!r}: expected 'grpo', 'dr_grpo' or 'dapo'")


def moving_average_baseline(
    scores: Tensor,
    *,
    baseline: Tensor | float | None,
    decay: float,
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor | float | None]:
    """REINFORCE's baseline: a moving average of the rewards of *earlier* batches (D31b).

    A_i = r_i - baseline,   new baseline = decay * baseline + (1 - decay) * mean(r).
    "Back to Basics" averages all past rewards alike: that is `decay = s / (s + 1)` at batch s.
    The first batch has no past: there each score is measured against the mean of the others, which
    is unbiased too.

    Args:
        scores: (B,).
        baseline: what the last call returned; None at the first batch. Part of a checkpoint.
        decay: in [0, 1).
        valid: (B,), False for unscorable samples.

    Returns:
        `(advantages (B,), new baseline)`; the baseline is unchanged when nothing was scorable.

    Raises:
        ConfigError: `decay` is outside [0, 1).
    """
    if not 0.0 <= decay < 1.0:
        raise ConfigError(f"decay={decay}: the baseline's decay must be in [0, 1)")
    scores = scores.detach()
    valid = torch.ones_like(scores, dtype=torch.bool) if valid is None else real_positions(valid)
    scores = fill_padding(scores, valid)
    if not bool(valid.any()):
        return torch.zeros_like(scores), baseline
    mean = scores.sum() / valid.sum()
    if baseline is None:
        return leave_one_out(scores[None], valid[None])[0], mean
    advantages = fill_padding(scores - baseline, valid)
    return advantages, decay * baseline + (1.0 - decay) * mean


def _centred(scores: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scores minus the group's mean over scorable samples, (P, G), and their number, (P, 1).

    Groups are first shifted to start at 0, so that equal scores are centred to exactly 0: the mean
    of three 0.1s is not 0.1 in floating point.
    """
    assert scores.ndim == 2, f"scores must be (prompts, samples), got {tuple(scores.shape)}"
    scores = scores.detach()
    valid = torch.ones_like(scores, dtype=torch.bool) if valid is None else real_positions(valid)
    lowest = fill_padding(scores, valid, float("inf")).amin(1, keepdim=True)
    shifted = fill_padding(scores - lowest, valid)
    count = valid.sum(1, keepdim=True).to(scores.dtype)
    mean = shifted.sum(1, keepdim=True) / count.clamp(min=1)
    return fill_padding(shifted - mean, valid), count
