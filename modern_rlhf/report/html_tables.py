"""The tables of report.html: results, paired differences, splits, honesty checks, reward model, stages.

Each function takes a part of a JSON file of the run and returns HTML, or an empty string when there
is nothing to show. Names and reasons in the file are escaped; the form of the file is not trusted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from modern_rlhf.report.labels import (
    METRICS,
    MODELS,
    better,
    duration,
    metric_label,
    number,
    stage_label,
)
from modern_rlhf.report.table import (
    cell,
    entry_text,
    flagged,
    metric_rows,
    reasons,
    target_cell,
)


def results_table(results: Mapping[str, Any]) -> str:
    """Metrics by model with intervals and targets, under two cards; why some are n/a below."""
    models = [name for name in MODELS if name in results.get("models", {})]
    if not models:
        return ""
    met = [value for value in results.get("targets_met", {}).values() if value is not None]
    flags = flagged(results)
    cards = []
    if results.get("targets_met"):
        share = f"{sum(map(bool, met))} of {len(results['targets_met'])}"
        cards.append(f'<div class="card"><b>{share}</b> targets met</div>')
    if results.get("honesty_assessment"):
        word = "flag raised" if len(flags) == 1 else "flags raised"
        cards.append(
            f'<div class="card{" bad" if flags else ""}"><b>{len(flags)}</b> honesty {word}</div>'
        )
    keys = metric_rows(results, tuple(METRICS), others=True)
    rows = []
    for key in keys:
        values = [(_interval(cell(results, name, key)), "") for name in models]
        target = target_cell(results, key)
        kind = "good" if target.endswith(" met") else "bad" if target.endswith("missed") else ""
        rows.append(_row(metric_label(key), [*values, (target, kind)]))
    head = ["metric", *(MODELS[name] for name in models), "target"]
    notes = bullet_list(reasons(results, keys))
    return (
        f'<div class="cards">{"".join(cards)}</div>{_table(head, rows, kind="numbers")}'
        '<p class="note">In brackets: 95% intervals. n/a: not computed, for the reason '
        "below; a dash: not measured.</p>" + notes
    )


def differences_table(comparisons: Mapping[str, Any]) -> str:
    """Paired differences between models on the same items: metric rows, a column a pair."""
    pairs = [name for name, found in comparisons.items() if isinstance(found, Mapping) and found]
    keys = dict.fromkeys(key for name in pairs for key in comparisons[name])
    if not keys:
        return ""
    order = [key for key in METRICS if key in keys] + [key for key in keys if key not in METRICS]
    rows = [
        _row(metric_label(key), [_difference(key, comparisons[name].get(key)) for name in pairs])
        for key in order
    ]
    head = [
        "metric",
        *(" minus ".join(_model(part) for part in name.split(" - ")) for name in pairs),
    ]
    return _table(head, rows, kind="numbers") + (
        '<p class="note">Resampled over the items both models answered; in brackets 95% '
        "intervals, p two-sided. Coloured by what is better where the interval excludes 0.</p>"
    )


def _difference(key: str, entry: Any) -> tuple[str, str]:
    value = entry.get("difference") if isinstance(entry, Mapping) else None
    if value is None:
        return "", ""
    low, high, p = (entry.get(name) for name in ("low", "high", "p_value"))
    text = ("+" if value > 0 else "") + number(value)
    kind = ""
    if low is not None and high is not None:
        told = "" if p is None else f", p {number(p)}"
        text += f" <small>[{number(low)}, {number(high)}]{told}</small>"
        if low > 0 or high < 0:
            kind = {True: "good", False: "bad", None: ""}[better(key, value)]
    return text, kind


def splits_table(by_split: Mapping[str, Any]) -> str:
    """Per model, split and metric: values with intervals; a row a split and metric."""
    models = [name for name in MODELS if by_split.get(name)]
    splits = dict.fromkeys(split for name in models for split in by_split[name])
    rows = []
    for split in splits:
        keys = dict.fromkeys(key for name in models for key in by_split[name].get(split, {}))
        for key in keys:
            cells = [by_split[name].get(split, {}).get(key) for name in models]
            texts = [(_interval(entry_text(entry)), "") for entry in cells]
            rows.append(_row(f"{metric_label(key)}, {split.replace('_', ' ')}", texts))
    return _table(["metric", *map(_model, models)], rows, kind="numbers") if rows else ""


def _model(name: str) -> str:
    return MODELS.get(name, name)


def honesty_table(checks: Mapping[str, Any]) -> str:
    """Every honesty check, its flag in words, and its evidence."""
    rows = []
    for name, check in checks.items():
        check = check if isinstance(check, Mapping) else {"flag": check}
        flag = check.get("flag")
        word, kind = ("raised", "bad") if flag is True else ("unknown", "")
        if flag is False:
            word, kind = "clear", "good"
        evidence = _evidence(check.get("evidence"))
        rows.append(_row(name.replace("_", " "), [(word, kind), (evidence, "")]))
    return _table(["check", "flag", "evidence"], rows) if rows else ""


def _evidence(evidence: Any) -> str:
    if not evidence:
        return ""
    if isinstance(evidence, Mapping) and all(
        not isinstance(v, (list, Mapping)) for v in evidence.values()
    ):
        return "; ".join(
            f"{escape(str(key).replace('_', ' '))} {inline(value)}"
            for key, value in evidence.items()
        )
    text = json.dumps(evidence, indent=1, ensure_ascii=False)
    return f"<details><summary>show</summary><pre>{escape(text)}</pre></details>"


def reward_table(evaluation: Mapping[str, Any]) -> str:
    """What reward_model/evaluation.json says: accuracy beside the baselines, length, raters."""
    rows = []

    def part(name: str) -> Mapping[str, Any]:
        found = evaluation.get(name)
        return found if isinstance(found, Mapping) else {}

    def line(name: str, entry: Any, key: str = "value", note: str = "") -> None:
        if not isinstance(entry, Mapping) or not isinstance(entry.get(key), (int, float)):
            return
        text = number(entry[key])
        if isinstance(entry.get("low"), (int, float)):
            text += f" <small>[{number(entry['low'])}, {number(entry['high'])}]</small>"
        rows.append(_row(name, [(text, ""), (inline(entry.get("n", "")), ""), (escape(note), "")]))

    judges = part("judges")
    who = {"people": "people", "simulated": "simulated raters"}
    judged = who.get(judges.get("pairs"), judges.get("pairs"))
    held_out = f"held-out pairs{f' judged by {judged}' if judged else ''}, questions resampled"
    line("pairwise accuracy", evaluation.get("accuracy"), note=held_out)
    for name, entry in part("baselines").items():
        line(f"accuracy of {name.replace('_', ' ')}", entry, note="learns nothing; same pairs")
    error = {"value": evaluation.get("expected_calibration_error")}
    line("expected calibration error", error, note="temperature fitted on other questions")
    bias = part("length_bias")
    line("score and length", bias.get("correlation"), "pearson", "Pearson")
    line("accuracy at equal length", bias.get("length_matched_accuracy"), note="within 10%")
    owner = {"people": "people's", None: "the"}.get(judges.get("ratings"), judges.get("ratings"))
    for name, entry in part("rating_correlation").items():
        line(f"{name} and {owner} ratings", entry, "pearson", "Pearson, questions resampled")
    rater = part("synthetic_rater")
    note = f"{rater.get('model')}: Pearson, on answers that both rated"
    line("synthetic and people's ratings", rater.get("agreement"), "pearson", note)
    if rater and rater.get("agreement", {}).get("n") == 0:
        rows.append(_row("synthetic and people's ratings", [("n/a", ""), ("0", ""), ("", "")]))
    return _table(["reward model", "value", "n", ""], rows, kind="numbers") if rows else ""


def stages_table(stages: Mapping[str, Any]) -> str:
    """What each stage took: seconds, memory, speed, and other single values."""
    keys = list(dict.fromkeys(key for values in stages.values() for key in values))
    keys = [
        key
        for key in keys
        if any(isinstance(values.get(key), (int, float, str)) for values in stages.values())
    ]
    if not keys:
        return ""
    head = ["stage", *(key.replace("_", " ").replace(" mb", " (MB)") for key in keys)]
    rows = [
        _row(stage_label(name), [(_stage_value(key, values.get(key)), "") for key in keys])
        for name, values in stages.items()
    ]
    return _table(head, rows, kind="numbers")


def _stage_value(key: str, value: Any) -> str:
    if key == "seconds" and isinstance(value, (int, float)):
        return (
            f"{number(value, 1)} <small>({duration(value)})</small>"
            if value >= 60
            else number(value, 1)
        )
    return "" if isinstance(value, (dict, list)) else inline(value)


def bullet_list(lines: Sequence[str]) -> str:
    """Lines as a list; an empty string for none."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul class='note'>{items}</ul>" if items else ""


def inline(value: Any) -> str:
    """One JSON value as escaped text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    return "n/a" if value is None else escape(str(value))


def _table(head: Sequence[str], rows: Sequence[str], kind: str = "") -> str:
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(name: str, cells: Sequence[tuple[str, str]]) -> str:
    """A table row; `cells` are (HTML, class)."""
    data = "".join(f'<td class="{kind}">{html}</td>' for html, kind in cells)
    return f'<tr><th scope="row">{escape(name)}</th>{data}</tr>'


def _interval(text: str) -> str:
    value, bracket, rest = escape(text).partition(" [")
    return f"{value} <small>[{rest}</small>" if bracket else value
