"""Plots of evaluations: metrics by epoch, one and all, and the targets that were reached.

Each function takes series that `curves` has made and returns a PNG, or None when there is nothing
to show; `build` writes the files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from modern_rlhf.report.curves import Curve, StageSpan
from modern_rlhf.report.labels import (
    METRICS,
    MODELS,
    metric_label,
    on_unit_scale,
    stage_label,
    unit,
)
from modern_rlhf.report.style import (
    BLACK,
    COLOURS,
    DASHES,
    GREEN,
    GREY,
    MARKERS,
    MODEL_COLOURS,
    VERMILION,
    finish,
    grid,
    house_style,
    whole_steps,
)

Curves = Mapping[str, Mapping[str, Curve]]
X_LABEL = "passes over the data"


def metrics_by_epoch(
    curves: Curves,
    spans: list[StageSpan],
    targets: Mapping[str, float],
    base: Mapping[str, Mapping[str, Any]],
) -> bytes | None:
    """`evaluation_metrics_by_epoch.png`: a panel a metric, with interval bands and target lines.

    Args:
        base: the base model's metrics, for the dotted line every stage has to beat.
    """
    keys = _in_reading_order(curves)
    if not keys:
        return None
    with house_style():
        figure, axes = grid(len(keys))
        for axis, key in zip(axes, keys, strict=True):
            for index, span in enumerate(spans):
                if span.stage in curves[key]:
                    _draw(axis, curves[key][span.stage], COLOURS[index], MARKERS[index], span)
            _mark_stages(axis, spans)
            reference = (base.get(key) or {}).get("value")
            if reference is not None:
                axis.axhline(reference, color=GREY, linestyle=(0, (1, 2)), label="base model")
            if key in targets:
                axis.axhline(
                    targets[key], color=BLACK, linestyle=(0, (6, 3)), linewidth=1.2, label="target"
                )
            axis.set(
                title=metric_label(key),
                xlabel=X_LABEL,
                ylabel="score, 0 to 1" if on_unit_scale(key) else unit(key),
            )
            if on_unit_scale(key):
                axis.set_ylim(-0.03, 1.03)
            # A box: target and base lines cross the panel, and must not cross the words.
            axis.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none")
        caption = (
            "Bands: 95% intervals. Dashed: target; dotted: the base model before "
            "training. Stages follow one another; x counts passes over each stage's own data."
        )
        return finish(figure, title="Evaluation metrics by epoch", caption=caption)


def all_metrics_by_epoch(
    curves: Curves,
    spans: list[StageSpan],
    targets: Mapping[str, float],
    base: Mapping[str, Mapping[str, Any]],
) -> bytes | None:
    """`all_evaluation_metrics_by_epoch.png`: every metric of the 0-1 scale on one pair of axes."""
    keys = [key for key in _in_reading_order(curves) if on_unit_scale(key)]
    if not keys:
        return None
    with house_style():
        figure, (axis,) = grid(1, panel=(10.0, 5.6))
        for index, key in enumerate(keys):
            colour = COLOURS[index % len(COLOURS)]
            style = {
                "color": colour,
                "marker": MARKERS[index % len(MARKERS)],
                "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
                "markersize": 6,
                "markeredgecolor": "white",
            }
            for position, curve in enumerate(curves[key].values()):
                axis.plot(
                    curve.x, curve.y, label=metric_label(key) if not position else None, **style
                )
            reference = (base.get(key) or {}).get("value")
            if reference is not None:
                axis.plot(
                    [0],
                    [reference],
                    **{**style, "markeredgecolor": colour},
                    markerfacecolor="white",
                    clip_on=False,
                )
            if key in targets:
                # On the right edge, in the metric's colour: lines across would drown the curves.
                axis.plot(
                    [1.012],
                    [targets[key]],
                    marker="<",
                    color=colour,
                    markersize=8,
                    clip_on=False,
                    transform=axis.get_yaxis_transform(),
                )
        _mark_stages(axis, spans)
        axis.set(xlabel=X_LABEL, ylabel="score, 0 to 1")
        axis.set_ylim(-0.03, 1.03)
        for span in spans:
            middle = (span.start + span.end) / 2
            axis.annotate(
                stage_label(span.stage),
                (middle, 1.0),
                xycoords=axis.get_xaxis_transform(),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                color=GREY,
            )
        axis.legend(loc="center left", bbox_to_anchor=(1.03, 0.5), fontsize=9.5)
        caption = (
            "Hollow markers at 0: the base model, on the final evaluation's items. Triangles on "
            "the right edge: targets, in the colour of their metric."
        )
        return finish(figure, title="All evaluation metrics by epoch", caption=caption)


def target_achievement(
    models: Mapping[str, Mapping[str, Mapping[str, Any]]], targets: Mapping[str, float]
) -> bytes | None:
    """`target_achievement.png`: the last model against each target, the others beside it."""
    known = [name for name in MODELS if name in models]
    if not known or not targets:
        return None
    last = known[-1]
    keys = [key for key in METRICS if key in targets] + [
        key for key in targets if key not in METRICS
    ]
    with house_style():
        figure, (axis,) = grid(1, panel=(9.0, 0.55 * len(keys) + 1.2))
        for row, key in enumerate(reversed(keys)):
            _draw_target(axis, row, key, targets[key], models, known)
        axis.set_yticks(range(len(keys)), [metric_label(key) for key in reversed(keys)])
        axis.set(xlabel="score, 0 to 1", xlim=(0, 1.42), ylim=(-0.6, len(keys) - 0.4))
        axis.set_xticks([index / 5 for index in range(6)])
        axis.grid(axis="y", visible=False)
        axis.spines["bottom"].set_bounds(0, 1)
        handles = {
            label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        axis.legend(
            handles.values(), handles.keys(), loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5
        )
        caption = (
            f"Bar and whisker: the {MODELS[last]} model and its 95% interval; the "
            "black line is the target."
        )
        return finish(figure, title="Targets", caption=caption)


def _draw_target(
    axis: Axes,
    row: int,
    key: str,
    target: float,
    models: Mapping[str, Mapping[str, Mapping[str, Any]]],
    known: list[str],
) -> None:
    last = known[-1]
    entry = models[last].get(key) or {}
    value = entry.get("value")
    axis.plot(
        [target, target], [row - 0.38, row + 0.38], color=BLACK, linewidth=2.4, label="target"
    )
    if value is None:
        reason = entry.get("reason") or "not measured"
        short = reason if len(reason) <= 30 else f"{reason[:28]}..."
        axis.text(1.03, row, f"n/a: {short}", va="center", fontsize=9, color=GREY)
        return
    met = value >= target
    axis.barh(
        row,
        value,
        height=0.5,
        color=GREEN if met else VERMILION,
        alpha=0.75,
        hatch="" if met else "///",
        edgecolor="white",
    )
    low, high = entry.get("low"), entry.get("high")
    if low is not None and high is not None:
        # Above the dots of the other models, which stand close to a good last one.
        axis.plot(
            [low, high], [row, row], color="#222222", linewidth=1.4, marker="|", ms=8, zorder=3
        )
    for name in known[:-1]:
        other = (models[name].get(key) or {}).get("value")
        if other is not None:
            axis.plot(
                [other],
                [row],
                MARKERS[known.index(name)],
                color=MODEL_COLOURS[name],
                markeredgecolor="white",
                markersize=8,
                label=MODELS[name],
                linestyle="none",
            )
    word = "met" if met else "missed"
    axis.text(1.03, row, f"{value:.3f}, target {target:.2f}: {word}", va="center", fontsize=9)


def _draw(axis: Axes, curve: Curve, colour: str, marker: str, span: StageSpan) -> None:
    axis.plot(
        curve.x,
        curve.y,
        color=colour,
        marker=marker,
        markersize=5,
        markeredgecolor="white",
        label=stage_label(span.stage),
    )
    if any(math.isfinite(value) for value in curve.low):
        axis.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)


def _mark_stages(axis: Axes, spans: list[StageSpan]) -> None:
    end = max(spans[-1].end, 1e-9)
    axis.set_xlim(-0.03 * end, 1.03 * end)
    whole_steps(axis)
    for span in spans[1:]:
        axis.axvline(span.start, color="#AAAAAA", linewidth=1)


def _in_reading_order(curves: Curves) -> list[str]:
    return [key for key in METRICS if key in curves] + [key for key in curves if key not in METRICS]
