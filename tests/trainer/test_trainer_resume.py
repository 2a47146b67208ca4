"""Killed with SIGKILL and resumed = never killed: weights, optimiser and log lines, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modern_rlhf.checkpoint.store import CheckpointStore


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
def test_a_kill_costs_nothing(nursery: Any, kind: str, tmp_path: Path) -> None:
    kill_and_resume(nursery, kind, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ppo", "dpo"])
def test_adapters_and_the_value_head_survive(nursery: Any, kind: str, tmp_path: Path) -> None:
    model = kill_and_resume(nursery, kind, tmp_path, "--lora")["model"]
    policy = model.get("policy", model)
    trained = [value for name, value in policy.items() if "lora_B" in name or "value_head" in name]
    assert len(trained) > 4 and all(bool(value.any()) for value in trained)  # all started at 0
    assert ("value_head.weight" in policy) == (kind == "ppo")
    models = [(tmp_path / run / "final_model/model.safetensors") for run in ("whole", "killed")]
    assert models[0].read_bytes() == models[1].read_bytes()


def kill_and_resume(nursery: Any, kind: str, tmp_path: Path, *flags: str) -> dict[str, Any]:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    nursery.run(1, kind, whole, *flags)
    # Killed after step 5: past the checkpoint of step 3, before that of step 6, so that two steps
    # have been logged that must be cut off and taken again.
    nursery.kill_after_step(1, kind, killed, 5, *flags)
    assert (killed / "metrics.jsonl").read_text().count("\n") == 5
    nursery.run(1, kind, killed, "--resume", *flags)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        if (whole / name).exists():
            assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    first = CheckpointStore(whole / kind).load_latest(None)
    second = CheckpointStore(killed / kind).load_latest(None)
    assert first is not None and second is not None and first.step == second.step > 5
    assert_equal(first.state, second.state)
    return second.state
