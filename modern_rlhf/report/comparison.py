"""Models side by side, for `modern-rlhf evaluate`: Markdown and CSV out of numbers, nothing is read.

A comparison is `{"items", "models": {label: {metric: entry}}, "differences": {pair: {metric: row}},
"notes": [...]}`, with entries and rows as `evaluation` makes them; it is also what is written as JSON.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modern_rlhf.report.labels import METRICS, metric_label
from modern_rlhf.report.table import entry_text, number

Comparison = Mapping[str, Any]

_ENTRY = ("value", "low", "high", "n", "reason")
_DIFFERENCE = ("difference", "low", "high", "p_value", "p_value_holm", "n")


def in_reading_order(names: Iterable[str]) -> list[str]:
    """Known metrics first, in the order of `labels.METRICS`, then the others as they come."""
    given = dict.fromkeys(names)
    return [name for name in METRICS if name in given] + [n for n in given if n not in METRICS]


def comparison_markdown(comparison: Comparison) -> str:
    """A table of values with intervals, a table a pair of models, and what has to be known of them."""
    models = comparison["models"]
    names = in_reading_order(name for entries in models.values() for name in entries)
    lines = [f"| metric ({comparison['items']} items) | {' | '.join(map(_cell, models))} |"]
    lines.append(f"|---|{'---|' * len(models)}")
    for name in names:
        cells = [entry_text(entries.get(name)) for entries in models.values()]
        lines.append(f"| {metric_label(name)} | {' | '.join(cells)} |")
    for pair, rows in comparison["differences"].items():
        lines += ["", f"| {_cell(pair)} | difference | p | p (Holm) |", "|---|---|---|---|"]
        for name in in_reading_order(rows):
            row = rows[name]
            gap = entry_text({**row, "value": row["difference"]})
            p_values = f"{number(row['p_value'])} | {number(row.get('p_value_holm'))}"
            lines.append(f"| {metric_label(name)} | {gap} | {p_values} |")
    notes = [*comparison["notes"], *_reasons(models, names)]
    return "\n".join([*lines, "", *(f"* {note}" for note in notes)])


def comparison_csv(comparison: Comparison) -> str:
    """A line for every metric of every model, with its difference from the first model."""
    head = ["model", "metric", *_ENTRY, *(f"vs_first_{name}" for name in _DIFFERENCE)]
    rows: list[list[Any]] = []
    first = next(iter(comparison["models"]), "")
    for label, entries in comparison["models"].items():
        differences = comparison["differences"].get(f"{label} - {first}", {})
        for name in in_reading_order([*entries, *differences]):
            entry, gap = entries.get(name, {}), differences.get(name, {})
            cells = [entry.get(field) for field in _ENTRY] + [gap.get(f) for f in _DIFFERENCE]
            rows.append([label, name, *cells])
    return _csv([head, *rows])


def items_csv(columns: Mapping[str, Sequence[Any]]) -> str:
    """A line an item: aligned columns by name (prompt, answers and scores)."""
    return _csv([list(columns), *map(list, zip(*columns.values(), strict=True))])


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(["" if value is None else value for value in row])
    return text.getvalue()


def _cell(text: str) -> str:
    """Text that does not end its cell of a Markdown table."""
    return text.replace("|", "\\|")


def _reasons(models: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Why a metric is n/a, one line a reason, naming the models it holds for."""
    found: dict[tuple[str, str], list[str]] = {}
    for label, entries in models.items():
        for name in names:
            entry = entries.get(name)
            if entry is not None and entry["value"] is None:
                found.setdefault((name, str(entry["reason"])), []).append(label)
    return [
        f"{metric_label(name)} is n/a for {', '.join(labels)}: {reason}"
        for (name, reason), labels in found.items()
    ]
