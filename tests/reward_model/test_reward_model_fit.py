"""What is held out, targets, and the weighted sum of losses. (Whether heads learn: the toys.)"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modern_rlhf.data_loader.columns import group_of_prompt
from modern_rlhf.data_loader.overlap import normalise
from modern_rlhf.errors import DataError, ModelError
from modern_rlhf.models.loading import Backbone
from modern_rlhf.records import ASPECTS, PreferencePair, Rating
from modern_rlhf.reward_model.cache import FeatureCache
from modern_rlhf.reward_model.fit import (
    RewardLossSettings,
    hold_out,
    loss_plan,
    pair_loss,
    pair_targets,
    rating_loss,
    rating_targets,
)
from modern_rlhf.reward_model.heads import RewardHeads
from modern_rlhf.reward_model.model import CustomRewardModel

FEATURES = 24


def heads(*names: str, seed: int = 0, **settings: object) -> RewardHeads:
    generator = torch.Generator().manual_seed(seed)
    options = {"width": 32, "dropout": 0.0, "generator": generator, **settings}
    return RewardHeads(FEATURES, names or ("preference",), **options)


def test_pair_targets_keep_order_margin_and_weight() -> None:
    pairs = [
        PreferencePair("p", "c", "r", margin=3.0, weight=0.5),
        PreferencePair("q", "d", "s"),
    ]
    found = pair_targets(pairs)
    assert (found.prompts, found.chosen, found.rejected) == (["p", "q"], ["c", "d"], ["r", "s"])
    # Weights .5 and 1 over their mean .75.
    assert found.margins.tolist() == [3.0, 0.0]
    assert found.weights.tolist() == pytest.approx([2 / 3, 4 / 3])
    assert len(found) == 2


def test_rating_targets_put_each_aspect_in_its_column() -> None:
    ratings = [
        Rating("p", "r", {"consistent": 2, "correct": -1, "useful": 0}, weight=0.5),
        Rating("q", "s", {"overall": 1.5}),
        Rating("q", "t", {"useful": -2, "style": 1}),
        Rating("q", "u", {"correct": 1, "overall": 2}),
    ]
    found = rating_targets(ratings, ASPECTS)
    assert found.columns == ("consistent", "correct", "useful", "overall")
    # The rows add up to 1.5, 1, 1 and 1: 1.125 in the mean.
    expected = [
        [0.5, 0.5, 0.5, 0],
        [0, 0, 0, 1],
        [0, 0, 1, 0],
        [0, 1, 0, 0],  # its overall would count the same opinion twice
    ]
    torch.testing.assert_close(found.weights * 1.125, torch.tensor(expected))
    assert found.values[0, :3].tolist() == [2, -1, 0]
    assert found.values[1, 3] == 1.5 and found.values[2, 2] == -2
    # The human head's target: the single rating, else the mean of what was rated.
    assert found.overall.tolist() == pytest.approx([1 / 3, 1.5, -0.5, 2.0])
    assert found.overall_weights.tolist() == pytest.approx([4 / 7, 8 / 7, 8 / 7, 8 / 7])
    assert dict(found.unused) == {"style": 1}


def test_aspects_without_a_head_count_by_their_mean_where_nothing_else_is_there() -> None:
    ratings = [
        Rating("p", "r", {"consistent": 2, "correct": -1, "useful": 0}, weight=0.5),
        Rating("p", "s", {"useful": 2, "syntax": 1}),
    ]
    found = rating_targets(ratings, ("syntax", "semantics", "preference"))
    torch.testing.assert_close(  # .5 and 1 over their mean
        found.weights, torch.tensor([[0, 0, 0, 2 / 3], [4 / 3, 0, 0, 0]])
    )
    assert found.values[0, 3] == pytest.approx(1 / 3) and found.values[1, 0] == 1
    assert dict(found.unused) == {"consistent": 1, "correct": 1, "useful": 2}


def test_ratings_without_a_score_are_refused() -> None:
    for rating in (Rating("p", "r", {}), Rating("p", "r", {"correct": 1}, weight=0.0)):
        with pytest.raises(DataError, match="none of the 1 ratings"):
            rating_targets([rating], ASPECTS)


def test_the_data_decides_which_losses_apply() -> None:
    plain, human = heads(), heads(human_logits="last")
    only_pairs = loss_plan(plain, pairs=3, ratings=0)
    assert (only_pairs.pairwise, only_pairs.pointwise, only_pairs.ordinal) == (1.0, 0.0, 0.0)
    both = loss_plan(human, pairs=3, ratings=3, settings=RewardLossSettings(pairwise=0.5))
    assert (both.pairwise, both.pointwise, both.ordinal) == (0.5, 1.0, 1.0)
    with pytest.raises(DataError, match="nothing to train"):
        loss_plan(plain, pairs=0, ratings=0)
    with pytest.raises(DataError, match="use_human_logits"):
        loss_plan(human, pairs=3, ratings=0)


def test_pair_loss_is_the_mean_of_the_members_losses() -> None:
    model = heads(ensemble=3)
    chosen, rejected = torch.randn(4, FEATURES), torch.randn(4, FEATURES)
    margins, weights = torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 0.5, 2.0])
    settings = RewardLossSettings(pairwise=0.7, margin_coefficient=0.5, center_coefficient=0.1)
    a, b = model(chosen), model(rejected)
    loss, metrics = pair_loss(a, b, margins=margins, weights=weights, settings=settings)
    expected = 0.0
    for e in range(3):
        for i in range(4):
            x, y = a.totals[e, i].item(), b.totals[e, i].item()
            gap = x - y - 0.5 * float(margins[i])
            one = math.log1p(math.exp(-gap)) + 0.1 * (x + y) ** 2
            expected += float(weights[i]) * one / (3 * 4)
    assert float(loss) == pytest.approx(0.7 * expected, rel=1e-5)
    assert "pair_accuracy" in metrics


@pytest.mark.parametrize("kind", ["pairs", "ratings"])
def test_a_raters_weight_counts_the_same_however_small_the_batches(kind: str) -> None:
    """Gradients of batches of one add up to the whole batch's: nobody's weight is divided away."""
    model = heads("correct", human_logits="last")
    features, others = torch.randn(3, FEATURES), torch.randn(3, FEATURES)
    weights = [1.0, 0.1, 0.4]
    pairs = pair_targets([PreferencePair("p", "c", "r", weight=w) for w in weights])
    ratings = rating_targets(
        [Rating("p", "r", {"correct": 1.0, "overall": 1.0}, weight=w) for w in weights], ["correct"]
    )

    def gradient(rows: list[int]) -> torch.Tensor:
        output = model(features[rows])
        if kind == "pairs":
            loss, _ = pair_loss(
                output,
                model(others[rows]),
                margins=pairs.margins[rows],
                weights=pairs.weights[rows],
                settings=RewardLossSettings(),
            )
        else:
            loss, _ = rating_loss(
                output,
                values=ratings.values[rows],
                weights=ratings.weights[rows],
                overall=ratings.overall[rows],
                overall_weights=ratings.overall_weights[rows],
                head_weights=model.weights,
                settings=RewardLossSettings(),
            )
        model.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    apart = sum(gradient([row]) for row in range(3)) / 3
    torch.testing.assert_close(apart, gradient([0, 1, 2]))


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan])
def test_weights_that_teach_nothing_are_refused(weight: float) -> None:
    with pytest.raises(DataError, match="weight"):
        pair_targets([PreferencePair("p", "c", "r", weight=weight)])
    with pytest.raises(DataError, match="weight"):
        rating_targets([Rating("p", "r", {"correct": 1}, weight=weight)], ASPECTS)


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(DataError, match="margin"):
        pair_targets([PreferencePair("p", "c", "r", margin=math.inf)])
    with pytest.raises(DataError, match="score"):
        rating_targets([Rating("p", "r", {"correct": math.nan})], ASPECTS)
    with pytest.raises(ModelError, match="2 of 3 training texts"):
        heads().set_feature_statistics(torch.tensor([[0.0], [math.nan], [math.inf]]).repeat(1, 24))


def rated(question: str, prompt: str, *, synthetic: bool = False) -> Rating:
    return Rating(prompt, "r", {"overall": 1.0}, group_id=question, synthetic=synthetic)


def test_pairs_and_ratings_of_a_question_are_held_out_together_whatever_tells_it() -> None:
    """Forms have question ids; a file of pairs may have the text alone."""
    ratings = [rated(str(n), f"Question {n}?") for n in range(40)]
    pairs = [PreferencePair(f"question {n}", "c", "r") for n in range(40)]
    for group in ("", None):
        given = [
            replace(p, group_id=group_of_prompt(p.prompt)) if group is None else p for p in pairs
        ]
        found = hold_out(given, ratings, fraction=0.2, seed=0)
        held = {normalise(r.prompt) for r in found.ratings}
        assert held == {normalise(p.prompt) for p in found.pairs} and 2 <= len(held) <= 20
        assert len(found.train_pairs) == len(found.train_ratings) == 40 - len(held)


def test_ids_tell_questions_apart_though_their_texts_are_alike() -> None:
    """Answers graded without their question: one text for all, an id for each."""
    found = hold_out([], [rated(str(n), "") for n in range(40)], fraction=0.2, seed=0)
    assert 2 <= len(found.ratings) <= 20 and len(found.train_ratings) == 40 - len(found.ratings)


def test_synthetic_ratings_of_held_out_questions_go_nowhere_though_numbered_otherwise() -> None:
    people = [rated(str(n), f"question {n}") for n in range(40)]
    made = [rated(f"task-{n}", f"Question {n}?", synthetic=True) for n in range(40)]
    found = hold_out([], [*people, *made], fraction=0.2, seed=0)
    held = {normalise(r.prompt) for r in found.ratings}
    assert held and not any(r.synthetic for r in found.ratings)
    assert not held & {normalise(r.prompt) for r in found.train_ratings}
    assert any(r.synthetic for r in found.train_ratings)


def test_people_who_only_rate_are_measured_against_though_all_pairs_are_synthetic() -> None:
    pairs = [PreferencePair(f"q{n}", "c", "r", group_id=str(n), synthetic=True) for n in range(40)]
    found = hold_out(pairs, [rated(str(n), f"q{n}") for n in range(40)], fraction=0.2, seed=0)
    assert found.pairs == [] and found.ratings
    assert len(found.train_pairs) == 40 - len(found.ratings)
    assert hold_out(pairs, [], fraction=0.2, seed=0).pairs  # with nobody else, as good as possible


@pytest.mark.parametrize("seed", range(3))
def test_a_kind_of_judgements_is_never_held_out_altogether(seed: int) -> None:
    pairs = [PreferencePair("q0", "c", f"r{n}", group_id="0") for n in range(3)]
    ratings = [rated(str(n), f"q{n}") for n in range(10)]
    found = hold_out(pairs, ratings, fraction=0.5, seed=seed)
    assert found.train_pairs == pairs and found.pairs == []
    assert "0" not in {r.group_id for r in found.ratings}
    assert hold_out(pairs, [], fraction=0.5, seed=seed).train_pairs == pairs


def test_rating_loss_is_regression_plus_ordinal_by_hand() -> None:
    model = heads("correct", "useful", human_logits="last")
    features = torch.randn(2, FEATURES)
    ratings = [
        Rating("p", "r", {"correct": 2.0, "useful": -1.0}, weight=2.0),
        Rating("p", "s", {"overall": -0.5}),
    ]
    targets = rating_targets(ratings, ("correct", "useful"))
    output = model(features)
    loss, metrics = rating_loss(
        output,
        values=targets.values,
        weights=targets.weights,
        overall=targets.overall,
        overall_weights=targets.overall_weights,
        head_weights=model.weights,
        settings=RewardLossSettings(pointwise=0.5, ordinal=2.0),
    )
    correct, useful = output.heads["correct"][0], output.heads["useful"][0]
    mean = float(correct[1] + useful[1]) / 2  # an overall rating is a target of the heads' mean
    pointwise = (
        2.0 * (float(correct[0]) - 2.0) ** 2
        + 2.0 * (float(useful[0]) + 1.0) ** 2
        + (mean + 0.5) ** 2
    ) / 5.0
    assert output.human_logits is not None
    # Overall: the mean 0.5 is above the two lower thresholds, half above the third; -0.5 above the first.
    goals = torch.tensor([[1.0, 1.0, 0.5, 0.0], [1.0, 0.5, 0.0, 0.0]])
    shares = output.human_logits[0].softmax(-1)
    yes = shares.flip(-1).cumsum(-1).flip(-1)[:, 1:]
    costs = torch.nn.functional.binary_cross_entropy(yes, goals, reduction="none").sum(-1)
    ordinal = float(2.0 * costs[0] + costs[1]) / 3.0
    assert float(loss) == pytest.approx(0.5 * pointwise + 2.0 * ordinal, rel=1e-5)
    assert set(metrics) >= {"pointwise_loss", "ordinal_loss", "rating_absolute_error"}


def test_losses_from_cached_features_equal_losses_from_the_backbone(
    tmp_path: Path, make_backbone: Callable[..., Backbone]
) -> None:
    model = CustomRewardModel(make_backbone("decoder"), dropout=0.0)
    cache = FeatureCache(tmp_path, model)
    pairs = [PreferencePair(f"task {i}", f"good {i}", f"bad {i * 7}") for i in range(6)]
    targets = pair_targets(pairs)
    options = {
        "margins": targets.margins,
        "weights": targets.weights,
        "settings": RewardLossSettings(),
    }
    cached, _ = pair_loss(
        model.heads(cache.get(targets.prompts, targets.chosen)),
        model.heads(cache.get(targets.prompts, targets.rejected)),
        **options,
    )
    direct, _ = pair_loss(
        model(model.encode_pairs(targets.prompts, targets.chosen)),
        model(model.encode_pairs(targets.prompts, targets.rejected)),
        **options,
    )
    torch.testing.assert_close(cached, direct, atol=1e-5, rtol=0)
