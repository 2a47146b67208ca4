"""The evaluation report: numbers by hand, intervals, baselines, calibration, worst mistakes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from modern_rlhf.errors import DataError, ModelError
from modern_rlhf.metrics.correlate import correlate
from modern_rlhf.records import PreferencePair, Rating
from modern_rlhf.reward_model.baselines import longer, parses, question_overlap
from modern_rlhf.reward_model.evaluator import (
    RewardModelEvaluator,
    evaluate_scores,
    report_line,
)
from modern_rlhf.reward_model.statistics import (
    accuracy,
    accuracy_difference,
    calibration,
    correlation,
    cross_fitted_probabilities,
    fit_temperature,
    outcomes,
)


class LengthModel:
    """Scores a response by its length: a model whose report is known in advance."""

    def predict(self, prompts: Sequence[str], responses: Sequence[str], *, batch_size: int) -> Any:
        scores = [len(text) / 10 for text in responses]
        return SimpleNamespace(scores=scores, heads={"correct": scores, "human": scores})


PAIRS = [
    PreferencePair("print a list", "print(a)" * 3, "x", margin=4.0, group_id="1"),
    PreferencePair("print a list", "print(a)", "print(b)", margin=1.0, group_id="1"),
    PreferencePair("open a file", "no", "open(a)", margin=2.0, group_id="2", rater="r7"),
    PreferencePair("open a file", "open(a, b)", "open(", margin=3.0, group_id="3"),
]


def test_report_by_hand() -> None:
    report = RewardModelEvaluator(LengthModel()).evaluate(PAIRS)
    # Longer is chosen, a tie, shorter is chosen, longer is chosen: 1 + .5 + 0 + 1 of 4.
    assert report["accuracy"]["value"] == pytest.approx(2.5 / 4)
    assert (report["accuracy"]["n"], report["accuracy"]["groups"]) == (4, 3)
    assert report["accuracy"]["low"] <= 0.625 <= report["accuracy"]["high"]
    assert report["scores_chosen"] == pytest.approx([2.4, 0.8, 0.2, 1.0])
    assert report["scores_rejected"] == pytest.approx([0.1, 0.8, 0.7, 0.5])
    # The model is the baseline `longer_wins`: no gain. `x`, `no`, `open(a)` parse; `open(` does not.
    assert report["baselines"]["longer_wins"]["value"] == pytest.approx(0.625)
    assert report["baselines"]["longer_wins"]["gain"]["difference"] == 0.0
    assert report["baselines"]["parses_wins"]["value"] == pytest.approx((0 + 0.5 + 0.5 + 1) / 4)
    assert report["baselines"]["shorter_wins"]["value"] == pytest.approx(1 - 0.625)
    assert set(report["baselines"]) == {
        "longer_wins",
        "shorter_wins",
        "parses_wins",
        "question_overlap",
    }
    (worst,) = report["worst_mistakes"]
    assert worst["rater"] == "r7" and worst["gap"] == pytest.approx(-0.5)
    assert worst["chosen"] == "no"


def test_length_bias_of_a_length_model_is_total() -> None:
    bias = RewardModelEvaluator(LengthModel()).evaluate(PAIRS)["length_bias"]
    assert bias["correlation"]["pearson"] == pytest.approx(1.0)
    assert bias["longer_is_preferred_by_model"] == 1.0
    # Of the three pairs of unequal length the longer answer was chosen in two.
    assert bias["longer_is_preferred_by_judges"] == pytest.approx(2 / 3)
    # Only the second pair's lengths are within a tenth of each other; the model ties there.
    assert bias["length_matched_accuracy"]["n"] == 1
    assert bias["length_matched_accuracy"]["value"] == 0.5


def test_accuracy_by_margin_covers_every_pair_once() -> None:
    rows = RewardModelEvaluator(LengthModel()).evaluate(PAIRS)["accuracy_by_margin"]
    assert [(row["margin_low"], row["n"], row["value"]) for row in rows] == [
        (1.0, 1, 0.5),
        (2.0, 1, 0.0),
        (3.0, 1, 1.0),
        (4.0, 1, 1.0),
    ]
    flat = [PreferencePair("p", "aa", "b") for _ in range(3)]
    (row,) = RewardModelEvaluator(LengthModel()).evaluate(flat)["accuracy_by_margin"]
    assert (row["n"], row["margin_low"], row["margin_high"]) == (3, 0.0, 0.0)


def test_ratings_are_compared_with_the_head_of_their_aspect() -> None:
    ratings = [
        Rating("p", "a" * 10 * (i + 1), {"correct": value, "useful": -value})
        for i, value in enumerate([-2.0, -1.0, 1.0, 2.0])
    ]
    found = RewardModelEvaluator(LengthModel()).evaluate(ratings=ratings)
    # Scores 1 2 3 4 against -2 -1 1 2: covariance 7 over sqrt(5 * 10).
    assert found["rating_correlation"]["correct"]["pearson"] == pytest.approx(7 / math.sqrt(50))
    assert found["rating_correlation"]["correct"]["spearman"] == pytest.approx(1.0)
    assert found["rating_correlation"]["score"]["reason"] == "one of the two never varies"
    # All rate answers to one question, which says nothing about others: no bounds.
    assert found["rating_correlation"]["correct"]["low"] is None
    assert found["accuracy"]["value"] is None and found["calibration"]["count"] == []


def test_the_report_in_one_line() -> None:
    ratings = [
        Rating("p", "a" * n, {"overall": v}) for n, v in ((1, -1.0), (2, 0.0), (3, 2.0), (9, 1.0))
    ]
    line = report_line(RewardModelEvaluator(LengthModel()).evaluate(PAIRS, ratings))
    assert re.fullmatch(
        r"accuracy 0\.62 \[\d\.\d\d, \d\.\d\d\] on 4 held-out pairs, the best baseline "
        r"\(longer_wins\) 0\.62; Pearson 0\.47 with 4 held-out ratings",
        line,
    ), line
    alone = report_line(RewardModelEvaluator(LengthModel()).evaluate(ratings=ratings[:2]))
    assert alone == "no correlation with 2 ratings (fewer than 4 values)"


def test_the_report_is_json() -> None:
    ratings = [Rating("p", "a", {"overall": 1.0})]
    report = RewardModelEvaluator(LengthModel()).evaluate(PAIRS, ratings)
    stored = json.loads(json.dumps(report))
    assert stored["accuracy"]["n"] == 4
    assert set(stored["calibration"]) == {"probability", "accuracy", "count"}


def test_the_report_says_who_judged() -> None:
    ratings = [Rating("p", "a", {"overall": 1.0}), Rating("p", "b", {"overall": 1.0})]
    made = [replace(one, synthetic=True) for one in ratings]
    pairs = [replace(pair, synthetic=True) for pair in PAIRS]
    evaluate = RewardModelEvaluator(LengthModel()).evaluate
    assert evaluate(PAIRS, made)["judges"] == {"pairs": "people", "ratings": "simulated"}
    assert evaluate(pairs)["judges"] == {"pairs": "simulated", "ratings": None}
    mixed = evaluate(ratings=[ratings[0], made[1]])["judges"]
    assert mixed == {"pairs": None, "ratings": "people and simulated"}


def test_bounds_of_correlations_resample_questions() -> None:
    draw = np.random.default_rng(4)
    values = draw.normal(size=(12, 2))
    ratings = [
        Rating(f"q{i}", "a" * round(100 * (3 + x)), {"overall": y}, group_id=str(i))
        for i, (x, y) in enumerate(values.tolist())
        for _ in range(10)
    ]
    found = RewardModelEvaluator(LengthModel()).evaluate(ratings=ratings)["rating_correlation"]
    scores = [len(r.response) / 10 for r in ratings]
    groups = [r.group_id for r in ratings]
    same = correlate({"m": scores}, [r.overall for r in ratings], groups=groups)["m"].pearson
    ours = found["score"]
    assert (ours["pearson"], ours["n"], ours["groups"]) == (pytest.approx(same.value), 120, 12)
    assert (ours["low"], ours["high"]) == (pytest.approx(same.low), pytest.approx(same.high))
    assert ours["high"] - ours["low"] > 0.6  # ten times as many rows tell no more
    assert found["human"] == ours


def test_rows_are_read_as_the_trainer_reads_them() -> None:
    rows = [
        {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in PAIRS
    ]
    rated = [{"prompt": "p", "response": "a" * n, "rating": n} for n in range(1, 6)]
    found = RewardModelEvaluator(LengthModel()).evaluate(rows, rated)
    assert found["accuracy"]["value"] == pytest.approx(2.5 / 4)
    assert found["rating_correlation"]["score"]["pearson"] == pytest.approx(1.0)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_no_ties(score: float) -> None:
    with pytest.raises(ModelError, match="1 of 8 scores"):
        evaluate_scores(PAIRS, [1.0, score, 1.0, 1.0], [0.0] * 4)


def test_nothing_to_evaluate_on_is_an_error() -> None:
    with pytest.raises(DataError, match="neither"):
        RewardModelEvaluator(LengthModel()).evaluate()
    with pytest.raises(DataError, match="every pair"):
        evaluate_scores(PAIRS, [1.0], [0.0])


def test_outcomes_count_ties_half() -> None:
    assert outcomes([1, 2, 3], [0, 2, 4]).tolist() == [1.0, 0.5, 0.0]


def test_interval_widens_when_pairs_share_a_question() -> None:
    draw = np.random.default_rng(0)
    by_question = np.repeat((draw.random(40) < 0.7).astype(float), 10)
    apart = accuracy(by_question, [str(i) for i in range(400)])
    together = accuracy(by_question, [str(i // 10) for i in range(400)])
    assert apart["value"] == together["value"]
    # Ten equal pairs a question hold the information of one: sqrt(10) = 3.2 times the width.
    assert together["high"] - together["low"] > 2.5 * (apart["high"] - apart["low"])


def test_interval_of_a_perfect_score_is_not_a_point() -> None:
    found = accuracy(np.ones(5), list("abcde"))
    # Clopper-Pearson: 0.025 ** (1 / 5).
    assert found["low"] == pytest.approx(0.025**0.2) and found["high"] == 1.0


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        found = accuracy(
            (draw.random(80) < 0.65).astype(float), [str(i) for i in range(80)], samples=400
        )
        hits += found["low"] <= 0.65 <= found["high"]
    assert 88 <= hits <= 100  # binomial(100, .95) is below 88 with probability 0.004


def test_gain_over_a_baseline_is_paired() -> None:
    draw = np.random.default_rng(2)
    theirs = (draw.random(300) < 0.5).astype(float)
    ours = theirs.copy()
    ours[:30] = 1.0
    found = accuracy_difference(ours, theirs, [str(i) for i in range(300)])
    assert found["difference"] == pytest.approx((30 - theirs[:30].sum()) / 300)
    assert found["low"] > 0 and found["p_value"] < 0.01


def test_temperature_is_the_scale_that_was_put_in() -> None:
    draw = np.random.default_rng(3)
    logits = draw.normal(0, 2, 20_000)
    right = draw.random(20_000) < 1 / (1 + np.exp(-logits))
    gaps = np.where(right, logits, -logits)  # chosen minus rejected
    assert fit_temperature((5.0 * gaps).tolist()) == pytest.approx(5.0, rel=0.05)


def test_calibration_error_by_hand() -> None:
    # Confidences .9 .9 .9 .8: bin of .9 right 2 of 3, bin of .8 wrong (chosen given .2).
    table, error = calibration(np.array([0.9, 0.9, 0.1, 0.2]))
    assert table["count"] == [1, 3]
    assert table["probability"] == pytest.approx([0.8, 0.9])
    assert table["accuracy"] == pytest.approx([0.0, 2 / 3])
    assert error == pytest.approx(0.25 * 0.8 + 0.75 * (0.9 - 2 / 3))


def test_cross_fitting_never_uses_a_pairs_own_group() -> None:
    gaps = [1.0, -1.0, 1.0, 1.0, 2.0, -3.0]
    groups = ["a", "b", "a", "b", "c", "c"]
    before = cross_fitted_probabilities(gaps, groups)
    changed = cross_fitted_probabilities([9.0, *gaps[1:]], groups)
    # Groups a and c are one half, b the other: a's gap moves only the temperature of b.
    assert changed[1] != before[1] and changed[2] == before[2] and changed[4] == before[4]


def test_few_mistakes_get_the_exact_binomial_interval() -> None:
    # Clopper and Pearson's 29 of 30, as in a table of binomial bounds.
    found = accuracy(np.array([1.0] * 29 + [0.0]), [str(i) for i in range(30)])
    assert (found["low"], found["high"]) == (
        pytest.approx(0.828, abs=1e-3),
        pytest.approx(0.9992, abs=1e-4),
    )


def test_correlation_says_why_it_is_missing() -> None:
    assert correlation([1, 2], [1, 2], "ab")["reason"] == "fewer than 4 values"
    found = correlation([1, 2, 3, 4.5], [2, 1, 4, 3], "abcd")
    assert found["pearson"] == pytest.approx(float(np.corrcoef([1, 2, 3, 4.5], [2, 1, 4, 3])[0, 1]))
    assert found["low"] < found["pearson"] < found["high"]


def test_baselines_by_hand() -> None:
    assert longer(["p"], ["abc"]) == [3.0]
    assert parses(["p"] * 3, ["x = 1", "x = = 1", ""]) == [1.0, 0.0, 0.0]
    # Content words of the question: sort, list, python; the answer holds two of them.
    found = question_overlap(["How do I sort a list in Python"], ["list.sort()"])
    assert found == pytest.approx([2 / 3])
