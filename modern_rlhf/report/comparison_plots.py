"""Plots of the commands `evaluate` and `correlate`: dots with their 95% intervals, one row a metric.

Each function takes numbers by name and returns a PNG, or None when there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from modern_rlhf.report.comparison import in_reading_order
from modern_rlhf.report.labels import metric_label, on_unit_scale
from modern_rlhf.report.style import (
    BLUE,
    COLOURS,
    GREY,
    MARKERS,
    finish,
    grid,
    house_style,
)

Entries = Mapping[str, Mapping[str, Any]]

MEASURES = {
    "pearson": "Pearson",
    "spearman": "Spearman",
    "kendall": "Kendall, tau-b",
    "pairwise_accuracy": "pairwise accuracy",
}
ALPHA = 0.05


def models_plot(models: Mapping[str, Entries]) -> bytes | None:
    """Every metric between 0 and 1, a dot a model."""
    names = [
        name
        for name in in_reading_order(name for entries in models.values() for name in entries)
        if on_unit_scale(name)
        and any(entries.get(name, {}).get("value") is not None for entries in models.values())
    ]
    if not names:
        return None
    with house_style():
        spread = 0.16 * max(1, len(models) - 1)
        height = 0.28 * len(names) * (1 + 0.35 * len(models)) + 0.8
        figure, (axis,) = grid(1, panel=(9.0, height))
        for place, (label, entries) in enumerate(models.items()):
            shift = spread * (0.5 - place / max(1, len(models) - 1)) if len(models) > 1 else 0.0
            for row, name in enumerate(reversed(names)):
                entry = entries.get(name, {})
                if entry.get("value") is not None:
                    colour = COLOURS[place % len(COLOURS)]
                    marker = MARKERS[place % len(MARKERS)]
                    _dot(axis, row + shift, entry["value"], entry, colour, marker, label)
        _rows(axis, names)
        axis.set(xlabel="value, 0 to 1", xlim=(-0.02, 1.02))
        found = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        axis.legend(
            found.values(), found.keys(), loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4
        )
        caption = (
            "Whiskers: 95% intervals over the evaluation items. Metrics that are not on "
            "the 0-1 scale stand in the table."
        )
        return finish(figure, title="Models on the same items", caption=caption)


def differences_plot(differences: Mapping[str, Entries]) -> bytes | None:
    """Paired differences from the first model, a panel a pair, with their intervals."""
    panels = {
        pair: [name for name in in_reading_order(rows) if on_unit_scale(name)]
        for pair, rows in differences.items()
    }
    panels = {pair: names for pair, names in panels.items() if names}
    if not panels:
        return None
    tallest = max(map(len, panels.values()))
    with house_style():
        figure, axes = grid(len(panels), columns=2, panel=(7.2, 0.29 * tallest + 0.9))
        for axis, (pair, names) in zip(axes, panels.items(), strict=True):
            for row, name in enumerate(reversed(names)):
                found = differences[pair][name]
                p_value = found.get("p_value_holm")
                sure = p_value is not None and p_value < ALPHA
                colour, marker = (BLUE, "o") if sure else (GREY, "s")
                _dot(axis, row, found["difference"], found, colour, marker, None)
            axis.axvline(0.0, color="#888888", linewidth=1)
            _rows(axis, names)
            axis.set(title=pair, xlabel="difference of the values")
        caption = (
            f"Blue dots: p < {ALPHA} in the paired randomisation test after Holm's adjustment; grey squares: "
            "not told apart. Whiskers: 95% intervals of the paired bootstrap over items. To the right the "
            "first-named model has the higher value, which for unsafe code is the worse one."
        )
        return finish(figure, title="Paired differences", caption=caption)


def agreement_plot(found: Mapping[str, Entries], *, subtitle: str) -> bytes | None:
    """Agreement of scores with human grades: a panel a measure, a row a metric, best on top.

    Args:
        found: by metric, by measure: `value`, `low`, `high`.
        subtitle: what was graded.
    """
    names = [
        name
        for name, measures in found.items()
        if any(measures[measure]["value"] is not None for measure in MEASURES)
    ]
    if not names:
        return None
    with house_style():
        figure, axes = grid(len(MEASURES), columns=2, panel=(5.6, 0.29 * len(names) + 0.9))
        for axis, (measure, title) in zip(axes, MEASURES.items(), strict=True):
            chance = 0.5 if measure == "pairwise_accuracy" else 0.0
            for row, name in enumerate(reversed(names)):
                entry = found[name][measure]
                if entry["value"] is not None:
                    _dot(axis, row, entry["value"], entry, BLUE, "o", None)
                    axis.annotate(
                        f"{entry['value']:.3f}",
                        (entry["value"], row),
                        xytext=(0, 5),
                        textcoords="offset points",
                        ha="center",
                        fontsize=8,
                    )
            axis.axvline(chance, color="#888888", linewidth=1)
            _rows(axis, names)
            axis.set_ylim(-0.6, len(names) - 0.2)
            unit = "share of pairs in the right order" if chance else "correlation, -1 to 1"
            axis.set(title=title, xlabel=unit)
            low = min(chance, *axis.get_xlim())
            axis.set_xlim(low, max(chance, axis.get_xlim()[1]))
        caption = f"{subtitle} Whiskers: 95% bootstrap intervals. Grey line: no agreement."
        return finish(figure, title="Agreement with human grades", caption=caption)


def _dot(
    axis: Axes,
    row: float,
    value: float,
    bounds: Mapping[str, Any],
    colour: str,
    marker: str,
    label: str | None,
) -> None:
    if bounds.get("low") is not None and bounds.get("high") is not None:
        axis.plot([bounds["low"], bounds["high"]], [row, row], color=colour, linewidth=1.6)
    axis.plot(
        [value],
        [row],
        marker,
        color=colour,
        markersize=6.5,
        markeredgecolor="white",
        linestyle="none",
        label=label,
    )


def _rows(axis: Axes, names: list[str]) -> None:
    axis.set_yticks(range(len(names)), [metric_label(name) for name in reversed(names)])
    axis.set_ylim(-0.6, len(names) - 0.4)
