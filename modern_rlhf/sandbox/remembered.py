"""Calibration of the prompts of a run, remembered: a task is tried once on a machine, not once a run.

Findings are kept by fingerprint in one file for each setting that could change them (timeout, memory,
Python version). What ships with the package was calibrated before (`calibrated_tasks.txt`, a line a
task), so a start on it runs nothing. A file that cannot be read or written costs time, nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from modern_rlhf.errors import OutputError
from modern_rlhf.records import Prompt, Task
from modern_rlhf.sandbox.calibrate import Finding, calibrate, fingerprint, to_json
from modern_rlhf.sandbox.calibrate import findings_from_json as read
from modern_rlhf.sandbox.types import Executor, Progress
from modern_rlhf.utils.atomic import write_text

LOGGER = logging.getLogger(__name__)
STORE = Path.home() / ".cache" / "modern_rlhf" / "calibration"
"""The folder of the files of findings."""
SHIPPED = Path(__file__).with_name("calibrated_tasks.txt")
"""Fingerprints (their first 16 digits) of the shipped tasks that calibration accepts by value."""
JUDGE = 1
"""Raised when the judge changes in a way that makes old findings worthless."""
_MOST = 50_000


@dataclass(frozen=True)
class CheckedPrompts:
    """Prompts that can be judged, in order, with their transport in the task's metadata.

    Attributes:
        prompts: those without a task, or whose task has no reference, are here as they came.
        dropped: what was left out and why, a finding a prompt.
        unjudged: prompts whose task the sandbox failed on; they are kept as they came.
        tried: tasks that were executed now; the others were known.
        weak: prompts whose verdicts a program could forge (`handles`, `inprocess`).
    """

    prompts: list[Prompt]
    dropped: tuple[Finding, ...] = ()
    unjudged: int = 0
    tried: int = 0
    weak: int = 0

    def line(self) -> str:
        """For the data report: counts, and the reasons by how often they occurred."""
        tasks = sum(p.task is not None for p in self.prompts) + len(self.dropped)
        text = f"{tasks} tasks checked on their references ({self.tried} executed now)"
        reasons: dict[str, list[str]] = {}
        for finding in self.dropped:
            reasons.setdefault(finding.reason.split(":")[0], []).append(finding.task_id)
        for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            text += f"; {len(names)} dropped: {reason} ({shown})"
        if self.unjudged:
            text += f"; {self.unjudged} could not be checked: the sandbox failed on them"
        if self.weak:
            text += f"; {self.weak} with weak verdicts"
        return text


def check_prompts(
    prompts: Sequence[Prompt],
    executor: Executor,
    *,
    timeout: float,
    memory_mb: int,
    store: Path | None = None,
    progress: Progress | None = None,
) -> CheckedPrompts:
    """Drop the prompts whose task's reference fails or whose stub passes.

    Args:
        prompts: of a run; equal tasks are tried once.
        executor: runs references and stubs of tasks that are not known yet.
        timeout, memory_mb: the executor's; findings are remembered for them.
        store: folder of the remembered findings; None takes `STORE`.

    Raises:
        SandboxError: tasks were to be tried and the executor failed for all of them.
    """
    tasks = {fingerprint(p.task): p.task for p in prompts if p.task is not None and _usable(p.task)}
    if not tasks:
        return CheckedPrompts(list(prompts))
    path = (store or STORE) / _name(timeout, memory_mb)
    known = _load(path)
    for key, task in tasks.items():
        if key not in known and key[:16] in shipped():
            known[key] = Finding(key, task.task_id, "auto")
    new = [key for key in tasks if key not in known]
    findings: Mapping[str, Finding] = known
    if new:
        findings = calibrate(
            list(tasks.values()), executor, known=known, timeout=timeout, progress=progress
        ).findings
        _save(path, findings)
    kept: list[Prompt] = []
    dropped: list[Finding] = []
    unjudged = weak = 0
    for prompt in prompts:
        own = prompt.task
        if own is None or not _usable(own):
            kept.append(prompt)
            continue
        found = findings.get(fingerprint(own))
        if found is None:
            unjudged += 1
            kept.append(prompt)
        elif found.transport is None:
            dropped.append(replace(found, task_id=own.task_id))
        else:
            metadata = {**own.metadata, "transport": found.transport}
            weak += found.transport in ("handles", "inprocess")
            kept.append(replace(prompt, task=replace(own, metadata=metadata)))
    return CheckedPrompts(kept, tuple(dropped), unjudged, len(new), weak)


def _usable(task: Task) -> bool:
    return bool(task.reference.strip()) and bool(task.tests)


@cache
def shipped() -> frozenset[str]:
    """The first 16 digits of the fingerprints in `calibrated_tasks.txt`."""
    lines = SHIPPED.read_text(encoding="ascii").split("\n") if SHIPPED.is_file() else []
    return frozenset(line for line in lines if line and not line.startswith("#"))


def _name(timeout: float, memory_mb: int) -> str:
    settings = f"{JUDGE} {timeout:g} {memory_mb} {sys.version_info[:2]} {sys.platform}"
    return f"{hashlib.sha256(settings.encode()).hexdigest()[:16]}.json"


def _load(path: Path) -> dict[str, Finding]:
    try:
        return read(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        LOGGER.warning("%s cannot be read (%s): tasks are calibrated again", path, error)
        return {}


def _save(path: Path, findings: Mapping[str, Finding]) -> None:
    merged = {**_load(path), **findings}  # another run may have written meanwhile
    merged = {key: found for key, found in merged.items() if key[:16] not in shipped()}
    newest = dict(list(merged.items())[-_MOST:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, to_json(newest))
    except (OSError, OutputError) as error:
        LOGGER.warning("findings of the calibration cannot be kept: %s", error)
