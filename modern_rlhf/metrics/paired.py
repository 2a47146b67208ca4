"""Two reports on the same items compared: paired differences with intervals and p-values.

Intervals are bootstrapped, p-values are those of the randomisation test (`stats`). A metric that is no mean of items is compared through its sufficient statistics; which those are is
the table `AGGREGATES`. Pure: reports in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modern_rlhf.metrics.bleu import bleu_of_sums
from modern_rlhf.metrics.perplexity import perplexity_of_sums
from modern_rlhf.metrics.results import MetricResult, MetricsReport
from modern_rlhf.metrics.stats import (
    Aggregate,
    PairedDifference,
    paired_bootstrap,
    paired_bootstrap_statistic,
)

AGGREGATES: dict[str, Aggregate] = {"bleu": bleu_of_sums, "perplexity": perplexity_of_sums}
"""Metrics that are no mean of items, by the function of summed statistics that they are."""


def compare_reports(
    first: MetricsReport,
    second: MetricsReport,
    *,
    splits: Sequence[str] = (),
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, PairedDifference]:
    """`second - first` by metric, on the items that both have a score for; metrics without are left out.

    With `splits` (one name an item) pass@1 is compared within each split too, as `pass_at_1/<split>`.

    Raises:
        MetricError: the reports are of different numbers of items.
    """
    found = {
        name: _difference(name, first[name], second[name], samples=samples, seed=seed)
        for name in first
        if name in second
    }
    if "pass_at_1" in found:
        before, after = first["pass_at_1"].per_item, second["pass_at_1"].per_item
        for split in sorted({one for one in splits if one}):
            inside = [place for place, one in enumerate(splits) if one == split]
            found[f"pass_at_1/{split}"] = paired_bootstrap(
                [after[place] for place in inside],
                [before[place] for place in inside],
                samples=samples,
                seed=seed,
            )
    return {name: one for name, one in found.items() if one.n}


def _difference(
    name: str, before: MetricResult, after: MetricResult, *, samples: int, seed: int
) -> PairedDifference:
    if name not in AGGREGATES:
        return paired_bootstrap(after.per_item, before.per_item, samples=samples, seed=seed)
    scores = zip(after.per_item, before.per_item, strict=True)
    kept = [place for place, pair in enumerate(scores) if None not in pair]
    mine, theirs = (
        np.array([(one.statistics or ())[place] for place in kept], dtype=np.float64)
        for one in (after, before)
    )
    return paired_bootstrap_statistic(mine, theirs, AGGREGATES[name], samples=samples, seed=seed)
