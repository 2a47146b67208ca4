"""The value loss of PPO and how much of the returns the values explain.

Source: "The N implementation details of RLHF with PPO" (clipping, the factor 1/2, the max).
"""

from __future__ import annotations

import torch
from torch import Tensor

from modern_rlhf.ops.masking import (
    Aggregation,
    aggregate,
    assert_same_shape,
    fill_padding,
    masked_var,
    metric_mean,
)

Metrics = dict[str, Tensor]


def clipped_value_loss(
    *,
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    clip: float | None,
    how: Aggregation = "token_mean",
    denominator: Tensor | float | None = None,
    constant_length: int | None = None,
) -> tuple[Tensor, Metrics]:
    """0.5 * max((V - R)^2, (V_clip - R)^2), V_clip = V kept within old_V +- clip (D19).

    The gradient is zero only where the clipped error is the larger one: V has left the range in
    the direction of the return.

    Args:
        values: (B, R), with gradient.
        old_values: (B, R) at rollout time.
        returns: (B, R), the regression target.
        mask: (B, R).
        clip: half width of the range; None for plain 0.5 * squared error.
        how, denominator, constant_length: see `ops.masking.aggregate`.

    Returns:
        The loss, and `value_clip_fraction`, `value_mean`, `return_mean`, `value_error` (squared).
    """
    assert_same_shape(values=values, old_values=old_values, returns=returns, mask=mask)
    values = fill_padding(values, mask)
    old_values = fill_padding(old_values.detach(), mask)
    returns = fill_padding(returns.detach(), mask)
    errors = (values - returns) ** 2
    if clip is None:
        per_token, cut = errors, torch.zeros_like(errors)
    else:
        clipped = values.clamp(old_values - clip, old_values + clip)
        clipped_errors = (clipped - returns) ** 2
        per_token = torch.maximum(errors, clipped_errors)
        cut = (clipped_errors > errors).to(errors.dtype)
    loss = 0.5 * aggregate(
        per_token, mask, how=how, denominator=denominator, constant_length=constant_length
    )
    quantities = {
        "value_clip_fraction": cut,
        "value_mean": values,
        "return_mean": returns,
        "value_error": errors,
    }
    metrics = {
        name: metric_mean(
            quantity, mask, how=how, denominator=denominator, constant_length=constant_length
        )
        for name, quantity in quantities.items()
    }
    return loss, metrics


def explained_variance(*, values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over the real tokens, a detached scalar (D28).

    1 is perfect, 0 no better than a constant, negative worse. It does not add up over
    micro-batches: give it a whole rollout. NaN when the returns do not vary: it is undefined there.
    """
    assert_same_shape(values=values, returns=returns, mask=mask)
    variance = masked_var(returns.detach(), mask, unbiased=False)
    residual = masked_var((returns - values).detach(), mask, unbiased=False)
    undefined = torch.full_like(variance, float("nan"))
    return torch.where(variance > 0, 1.0 - residual / variance, undefined)
