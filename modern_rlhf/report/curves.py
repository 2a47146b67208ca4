"""Series for plots out of the lines of metrics.jsonl: pure functions, nothing is drawn here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modern_rlhf.report.labels import REWARD_STAGES

_HEAD = ("schema", "stage", "kind", "step", "epoch")
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Curve:
    """Points in order of x; y, low and high are NaN where there is no number."""

    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def has_values(self) -> bool:
        return any(math.isfinite(value) for value in self.y)


@dataclass(frozen=True)
class StageSpan:
    """Where a stage lies on the axis that puts the stages one after the other, in passes."""

    stage: str
    start: float
    end: float


def stages(rows: Rows, kind: str | None = None) -> list[str]:
    """Stage names in the order in which they first appear."""
    chosen = (row for row in rows if kind is None or row.get("kind") == kind)
    return list(dict.fromkeys(str(row["stage"]) for row in chosen if "stage" in row))


def logged_keys(rows: Rows, stage: str, kind: str = "train") -> list[str]:
    """The values logged by a stage in order of appearance, without bounds and non-finite marks."""
    found: dict[str, None] = {}
    for row in rows:
        if row.get("stage") == stage and row.get("kind") == kind:
            found.update(dict.fromkeys(key for key in row if key not in _HEAD))
    endings = ("_nonfinite", "_std") if kind == "train" else ("_nonfinite", "_low", "_high")
    return [key for key in found if not _is_companion(key, found, endings)]


def training_curve(rows: Rows, stage: str, key: str, *, kind: str = "train") -> Curve:
    """`key` over the optimiser steps of one stage; `<key>_std`, where logged, gives the band."""
    chosen = [row for row in rows if row.get("stage") == stage and row.get("kind") == kind]
    chosen = [row for row in chosen if key in row]
    y = [_value(row.get(key)) for row in chosen]
    spread = [_value(row.get(f"{key}_std")) for row in chosen]
    return Curve(
        x=[float(row["step"]) for row in chosen],
        y=y,
        low=[value - width for value, width in zip(y, spread, strict=True)],
        high=[value + width for value, width in zip(y, spread, strict=True)],
    )


def stage_spans(rows: Rows) -> list[StageSpan]:
    """The stages that were evaluated, laid one after the other by their passes over the data.

    The reward model's stage is left out: its evaluation lines speak of another model.
    """
    spans: list[StageSpan] = []
    end = 0.0
    for stage in stages(rows, "eval"):
        if stage not in REWARD_STAGES:
            length = max(_epochs(row for row in rows if row.get("stage") == stage), default=0.0)
            spans.append(StageSpan(stage, end, end + length))
            end += length
    return spans


def evaluation_curves(rows: Rows) -> dict[str, dict[str, Curve]]:
    """By metric and stage: values with their intervals over passes, stage after stage."""
    curves: dict[str, dict[str, Curve]] = {}
    for span in stage_spans(rows):
        chosen = [
            row for row in rows if row.get("stage") == span.stage and row.get("kind") == "eval"
        ]
        for key in logged_keys(rows, span.stage, "eval"):
            points = [row for row in chosen if key in row]
            curve = Curve(
                x=[span.start + (_value(row.get("epoch"), 0.0)) for row in points],
                y=[_value(row.get(key)) for row in points],
                low=[_value(row.get(f"{key}_low")) for row in points],
                high=[_value(row.get(f"{key}_high")) for row in points],
            )
            if curve.has_values:
                curves.setdefault(key, {})[span.stage] = curve
    return curves


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Centred running mean over up to `window` finite values; NaN where there is none.

    Near the ends the window shrinks on both sides, so that a straight line stays straight.
    """
    result = []
    for index in range(len(values)):
        half = min(window // 2, index, len(values) - 1 - index)
        near = [v for v in values[index - half : index + half + 1] if math.isfinite(v)]
        result.append(sum(near) / len(near) if near else math.nan)
    return result


def _is_companion(key: str, keys: Mapping[str, None], endings: Sequence[str]) -> bool:
    return any(key.endswith(end) and key.removesuffix(end) in keys for end in endings)


def _epochs(rows: Iterable[Mapping[str, Any]]) -> list[float]:
    return [float(row["epoch"]) for row in rows if isinstance(row.get("epoch"), (int, float))]


def _value(value: Any, missing: float = math.nan) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return missing
