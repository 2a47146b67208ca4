"""report.html: one self-contained page, no script, no request to anywhere, light and dark.

Every text from a run (prompts, answers, reasons) is escaped: generated text is hostile input. The
page forbids itself everything but inline styles and data images by a content security policy.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from modern_rlhf.report.inputs import RunFiles
from modern_rlhf.report.labels import (
    METRICS,
    MODELS,
    duration,
    metric_label,
    number,
    stage_label,
)
from modern_rlhf.report.page import STYLE
from modern_rlhf.report.table import cell, flagged, metric_rows, reasons, target_cell


@dataclass(frozen=True)
class Picture:
    """A plot in the page: file name, what a screen reader says, and the PNG."""

    name: str
    alternative: str
    png: bytes


def render(run: RunFiles, pictures: Sequence[Picture]) -> str:
    """The page for a run; a section is left out when the run has nothing for it."""
    results = run.results
    sections = [
        ("results", "Results", _results(run)),
        ("honesty", "Honesty assessment", _honesty(results.get("honesty_assessment", {}))),
        ("plots", "Plots", _pictures(pictures)),
        ("verdicts", "What executing the answers said", _verdicts(run.verdicts)),
        ("samples", "Samples", _samples(run.samples)),
        ("stages", "Stages", _stages(results.get("stages", {}))),
        ("config", "Configuration", _config(run.config)),
        ("problems", "What could not be read", _list(run.problems)),
    ]
    sections = [(anchor, title, body) for anchor, title, body in sections if body]
    links = " ".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in sections)
    bodies = "\n".join(
        f'<section id="{anchor}"><h2>{title}</h2>\n{body}</section>'
        for anchor, title, body in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark"> <title>{escape(_title(run))}</title>
<style>{STYLE}</style> </head> <body>
<header><h1>{escape(_title(run))}</h1>{_facts(run)}<nav>{links}</nav></header> <main> {bodies}
</main> <footer>Made by modern_rlhf from the files of this run; every number here stands in one of
them.</footer> </body> </html>
"""


def _title(run: RunFiles) -> str:
    return f"Training report: {run.folder.resolve().name}"


def _facts(run: RunFiles) -> str:
    model = _find(run.config, "base_model_name")
    facts = [
        ("model", model),
        ("algorithm", run.results.get("algorithm") or _find(run.config, "algorithm")),
        ("seed", run.results.get("seed", _find(run.config, "seed"))),
        ("state", run.status.get("state")),
        ("started", _minute(run.status.get("started"))),
        ("updated", _minute(run.status.get("updated"))),
        ("commit", _find(run.config, "git_commit") or _find(run.config, "commit")),
    ]
    items = [
        f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>"
        for name, value in facts
        if value is not None
    ]
    return f"<dl>{''.join(items)}</dl>" if items else ""


def _results(run: RunFiles) -> str:
    results = run.results
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
    notes = _list(reasons(results, keys))
    return (
        f'<div class="cards">{"".join(cards)}</div>{_table(head, rows, kind="numbers")}'
        '<p class="note">In brackets: 95% bootstrap intervals. n/a: not computed, for the reason '
        "below; a dash: not measured.</p>" + notes
    )


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


def _honesty(checks: Mapping[str, Any]) -> str:
    rows = []
    for name, check in checks.items():
        check = check if isinstance(check, Mapping) else {"flag": check}
        flag = check.get("flag")
        word, kind = {True: ("raised", "bad"), False: ("clear", "good")}.get(flag, ("unknown", ""))
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
            f"{escape(str(key).replace('_', ' '))} {_text(value)}"
            for key, value in evidence.items()
        )
    text = json.dumps(evidence, indent=1, ensure_ascii=False)
    return f"<details><summary>show</summary><pre>{escape(text)}</pre></details>"


def _pictures(pictures: Sequence[Picture]) -> str:
    return "\n".join(
        f'<figure><img alt="{escape(picture.alternative, quote=True)}" '
        f'src="data:image/png;base64,{base64.b64encode(picture.png).decode("ascii")}">'
        f"<figcaption>{escape(picture.name)}</figcaption></figure>"
        for picture in pictures
    )


def _verdicts(verdicts: Mapping[int, Counter[str]]) -> str:
    """The mix of verdicts in the first and the last quarter of the logged steps, and over all."""
    if not verdicts:
        return ""
    steps = sorted(verdicts)
    quarter = max(1, len(steps) // 4)
    parts = [("all steps", steps)]
    if len(steps) > 1:
        parts = [
            (f"steps {steps[0]} to {steps[quarter - 1]}", steps[:quarter]),
            (f"steps {steps[-quarter]} to {steps[-1]}", steps[-quarter:]),
            *parts,
        ]
    counts = [sum((verdicts[step] for step in chosen), Counter[str]()) for _, chosen in parts]
    order = [name for name, _ in counts[-1].most_common()]
    legend = "".join(
        f'<span class="key"><i class="c{index % 8}"></i>{escape(name.replace("_", " "))}</span>'
        for index, name in enumerate(order)
    )
    rows = []
    for (name, _), count in zip(parts, counts, strict=True):
        total = sum(count.values())
        bars = "".join(
            f'<i class="c{index % 8}" style="width:{100 * count[key] / total:.2f}%" '
            f'title="{escape(key, quote=True)} {count[key]} ({100 * count[key] / total:.1f}%)"></i>'
            for index, key in enumerate(order)
            if count[key]
        )
        words = ", ".join(
            f"{escape(key)} {100 * count[key] / total:.1f}%" for key in order if count[key]
        )
        rows.append(
            f'<div class="mix"><span>{name} <small>({total} answers)</small></span>'
            f'<div class="bar">{bars}</div><small>{words}</small></div>'
        )
    return f'<p class="legend">{legend}</p>{"".join(rows)}'


def _samples(samples: Sequence[Mapping[str, Any]], limit: int = 20) -> str:
    blocks = []
    for index, row in enumerate(samples[:limit], start=1):
        prompt = str(row.get("prompt", ""))
        columns = []
        for key in ("reference", *MODELS):
            value = row.get(key)
            if value is None:
                continue
            text, verdict = (
                (value, None) if isinstance(value, str) else (value["text"], value["verdict"])
            )
            kind = "" if verdict is None else "good" if verdict == "pass" else "bad"
            told = (
                f' <span class="{kind}">{escape(verdict.replace("_", " "))}</span>'
                if verdict
                else ""
            )
            columns.append(
                f"<div><h4>{escape(MODELS.get(key, key))}{told}</h4><pre>{escape(text)}</pre></div>"
            )
        opened = " open" if index <= 3 else ""
        title = prompt.strip().split("\n")[0][:120] or "(empty prompt)"
        blocks.append(
            f"<details{opened}><summary>{index}. {escape(title)}</summary>"
            f'<pre class="prompt">{escape(prompt)}</pre>'
            f'<div class="columns">{"".join(columns)}</div></details>'
        )
    rest = len(samples) - limit
    more = f"<p class='note'>{rest} more in samples.md.</p>" if rest > 0 else ""
    return "\n".join(blocks) + more if blocks else ""


def _stages(stages: Mapping[str, Any]) -> str:
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
    return "" if isinstance(value, (dict, list)) else _text(value)


def _config(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    text = json.dumps(config, indent=2, ensure_ascii=False)
    return f"<details><summary>config.json</summary><pre>{escape(text)}</pre></details>"


def _list(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul class='note'>{items}</ul>" if items else ""


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    return "n/a" if value is None else escape(str(value))


def _minute(value: Any) -> str | None:
    """`2026-01-31T12:34:56.789+00:00` as `2026-01-31 12:34 UTC`."""
    if not isinstance(value, str):
        return None
    return value[:16].replace("T", " ") + (" UTC" if value.endswith("+00:00") else "")


def _find(tree: Any, key: str) -> Any:
    """The first value under `key` anywhere in nested dictionaries, breadth first."""
    level = [tree]
    while level:
        for node in level:
            if isinstance(node, Mapping) and key in node:
                return node[key]
        level = [value for node in level if isinstance(node, Mapping) for value in node.values()]
    return None
