"""Every trainer killed again and again at random moments, writes of checkpoints included: nothing is lost.

`make torture` runs it: 54 kills over nine trainers, and eight over runs of two processes.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from test_trainer_processes import KINDS, last, rows
from test_trainer_resume import assert_equal

from modern_rlhf.checkpoint.store import CheckpointStore, verify

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(os.name == "nt", reason="no fork and no SIGKILL on Windows"),
]


def torture(nursery: Any, tmp_path: Path, kind: str, *, processes: int, kills: int) -> None:
    whole = tmp_path / "whole"
    nursery.run(processes, kind, whole)
    moments = random.Random(f"{kind}{processes}")
    killed = attempts = runs = 0
    longest = 1.5  # seconds; less where runs are faster than the kill
    folder = tmp_path / "killed-0"
    while killed < kills:
        attempts += 1
        assert attempts < 20 * kills, f"only {killed} of {attempts} attempts could be killed"
        seconds = str(moments.uniform(0.02, longest))
        nursery.start(processes, kind, folder, "--resume", "--kill-after", seconds)
        codes = nursery.codes()
        if codes == [0] * processes:  # it was faster: what it left has to be right all the same
            assert_same(whole, folder, kind)
            runs += 1
            longest = max(0.1, 0.8 * longest)
            folder = tmp_path / f"killed-{runs}"
            continue
        assert -signal.SIGKILL in codes
        killed += 1
        store = CheckpointStore(folder / kind)
        for step in store.steps():
            assert verify(store.path(step)) == []
    nursery.run(processes, kind, folder, "--resume")
    assert_same(whole, folder, kind)


def assert_same(whole: Path, folder: Path, kind: str) -> None:
    assert_equal(last(whole, kind).state, last(folder, kind).state)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        assert rows(whole, name) == rows(folder, name), name


@pytest.mark.parametrize("kind", KINDS)
def test_six_kills_cost_nothing(nursery: Any, tmp_path: Path, kind: str) -> None:
    torture(nursery, tmp_path, kind, processes=1, kills=6)


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_kills_of_two_processes_cost_nothing(nursery: Any, tmp_path: Path, kind: str) -> None:
    torture(nursery, tmp_path, kind, processes=2, kills=4)
