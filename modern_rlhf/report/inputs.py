"""What a report is made of: every file of a run that can be read, and a list of what could not be.

A run may be young, killed or partly deleted, so each file is optional; one that is there but broken
is named in `problems`, which the report prints. Rollouts are counted while they stream by.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modern_rlhf.errors import OutputError
from modern_rlhf.report.labels import REWARD_STAGES
from modern_rlhf.report.samples import read_samples
from modern_rlhf.tracking import METRICS, ROLLOUTS, STATUS, TIMINGS
from modern_rlhf.utils.jsonl import iterate_lines


@dataclass(frozen=True)
class RunFiles:
    """The contents of an output folder.

    Attributes:
        verdicts: by step, how many episodes got which verdict.
        problems: one line for each file or line that could not be used.
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    reward_evaluation: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    verdicts: dict[int, Counter[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_run(folder: Path) -> RunFiles:
    """Read what a run has left so far.

    Raises:
        OutputError: the folder is missing, or holds neither logs nor results.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OutputError(f"{folder} is not a folder: name the output folder of a run")
    problems: list[str] = []
    run = RunFiles(
        folder=folder,
        config=_json(folder / "config.json", problems),
        results=_results(folder / "training_results.json", problems),
        status=_json(folder / STATUS, problems),
        reward_evaluation=_json(folder / "reward_model" / "evaluation.json", problems),
        metrics=list(iterate_lines(folder / METRICS, problems)),
        timings=list(iterate_lines(folder / TIMINGS, problems)),
        samples=read_samples(folder / "samples.md"),
        verdicts=_verdicts(folder / ROLLOUTS, problems),
        problems=problems,
    )
    if not (run.metrics or run.results or run.reward_evaluation):
        raise OutputError(
            f"{folder} holds no metrics.jsonl and no training_results.json: nothing to report; "
            "name the output folder of a run"
        )
    return run


def rlhf_stage(run: RunFiles) -> str | None:
    """The name of the last stage that is neither SFT nor the reward model's."""
    names = [row.get("stage") for row in run.metrics]
    rl = [str(name) for name in names if name and name not in ("sft", *REWARD_STAGES)]
    return rl[-1] if rl else None


def _results(path: Path, problems: list[str]) -> dict[str, Any]:
    """The results without what is no mapping where one belongs."""
    found = _json(path, problems)
    for key in ("models", "targets", "targets_met", "honesty_assessment", "stages", "comparisons"):
        if key in found and not isinstance(found[key], dict):
            problems.append(f"{path.name}: {key!r} is no mapping, passed over")
            del found[key]
    return found


def _json(path: Path, problems: list[str]) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return {}
    if not isinstance(content, dict):
        problems.append(f"{path.name} holds no JSON object")
        return {}
    return content


def _verdicts(path: Path, problems: list[str]) -> dict[int, Counter[str]]:
    counts: dict[int, Counter[str]] = {}
    for row in iterate_lines(path, problems):
        step, verdict = row.get("step"), row.get("verdict")
        if isinstance(step, int) and isinstance(verdict, str):
            counts.setdefault(step, Counter())[verdict] += 1
    return dict(sorted(counts.items()))
