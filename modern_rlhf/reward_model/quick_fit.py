"""A small loop that trains heads on features of a frozen backbone, in memory and in seconds.

For cross-validation and toys; training for a run, with resume and logs, is `trainer.reward`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modern_rlhf.config.reward import HEAD_WEIGHT_DECAY
from modern_rlhf.reward_model.fit import (
    PairTargets,
    RatingTargets,
    RewardLossSettings,
    loss_plan,
    pair_loss,
    rating_loss,
)
from modern_rlhf.reward_model.heads import RewardHeads


def fit_heads(
    heads: RewardHeads,
    *,
    pairs: tuple[PairTargets, Tensor, Tensor] | None = None,
    ratings: tuple[RatingTargets, Tensor] | None = None,
    settings: RewardLossSettings | None = None,
    epochs: int = 50,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float | None = None,
    generator: torch.Generator | None = None,
) -> list[float]:
    """Train `heads` on features of a frozen backbone; returns the mean loss of every epoch.

    Args:
        pairs: targets of N pairs and the features (N, F) of the chosen and of the rejected answers.
        ratings: targets of M ratings and their features (M, F).
        weight_decay: AdamW's; None is what `RewardTrainer` takes by default.
        generator: source of the permutations.

    Raises:
        DataError: nothing to train on (see `loss_plan`).
    """
    plan = loss_plan(
        heads,
        pairs=len(pairs[0]) if pairs else 0,
        ratings=len(ratings[0]) if ratings else 0,
        settings=settings,
    )
    parts = [*(pairs[1:] if pairs else ()), *(ratings[1:] if ratings else ())]
    heads.set_feature_statistics(torch.cat(parts))
    sizes = [len(data[0]) for data in (pairs, ratings) if data is not None]
    steps = max(-(-size // batch_size) for size in sizes)
    if weight_decay is None:
        weight_decay = HEAD_WEIGHT_DECAY if heads.kind == "mlp" else 0.0
    groups = heads.learning_groups(learning_rate, weight_decay=weight_decay)
    optimizer = torch.optim.AdamW(
        [{"params": own, "lr": rate, "weight_decay": decay} for own, rate, decay in groups],
        eps=1e-5,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(  # annealed to 0 at the last step (D6)
        optimizer, lambda step: 1.0 - step / (epochs * steps)
    )
    history = []
    heads.train()
    for _ in range(epochs):
        rows = [torch.randperm(size, generator=generator).tensor_split(steps) for size in sizes]
        losses = []
        for step in range(steps):
            chunks = iter(rows)
            loss = torch.zeros(())
            if pairs is not None:
                loss = loss + _pair_step(heads, pairs, next(chunks)[step], plan)
            if ratings is not None:
                loss = loss + _rating_step(heads, ratings, next(chunks)[step], plan)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        history.append(float(torch.stack(losses).mean()))
    heads.eval()
    return history


def _pair_step(
    heads: RewardHeads,
    data: tuple[PairTargets, Tensor, Tensor],
    rows: Tensor,
    plan: RewardLossSettings,
) -> Tensor:
    targets, chosen, rejected = data
    if len(rows) == 0 or not plan.pairwise:
        return torch.zeros(())
    loss, _ = pair_loss(
        heads(chosen[rows]),
        heads(rejected[rows]),
        margins=targets.margins[rows],
        weights=targets.weights[rows],
        settings=plan,
    )
    return loss


def _rating_step(
    heads: RewardHeads, data: tuple[RatingTargets, Tensor], rows: Tensor, plan: RewardLossSettings
) -> Tensor:
    targets, features = data
    if len(rows) == 0 or not (plan.pointwise or plan.ordinal):
        return torch.zeros(())
    loss, _ = rating_loss(
        heads(features[rows]),
        values=targets.values[rows],
        weights=targets.weights[rows],
        overall=targets.overall[rows],
        overall_weights=targets.overall_weights[rows],
        head_weights=heads.weights,
        settings=plan,
    )
    return loss
