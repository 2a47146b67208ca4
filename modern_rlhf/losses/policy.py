"""Policy-gradient losses: the clipped surrogate, REINFORCE, the KL penalty and the entropy bonus.

Every function returns `(loss, metrics)`: the loss aggregated as `ops.masking.aggregate` says, the
metrics as detached scalars divided by the same denominator, so that both add up over micro-batches.
Coefficients are the caller's: `loss = surrogate + beta * kl + entropy_coefficient * entropy_loss`.

Sources: clipped surrogate, PPO 1707.06347 eq. 7, with the asymmetric range of DAPO 2503.14476;
REINFORCE for whole completions, 2402.14740; KL as a loss, GRPO 2402.03300 eq. 4 and `ops.kl`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modern_rlhf.errors import ConfigError
from modern_rlhf.ops.kl import LOG_RATIO_CLAMP, KLKind, kl_estimate, kl_loss_terms
from modern_rlhf.ops.masking import (
    Aggregation,
    aggregate,
    assert_same_shape,
    fill_padding,
    metric_mean,
)

Metrics = dict[str, Tensor]


def clipped_surrogate(
    *,
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float,
    clip_high: float,
    how: Aggregation,
    denominator: Tensor | float | None = None,
    constant_length: int | None = None,
    log_ratio_clamp: float = LOG_RATIO_CLAMP,
) -> tuple[Tensor, Metrics]:
    """max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)) with r = exp(log_probs - old_log_probs).

    Args:
        log_probs: (B, R), with gradient. (B, 1) sums give the sequence-level ratio.
        old_log_probs: (B, R) at sampling time.
        advantages: (B, R), or (B,) for one a sample.
        mask: (B, R).
        clip_low, clip_high: widths of the range below and above 1.
        how, denominator, constant_length: see `ops.masking.aggregate`.
        log_ratio_clamp: bound of |log r| (D35).

    Returns:
        The loss, and `clip_fraction` (where the clip cut the gradient off), `clip_fraction_low`,
        `clip_fraction_high`, `ratio_mean`, `approx_kl` (k3 estimate of KL(old || new), nats).
    """
    advantages = _per_token(advantages, mask)
    assert_same_shape(log_probs=log_probs, old_log_probs=old_log_probs, mask=mask)
    log_ratio = fill_padding(log_probs - old_log_probs.detach(), mask)
    log_ratio = log_ratio.clamp(-log_ratio_clamp, log_ratio_clamp)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    per_token = torch.maximum(-advantages * ratio, -advantages * clipped)
    loss = aggregate(
        per_token, mask, how=how, denominator=denominator, constant_length=constant_length
    )
    low = (ratio < 1.0 - clip_low) & (advantages < 0)
    high = (ratio > 1.0 + clip_high) & (advantages > 0)
    quantities = {
        "clip_fraction": (low | high).to(ratio.dtype),
        "clip_fraction_low": low.to(ratio.dtype),
        "clip_fraction_high": high.to(ratio.dtype),
        "ratio_mean": ratio,
        "approx_kl": torch.expm1(log_ratio) - log_ratio,
    }
    metrics = {
        name: metric_mean(
            quantity, mask, how=how, denominator=denominator, constant_length=constant_length
        )
        for name, quantity in quantities.items()
    }
    return loss, metrics


def reinforce(
    *,
    log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    how: Aggregation,
    denominator: Tensor | float | None = None,
    constant_length: int | None = None,
) -> tuple[Tensor, Metrics]:
    """-A log_probs: its gradient is the policy gradient (Williams 1992).

    The whole completion as one action, as in "Back to Basics", is `how="constant_length"` with
    `constant_length=1`: the sum over tokens, averaged over samples.

    Args:
        log_probs: (B, R), with gradient.
        advantages: (B,), one a sample, or (B, R).
        mask: (B, R).
        how, denominator, constant_length: see `ops.masking.aggregate`.

    Returns:
        The loss, and `log_prob_mean`, the mean log-probability of the sampled tokens.
    """
    advantages = _per_token(advantages, mask)
    assert_same_shape(log_probs=log_probs, mask=mask)
    filled = fill_padding(log_probs, mask)
    loss = aggregate(
        -advantages * filled,
        mask,
        how=how,
        denominator=denominator,
        constant_length=constant_length,
    )
    mean = metric_mean(
        filled, mask, how=how, denominator=denominator, constant_length=constant_length
    )
    return loss, {"log_prob_mean": mean}


def kl_penalty(
    *,
    log_probs: Tensor,
    ref_log_probs: Tensor,
    mask: Tensor,
    kind: KLKind,
    how: Aggregation,
    denominator: Tensor | float | None = None,
    constant_length: int | None = None,
    old_log_probs: Tensor | None = None,
    clamp: float = LOG_RATIO_CLAMP,
) -> tuple[Tensor, Metrics]:
    """The KL to the reference as a loss term, to be multiplied by its coefficient.

    With `old_log_probs` the gradient is that of KL(policy || reference), whichever `kind` (D32).
    Without, the estimator is differentiated as it stands: `k3` is then GRPO as published, whose
    gradient is that of KL(reference || policy); `k1` would have no gradient on average.

    Args:
        log_probs: (B, R), with gradient.
        ref_log_probs: (B, R).
        mask: (B, R).
        kind: `k1`, `k2` or `k3`, see `ops.kl`.
        how, denominator, constant_length: see `ops.masking.aggregate`.
        old_log_probs: (B, R) at sampling time, to put the ratio in front.
        clamp: bound of the log ratios (D35).

    Returns:
        The loss, and `kl`, the mean of the plain estimator per token (nats).

    Raises:
        ConfigError: `kind="k1"` without `old_log_probs`.
    """
    assert_same_shape(log_probs=log_probs, ref_log_probs=ref_log_probs, mask=mask)
    log_probs = fill_padding(log_probs, mask)
    ref_log_probs = fill_padding(ref_log_probs.detach(), mask)
    estimate = kl_estimate(log_probs, ref_log_probs, kind=kind, clamp=clamp)
    if old_log_probs is not None:
        terms = kl_loss_terms(
            log_probs,
            ref_log_probs,
            old_log_probs=fill_padding(old_log_probs, mask),
            kind=kind,
            clamp=clamp,
        )
    elif kind == "k1":
        raise ConfigError(
            "kind='k1' as a loss has a zero mean gradient: give old_log_probs, or use 'k2' or 'k3'"
        )
    else:
        terms = estimate
    loss = aggregate(terms, mask, how=how, denominator=denominator, constant_length=constant_length)
    mean = metric_mean(
        estimate, mask, how=how, denominator=denominator, constant_length=constant_length
    )
    return loss, {"kl": mean}


def entropy_bonus(
    entropy: Tensor,
    mask: Tensor,
    *,
    how: Aggregation = "token_mean",
    denominator: Tensor | float | None = None,
    constant_length: int | None = None,
) -> tuple[Tensor, Metrics]:
    """Minus the mean entropy: adding `coefficient * loss` rewards spread (PPO eq. 9).

    Args:
        entropy: (B, R), nats, with gradient.
        mask: (B, R).
        how, denominator, constant_length: see `ops.masking.aggregate`.

    Returns:
        The loss, and `entropy`, the mean per token.
    """
    loss = -aggregate(
        entropy, mask, how=how, denominator=denominator, constant_length=constant_length
    )
    mean = metric_mean(
        entropy, mask, how=how, denominator=denominator, constant_length=constant_length
    )
    return loss, {"entropy": mean}


def _per_token(advantages: Tensor, mask: Tensor) -> Tensor:
    """Advantages (B,) or (B, R) as (B, R), detached, 0 at padding."""
    if advantages.ndim == 1:
        assert advantages.shape == mask.shape[:1], (
            f"{tuple(advantages.shape)} advantages for a mask {tuple(mask.shape)}"
        )
        advantages = advantages[:, None].expand(mask.shape)
    return fill_padding(advantages.detach(), mask)
