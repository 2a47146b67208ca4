"""Bootstrap intervals and paired comparisons, for means and for corpus-level statistics.

Items are resampled with replacement by `scipy.stats.bootstrap` (percentile method, Efron 1979).
A corpus metric is resampled through its per-item sufficient statistics: a resample is a row of item
counts, so all resamples are one matrix product (Koehn, EMNLP 2004, resamples the texts themselves;
the result is the same). A single item says nothing about the spread: it has no interval.

P-values are those of the paired randomisation test (Fisher 1935; Noreen 1989; Riezler and Maxwell 2005
on why not the bootstrap's for machine translation): were the models alike, the two scores of an item
could change places, so the difference is compared with those of all such swaps, or of `SWAPS` random
ones with one added to both counts. It holds its level at any number of items, where a bootstrap of two
unlike items already claims p < 0.001. `scipy.stats.permutation_test` is the same test (and agrees, by
test), at 25 times the cost since it permutes indices where a sign says all.

Pure: numbers in, numbers out, a seed instead of any global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modern_rlhf.errors import MetricError

Floats = NDArray[np.float64]
Aggregate = Callable[[Floats], Floats]
"""Maps summed statistics [B, S] to values [B]."""

SWAPS = 9_999
"""Random swaps behind a p-value; with up to 13 items all of them are counted instead."""

FEW = 5
"""Right (or wrong) answers below which an interval of 0/1 scores is the exact binomial one."""

_CELLS_AT_ONCE = 4_000_000
"""Resampled indices held in memory at one time (32 MB)."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95% bounds and the number of items.

    All None when there is no item; no bounds with one item or with 0 resamples.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class PairedDifference:
    """`a - b` on the same items: difference of the aggregates, 95% bootstrap bounds, p-value.

    The p-value is that of the two-sided paired randomisation test (see the top of this file). `low`,
    `high` and `p_value` are None below two common items or with 0 resamples.
    """

    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    n: int

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return asdict(self)


def bootstrap_interval(
    values: Sequence[float | None],
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """The mean of `values` (None left out) with its percentile bootstrap interval.

    Args:
        values: N scores or None.
        samples: resamples; 0 gives no bounds.

    Raises:
        MetricError: a value is NaN or infinite, or `samples` is negative.
    """
    kept = _finite([value for value in values if value is not None])
    if len(kept) < 2 or _resamples(samples) == 0 or np.all(kept == kept[0]):
        return bootstrap_statistic(
            kept[:, None], _mean_of(len(kept)), samples=samples, seed=seed, confidence=confidence
        )
    low, high = _resample(kept, np.mean, samples, seed, confidence)
    return Interval(float(kept.mean()), low, high, len(kept))


def proportion_interval(
    values: Sequence[float | None],
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """As `bootstrap_interval`, for scores that are 0 or 1 (or a probability between).

    When all are 0, or all 1, every resample is alike and the bootstrap claims certainty; with few of
    either it is too narrow. Below `FEW` right or wrong answers the exact binomial bounds (Clopper and
    Pearson, Biometrika 1934) are given instead.
    """
    interval = bootstrap_interval(values, samples=samples, seed=seed, confidence=confidence)
    kept = [value for value in values if value is not None]
    right, wrong = kept.count(1.0), kept.count(0.0)
    if samples == 0 or not kept or right + wrong < len(kept) or min(right, wrong) >= FEW:
        return interval
    low, high = _binomial(right, len(kept), confidence)
    return Interval(interval.value, low, high, interval.n)


def bootstrap_statistic(
    statistics: Floats,
    aggregate: Aggregate,
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """The aggregate of summed `statistics` [N, S] with its percentile bootstrap interval."""
    n = len(statistics)
    if n == 0:
        return Interval(None, None, None, 0)
    value = float(aggregate(statistics.sum(axis=0, keepdims=True))[0])
    if _resamples(samples) == 0:
        return Interval(value, None, None, n)
    if n == 1:
        return Interval(value, None, None, n)
    if np.all(statistics == statistics[0]):
        return Interval(value, value, value, n)  # as every resample is
    low, high = _bootstrap(
        n, lambda counts: aggregate(counts @ statistics), samples, seed, confidence
    )
    return Interval(value, low, high, n)


def paired_bootstrap(
    a: Sequence[float | None],
    b: Sequence[float | None],
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> PairedDifference:
    """mean(a) - mean(b) over the items that both have, resampled together.

    When 0/1 scores differ alike on all items (no item changed, or all did) every resample is alike; the
    bounds are then exact binomial ones, as in `proportion_interval`.

    Raises:
        MetricError: `a` and `b` differ in length, or a value is not finite.
    """
    if len(a) != len(b):
        raise MetricError(f"a paired comparison needs equal lengths, got {len(a)} and {len(b)}")
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    left, right = _finite([x for x, _ in pairs]), _finite([y for _, y in pairs])
    found = paired_bootstrap_statistic(
        left[:, None],
        right[:, None],
        _mean_of(len(pairs)),
        samples=samples,
        seed=seed,
        confidence=confidence,
    )
    gaps = left - right
    binary = np.isin(left, (0.0, 1.0)).all() and np.isin(right, (0.0, 1.0)).all()
    if found.low is None or not binary or not np.all(gaps == gaps[0]):
        return found
    low, high = _bounds_of_equal_gaps(int(gaps[0]), found.n, confidence)
    return replace(found, low=low, high=high)


def paired_bootstrap_statistic(
    a: Floats,
    b: Floats,
    aggregate: Aggregate,
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> PairedDifference:
    """aggregate(sum a) - aggregate(sum b) for statistics [N, S] of the same N items."""
    if a.shape != b.shape:
        raise MetricError(f"a paired comparison needs equal shapes, got {a.shape} and {b.shape}")
    n = len(a)
    if n == 0:
        return PairedDifference(None, None, None, None, 0)

    def gap(counts: Floats) -> Floats:
        return aggregate(counts @ a) - aggregate(counts @ b)

    difference = float(gap(np.ones((1, n)))[0])
    if n < 2 or _resamples(samples) == 0:
        return PairedDifference(difference, None, None, None, n)
    if np.array_equal(a, b):
        return PairedDifference(0.0, 0.0, 0.0, 1.0, n)
    low, high = _bootstrap(n, gap, samples, seed, confidence)
    p_value = _swap_p_value(a, b, aggregate, difference, seed)
    return PairedDifference(difference, low, high, p_value, n)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for how many there are (Holm, Scand. J. Statist. 1979), in the given order.

    Calling those below a level significant keeps the chance of a single false call at that level.
    """
    count = len(p_values)
    adjusted = [0.0] * count
    largest = 0.0
    for rank, place in enumerate(sorted(range(count), key=lambda one: p_values[one])):
        largest = max(largest, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _bootstrap(
    n: int,
    of_counts: Aggregate,
    samples: int,
    seed: int,
    confidence: float,
) -> tuple[float, float]:
    """Bounds of a function of item counts [B, n], over `samples` resamples."""

    def statistic(indices: NDArray[np.int64], axis: int = -1) -> Floats:
        rows = indices.reshape(-1, n)
        offsets = np.arange(len(rows))[:, None] * n
        counts = np.bincount((rows + offsets).ravel(), minlength=rows.size).reshape(rows.shape)
        return of_counts(counts.astype(np.float64)).reshape(indices.shape[:-1])

    return _resample(np.arange(n), statistic, samples, seed, confidence)


def _resample(
    data: NDArray[Any],
    statistic: Callable[..., Any],
    samples: int,
    seed: int,
    confidence: float,
) -> tuple[float, float]:
    """scipy's percentile bootstrap of a vectorised statistic of `data` [n], n at least 2."""
    from scipy.stats import bootstrap

    outcome = bootstrap(
        (data,),
        statistic,
        n_resamples=samples,
        batch=max(1, _CELLS_AT_ONCE // len(data)),
        vectorized=True,
        axis=-1,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    bounds = outcome.confidence_interval
    return float(bounds.low), float(bounds.high)


def _swap_p_value(
    a: Floats, b: Floats, aggregate: Aggregate, difference: float, seed: int
) -> float:
    """Share of swaps of the items' scores [n, S] that give a difference as large as the observed one."""
    n = len(a)
    every = 2**n <= SWAPS
    total = 2**n if every else SWAPS
    generator = np.random.default_rng(seed)
    # A little less, so that rounding in the sums does not decide ties.
    least = abs(difference) * (1.0 - 1e-9) - 1e-12
    step = max(1, _CELLS_AT_ONCE // n)
    as_large = 0
    for start in range(0, total, step):
        rows = min(step, total - start)
        if every:
            kept = np.arange(start, start + rows)[:, None] >> np.arange(n) & 1
        else:
            kept = generator.integers(0, 2, size=(rows, n), dtype=np.int8)
        first = kept.astype(np.float64) @ (a - b) + b.sum(axis=0)
        second = (a + b).sum(axis=0) - first
        as_large += int((np.abs(aggregate(first) - aggregate(second)) >= least).sum())
    return as_large / total if every else (1 + as_large) / (1 + total)


def _binomial(right: int, n: int, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson's bounds of a share of which `right` of `n` were seen."""
    from scipy.stats import binomtest

    bounds = binomtest(right, n).proportion_ci(confidence)
    return float(bounds.low), float(bounds.high)


def _bounds_of_equal_gaps(gap: int, n: int, confidence: float) -> tuple[float, float]:
    """Bounds of the mean of differences of 0/1 scores when n of n are `gap` (-1, 0 or 1)."""
    # At least this share of items is like those seen; the others may be at the far end.
    alike, _ = _binomial(n, n, confidence)
    if gap == 0:
        return alike - 1.0, 1.0 - alike
    far = 2.0 * alike - 1.0
    return (far, 1.0) if gap == 1 else (-1.0, -far)


def _mean_of(n: int) -> Aggregate:
    def mean(sums: Floats) -> Floats:
        column: Floats = sums[:, 0] / n
        return column

    return mean


def _finite(values: list[float]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise MetricError("a score is NaN or infinite; a score that is missing must be None")
    return array


def _resamples(samples: int) -> int:
    if samples < 0:
        raise MetricError(f"bootstrap samples must be 0 or more, got {samples}")
    return samples
