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

from modern_rlhf.data_loader.columns import group_of_prompt
from modern_rlhf.data_loader.splits import split_by_group
from modern_rlhf.errors import DataError
from modern_rlhf.losses.reward import bradley_terry, ordinal_cross_entropy, pointwise_regression
from modern_rlhf.records import OVERALL, PreferencePair, Rating
from modern_rlhf.reward_model.heads import RewardHeads, RewardOutput

J = TypeVar("J", PreferencePair, Rating)


@dataclass(frozen=True)
class PairTargets:
    """N pairs as aligned lists; `margins` are (N,), `weights` (N,) rater weights over their mean.

    So a batch of heavier raters counts more than one of lighter ones: divided by each batch's own sum, the
    weights of a batch of one would do nothing.
    """

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
        weights: (N, K + 1) rater weights, 0 where this aspect was not rated, over the mean of the rows'
            sums. The `overall` column has weight only where the source gave a single rating, or aspects
            of which none has a head; a head named `overall` learns it wherever it is.
        overall: (N,) the single rating, or the mean of the rated aspects: the human head's target.
        overall_weights: (N,) rater weights over their mean.
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


@dataclass(frozen=True)
class HoldOut:
    """Judgements to train on, and those of other questions to measure with."""

    train_pairs: list[PreferencePair]
    train_ratings: list[Rating]
    pairs: list[PreferencePair]
    ratings: list[Rating]


def hold_out(
    pairs: Sequence[PreferencePair], ratings: Sequence[Rating], *, fraction: float, seed: int
) -> HoldOut:
    """About `fraction` of the questions, with all their pairs and ratings; none when it is 0.

    A judgement without a question id belongs to the question whose text it shares. Where there are
    people's judgements only these are held out, and synthetic ones of the same questions, whatever their
    id, go to neither part; where all are synthetic they are held out, which says how well the simulated
    rater was learnt. A kind of judgements that would be held out altogether trains instead.
    """
    everything: list[PreferencePair | Rating] = [*pairs, *ratings]
    if fraction <= 0 or not everything:
        return HoldOut(list(pairs), list(ratings), [], [])
    ids: dict[str, str] = {}
    for item in everything:
        text = group_of_prompt(item.prompt)
        if item.group_id not in ("", text):
            ids.setdefault(text, item.group_id)

    def question(item: PreferencePair | Rating) -> str:
        text = group_of_prompt(item.prompt)
        return ids.get(text, text) if item.group_id in ("", text) else item.group_id

    shares = {"train": 1.0 - fraction, "validation": fraction}
    parts = split_by_group(everything, fractions=shares, seed=seed, group=question)
    held = {question(item) for item in parts["validation"]}
    for kind in (pairs, ratings):
        questions = {question(item) for item in kind}
        if questions <= held:
            held -= questions
    people = not all(item.synthetic for item in everything)
    texts = {group_of_prompt(item.prompt) for item in everything if question(item) in held}

    def split(items: Sequence[J]) -> tuple[list[J], list[J]]:
        train, apart = [], []
        for item in items:
            inside = question(item) in held
            if people and item.synthetic and (inside or group_of_prompt(item.prompt) in texts):
                continue
            (apart if inside else train).append(item)
        return train, apart

    train_pairs, held_pairs = split(pairs)
    train_ratings, held_ratings = split(ratings)
    return HoldOut(train_pairs, train_ratings, held_pairs, held_ratings)


def pair_targets(pairs: Sequence[PreferencePair]) -> PairTargets:
    """Aligned lists and tensors of `pairs`, in order.

    Raises:
        DataError: a margin or weight that is no number, or no weight above 0.
    """
    margins = torch.tensor([float(pair.margin) for pair in pairs])
    if not bool(torch.isfinite(margins).all()):
        raise DataError("a preference pair has a margin that is no finite number")
    return PairTargets(
        prompts=[pair.prompt for pair in pairs],
        chosen=[pair.chosen for pair in pairs],
        rejected=[pair.rejected for pair in pairs],
        margins=margins,
        weights=_over_mean(
            torch.tensor([float(pair.weight) for pair in pairs]), "preference pairs"
        ),
    )


def rating_targets(ratings: Sequence[Rating], heads: Sequence[str]) -> RatingTargets:
    """Targets of the named `heads`, in the order of `ratings`.

    Aspects that no head is named after are counted in `unused`; where a rating has no others, their
    mean counts as its overall rating, so heads of any name can learn from any rating.

    Raises:
        DataError: a score or weight that is no number, or no rating with a score and a weight above 0.
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
    if not bool(torch.isfinite(values).all() and torch.isfinite(overall).all()):
        raise DataError("a rating has a score that is no finite number")
    return RatingTargets(
        prompts=[rating.prompt for rating in ratings],
        responses=[rating.response for rating in ratings],
        columns=columns,
        values=values,
        weights=_over_mean(weights, "ratings"),
        overall=overall,
        overall_weights=_over_mean(overall_weights, "ratings"),
        unused=unused,
    )


def _over_mean(weights: Tensor, what: str) -> Tensor:
    """Weights (N,), or (N, K) whose rows add up, over the mean of the N weights."""
    if not len(weights):
        return weights
    if not bool(torch.isfinite(weights).all() and (weights >= 0).all()):
        raise DataError(f"the weights of {what} must be numbers of 0 or more")
    whole = weights.sum()
    if not whole > 0:
        raise DataError(
            f"none of the {len(weights)} {what} can teach anything (a score, and a weight above 0): give "
            "others, or raise their weights"
        )
    return weights * (len(weights) / whole)


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
    """Bradley-Terry loss of B pairs: weighted losses summed and divided by B, mean over E members.

    Args:
        chosen, rejected: totals (E, B).
        margins, weights: (B,) rows of `PairTargets`.
    """
    members = chosen.totals.shape[0]
    loss, metrics = bradley_terry(
        chosen=chosen.totals,
        rejected=rejected.totals,
        margin=settings.margin_coefficient * margins.expand(members, -1),
        weights=weights.expand(members, -1),
        center_coefficient=settings.center_coefficient,
    )
    loss = settings.pairwise * weights.mean() * loss
    return loss, {f"pair_{name}": value for name, value in metrics.items()}


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
        total = total + settings.pointwise * weights.sum(-1).mean() * loss
        metrics |= {"pointwise_loss": loss.detach()}
        metrics |= {f"rating_{name}": value for name, value in found.items()}
    if settings.ordinal and output.human_logits is not None:
        loss, found = ordinal_cross_entropy(
            output.human_logits,
            overall.expand(members, -1),
            overall_weights.expand(members, -1),
        )
        total = total + settings.ordinal * overall_weights.mean() * loss
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
