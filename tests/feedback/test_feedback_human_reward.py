"""The reward that is a person's own rating, looked up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modern_rlhf.feedback.store import FeedbackSet
from modern_rlhf.records import Prompt, Rating
from modern_rlhf.rewards.base import RewardBatch
from modern_rlhf.rewards.human import HumanRatingReward
from modern_rlhf.utils.load_report import LoadReport


def reward(*ratings: Rating) -> HumanRatingReward:
    return HumanRatingReward(FeedbackSet(list(ratings), [], [], LoadReport("x", "x", 0, 0)))


def score(of: HumanRatingReward, prompt: str, response: str):
    return of.score(RewardBatch([Prompt(prompt)], [response])).total[0]


RATING = Rating("sort `x`", "x.sort()", {"consistent": 2.0, "correct": 1.0, "useful": 0.0})


@pytest.mark.parametrize(("value", "expected"), [(-2.0, 0.0), (0.0, 0.5), (2.0, 1.0)])
def test_the_scale_runs_from_zero_to_one(value, expected):
    of = reward(replace(RATING, scores={"overall": value}))
    assert score(of, "sort `x`", "x.sort()") == expected


def test_aspects_are_averaged_then_ratings_by_weight():
    # aspects: (2 + 1 + 0) / 3 = 1 -> 3/4; the other rater: -2 -> 0 with three times the weight.
    other = replace(RATING, scores={"overall": -2.0}, weight=3.0, rater="b")
    assert score(reward(RATING), "sort `x`", "x.sort()") == 0.75
    assert score(reward(RATING, other), "sort `x`", "x.sort()") == pytest.approx(0.75 / 4)
    ignored = replace(other, weight=0.0)
    assert score(reward(RATING, ignored), "sort `x`", "x.sort()") == 0.75


def test_an_overall_rating_counts_alone():
    # Not mixed with the aspects it sums up: 2 -> 1.
    both = replace(RATING, scores={"correct": -2.0, "overall": 2.0})
    assert score(reward(both), "sort `x`", "x.sort()") == 1.0


def test_prompts_match_when_normalised_and_responses_line_by_line():
    of = reward(replace(RATING, response="if a:\n    b"))
    assert score(of, '"""Sort  `x`."""', "if a:  \n    b\n") == 0.75
    assert score(of, "sort `x`", "if a:\nb") is None  # indentation is meaning
    assert score(of, "sort `x`", "IF A:\n    b") is None
    assert score(of, "sort `y`", "if a:\n    b") is None


def test_the_result_is_named_counted_and_aligned():
    of = reward(RATING, RATING)
    scores = of.score(RewardBatch([Prompt("sort `x`")] * 2, ["nobody rated this", "x.sort()"]))
    assert scores.total == [None, 0.75] == scores.components["human"]
    assert scores.details["human_ratings"] == [0, 2]
    of.close()
    of.close()
