"""The table a run closes with: base, SFT and RLHF side by side, in plain ASCII for any terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modern_rlhf.report.labels import CLOSING_METRICS, MODELS, metric_label, number

Results = Mapping[str, Any]


def closing_table(results: Results) -> str:
    """A text table of `training_results.json`'s content: metric rows, model columns, targets.

    A value is followed by its 95% interval. A metric that no model has is left out; one that could
    not be computed is `n/a`, with the reason below.
    """
    models = [name for name in MODELS if name in results.get("models", {})]
    rows = metric_rows(results, CLOSING_METRICS)
    header = ["metric", *(MODELS[name] for name in models), "target"]
    lines = [
        [
            metric_label(key),
            *(cell(results, name, key) for name in models),
            target_cell(results, key),
        ]
        for key in rows
    ]
    widths = [max(len(line[column]) for line in [header, *lines]) for column in range(len(header))]
    text = [_line(header, widths), _line(["-" * width for width in widths], widths)]
    text += [_line(line, widths) for line in lines]
    text += ["", *_notes(results, models, rows)]
    return "\n".join(text).rstrip()


def metric_rows(results: Results, preferred: tuple[str, ...], *, others: bool = False) -> list[str]:
    """The metrics that some model has: the preferred ones first, then (`others`) all the rest."""
    present = {key for values in results.get("models", {}).values() for key in values}
    rows = [key for key in preferred if key in present]
    return rows + sorted(present - set(rows)) if others else rows


def cell(results: Results, model: str, key: str) -> str:
    """A model's value of a metric as text; see `entry_text`."""
    return entry_text(results["models"][model].get(key))


def entry_text(entry: Mapping[str, Any] | None) -> str:
    """`0.421 [0.380, 0.462]`, `n/a`, or `-` where the model was not measured."""
    if entry is None:
        return "-"
    if entry.get("value") is None:
        return "n/a"
    text = number(entry["value"])
    if entry.get("low") is not None and entry.get("high") is not None:
        text += f" [{number(entry['low'])}, {number(entry['high'])}]"
    return text


def target_cell(results: Results, key: str) -> str:
    """`0.40 missed`, `0.30 met`, `0.70 not measured`, or an empty string without a target."""
    target = results.get("targets", {}).get(key)
    if target is None:
        return ""
    met = results.get("targets_met", {}).get(key)
    word = "not measured" if met is None else "met" if met else "missed"
    return f"{target:.2f} {word}"


def reasons(results: Results, keys: list[str]) -> list[str]:
    """Why a metric is `n/a`: one line a reason, naming the models it holds for."""
    found: dict[tuple[str, str], list[str]] = {}
    for model, values in results.get("models", {}).items():
        for key in keys:
            entry = values.get(key)
            if entry is not None and entry.get("value") is None:
                reason = str(entry.get("reason") or "no reason recorded")
                found.setdefault((key, reason), []).append(MODELS.get(model, model))
    return [
        f"{metric_label(key)} n/a ({', '.join(models)}): {reason}"
        for (key, reason), models in found.items()
    ]


def flagged(results: Results) -> list[str]:
    """The names of the honesty checks that raised a flag."""
    checks = results.get("honesty_assessment", {})
    return [
        name for name, check in checks.items() if isinstance(check, Mapping) and check.get("flag")
    ]


def _notes(results: Results, models: list[str], rows: list[str]) -> list[str]:
    notes = reasons(results, rows)
    counts = {
        entry["n"]
        for name in models
        for key, entry in results["models"][name].items()
        if key in rows and entry.get("n")
    }
    if counts:
        size = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        notes.append(f"Intervals: 95% over {size} items (bootstrap; binomial for rates of few).")
    met = [value for value in results.get("targets_met", {}).values() if value is not None]
    if results.get("targets_met"):
        notes.append(f"Targets met: {sum(map(bool, met))} of {len(results['targets_met'])}.")
    flags = flagged(results)
    if flags:
        notes.append(f"Honesty checks that raised a flag: {', '.join(flags)}.")
    return notes


def _line(cells: list[str], widths: list[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(cells, widths, strict=True)).rstrip()
