"""Where a run is now, in a few lines of text, from status.json and the lock of its folder.

Standard library only, so that it answers at once beside a running training.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from modern_rlhf.report.labels import duration, number, stage_label
from modern_rlhf.utils.lock import is_locked, process_exists

_LIVE = ("starting", "running")
_HEAD = ("stage", "kind", "step")
_SHOWN = ("loss", "reward", "score", "kl", "entropy", "accuracy", "pass_at_1", "learning_rate")


def status_text(output_dir: Path) -> str:
    """A few lines for a person: state, stage, progress, times, the last metrics, checkpoints.

    A run whose process is gone without having said so is reported as killed, with the way on.
    """
    folder = Path(output_dir)
    status = read_status(folder)
    if status is None:
        if not folder.is_dir():
            return f"{folder}: no such folder; name the output folder of a run"
        return f"{folder}: no readable status.json; no run has started here"
    state, explanation = true_state(folder, status)
    lines = [f"{folder}: {state}{_progress(status)}"]
    if explanation:
        lines.append(explanation)
    if status.get("message"):
        lines.append(str(status["message"]))
    lines.append(_times(status, state))
    lines.append(f"process {status.get('pid')} on {status.get('host')}")
    metrics = status.get("metrics")
    if isinstance(metrics, Mapping) and _metrics(metrics):
        where = f"{stage_label(str(metrics.get('stage')))} step {metrics.get('step')}"
        lines.append(f"last logged ({where}): {_metrics(metrics)}")
    checkpoints = sorted(folder.glob("*/LATEST"), key=lambda path: path.stat().st_mtime)
    if checkpoints:
        newest = checkpoints[-1]
        name = newest.read_text(encoding="utf-8", errors="replace").strip()
        lines.append(f"newest checkpoint: {newest.parent / name}")
    if (folder / "report.html").exists():
        lines.append(f"report: {folder / 'report.html'}")
    return "\n  ".join(lines)


def read_status(folder: Path) -> dict[str, Any] | None:
    """The content of status.json, or None when there is none that can be read."""
    try:
        status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None


def true_state(folder: Path, status: Mapping[str, Any]) -> tuple[str, str]:
    """The state, and why it is not the recorded one where the process has died silently."""
    state = str(status.get("state", "unknown"))
    if state not in _LIVE:
        return state, ""
    if status.get("host") != socket.gethostname():
        return (
            state,
            f"(the run is on {status.get('host')}; whether it lives cannot be seen from here)",
        )
    # The lock is the better witness: a process id is soon some other program's. Without a lock file
    # (a trainer used alone takes none) the id has to do.
    held = is_locked(folder)
    pid = status.get("pid")
    if held or (held is None and isinstance(pid, int) and process_exists(pid)):
        return state, ""
    return "killed", (
        f"recorded as {state}, but process {pid} is gone (killed, out of memory or a "
        "restart): run the same command with --resume to go on from the newest checkpoint"
    )


def _progress(status: Mapping[str, Any]) -> str:
    text = f", stage {stage_label(str(status['stage']))}" if status.get("stage") else ""
    step, total = status.get("step"), status.get("total_steps")
    if isinstance(step, int):
        text += f", step {step}"
        if isinstance(total, int) and total > 0:
            text += f" of {total} ({100 * step / total:.0f}%)"
    if isinstance(status.get("epoch"), (int, float)):
        text += f", epoch {status['epoch']:.2f}"
    return text


def _times(status: Mapping[str, Any], state: str) -> str:
    parts = []
    for key in ("started", "updated"):
        moment = _moment(status.get(key))
        if moment is not None:
            ago = (datetime.now(timezone.utc) - moment).total_seconds()
            parts.append(f"{key} {duration(ago)} ago")
    if state == "running" and isinstance(status.get("eta_seconds"), (int, float)):
        parts.append(f"about {duration(status['eta_seconds'])} left in this stage")
    return ", ".join(parts)


def _moment(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _metrics(metrics: Mapping[str, Any]) -> str:
    keys = [key for key in _SHOWN if key in metrics]
    if metrics.get("kind") == "eval":
        endings = ("_low", "_high", "_nonfinite")
        keys = [key for key in metrics if key not in _HEAD and not key.endswith(endings)][:6]
    return ", ".join(f"{key} {number(metrics[key])}" for key in keys)
