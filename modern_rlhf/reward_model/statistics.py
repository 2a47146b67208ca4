"""Numbers about scores and preferences: accuracy with intervals, calibration, correlations.

Pairs or ratings of one group (one question) are not independent, so intervals resample groups (cluster
bootstrap).
Pure: lists and arrays in, plain values out; knows no model, file or record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modern_rlhf.metrics.correlate import pearson_interval
from modern_rlhf.metrics.stats import (
    Floats,
    bootstrap_statistic,
    paired_bootstrap_statistic,
    proportion_interval,
)

Outcomes = NDArray[np.float64]
BINS = 10


def outcomes(chosen: Sequence[float], rejected: Sequence[float]) -> Outcomes:
    """(N,) 1 where the chosen answer scores higher, 0 where lower, 0.5 for a tie."""
    gap = np.asarray(chosen, dtype=np.float64) - np.asarray(rejected, dtype=np.float64)
    return np.where(gap > 0, 1.0, np.where(gap < 0, 0.0, 0.5))


def accuracy(correct: Outcomes, groups: Sequence[str], *, samples: int = 2000) -> dict[str, Any]:
    """`{"value", "low", "high", "n", "groups"}` of N outcomes: mean and 95% cluster bootstrap.

    Where each group has one pair, or all outcomes are right (or wrong), the groups themselves are right
    or wrong: with few of either the bounds are the exact binomial ones (`proportion_interval`).
    """
    if len(correct) == 0:
        return {"value": None, "low": None, "high": None, "n": 0, "groups": 0}
    table = _by_group(correct, groups)
    if len(table) == len(correct) or np.all(correct == 0.0) or np.all(correct == 1.0):
        found = proportion_interval(_ratio(table).tolist(), samples=samples)
    else:
        found = bootstrap_statistic(table, _ratio, samples=samples)
    counts = {"n": len(correct), "groups": len(table)}
    return {"value": found.value, "low": found.low, "high": found.high, **counts}


def accuracy_difference(
    ours: Outcomes, theirs: Outcomes, groups: Sequence[str], *, samples: int = 2000
) -> dict[str, Any]:
    """Accuracy gain on the same pairs with its paired 95% cluster bootstrap and two-sided p-value."""
    found = paired_bootstrap_statistic(
        _by_group(ours, groups), _by_group(theirs, groups), _ratio, samples=samples
    )
    return {**found.to_dict(), "n": len(ours)}


def fit_temperature(gaps: Sequence[float]) -> float:
    """T > 0 that minimises the mean of -log sigmoid(gap / T): temperature scaling (1706.04599).

    The optimum lies between 0.001 and 1000; a set that is always right has none and gives 0.001.
    """
    from scipy.optimize import minimize_scalar

    values = np.asarray(gaps, dtype=np.float64)
    if len(values) == 0:
        return 1.0

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, -values * np.exp(-log_temperature)).mean())

    bounds = (np.log(1e-3), np.log(1e3))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def cross_fitted_probabilities(gaps: Sequence[float], groups: Sequence[str]) -> Outcomes:
    """(N,) probability that the chosen answer wins, its temperature fitted on the other half.

    Groups are dealt to two halves in order of first appearance, so no pair judges its own temperature.
    """
    values = np.asarray(gaps, dtype=np.float64)
    order = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    half = np.array([order[group] % 2 for group in groups])
    probabilities = np.empty_like(values)
    for side in (0, 1):
        temperature = fit_temperature(values[half != side])
        probabilities[half == side] = _sigmoid(values[half == side] / temperature)
    return probabilities


def calibration(probabilities: Outcomes) -> tuple[dict[str, list[float]], float | None]:
    """Reliability table and expected calibration error of P(chosen wins).

    Which answer was chosen is known, so each pair counts as "the likelier one wins" with confidence
    max(p, 1 - p), in ten equal bins of [0.5, 1]; p = 0.5 is half right. Empty bins are left out.
    Returns `{"probability", "accuracy", "count"}` (bin means) and the error (None without pairs).
    """
    if len(probabilities) == 0:
        return {"probability": [], "accuracy": [], "count": []}, None
    confidence = np.maximum(probabilities, 1.0 - probabilities)
    right = np.where(probabilities > 0.5, 1.0, np.where(probabilities < 0.5, 0.0, 0.5))
    bins = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    table: dict[str, list[float]] = {"probability": [], "accuracy": [], "count": []}
    error = 0.0
    for index in range(BINS):
        inside = bins == index
        if not inside.any():
            continue
        claimed, true = float(confidence[inside].mean()), float(right[inside].mean())
        table["probability"].append(claimed)
        table["accuracy"].append(true)
        table["count"].append(int(inside.sum()))
        error += abs(claimed - true) * float(inside.mean())
    return table, error


def correlation(
    first: Sequence[float], second: Sequence[float], groups: Sequence[str]
) -> dict[str, Any]:
    """`{"pearson", "spearman", "low", "high", "n", "groups", "reason"}` of N values each.

    The bounds are Pearson's 95% cluster bootstrap; none where all values belong to one group.
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    counts = {"n": len(x), "groups": len(set(groups))}
    empty = {"pearson": None, "spearman": None, "low": None, "high": None, **counts}
    if len(x) < 4:
        return {**empty, "reason": "fewer than 4 values"}
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return {**empty, "reason": "one of the two never varies"}
    from scipy.stats import spearmanr

    found = pearson_interval(x, y, groups)
    return {
        "pearson": found.value,
        "spearman": float(spearmanr(x, y).statistic),
        "low": found.low,
        "high": found.high,
        **counts,
        "reason": None,
    }


def _by_group(values: Outcomes, groups: Sequence[str]) -> Floats:
    """(G, 2): sum of outcomes and number of pairs of every group."""
    order = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    table = np.zeros((len(order), 2))
    for value, group in zip(values, groups, strict=True):
        table[order[group]] += (value, 1.0)
    return table


def _ratio(sums: Floats) -> Floats:
    ratio: Floats = sums[:, 0] / sums[:, 1]
    return ratio


def _sigmoid(x: Outcomes) -> Outcomes:
    result: Outcomes = np.exp(-np.logaddexp(0.0, -x))
    return result
