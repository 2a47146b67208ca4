"""Losses of the reward model: pairs, absolute ratings as numbers, absolute ratings as classes.

Scores may be (B,) or (B, K) for K heads; a weight of 0 marks a missing aspect, whose target may
then hold anything. Ratings are on the scale of `records.Rating`: -2..2, that is 1-5 minus 3.

Sources: Bradley-Terry with margin, Llama 2 2307.09288 eq. 2; the centring term, 2312.09244 eq. 2;
one yes-or-no question for every threshold of an ordinal scale, Frank & Hall, ECML 2001.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from modern_rlhf.ops.masking import assert_same_shape, divide, fill_padding

Metrics = dict[str, Tensor]


def bradley_terry(
    *,
    chosen: Tensor,
    rejected: Tensor,
    margin: Tensor | None = None,
    weights: Tensor | None = None,
    center_coefficient: float = 0.0,
    denominator: Tensor | float | None = None,
) -> tuple[Tensor, Metrics]:
    """-log s(chosen - rejected - margin) + center_coefficient * (chosen + rejected)^2, averaged.

    The pair decides only the difference: adding a constant to both scores changes the first term
    by nothing; the second pulls the scores towards 0.

    Args:
        chosen, rejected: (B,) or (B, K) scores, with gradient.
        margin: same shape, how much better the chosen one should be at least.
        weights: same shape; 0 leaves a pair out.
        center_coefficient: 0 for none.
        denominator: sum of the weights over the whole optimiser batch (D34); None: of this one.

    Returns:
        The loss, and `accuracy`, `score_chosen`, `score_rejected`, `score_margin`.
    """
    assert_same_shape(chosen=chosen, rejected=rejected, margin=margin, weights=weights)
    weights = torch.ones_like(chosen) if weights is None else weights.to(chosen)
    chosen, rejected = fill_padding(chosen, weights), fill_padding(rejected, weights)
    gap = chosen - rejected
    wanted = gap if margin is None else gap - fill_padding(margin, weights)
    losses = -logsigmoid(wanted) + center_coefficient * (chosen + rejected) ** 2
    return _weighted(
        losses,
        weights,
        denominator,
        accuracy=(gap > 0).to(gap.dtype),
        score_chosen=chosen,
        score_rejected=rejected,
        score_margin=gap,
    )


def pointwise_regression(
    *,
    predictions: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> tuple[Tensor, Metrics]:
    """Squared error of predicted ratings.

    Args:
        predictions: (B,) or (B, K), with gradient, in the targets' units.
        targets: same shape, -2..2.
        weights: same shape; 0 for a missing rating.
        denominator: sum of the weights over the whole optimiser batch (D34); None: of this one.

    Returns:
        The loss, and `absolute_error`.
    """
    assert_same_shape(predictions=predictions, targets=targets, weights=weights)
    weights = torch.ones_like(predictions) if weights is None else weights.to(predictions)
    errors = fill_padding(predictions, weights) - fill_padding(targets, weights)
    return _weighted(errors**2, weights, denominator, absolute_error=errors.abs())


def ordinal_expectation(logits: Tensor) -> Tensor:
    """The mean rating under softmax(logits): (..., C) to (...), -2..2 for the five classes."""
    return logits.softmax(-1) @ _scale(logits)


def ordinal_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    denominator: Tensor | float | None = None,
) -> tuple[Tensor, Metrics]:
    """For every threshold between two classes, the cross-entropy of "the rating is above it", summed.

        loss = -sum_k [t_k log P(class > k) + (1 - t_k) log P(class <= k)],  t_k = clip(target - k, 0, 1)

    So a prediction costs more the more classes it is off by, which cross-entropy of the classes does not
    see. A target of 0.25 is above 0 to a quarter: the best prediction puts 0.75 on class 0 and 0.25 on
    class 1, and its expectation is the target. A target beyond the scale counts as its end.

    Args:
        logits: (B, 5) or (B, K, 5), with gradient; classes in rising order.
        targets: (B,) or (B, K) ratings on -2..2 (not class numbers), whole or in between.
        weights: the targets' shape; 0 for a missing rating.
        denominator: sum of the weights over the whole optimiser batch (D34); None: of this one.

    Returns:
        The loss, `absolute_error` of the expectation, and `accuracy` (likeliest class nearest).
    """
    assert logits.shape[:-1] == targets.shape, f"{tuple(logits.shape)} for {tuple(targets.shape)}"
    assert_same_shape(targets=targets, weights=weights)
    weights = logits.new_ones(targets.shape) if weights is None else weights.to(logits)
    scale = _scale(logits)
    logits = logits.masked_fill((weights == 0)[..., None], 0.0)
    top = float(scale.shape[0] - 1) / 2.0
    targets = fill_padding(targets.to(logits.dtype), weights).clamp(-top, top)
    above = (targets[..., None] - scale[:-1]).clamp(0.0, 1.0)
    log_probs = logits.log_softmax(-1)
    thresholds = range(1, scale.shape[0])
    log_above = torch.stack([log_probs[..., k:].logsumexp(-1) for k in thresholds], dim=-1)
    log_below = torch.stack([log_probs[..., :k].logsumexp(-1) for k in thresholds], dim=-1)
    losses = -(above * log_above + (1.0 - above) * log_below).sum(-1)
    likeliest = scale[logits.argmax(-1)]
    return _weighted(
        losses,
        weights,
        denominator,
        absolute_error=(ordinal_expectation(logits) - targets).abs(),
        accuracy=((likeliest - targets).abs() <= 0.5).to(logits.dtype),
    )


def _scale(logits: Tensor) -> Tensor:
    """The ratings the classes stand for, centred on 0: (C,)."""
    classes = logits.shape[-1]
    return torch.arange(classes, device=logits.device, dtype=logits.dtype) - (classes - 1) / 2.0


def _weighted(
    losses: Tensor, weights: Tensor, denominator: Tensor | float | None, **quantities: Tensor
) -> tuple[Tensor, Metrics]:
    """Weighted means of losses and detached metrics under one denominator."""
    denominator = weights.sum() if denominator is None else denominator
    return divide((weights * losses).sum(), denominator), {
        name: divide((weights * value.detach()).sum(), denominator)
        for name, value in quantities.items()
    }
