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

from modern_rlhf.report.html_tables import (
    bullet_list,
    differences_table,
    honesty_table,
    inline,
    results_table,
    reward_table,
    splits_table,
    stages_table,
)
from modern_rlhf.report.inputs import RunFiles
from modern_rlhf.report.labels import MODELS
from modern_rlhf.report.page import STYLE


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
        ("results", "Results", results_table(results)),
        ("differences", "Paired differences", differences_table(results.get("comparisons", {}))),
        ("splits", "Seen and unseen tasks", splits_table(results.get("by_split", {}))),
        ("honesty", "Honesty assessment", honesty_table(results.get("honesty_assessment", {}))),
        ("reward", "Reward model", reward_table(run.reward_evaluation)),
        ("plots", "Plots", _pictures(pictures)),
        ("verdicts", "What executing the answers said", _verdicts(run.verdicts)),
        ("samples", "Samples", _samples(run.samples)),
        ("stages", "Stages", stages_table(results.get("stages", {}))),
        ("config", "Configuration", _config(run.config)),
        ("problems", "What could not be read", bullet_list(run.problems)),
    ]
    sections = [(anchor, title, body) for anchor, title, body in sections if body]
    links = " ".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in sections)
    bodies = "\n".join(
        f'<section id="{anchor}"><h2>{title}</h2>\n{body}</section>'
        for anchor, title, body in sections
    )
    title = escape(_title(run))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<header><h1>{title}</h1>{_facts(run)}<nav>{links}</nav></header>
<main>
{bodies}
</main>
<footer>Made by modern_rlhf from the files of this run; its numbers all stand in them.</footer>
</body>
</html>
"""


def _title(run: RunFiles) -> str:
    return f"Training report: {run.folder.resolve().name}"


def _facts(run: RunFiles) -> str:
    results = run.results
    facts = [
        ("model", _find(run.config, "base_model_name")),
        ("algorithm", results.get("algorithm") or _find(run.config, "algorithm")),
        ("seed", results.get("seed", _find(run.config, "seed"))),
        # The page of a finished run is made just before the run says "done".
        ("state", None if results else run.status.get("state")),
        ("started", _minute(run.status.get("started"))),
        ("updated", _minute(run.status.get("updated"))),
        ("commit", _find(run.config, "commit")),
    ]
    items = [
        f"<div><dt>{name}</dt><dd>{inline(value)}</dd></div>"
        for name, value in facts
        if value is not None
    ]
    return f"<dl>{''.join(items)}</dl>" if items else ""


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
            kind = "" if verdict is None else "good" if verdict.startswith("pass") else "bad"
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


def _config(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    text = json.dumps(config, indent=2, ensure_ascii=False)
    return f"<details><summary>config.json</summary><pre>{escape(text)}</pre></details>"


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
