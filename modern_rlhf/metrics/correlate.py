"""Agreement of metrics, or of a reward model, with human grades.

Pearson, Spearman and Kendall (tau-b) correlation by scipy, and pairwise accuracy: of all pairs of
answers that humans graded differently, the share that the scores put in the same order, a tie of the
scores counting half. Pairwise accuracy is linear in the number of concordant less discordant pairs,
so it follows from tau-b without visiting the pairs. Intervals are 95% percentile bootstrap over the
answers, or over groups of answers (all answers to one question) that stand or fall together. A group
drawn twice meets itself, so pairs within a group weigh more than in the value, by a share that falls
with the number of groups: with a handful of them the interval may miss the value.

Pure: columns of numbers in, numbers out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modern_rlhf.errors import MetricError
from modern_rlhf.metrics.stats import Floats, Interval

MEASURES = ("pearson", "spearman", "kendall", "pairwise_accuracy")
_FLAT = 1e-12
"""Variance, in units of the whole column's, below which a resample does not vary."""
_CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Agreement:
    """How one column of scores agrees with human grades, on `n` answers.

    Every measure is an `Interval`; its value is None, and `reason` says why, when the scores or the
    grades do not vary or there are fewer than three answers.
    """

    pearson: Interval
    spearman: Interval
    kendall: Interval
    pairwise_accuracy: Interval
    n: int
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return asdict(self)


def correlate(
    columns: Mapping[str, Sequence[float | None]],
    human: Sequence[float | None],
    *,
    groups: Sequence[object] | None = None,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Agreement]:
    """The agreement of every column of N scores with N human grades.

    Args:
        columns: scores by metric name; an answer without a score is left out of that metric.
        human: grades; an answer without one is left out.
        groups: what each answer belongs to; intervals then resample groups, not answers (and there
            are none for a single group).
        samples: bootstrap resamples; 0 for no bounds.

    Raises:
        MetricError: lengths differ.
    """
    for name, column in {**columns, "groups": groups or human}.items():
        if len(column) != len(human):
            raise MetricError(f"{name} has {len(column)} entries, human grades {len(human)}")
    return {
        name: _agreement(column, human, groups, samples, seed, confidence)
        for name, column in columns.items()
    }


def measures(scores: Floats, human: Floats) -> dict[str, float]:
    """The four measures of N >= 2 scores and grades, both of which vary."""
    from scipy.stats import pearsonr

    return {"pearson": float(pearsonr(scores, human).statistic), **_rank_measures(scores, human)}


def pearson_interval(
    scores: Floats,
    human: Floats,
    groups: Sequence[object],
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Pearson's correlation of N >= 2 scores and grades, both of which vary; bounds resample groups.

    The correlation of a resample follows from six sums over its rows, so all resamples are one product of
    how often each group was drawn with the sums of each group. Resamples that do not vary are left out,
    and there are no bounds for a single group.
    """
    from scipy.stats import pearsonr

    value = float(pearsonr(scores, human).statistic)
    units = _units(groups)
    x, y = ((column - column.mean()) / column.std() for column in (scores, human))
    rows = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    table = np.stack([rows[unit].sum(axis=0) for unit in units])
    if len(units) < 2 or not samples:
        return Interval(value, None, None, len(scores))
    generator = np.random.default_rng(seed)
    share = np.full(len(units), 1.0 / len(units))
    at_once = max(1, _CELLS_AT_ONCE // len(units))
    sums = np.concatenate(
        [
            generator.multinomial(len(units), share, size=min(at_once, samples - done)) @ table
            for done in range(0, samples, at_once)
        ]
    )
    n, sx, sy, sxx, syy, sxy = sums.T
    spread = np.stack([sxx / n - (sx / n) ** 2, syy / n - (sy / n) ** 2])
    kept = (spread > _FLAT).all(axis=0)
    drawn = ((sxy / n - sx * sy / n**2) / np.sqrt(np.maximum(spread, _FLAT).prod(axis=0)))[kept]
    if not len(drawn):
        return Interval(value, None, None, len(scores))
    edge = 100.0 * (1.0 - confidence) / 2.0
    low, high = np.clip(np.percentile(drawn, [edge, 100.0 - edge]), -1.0, 1.0)
    return Interval(value, float(low), float(high), len(scores))


def _rank_measures(scores: Floats, human: Floats) -> dict[str, float]:
    from scipy.stats import kendalltau, spearmanr

    kendall = float(kendalltau(scores, human).statistic)
    ordered, graded = _different_pairs(scores), _different_pairs(human)
    return {
        "spearman": float(spearmanr(scores, human).statistic),
        "kendall": kendall,
        # tau-b is (C - D) / sqrt(ordered * graded), and accuracy is 1/2 + (C - D) / (2 * graded).
        "pairwise_accuracy": 0.5 + 0.5 * kendall * float(np.sqrt(ordered / graded)),
    }


def _agreement(
    column: Sequence[float | None],
    human: Sequence[float | None],
    groups: Sequence[object] | None,
    samples: int,
    seed: int,
    confidence: float,
) -> Agreement:
    kept = [place for place, pair in enumerate(zip(column, human, strict=True)) if None not in pair]
    scores = np.array([column[place] for place in kept], dtype=np.float64)
    grades = np.array([human[place] for place in kept], dtype=np.float64)
    n = len(kept)
    reason = None
    if n < 3:
        reason = f"only {n} answers have both a score and a grade"
    elif not _different_pairs(scores) or not _different_pairs(grades):
        reason = "all scores are equal" if not _different_pairs(scores) else "all grades are equal"
    if reason is not None:
        nothing = Interval(None, None, None, n)
        return Agreement(nothing, nothing, nothing, nothing, n, reason)
    drawn: dict[str, list[float]] = {name: [] for name in MEASURES[1:]}
    generator = np.random.default_rng(seed)
    belongs = list(range(n)) if groups is None else [groups[place] for place in kept]
    units = _units(belongs)
    # Answers to a single question say nothing about other questions: no bounds.
    for _ in range(samples if len(units) > 1 else 0):
        chosen = generator.integers(0, len(units), size=len(units))
        rows = np.concatenate([units[unit] for unit in chosen])
        if _different_pairs(scores[rows]) and _different_pairs(grades[rows]):
            for name, value in _rank_measures(scores[rows], grades[rows]).items():
                drawn[name].append(value)
    edge = 100.0 * (1.0 - confidence) / 2.0
    pearson = pearson_interval(
        scores, grades, belongs, samples=samples, seed=seed, confidence=confidence
    )
    found = {}
    for name, value in _rank_measures(scores, grades).items():
        low, high = np.percentile(drawn[name], [edge, 100.0 - edge]) if drawn[name] else (None,) * 2
        found[name] = Interval(
            value,
            None if low is None else float(low),
            None if high is None else float(high),
            n,
        )
    return Agreement(pearson, found["spearman"], found["kendall"], found["pairwise_accuracy"], n)


def _units(groups: Sequence[object]) -> list[NDArray[np.int64]]:
    """Row indices of every group, in order of first appearance."""
    rows: dict[object, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    return [np.array(one, dtype=np.int64) for one in rows.values()]


def _different_pairs(values: Floats) -> int:
    """How many pairs of entries differ."""
    _, counts = np.unique(values, return_counts=True)
    n = len(values)
    return int(n * (n - 1) // 2 - (counts * (counts - 1) // 2).sum())
