"""The typed results of the metrics: one value with its interval, and a report of many.

A metric that could not be computed has `value None` and says why in `reason`; no other quantity
ever takes its place under the same name. Plain data: nothing here computes anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ItemScores:
    """What one metric function returns for N items.

    Attributes:
        per_item: N scores; None where this item could not be scored.
        details: what a reader must know to compare the number (variant, model, fallbacks, counts).
        reason: why the metric could not be computed at all, else None.
        statistics: for metrics that are no mean of items (corpus BLEU, perplexity): N rows of
            sufficient statistics, summed over the corpus before the value is taken.
    """

    per_item: list[float | None]
    details: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    statistics: Sequence[Sequence[float]] | None = None


@dataclass(frozen=True)
class MetricResult:
    """One metric over a set of items.

    Attributes:
        value: the aggregate, None when it could not be computed.
        low, high: bounds of the 95% bootstrap interval (None without a value or with 0 resamples).
        n: how many items the value rests on.
        per_item: a score for every item given, in order; None where an item is left out.
        reason: why `value` is None, else None.
        details, statistics: see `ItemScores`.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    per_item: list[float | None]
    reason: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    statistics: Sequence[Sequence[float]] | None = None

    def summary(self) -> dict[str, Any]:
        """The five fields written to `training_results.json` for every metric of every model."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "reason": self.reason,
        }

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON types; `from_dict` reads it back."""
        return {
            **self.summary(),
            "per_item": list(self.per_item),
            "details": dict(self.details),
            "statistics": self.statistics,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MetricResult:
        """The result that `to_dict` wrote."""
        return cls(**data)


@dataclass(frozen=True)
class MetricsReport(Mapping[str, MetricResult]):
    """Results by metric name, all on the same items.

    Attributes:
        results: by name, in the order asked for.
        n_items: how many predictions were given.
        extraction: how many answers were changed by the code extractor (`changed`), by what rule
            (`how`: counts), how many predictions were blank (`empty`) or cut (`truncated`).
        predictions: the extracted code that was scored, in order.
    """

    results: dict[str, MetricResult]
    n_items: int
    extraction: dict[str, Any] = field(default_factory=dict)
    predictions: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> MetricResult:
        return self.results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def summary(self) -> dict[str, dict[str, Any]]:
        """`MetricResult.summary()` by metric name."""
        return {name: result.summary() for name, result in self.results.items()}

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON types; `from_dict` reads it back."""
        return {
            "results": {name: result.to_dict() for name, result in self.results.items()},
            "n_items": self.n_items,
            "extraction": self.extraction,
            "predictions": list(self.predictions),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MetricsReport:
        """The report that `to_dict` wrote."""
        results = {name: MetricResult.from_dict(one) for name, one in data["results"].items()}
        return cls(results, data["n_items"], data["extraction"], data["predictions"])
