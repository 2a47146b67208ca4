"""Bootstrap intervals and paired comparisons, for means and for corpus-level statistics.

Items are resampled with replacement by `scipy.stats.bootstrap` (percentile method, Efron 1979).
A corpus metric is resampled through its per-item sufficient statistics: a resample is a row of item
counts, so all resamples are one matrix product (Koehn, EMNLP 2004, resamples the texts themselves;
the result is the same). The paired p-value is two-sided: the share of resampled differences that
stray from the observed one at least as far as zero does, with one added to both counts.

Pure: numbers in, numbers out, a seed instead of any global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modern_rlhf.errors import MetricError

Floats = NDArray[np.float64]
Aggregate = Callable[[Floats], Floats]
"""Maps summed statistics [B, S] to values [B]."""

_CELLS_AT_ONCE = 4_000_000
"""Resampled indices held in memory at one time (32 MB)."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95% bounds and the number of items; all None when there is no item."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class PairedDifference:
    """`a - b` on the same items: difference of the aggregates, 95% bounds, two-sided p-value.

    `low`, `high` and `p_value` are None below two common items or with 0 resamples.
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
    low, high, _ = _resample(kept, np.mean, samples, seed, confidence)
    return Interval(float(kept.mean()), low, high, len(kept))


def proportion_interval(
    values: Sequence[float | None],
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """As `bootstrap_interval`, for scores that are 0 or 1 (or a probability between).

    When all are 0, or all 1, every resample is alike and the bootstrap claims certainty; the exact
    binomial bounds (Clopper and Pearson, Biometrika 1934) are given instead.
    """
    interval = bootstrap_interval(values, samples=samples, seed=seed, confidence=confidence)
    if interval.value not in (0.0, 1.0) or interval.low is None:
        return interval
    from scipy.stats import binomtest

    exact = binomtest(round(interval.value * interval.n), interval.n).proportion_ci(confidence)
    return Interval(interval.value, float(exact.low), float(exact.high), interval.n)


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
    if n == 1 or np.all(statistics == statistics[0]):
        # Every resample is the sample itself: no need to draw, and scipy refuses n = 1.
        return Interval(value, value, value, n)
    low, high, _ = _bootstrap(
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

    Raises:
        MetricError: `a` and `b` differ in length, or a value is not finite.
    """
    if len(a) != len(b):
        raise MetricError(f"a paired comparison needs equal lengths, got {len(a)} and {len(b)}")
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    left, right = _finite([x for x, _ in pairs]), _finite([y for _, y in pairs])
    return paired_bootstrap_statistic(
        left[:, None],
        right[:, None],
        _mean_of(len(pairs)),
        samples=samples,
        seed=seed,
        confidence=confidence,
    )


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
    low, high, drawn = _bootstrap(n, gap, samples, seed, confidence)
    # The tolerance keeps rounding in the sums from deciding ties such as "always exactly zero".
    strays = np.abs(drawn - difference) >= abs(difference) - 1e-12
    p_value = (1 + int(strays.sum())) / (1 + samples)
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
) -> tuple[float, float, Floats]:
    """Bounds and distribution of a function of item counts [B, n], over `samples` resamples."""

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
) -> tuple[float, float, Floats]:
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
    return float(bounds.low), float(bounds.high), np.asarray(outcome.bootstrap_distribution)


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
