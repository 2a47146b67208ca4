"""Sums, means, variances and loss aggregation over the real positions of padded tensors.

A mask is `(B, R)`, bool or 0/1 numbers; any non-zero entry marks a real position. Values at other
positions never take part, whatever they hold: NaN, infinity or garbage give neither a value nor a
gradient, because they are replaced before the arithmetic and not multiplied by zero after it.

Losses are aggregated in one of three named ways (D34), each divided by a count over the *whole*
optimiser batch, so that the losses of micro-batches add up to the loss of the batch:

    token_mean       sum over all real tokens / number of real tokens               (DAPO, PPO)
    sequence_mean    sum over sequences of the mean over their tokens / sequences   (GRPO paper)
    constant_length  sum over all real tokens / (sequences * constant_length)       (Dr. GRPO)

`constant_length` with length 1 is the sum over a sequence's tokens, averaged over sequences: the
whole completion as one action (REINFORCE and RLOO in "Back to Basics").
A sequence without a real token (an unscorable sample) is not counted as a sequence.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from modern_rlhf.errors import ConfigError

Aggregation = Literal["token_mean", "sequence_mean", "constant_length"]
AGGREGATIONS: tuple[Aggregation, ...] = ("token_mean", "sequence_mean", "constant_length")

VARIANCE_FLOOR = 1e-8
"""Added to a variance before its root is divided by, as in the reference PPO implementations."""


def assert_same_shape(**tensors: Tensor | None) -> None:
    """Stop on tensors of different shapes: `(B,)` with `(B, 1)` would broadcast in silence."""
    shapes = {name: tuple(t.shape) for name, t in tensors.items() if t is not None}
    assert len(set(shapes.values())) <= 1, f"these tensors must have one shape, got {shapes}"


def real_positions(mask: Tensor) -> Tensor:
    """The mask as bool, same shape."""
    return mask if mask.dtype == torch.bool else mask != 0


def fill_padding(values: Tensor, mask: Tensor, fill: float = 0.0) -> Tensor:
    """`values` with `fill` at every position the mask excludes; no gradient flows to those."""
    assert_same_shape(values=values, mask=mask)
    return values.masked_fill(~real_positions(mask), fill)


def masked_sum(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum of the real positions, over `dim` or over everything. Empty gives 0."""
    filled = fill_padding(values, mask)
    return filled.sum() if dim is None else filled.sum(dim)


def masked_mean(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean of the real positions, over `dim` or over everything. Empty gives 0, not NaN."""
    real = real_positions(mask)
    count = real.sum() if dim is None else real.sum(dim)
    return masked_sum(values, mask, dim) / count.clamp(min=1)


def masked_var(values: Tensor, mask: Tensor, *, unbiased: bool) -> Tensor:
    """Variance of all real positions, a scalar: divided by n - 1 if `unbiased`, else by n (D16).

    Fewer than two real positions give 0.
    """
    # filled before squaring: the derivative of the square of garbage is garbage times zero
    deviations = fill_padding(values - masked_mean(values, mask), mask)
    return (deviations**2).sum() / (real_positions(mask).sum() - int(unbiased)).clamp(min=1)


def whiten(
    values: Tensor,
    mask: Tensor,
    *,
    center: bool,
    unbiased: bool,
) -> Tensor:
    """Divide by the real positions' standard deviation; subtract their mean if `center` (D15).

    Advantages are whitened with centring, rewards without: they keep their mean.

    Args:
        values: any shape.
        mask: same shape; padding of the result is 0.
        center: whether the mean is removed.
        unbiased: which variance (D16).
    """
    mean, variance = masked_mean(values, mask), masked_var(values, mask, unbiased=unbiased)
    whitened = fill_padding(values - mean, mask) * torch.rsqrt(variance + VARIANCE_FLOOR)
    return fill_padding(whitened if center else whitened + mean, mask)


def batch_denominator(
    mask: Tensor, *, how: Aggregation, constant_length: int | None = None
) -> Tensor:
    """What `aggregate` divides by, as a scalar float tensor; 0 when nothing is real.

    Call it on the mask of the whole optimiser batch (summed over processes) and give the result to
    the loss of every micro-batch.
    """
    _check_aggregation(how, constant_length)
    real = real_positions(mask)
    if how == "token_mean":
        return real.sum().float()
    sequences = real.any(-1).sum().float()
    return sequences if how == "sequence_mean" else sequences * float(constant_length or 1)


def aggregate(
    per_token: Tensor,
    mask: Tensor,
    *,
    how: Aggregation,
    denominator: Tensor | float | None = None,
    constant_length: int | None = None,
) -> Tensor:
    """One scalar from per-token values, in one of the ways of the module's table.

    Args:
        per_token: (B, R) values.
        mask: (B, R), real positions.
        how: `token_mean`, `sequence_mean` or `constant_length`.
        denominator: count over the whole optimiser batch, from `batch_denominator`; None takes
            this tensor's own.
        constant_length: tokens a sequence counts for; only with `how="constant_length"`.

    Raises:
        ConfigError: unknown `how`, or `constant_length` missing or given where it has no meaning.
    """
    if denominator is None:
        denominator = batch_denominator(mask, how=how, constant_length=constant_length)
    else:
        _check_aggregation(how, constant_length)
    if how == "sequence_mean":
        total = masked_mean(per_token, mask, dim=-1).sum()
    else:
        total = masked_sum(per_token, mask)
    return divide(total, denominator)


def metric_mean(
    per_token: Tensor,
    mask: Tensor,
    *,
    how: Aggregation,
    denominator: Tensor | float | None = None,
    constant_length: int | None = None,
) -> Tensor:
    """A detached metric under the loss's own denominator, so that micro-batches add up to its mean.

    It differs from `aggregate` for `constant_length` only, where dividing by a length no sequence
    has would shrink every metric: there it is the mean over sequences of their token means.
    """
    if how == "constant_length":
        _check_aggregation(how, constant_length)
        denominator = None if denominator is None else denominator / float(constant_length or 1)
        return aggregate(per_token.detach(), mask, how="sequence_mean", denominator=denominator)
    return aggregate(per_token.detach(), mask, how=how, denominator=denominator)


def divide(total: Tensor, denominator: Tensor | float) -> Tensor:
    """`total / denominator`; 0, with a zero gradient, where the denominator is 0 (nothing real)."""
    if not isinstance(denominator, Tensor):
        return total / (denominator or 1.0)
    denominator = denominator.to(total)
    return total / denominator.masked_fill(denominator == 0, 1.0)


def _check_aggregation(how: str, constant_length: int | None) -> None:
    if how not in AGGREGATIONS:
        raise ConfigError(f"how={how!r}: expected one of {', '.join(AGGREGATIONS)}")
    if (how == "constant_length") != (constant_length is not None) or (
        constant_length is not None and constant_length < 1
    ):
        raise ConfigError(
            f"constant_length={constant_length} with how={how!r}: give a positive number of tokens "
            "with 'constant_length' and nothing with the other two"
        )
