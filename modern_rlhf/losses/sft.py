"""Supervised fine-tuning: the negative log-likelihood of the response tokens."""

from __future__ import annotations

from torch import Tensor

from modern_rlhf.ops.masking import Aggregation, aggregate, assert_same_shape, metric_mean

Metrics = dict[str, Tensor]


def sft_loss(
    *,
    log_probs: Tensor,
    mask: Tensor,
    how: Aggregation = "token_mean",
    denominator: Tensor | float | None = None,
    constant_length: int | None = None,
) -> tuple[Tensor, Metrics]:
    """-log p of the response tokens.

    Args:
        log_probs: (B, R) of the demonstrated tokens, with gradient; (1, N) for flattened ones.
        mask: same shape; the end token counts, the prompt does not (D7).
        how, denominator, constant_length: see `ops.masking.aggregate`.

    Returns:
        The loss, and `log_perplexity`, the mean negative log-likelihood per token (nats).
    """
    assert_same_shape(log_probs=log_probs, mask=mask)
    loss = -aggregate(
        log_probs, mask, how=how, denominator=denominator, constant_length=constant_length
    )
    mean = metric_mean(
        -log_probs, mask, how=how, denominator=denominator, constant_length=constant_length
    )
    return loss, {"log_perplexity": mean}
