"""Agreement with human grades."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from modern_rlhf.errors import MetricError
from modern_rlhf.metrics.correlate import correlate, measures


def naive_pairwise_accuracy(scores: list[float], human: list[float]) -> float:
    total = right = 0.0
    for (s1, h1), (s2, h2) in itertools.combinations(zip(scores, human, strict=True), 2):
        if h1 != h2:
            total += 1
            right += 0.5 if s1 == s2 else float((s1 < s2) == (h1 < h2))
    return right / total


@pytest.mark.parametrize("seed", range(5))
def test_pairwise_accuracy_equals_visiting_all_pairs(seed: int) -> None:
    draw = np.random.default_rng(seed)
    scores, human = draw.integers(0, 6, 40).tolist(), draw.integers(0, 4, 40).tolist()
    found = measures(np.array(scores, dtype=float), np.array(human, dtype=float))
    assert found["pairwise_accuracy"] == pytest.approx(naive_pairwise_accuracy(scores, human))


def test_values_by_hand() -> None:
    found = measures(np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0]))
    # Centred (-4, -1, 5)/3 and (-1, 1, 0): 1 / (sqrt(42) / 3 * sqrt(2)).
    assert found["pearson"] == pytest.approx(1 / (np.sqrt(42) / 3 * np.sqrt(2)))
    assert found["spearman"] == pytest.approx(0.5)
    # Two of three pairs agree.
    assert found["kendall"] == pytest.approx(1 / 3)
    assert found["pairwise_accuracy"] == pytest.approx(2 / 3)


def test_perfect_agreement_and_its_reverse() -> None:
    human = [float(i) for i in range(20)]
    columns = {"same": human, "reverse": [-x for x in human]}
    found = correlate(columns, human, samples=50)
    assert found["same"].kendall.value == pytest.approx(1.0)
    assert found["same"].pairwise_accuracy.low == pytest.approx(1.0)
    assert found["reverse"].spearman.high == pytest.approx(-1.0)
    assert found["reverse"].pairwise_accuracy.value == pytest.approx(0.0, abs=1e-12)


def test_missing_scores_and_grades_are_left_out() -> None:
    found = correlate({"m": [1.0, None, 3.0, 4.0, 9.0]}, [1, 2, 3, 4, None], samples=0)["m"]
    assert (found.n, found.pearson.low) == (3, None)
    assert found.pearson.value == pytest.approx(
        measures(np.array([1.0, 3, 4]), np.array([1.0, 3, 4]))["pearson"]
    )


@pytest.mark.parametrize(
    ("scores", "human", "reason"),
    [
        ([1.0, 1.0, 1.0], [1, 2, 3], "all scores are equal"),
        ([1.0, 2.0, 3.0], [2, 2, 2], "all grades are equal"),
        ([1.0, None, 3.0], [1, 2, 3], "only 2 answers"),
    ],
)
def test_what_cannot_be_measured_has_a_reason(
    scores: list[float | None], human: list[float], reason: str
) -> None:
    found = correlate({"m": scores}, human)["m"]
    assert found.pearson.value is None
    assert reason in str(found.reason)


def test_groups_widen_the_interval_when_answers_stand_together() -> None:
    draw = np.random.default_rng(0)
    shared = np.repeat(draw.normal(size=12), 10)
    scores = (shared + 0.1 * draw.normal(size=120)).tolist()
    human = (np.repeat(draw.normal(size=12), 10) + shared).tolist()
    groups = [i // 10 for i in range(120)]
    alone = correlate({"m": scores}, human, samples=300)["m"].pearson
    together = correlate({"m": scores}, human, groups=groups, samples=300)["m"].pearson
    assert together.value == alone.value
    assert None not in (alone.low, alone.high, together.low, together.high)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)  # type: ignore[operator]


def test_answers_to_one_question_have_no_interval() -> None:
    found = correlate({"m": [1.0, 2, 3, 4]}, [1, 3, 2, 4], groups=["q"] * 4, samples=20)["m"]
    # Resampling one question gives the same answers again: no width would be a false certainty.
    assert found.pearson.value is not None and found.pearson.low is None


def test_the_pearson_interval_is_that_of_resampled_rows() -> None:
    draw = np.random.default_rng(1)
    scores = draw.normal(size=60)
    human = scores + draw.normal(size=60)
    groups = [i // 3 for i in range(60)]
    found = correlate({"m": scores.tolist()}, human.tolist(), groups=groups, samples=2000)["m"]
    naive = []
    for _ in range(2000):
        chosen = draw.integers(0, 20, 20)
        rows = np.concatenate([np.arange(3 * one, 3 * one + 3) for one in chosen])
        naive.append(np.corrcoef(scores[rows], human[rows])[0, 1])
    low, high = np.percentile(naive, [2.5, 97.5])
    # Two estimates from 2,000 draws each; the spread of such a bound is below 0.01.
    assert found.pearson.low == pytest.approx(low, abs=0.03)
    assert found.pearson.high == pytest.approx(high, abs=0.03)


def test_lengths_must_agree() -> None:
    with pytest.raises(MetricError, match="m has 1 entries"):
        correlate({"m": [1.0]}, [1, 2])


def test_known_agreement_of_stored_columns(graded_rows: list[dict[str, Any]]) -> None:
    # Known on the full set of 2,360; half of it is here, hence the tolerance.
    known = {
        "chrf": (0.592, 0.578, 0.761),
        "rougel": (0.581, 0.552, 0.755),
        "bleu": (0.572, 0.542, 0.751),
        "meteor": (0.557, 0.534, 0.733),
        "ruby": (0.493, 0.439, 0.688),
    }
    columns = {name: [row[name] for row in graded_rows] for name in known}
    human = [row["human"] for row in graded_rows]
    found = correlate(columns, human, samples=0)
    for name, (pearson, spearman, accuracy) in known.items():
        assert found[name].pearson.value == pytest.approx(pearson, abs=0.03)
        assert found[name].spearman.value == pytest.approx(spearman, abs=0.03)
        assert found[name].pairwise_accuracy.value == pytest.approx(accuracy, abs=0.01)
    interval = correlate({"chrf": columns["chrf"]}, human, samples=60)["chrf"].pearson
    assert interval.low is not None and interval.high is not None
    assert interval.low < 0.5748 < interval.high
