"""From records to parts and targets, from scores to a loss: the pieces a reward-model loop is made of.

    pairs    -> Bradley-Terry on the total score, margin and centring by name
    ratings  -> squared error of each head on its aspect; an overall rating is a target of the heads' mean
             -> ordinal cross-entropy of the human head on the overall rating

What the data has decides which of the three apply (`loss_plan`). Members of an ensemble are separate
models: the loss is the mean of their losses, never the loss of their mean.

Knows nothing of files, tokenizers, backbones or loops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from modern_rlhf.data_loader.splits import split_by_group
from modern_rlhf.errors import DataError
from modern_rlhf.losses.reward import bradley_terry, ordinal_cross_entropy, pointwise_regression
from modern_rlhf.records import OVERALL, PreferencePair, Rating
from modern_rlhf.reward_model.heads import RewardHeads, RewardOutput

J = TypeVar("J", PreferencePair, Rating)


@dataclass(frozen=True)
class PairTargets:
    """N pairs as aligned lists; `margins` and `weights` are (N,)."""

    prompts: list[str]
    chosen: list[str]
    rejected: list[str]
    margins: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class RatingTargets:
    """N rated answers as aligned lists.

    Attributes:
        columns: names of the K heads, then `overall`.
        values: (N, K + 1) ratings on -2..2; anything where the weight is 0.
        weights: (N, K + 1) rater weights, 0 where this aspect was not rated. The `overall` column has
            weight only where the source gave a single rating, or aspects of which none has a head;
            a head named `overall` learns it wherever it is.
        overall: (N,) the single rating, or the mean of the rated aspects: the human head's target.
        overall_weights: (N,).
        unused: how often an aspect was met that no head is named after.
    """

    prompts: list[str]
    responses: list[str]
    columns: tuple[str, ...]
    values: Tensor
    weights: Tensor
    overall: Tensor
    overall_weights: Tensor
    unused: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class RewardLossSettings:
    """Weights of the three losses (0 switches one off) and the Bradley-Terry options.

    `margin_coefficient` multiplies a pair's margin (a gap of ratings) before it is asked of the scores;
    `center_coefficient` pulls the two scores of a pair towards opposite values.
    """

    pairwise: float = 1.0
    pointwise: float = 1.0
    ordinal: float = 1.0
    margin_coefficient: float = 0.0
    center_coefficient: float = 0.0


def people_held_out(items: Sequence[J], *, fraction: float, seed: int) -> tuple[list[J], list[J]]:
    """(train, validation) by question; everything trains when the fraction is 0.

    Where there are people's judgements only these are validated on, and synthetic ones of held-out
    questions go to neither part. Where all are synthetic they are validated on, which says how well the
    simulated rater was learnt.
    """
    if fraction <= 0 or not items:
        return list(items), []
    parts = split_by_group(
        list(items), fractions={"train": 1.0 - fraction, "validation": fraction}, seed=seed
    )
    if not parts["train"]:
        return list(items), []
    simulated = all(item.synthetic for item in items)
    return parts["train"], [one for one in parts["validation"] if simulated or not one.synthetic]


def pair_targets(pairs: Sequence[PreferencePair]) -> PairTargets:
    """Aligned lists and tensors of `pairs`, in order."""
    return PairTargets(
        prompts=[pair.prompt for pair in pairs],
        chosen=[pair.chosen for pair in pairs],
        rejected=[pair.rejected for pair in pairs],
        margins=torch.tensor([float(pair.margin) for pair in pairs]),
        weights=torch.tensor([float(pair.weight) for pair in pairs]),
    )


def rating_targets(ratings: Sequence[Rating], heads: Sequence[str]) -> RatingTargets:
    """Targets of the named `heads`, in the order of `ratings`.

    Aspects that no head is named after are counted in `unused`; where a rating has no others, their
    mean counts as its overall rating, so heads of any name can learn from any rating.

    Raises:
        DataError: no rating has a score and a weight above 0.
    """
    columns = (*(name for name in heads if name != OVERALL), OVERALL)
    values = torch.zeros(len(ratings), len(columns))
    weights = torch.zeros_like(values)
    overall, overall_weights = torch.zeros(len(ratings)), torch.zeros(len(ratings))
    unused: Counter[str] = Counter()
    for i, rating in enumerate(ratings):
        used = [name for name in columns[:-1] if name in rating.scores]
        # An overall rating beside aspects would count their mean twice, unless a head is named so.
        if OVERALL in rating.scores and (OVERALL in heads or not used):
            used.append(OVERALL)
        for name in used:
            values[i, columns.index(name)] = float(rating.scores[name])
            weights[i, columns.index(name)] = rating.weight
        if not used and rating.scores:
            values[i, -1] = sum(rating.scores.values()) / len(rating.scores)
            weights[i, -1] = rating.weight
        unused.update(name for name in rating.scores if name not in columns)
        if rating.scores:
            overall[i] = rating.overall
            overall_weights[i] = rating.weight
    if len(ratings) and not bool((weights > 0).any()):
        raise DataError(
            f"none of the {len(ratings)} ratings has a score with a weight above 0: give other ratings, "
            "or raise their weights"
        )
    return RatingTargets(
        prompts=[rating.prompt for rating in ratings],
        responses=[rating.response for rating in ratings],
        columns=columns,
        values=values,
        weights=weights,
        overall=overall,
        overall_weights=overall_weights,
        unused=unused,
    )


def loss_plan(
    heads: RewardHeads, *, pairs: int, ratings: int, settings: RewardLossSettings | None = None
) -> RewardLossSettings:
    """`settings` with every loss switched off that the data or the model can't feed.

    Raises:
        DataError: no loss is left, or the human head would stay untrained.
    """
    settings = settings or RewardLossSettings()
    plan = replace(
        settings,
        pairwise=settings.pairwise if pairs else 0.0,
        pointwise=settings.pointwise if ratings else 0.0,
        ordinal=settings.ordinal if ratings and heads.human is not None else 0.0,
    )
    if not (plan.pairwise or plan.pointwise or plan.ordinal):
        raise DataError(
            f"nothing to train the reward model on: {pairs} pairs and {ratings} ratings, and no loss "
            "with a weight above 0 uses them (reward.reward_pairwise_coef, reward.reward_pointwise_coef, "
            "reward.reward_ordinal_coef)"
        )
    if heads.human is not None and not plan.ordinal:
        why = "reward.reward_ordinal_coef=0 leaves" if ratings else "without ratings nothing trains"
        remedy = "raise the coefficient" if ratings else "give ratings"
        raise DataError(
            f"{why} the reward model's human-rating head: {remedy}, or build a model without the head "
            "(reward.use_human_logits=false; a saved reward model keeps its human head)"
        )
    return plan


def pair_loss(
    chosen: RewardOutput,
    rejected: RewardOutput,
    *,
    margins: Tensor,
    weights: Tensor,
    settings: RewardLossSettings,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted Bradley-Terry loss of B pairs, mean over E members.

    Args:
        chosen, rejected: totals (E, B).
        margins, weights: (B,).
    """
    members = chosen.totals.shape[0]
    loss, metrics = bradley_terry(
        chosen=chosen.totals,
        rejected=rejected.totals,
        margin=settings.margin_coefficient * margins.expand(members, -1),
        weights=weights.expand(members, -1),
        center_coefficient=settings.center_coefficient,
    )
    return settings.pairwise * loss, {f"pair_{name}": value for name, value in metrics.items()}


def rating_loss(
    output: RewardOutput,
    *,
    values: Tensor,
    weights: Tensor,
    overall: Tensor,
    overall_weights: Tensor,
    head_weights: Tensor,
    settings: RewardLossSettings,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Regression of heads on aspects plus ordinal loss of the human head, for B ratings.

    Args:
        values, weights: (B, K + 1) rows of `RatingTargets`; the last column is `overall`.
        overall, overall_weights: (B,).
        head_weights: (K,) weights that make the heads' mean (`RewardHeads.weights`).
    """
    members = output.totals.shape[0]
    predictions = rating_predictions(output, head_weights)
    total = predictions.new_zeros(())
    metrics: dict[str, Tensor] = {}
    if settings.pointwise:
        loss, found = pointwise_regression(
            predictions=predictions,
            targets=values.expand(members, -1, -1),
            weights=weights.expand(members, -1, -1),
        )
        total = total + settings.pointwise * loss
        metrics |= {"pointwise_loss": loss.detach()}
        metrics |= {f"rating_{name}": value for name, value in found.items()}
    if settings.ordinal and output.human_logits is not None:
        loss, found = ordinal_cross_entropy(
            output.human_logits,
            overall.expand(members, -1),
            overall_weights.expand(members, -1),
        )
        total = total + settings.ordinal * loss
        metrics |= {"ordinal_loss": loss.detach()}
        metrics |= {f"ordinal_{name}": value for name, value in found.items()}
    return total, metrics


def rating_predictions(output: RewardOutput, head_weights: Tensor) -> Tensor:
    """(E, B, K + 1): what the columns of `RatingTargets` are compared with.

    The last column is the head named `overall` where there is one, else the weighted mean of heads.
    """
    stacked = torch.stack([output.heads[name] for name in output.heads], dim=-1)
    if OVERALL in output.heads:
        own = output.heads[OVERALL]
        stacked = stacked[..., [i for i, name in enumerate(output.heads) if name != OVERALL]]
    else:
        own = (stacked * head_weights).sum(-1) / head_weights.sum()
    return torch.cat([stacked, own[..., None]], dim=-1)
