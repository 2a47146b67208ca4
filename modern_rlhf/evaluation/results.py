"""What one policy did on an evaluation set, as it is kept, read back and compared with another's.

Plain data and statistics of it: no model is known here and nothing is generated or executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modern_rlhf.metrics.paired import compare_reports
from modern_rlhf.metrics.results import MetricsReport
from modern_rlhf.metrics.stats import bootstrap_interval, paired_bootstrap, proportion_interval


@dataclass(frozen=True)
class PolicyEvaluation:
    """What one policy did on an evaluation set of N items.

    Attributes:
        answers: N greedy answers as text.
        samples: N lists of k answers at temperature 1, or empty.
        report: every metric with interval and per-item scores.
        by_split: per split, `pass_at_1` with interval and n.
        extra: further quantities in the same five fields (`reward`, `kl`, `pass_at_1_sampled`,
            `pass_at_<k>`).
        hack_watch: `signatures`, the share of programs (greedy and sampled) with each signature of
            `sandbox.hack_watch`, their `mean_length` in characters, `pass_rate` of the greedy ones and
            `impossible_pass_rate` (0 unless the judge was fooled); empty where nothing was executed
            or no answers were sampled.
    """

    answers: list[str]
    samples: list[list[str]]
    report: MetricsReport
    by_split: dict[str, dict[str, Any]]
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)
    extra_items: dict[str, list[float | None]] = field(default_factory=dict)
    hack_watch: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Metrics as `training_results.json` holds them."""
        return {**self.report.summary(), **self.extra}

    def to_dict(self) -> dict[str, Any]:
        return {
            "answers": self.answers,
            "samples": self.samples,
            "report": self.report.to_dict(),
            "by_split": self.by_split,
            "extra": self.extra,
            "extra_items": self.extra_items,
            "hack_watch": self.hack_watch,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PolicyEvaluation:
        """What `to_dict` gave."""
        return cls(
            answers=list(data["answers"]),
            samples=[list(texts) for texts in data.get("samples", [])],
            report=MetricsReport.from_dict(data["report"]),
            by_split=dict(data["by_split"]),
            extra=dict(data["extra"]),
            extra_items=dict(data["extra_items"]),
            hack_watch=dict(data.get("hack_watch", {})),
        )


def read_evaluation(path: Path) -> PolicyEvaluation:
    """An evaluation a run has written."""
    return PolicyEvaluation.from_dict(json.loads(path.read_text(encoding="utf-8")))


def known_evaluation(path: Path, of: Mapping[str, Any]) -> PolicyEvaluation | None:
    """The evaluation in `path`; None where there is none, or one of something else than `of` says."""
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # damaged: made again
        return None
    return PolicyEvaluation.from_dict(data) if data.get("of") == dict(of) else None


def compare(
    first: PolicyEvaluation,
    second: PolicyEvaluation,
    *,
    splits: Sequence[str] = (),
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Paired differences `second - first` by metric, with 95% intervals and p-values.

    With `splits` (one name an item) the pass rate is compared within each split too, under the name
    `pass_at_1/<split>`. Items that either policy has no score for are left out of both.
    """
    differences = compare_reports(
        first.report, second.report, splits=splits, samples=samples, seed=seed
    )
    for name, values in first.extra_items.items():
        if name in second.extra_items:
            found = paired_bootstrap(second.extra_items[name], values, samples=samples, seed=seed)
            if found.n:
                differences[name] = found
    return {name: one.to_dict() for name, one in differences.items()}


def five_fields(
    values: Sequence[float | None], *, rate: bool, samples: int, seed: int
) -> dict[str, Any]:
    """Mean, 95% bounds, n and reason of scores that no metric made, as `training_results.json` has them.

    Args:
        rate: whether the scores are 0 or 1 (or a probability between).
        samples: bootstrap resamples.
    """
    bounds = proportion_interval if rate else bootstrap_interval
    found = bounds(values, samples=samples, seed=seed)
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "n": found.n,
        "reason": None if found.n else "no item has it",
    }


def rates_by_split(
    splits: Sequence[str],
    report: MetricsReport,
    extra_items: Mapping[str, Sequence[float | None]],
    *,
    samples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """The rates of every split (one name an item; an empty one belongs to none), by split and metric."""
    columns: dict[str, Sequence[float | None]] = {
        name: report[name].per_item
        for name in ("pass_at_1", "exact_match", "syntax_valid")
        if name in report
    }
    columns |= {k: v for k, v in extra_items.items() if k.startswith("pass_at_")}
    return {
        split: {
            name: five_fields(
                [v for v, s in zip(values, splits, strict=True) if s == split],
                rate=True,
                samples=samples,
                seed=seed,
            )
            for name, values in columns.items()
        }
        for split in sorted({one for one in splits if one})
    }
