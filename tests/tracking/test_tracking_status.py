"""status.json while a run goes on, and what is said of it by people's commands."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modern_rlhf import tracking
from modern_rlhf.checkpoint.store import CheckpointStore
from modern_rlhf.report.status import status_text
from modern_rlhf.tracking import RunTracker
from modern_rlhf.utils.lock import RunLock

REPOSITORY = Path(__file__).resolve().parents[2]


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "status.json").read_text())


def ended_process() -> int:
    """The id of a process that lived a moment ago."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_fields_are_merged(tmp_path: Path) -> None:
    with RunTracker(tmp_path) as tracker:
        tracker.status(state="running", stage="ppo", step=1, total_steps=9, epoch=0.1, message="hi")
        tracker.log("ppo", 2, {"reward": 0.5, "kl": float("inf")})
        tracker.status(step=2)
    status = read(tmp_path)
    assert list(status)[0] == "schema" and status["schema"] == 1
    assert (status["state"], status["stage"], status["step"]) == ("running", "ppo", 2)
    assert (status["total_steps"], status["message"], status["epoch"]) == (9, "hi", 0.1)
    assert (status["pid"], status["host"]) == (os.getpid(), socket.gethostname())
    assert status["metrics"]["reward"] == 0.5 and status["metrics"]["kl_nonfinite"] == "inf"
    assert status["started"] <= status["updated"]
    assert [path.name for path in tmp_path.glob("*.tmp*")] == []


def test_a_new_stage_forgets_the_progress_of_the_last(tmp_path: Path) -> None:
    with RunTracker(tmp_path) as tracker:
        tracker.status(state="running", stage="sft", step=9, total_steps=9, epoch=1.0)
        tracker.status(stage="ppo")
    status = read(tmp_path)
    assert status["state"] == "running" and status["stage"] == "ppo"
    assert "step" not in status and "total_steps" not in status and "epoch" not in status


def test_an_unknown_state_is_refused(tmp_path: Path) -> None:
    with RunTracker(tmp_path) as tracker, pytest.raises(ValueError, match="runing"):
        tracker.status(state="runing")


def test_the_time_left_follows_the_speed_since_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(tracking.time, "monotonic", lambda: now[0])
    with RunTracker(tmp_path) as tracker:
        tracker.status(state="running", stage="ppo", step=20, total_steps=100)
        assert read(tmp_path)["eta_seconds"] is None  # resumed at 20: no speed known yet
        now[0] = 110.0
        tracker.status(step=25)
        # 5 steps in 10 s and 75 to go: 75 * 2 = 150 s
        assert read(tmp_path)["eta_seconds"] == 150.0
        tracker.status(eta_seconds=7.0)
        assert read(tmp_path)["eta_seconds"] == 7.0
        tracker.status(state="done")
        assert read(tmp_path)["eta_seconds"] is None


# --- the text ------------------------------------------------------------------------------------


def test_a_running_run_is_described(tmp_path: Path) -> None:
    with RunLock(tmp_path), RunTracker(tmp_path) as tracker:
        tracker.status(state="running", stage="ppo", step=30, total_steps=120, epoch=0.75)
        tracker.log("ppo", 30, {"reward": 0.4321, "kl": 2.0})
        tracker.status(eta_seconds=3700)
        CheckpointStore(tmp_path / "ppo").save(30, {"loop": 1})
        text = status_text(tmp_path)
    assert "running, stage PPO, step 30 of 120 (25%), epoch 0.75" in text
    assert "about 1 h 1 min left" in text
    assert "last logged (PPO step 30): reward 0.432, kl 2.000" in text
    assert str(tmp_path / "ppo" / "checkpoint-30") in text
    assert f"process {os.getpid()}" in text


def test_a_stale_process_is_recognised_with_and_without_a_lock(tmp_path: Path) -> None:
    with RunTracker(tmp_path) as tracker:
        tracker.status(state="running", stage="sft", step=3)
    path = tmp_path / "status.json"
    assert ": running" in status_text(tmp_path)
    path.write_text(json.dumps({**read(tmp_path), "pid": ended_process()}))
    said = status_text(tmp_path)
    assert ": killed" in said and "recorded as running" in said and "--resume" in said
    # Another program has the process id by now (here: this test), but nobody holds the lock.
    path.write_text(json.dumps({**read(tmp_path), "pid": os.getpid()}))
    RunLock(tmp_path).acquire().release()
    assert ": killed" in status_text(tmp_path)


def test_a_run_on_another_machine_is_not_declared_dead(tmp_path: Path) -> None:
    with RunTracker(tmp_path) as tracker:
        tracker.status(state="running", stage="sft")
    elsewhere = {**read(tmp_path), "host": "elsewhere", "pid": ended_process()}
    (tmp_path / "status.json").write_text(json.dumps(elsewhere))
    text = status_text(tmp_path)
    assert ": running" in text and "elsewhere" in text and "cannot be seen" in text


@pytest.mark.parametrize("state", ["done", "failed", "interrupted"])
def test_an_ended_run_says_how_it_ended(tmp_path: Path, state: str) -> None:
    with RunTracker(tmp_path) as tracker:
        tracker.status(state="running", stage="sft", step=3)
        tracker.status(state=state, message="disk is full")
    text = status_text(tmp_path)
    assert f": {state}" in text and "disk is full" in text and "left in this stage" not in text


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "check_training_status.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)


def test_the_script_speaks_of_a_run_and_of_none(tmp_path: Path) -> None:
    none = script(tmp_path / "nothing")
    assert none.returncode == 1 and "no such folder" in none.stdout and not none.stderr
    empty = script("--output-dir", tmp_path)
    assert empty.returncode == 1 and "no run has started here" in empty.stdout
    (tmp_path / "status.json").write_text("{half")
    assert script(tmp_path).returncode == 1
    with RunTracker(tmp_path) as tracker:
        tracker.status(state="done", stage="ppo")
    done = script(tmp_path)
    assert done.returncode == 0 and ": done, stage PPO" in done.stdout and not done.stderr


@pytest.mark.parametrize(
    "content",
    [
        {"state": "running"},
        {"state": "running", "pid": "x", "host": socket.gethostname(), "step": None},
        {"state": "running", "step": "7", "total_steps": [], "epoch": "x", "eta_seconds": {}},
        {"state": 3, "started": "yesterday", "updated": 5, "metrics": [1]},
        {"state": "done", "step": 1, "total_steps": 0, "metrics": {"loss": None}, "epoch": None},
    ],
)
def test_an_odd_status_crashes_nothing(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "status.json").write_text(json.dumps(content))
    assert str(tmp_path) in status_text(tmp_path)
