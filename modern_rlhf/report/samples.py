"""samples.md: the same prompts answered by the base, SFT and RLHF models, for people to read.

The form is fixed so that `read_samples` gets back what `write_samples` wrote: a level-2 heading a
prompt, a level-3 heading a text, and each text in a fence longer than any run of backticks inside
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from modern_rlhf.report.labels import MODELS
from modern_rlhf.utils.atomic import write_text

_TITLES = {
    "prompt": "Prompt",
    "reference": "Reference",
    **{key: label for key, label in MODELS.items()},
}
_TITLES["base"] = "Base"
_KEYS = {title: key for key, title in _TITLES.items()}
_HEADING = re.compile(r"### ([A-Za-z]+)(?: \((.+)\))?")


def write_samples(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write samples.md, atomically.

    Args:
        rows: each with `prompt`, optionally `reference`, and any of `base`, `sft`, `rlhf`; such an
            answer is a string, or `{"text": ..., "verdict": ...}` where it was executed. None is
            left out.

    Raises:
        OutputError: the file cannot be written.
    """
    lines = ["# Samples", "", "The same prompts answered by each model, greedily.", ""]
    for number, row in enumerate(rows, start=1):
        lines += [f"## Sample {number}", ""]
        for key, title in _TITLES.items():
            value = row.get(key)
            if value is None:
                continue
            text, verdict = (
                (value, None) if isinstance(value, str) else (value["text"], value.get("verdict"))
            )
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            heading = f"### {title} ({verdict})" if verdict else f"### {title}"
            lines += [heading, "", fence + ("" if key == "prompt" else "python"), text, fence, ""]
    write_text(path, "\n".join(lines))


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The rows of a samples.md: every answer as `{"text", "verdict"}`; empty without the file."""
    try:
        # Not `splitlines`: generated text may hold form feeds and other exotic line ends.
        lines = Path(path).read_bytes().decode("utf-8", errors="replace").split("\n")
    except OSError:
        return []
    rows: list[dict[str, Any]] = []
    key, verdict, fence = "", None, ""
    text: list[str] = []
    for line in lines:
        if fence:
            if line == fence:
                joined = "\n".join(text)
                plain = key in ("prompt", "reference")
                rows[-1][key] = joined if plain else {"text": joined, "verdict": verdict}
                fence, text = "", []
            else:
                text.append(line)
        elif line.startswith("## Sample "):
            rows.append({})
        elif (heading := _HEADING.fullmatch(line)) and heading[1] in _KEYS:
            key, verdict = _KEYS[heading[1]], heading[2]
        elif rows and key and (opening := re.match("`{3,}", line)):
            fence = opening[0]
    return rows
