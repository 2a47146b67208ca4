"""Killed with SIGKILL and resumed = never killed: weights, optimiser and log lines, bit for bit."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from modern_rlhf.checkpoint.store import CheckpointStore

WORKER = Path(__file__).with_name("resume_worker.py")


def start(kind: str, folder: Path, *flags: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(WORKER), kind, str(folder), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and (folder / "finished").exists(), output.decode()


def assert_equal(first: object, second: object, where: str = "state") -> None:
    if isinstance(first, torch.Tensor):
        assert isinstance(second, torch.Tensor) and torch.equal(first, second), where
    elif isinstance(first, dict):
        assert isinstance(second, dict) and first.keys() == second.keys(), where
        for key in first:
            if key not in ("offsets",):
                assert_equal(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert isinstance(second, list | tuple) and len(first) == len(second), where
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_equal(a, b, f"{where}[{index}]")
    elif isinstance(first, np.ndarray):
        assert isinstance(second, np.ndarray) and np.array_equal(first, second), where
    else:
        assert first == second or (first != first and second != second), where


@pytest.mark.parametrize(
    "kind",
    [
        "sft",
        "ppo",
        pytest.param("reward", marks=pytest.mark.slow),
        pytest.param("rloo", marks=pytest.mark.slow),
        pytest.param("grpo", marks=pytest.mark.slow),
        pytest.param("reinforce", marks=pytest.mark.slow),
        pytest.param("dpo", marks=pytest.mark.slow),
        pytest.param("kto", marks=pytest.mark.slow),
        pytest.param("online_dpo", marks=pytest.mark.slow),
    ],
)
def test_a_kill_costs_nothing(kind: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    uninterrupted = start(kind, whole)
    # Paused after step 5: past the checkpoint of step 3, before that of step 6, so that two steps
    # have been logged that must be cut off and taken again.
    process = start(kind, killed, "--pause-after", "5")
    deadline = time.monotonic() + 120
    while not (killed / "paused").exists():
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    before = (killed / "metrics.jsonl").read_text().count("\n")
    assert before == 5
    finish(start(kind, killed, "--resume"), killed)
    finish(uninterrupted, whole)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        if (whole / name).exists():
            assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    first = CheckpointStore(whole / kind).load_latest(None)
    second = CheckpointStore(killed / kind).load_latest(None)
    assert first is not None and second is not None and first.step == second.step > 5
    assert_equal(first.state, second.state)
