"""Bootstrap intervals and paired comparisons."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from modern_rlhf.errors import MetricError
from modern_rlhf.metrics.bleu import bleu_of_sums, corpus_bleu
from modern_rlhf.metrics.ngrams import item_statistics
from modern_rlhf.metrics.stats import (
    SWAPS,
    bootstrap_interval,
    bootstrap_statistic,
    paired_bootstrap,
    paired_bootstrap_statistic,
    proportion_interval,
)


def test_interval_of_a_mean_is_near_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(2.0, 3.0, size=900)
    interval = bootstrap_interval(values.tolist(), samples=4000, seed=1)
    # Standard error of the mean 3 / sqrt(900) = 0.1 (sample value used), times 1.96.
    error = values.std(ddof=1) / 30
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.015)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.015)


def test_same_seed_same_interval_and_other_seed_another() -> None:
    values = [0.0, 1.0, 1.0, 0.5, 0.25, None]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3).n == 5
    wide = [float(v) for v in np.random.default_rng(0).normal(size=50)]
    assert bootstrap_interval(wide, seed=3) != bootstrap_interval(wide, seed=4)


def test_degenerate_samples() -> None:
    nothing = bootstrap_interval([None, None])
    assert (nothing.value, nothing.low, nothing.n) == (None, None, 0)
    alone = bootstrap_interval([0.4])  # one item says nothing about the spread
    assert (alone.value, alone.low, alone.high, alone.n) == (0.4, None, None, 1)
    assert bootstrap_interval([1.0, 1.0, 1.0]).low == 1.0
    without = bootstrap_interval([0.0, 1.0], samples=0)
    assert (without.value, without.low, without.high) == (0.5, None, None)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_refused(bad: float) -> None:
    with pytest.raises(MetricError, match="NaN or infinite"):
        bootstrap_interval([1.0, bad])


def test_covers_the_true_mean_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(5)
    hits = 0
    for trial in range(200):
        interval = bootstrap_interval(draw.normal(size=60).tolist(), samples=300, seed=trial)
        assert interval.low is not None and interval.high is not None
        hits += interval.low <= 0.0 <= interval.high
    # 95% of 200 is 190; the percentile method at n = 60 falls a little short; 4 sd = 12.
    assert 176 <= hits <= 199


def test_corpus_bootstrap_resamples_the_corpus_formula() -> None:
    # Slow and plain: draw the same rows by index, rebuild the corpus, apply corpus BLEU.
    texts = ["a b c d e", "a b c d", "b c d e f g", "a a b c d d"]
    hypotheses = [text.split() for text in texts]
    references = [[["a", "b", "c", "d", "e", "f"]] for _ in texts]
    rows = [item_statistics(h, r) for h, r in zip(hypotheses, references, strict=True)]
    interval = bootstrap_statistic(np.array(rows, dtype=float), bleu_of_sums, samples=400, seed=9)
    drawn = np.random.default_rng(9).integers(0, 4, size=(400, 4))
    plain = [
        corpus_bleu([hypotheses[i] for i in row], [references[i] for i in row]) for row in drawn
    ]
    assert interval.value == pytest.approx(corpus_bleu(hypotheses, references))
    assert interval.low == pytest.approx(np.percentile(plain, 2.5), abs=0.02)
    assert interval.high == pytest.approx(np.percentile(plain, 97.5), abs=0.02)


def test_paired_bootstrap_sees_a_shift_that_the_spread_hides() -> None:
    base = np.random.default_rng(0).normal(0, 10, size=200)
    better = base + np.random.default_rng(1).normal(0.5, 0.5, size=200)
    result = paired_bootstrap(better.tolist(), base.tolist(), samples=999, seed=0)
    assert result.difference == pytest.approx(float((better - base).mean()))
    # No random swap of the signs of 200 gains comes near: one added to both counts.
    assert result.p_value == pytest.approx(1 / (1 + SWAPS))
    assert result.low is not None and result.low > 0


def test_paired_p_value_is_uniform_without_a_difference() -> None:
    draw = np.random.default_rng(2)
    p_values = []
    for trial in range(120):
        a, b = draw.normal(size=(2, 50))
        p = paired_bootstrap(a.tolist(), b.tolist(), samples=200, seed=trial).p_value
        assert p is not None
        p_values.append(p)
    # Mean of a uniform variable 0.5, sd of the mean of 120 draws 0.026.
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.11)
    assert 1 <= sum(p < 0.05 for p in p_values) <= 17


def test_paired_swaps_sign_and_drops_unscored_items() -> None:
    a, b = [1.0, 0.0, None, 0.5, 0.2], [0.0, 0.0, 1.0, None, 0.1]
    forward, back = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert forward.n == 3
    assert forward.difference == pytest.approx(1.1 / 3)
    assert back.difference == pytest.approx(-1.1 / 3)
    same = paired_bootstrap(a, a)
    assert (same.difference, same.p_value) == (0.0, 1.0)


def test_paired_corpus_bleu() -> None:
    reference = ["a", "b", "c", "d", "e", "f"]
    good = [item_statistics(reference, [reference]) for _ in range(8)]
    bad = [item_statistics(["a", "b", "c", "d", "x", "y"], [reference]) for _ in range(8)]
    result = paired_bootstrap_statistic(
        np.array(good, dtype=float), np.array(bad, dtype=float), bleu_of_sums, samples=99
    )
    # Precisions 4/6, 3/5, 2/4, 1/3, no brevity penalty.
    expected = 1 - (4 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert result.difference == pytest.approx(expected)
    # Of the 2 ** 8 swaps only none and all give a difference as large.
    assert result.p_value == pytest.approx(2 / 256)


def test_p_value_by_hand() -> None:
    # Gains .1 and .3: of the swaps (+ +), (+ -), (- +), (- -) the first and the last reach .2.
    found = paired_bootstrap([0.3, 0.5], [0.2, 0.2])
    assert found.difference == pytest.approx(0.2)
    assert found.p_value == 0.5
    # Gains 3, 1, 1, 0: a sum as far from 0 as 5 needs the signs + + + or - - -, whatever the fourth.
    assert paired_bootstrap([3.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]).p_value == 4 / 16


@pytest.mark.parametrize(("n", "tolerance"), [(9, 1e-12), (40, 0.02)])
def test_p_value_is_that_of_scipy_s_permutation_test(n: int, tolerance: float) -> None:
    from scipy.stats import permutation_test

    draw = np.random.default_rng(n)
    a, b = draw.normal(0.3, 1.0, n), draw.normal(size=n)
    theirs = permutation_test(
        (a - b,), np.mean, permutation_type="samples", n_resamples=SWAPS, axis=-1, vectorized=True
    )
    mine = paired_bootstrap(a.tolist(), b.tolist(), samples=10).p_value
    assert mine == pytest.approx(theirs.pvalue, abs=tolerance)


def test_corpus_p_value_swaps_the_texts() -> None:
    # Slow and plain: swap the answers of the items, rebuild both corpora, apply corpus BLEU.
    reference = ["a", "b", "c", "d", "e", "f"]
    first = [reference[:k] + ["x"] for k in (4, 5, 4, 6, 5)]
    second = [reference[:k] + ["x", "y"] for k in (4, 4, 5, 4, 4)]

    def gap(swaps: tuple[bool, ...]) -> float:
        pairs = [(b, a) if s else (a, b) for a, b, s in zip(first, second, swaps, strict=True)]
        one, two = (corpus_bleu(list(side), [[reference]] * 5) for side in zip(*pairs, strict=True))
        return abs(one - two)

    observed = gap((False,) * 5)
    as_large = [gap(s) >= observed - 1e-12 for s in itertools.product((False, True), repeat=5)]
    rows = [
        np.array([item_statistics(h, [reference]) for h in side], dtype=float)
        for side in (first, second)
    ]
    found = paired_bootstrap_statistic(*rows, bleu_of_sums, samples=10)
    assert 2 / 32 < np.mean(as_large) < 1
    assert found.p_value == pytest.approx(np.mean(as_large))


def test_p_value_holds_its_level_at_six_items() -> None:
    draw = np.random.default_rng(7)
    gains = draw.normal(size=(300, 6)).tolist()
    calls = [paired_bootstrap(row, [0.0] * 6, samples=10).p_value for row in gains]
    # The least p is 2/64: 3.1% of 300 is 9.4, sd 3. The bootstrap's own p-value calls 40 and more.
    assert sum(p is not None and p <= 0.05 for p in calls) <= 20


def test_bounds_where_every_resample_is_alike() -> None:
    gained, same = [1.0] * 5, [0.0] * 5
    # Clopper-Pearson for 5 of 5: at least .025 ** (1 / 5) of items are like these.
    least = 0.025 ** (1 / 5)
    all_gained = paired_bootstrap(gained, same)
    assert (all_gained.low, all_gained.high) == (pytest.approx(2 * least - 1), 1.0)
    assert all_gained.p_value == 2 / 32
    lost = paired_bootstrap(same, gained)
    assert (lost.low, lost.high) == (-1.0, pytest.approx(1 - 2 * least))
    alike = paired_bootstrap(gained, gained)
    assert (alike.low, alike.high) == (pytest.approx(least - 1), pytest.approx(1 - least))
    # Scores that are no 0/1 outcomes keep the bootstrap's.
    assert paired_bootstrap([0.5] * 5, [0.5] * 5).high == 0.0


def test_few_right_answers_get_the_exact_binomial_interval() -> None:
    one = proportion_interval([1.0] + [0.0] * 19)
    # Clopper-Pearson for 1 of 20, as in any table of it.
    assert (one.low, one.high) == (
        pytest.approx(0.00127, abs=5e-6),
        pytest.approx(0.24873, abs=5e-6),
    )
    # One right answer cannot be known better than none: .025 ** (1 / 20) of 0 of 20.
    none = proportion_interval([0.0] * 20)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert one.high > none.high  # type: ignore[operator]
    half = [1.0] * 10 + [0.0] * 10
    assert proportion_interval(half) == bootstrap_interval(half)
    assert proportion_interval([0.5, *[0.0] * 9]) == bootstrap_interval([0.5, *[0.0] * 9])
    assert proportion_interval([1.0]).low == pytest.approx(0.025)
    assert proportion_interval([1.0], samples=0).low is None


def test_lengths_must_agree() -> None:
    with pytest.raises(MetricError, match="equal lengths"):
        paired_bootstrap([1.0], [1.0, 2.0])
