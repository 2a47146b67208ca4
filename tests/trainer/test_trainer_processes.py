"""Several processes train what one would: weights, log lines, resume, and what a dead process leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_trainer_resume import assert_equal

from modern_rlhf.checkpoint.store import CheckpointStore, LoadedCheckpoint

HERE = Path(__file__).parent
KINDS = ("sft", "reward", "dpo", "kto", "ppo", "grpo", "rloo", "reinforce", "online_dpo")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="no fork on Windows")


def last(folder: Path, kind: str) -> LoadedCheckpoint:
    found = CheckpointStore(folder / kind).load_latest()
    assert found is not None
    return found


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for item in value.values() for t in tensors(item)]
    return []


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def assert_same_run(first: Path, second: Path, kind: str) -> None:
    """Weights within 1e-5, the same episodes, each log line once with the same numbers."""
    one, two = last(first, kind), last(second, kind)
    assert one.step == two.step > 5
    mine, theirs = tensors(one.state["model"]), tensors(two.state["model"])
    assert len(mine) == len(theirs) > 3
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-5, rtol=0), (a - b).abs().max()
    lines, others = rows(first, "metrics.jsonl"), rows(second, "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, one.step + 1))
    for a, b in zip(lines, others, strict=True):
        assert a.keys() == b.keys()
        assert [a[key] for key in ("stage", "kind", "step")] == [
            b[key] for key in ("stage", "kind", "step")
        ]
        for key in a.keys() - {"stage", "kind"}:
            assert b[key] == pytest.approx(a[key], rel=1e-3, abs=1e-4), (a["step"], key)
    said = [(r["step"], r["prompt"], r["text"]) for r in rows(first, "rollouts.jsonl")]
    assert said == [(r["step"], r["prompt"], r["text"]) for r in rows(second, "rollouts.jsonl")]


def compare(nursery: Any, tmp_path: Path, kind: str) -> None:
    nursery.run(1, kind, tmp_path / "one")
    nursery.run(2, kind, tmp_path / "two")
    assert_same_run(tmp_path / "one", tmp_path / "two", kind)


def test_two_processes_train_what_one_does(nursery: Any, tmp_path: Path) -> None:
    compare(nursery, tmp_path, "grpo")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "grpo"])
def test_every_trainer_does_it(nursery: Any, tmp_path: Path, kind: str) -> None:
    compare(nursery, tmp_path, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "reward", "dpo", "ppo", "grpo"])
def test_two_processes_resume_exactly(nursery: Any, tmp_path: Path, kind: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    nursery.run(2, kind, whole)
    nursery.kill_after_step(2, kind, killed, 5)
    nursery.run(2, kind, killed, "--resume")
    assert_equal(last(whole, kind).state, last(killed, kind).state)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        assert rows(whole, name) == rows(killed, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "how"),
    [(k, "--fsdp") for k in ("sft", "dpo", "ppo", "grpo", "online_dpo")] + [("ppo", "--zero")],
)
def test_cut_weights_train_the_same_and_resume(
    nursery: Any, tmp_path: Path, kind: str, how: str
) -> None:
    # FSDP2 over gloo on the CPU; its checkpoints are whole, so that one process goes on from them.
    one, two = tmp_path / "one", tmp_path / "two"
    nursery.run(1, kind, one)
    nursery.run(2, kind, two, how)
    assert_same_run(one, two, kind)
    newest = max(CheckpointStore(two / kind).steps())
    shutil.rmtree(two / kind / f"checkpoint-{newest}")
    before = last(two, kind).step
    nursery.run(2, kind, two, how, "--resume")
    assert before < newest == last(two, kind).step
    assert_same_run(one, two, kind)
    shutil.rmtree(two / kind / f"checkpoint-{newest}")
    nursery.run(1, kind, two, "--resume")
    assert_same_run(one, two, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dpo", "ppo"])
def test_adapters_on_cut_weights_train_the_same(nursery: Any, tmp_path: Path, kind: str) -> None:
    # The reference is the cut model with its adapters off; the export is whole and merged.
    from safetensors.torch import load_file

    one, two = tmp_path / "one", tmp_path / "two"
    nursery.run(1, kind, one, "--lora")
    nursery.run(2, kind, two, "--lora", "--fsdp")
    assert_same_run(one, two, kind)
    saved = [load_file(folder / "final_model" / "model.safetensors") for folder in (one, two)]
    name = "model.layers.0.self_attn.q_proj.weight"
    trained = last(one, kind).state["model"]
    trained = trained.get("policy", trained)
    base = next(v for k, v in trained.items() if k.endswith("q_proj.base_layer.weight"))
    assert (saved[0][name] - base).abs().max() > 1e-5
    assert saved[0].keys() == saved[1].keys() and not any("lora" in key for key in saved[0])
    for key, value in saved[0].items():
        assert torch.allclose(value, saved[1][key], atol=1e-5, rtol=0), key


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_a_dying_process_ends_the_run_with_a_message(
    nursery: Any, tmp_path: Path, kind: str
) -> None:
    began = time.monotonic()
    nursery.start(2, kind, tmp_path, "--die-after", "4")
    codes = nursery.codes()
    assert codes == [1, -signal.SIGKILL]
    assert time.monotonic() - began < 60
    output = (tmp_path / "output-0").read_text()
    assert "another process of this run has ended" in output and "--resume" in output
    # What was saved is good, and one process alone can go on from it.
    nursery.run(1, kind, tmp_path, "--resume")
    nursery.run(1, kind, tmp_path / "one")
    assert_same_run(tmp_path / "one", tmp_path, kind)


@pytest.mark.slow
def test_a_batch_smaller_than_the_processes_is_refused(nursery: Any, tmp_path: Path) -> None:
    nursery.start(3, "grpo", tmp_path)  # rollouts of 2 prompts
    assert nursery.codes() == [1, 1, 1]
    for rank in range(3):
        assert "cannot be shared by 3 processes" in (tmp_path / f"output-{rank}").read_text()


def launch(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2",
            "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
            "--main_process_port", "0", *command,
        ],
        capture_output=True, text=True, timeout=280, cwd=HERE.parents[1],
    )  # fmt: skip


WORKER = str(HERE / "resume_worker.py")


@pytest.mark.slow
def test_accelerate_launch_does_the_same(nursery: Any, tmp_path: Path) -> None:
    done = launch(WORKER, "sft", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr[-3000:]
    nursery.run(1, "sft", tmp_path / "one")
    assert_same_run(tmp_path / "one", tmp_path / "two", "sft")


@pytest.mark.slow
def test_accelerate_launch_ends_when_a_process_dies(tmp_path: Path) -> None:
    began = time.monotonic()
    done = launch(WORKER, "sft", str(tmp_path), "--die-after", "4")
    assert done.returncode != 0 and time.monotonic() - began < 200
    assert "SIGKILL" in done.stderr or "Signal 9" in done.stderr or "exitcode  : -9" in done.stderr


SMALLEST = """--mode cpu-test --steps 2 --set data.max_train_samples=48 --set data.max_prompts=48
 --set training.sft_epochs=1 --set training.rollout_batch_size=16 --set data.validation_fraction=0.2
 --set training.max_response_tokens=16 --set reward.reward_epochs=1 --set evaluation.eval_samples=8
 --set evaluation.periodic_eval_samples=4 --set evaluation.bootstrap_samples=100 --set
 hardware.sandbox_workers=1 --set training.mixed_precision=no"""


@pytest.mark.slow
def test_the_whole_job_in_two_processes_is_that_of_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    alone = [sys.executable, "-m", "modern_rlhf.main", *SMALLEST.split(), "--output-dir", str(one)]
    done = subprocess.run(
        alone, capture_output=True, text=True, timeout=280, cwd=HERE.parents[1], check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    done = launch("-m", "modern_rlhf.main", *SMALLEST.split(), "--output-dir", str(two))
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = rows(one, "metrics.jsonl"), rows(two, "metrics.jsonl")
    assert len(first) > 6
    for a, b in zip(first, second, strict=True):  # each line once, evaluations among them
        assert [a[k] for k in ("stage", "kind", "step")] == [
            b[k] for k in ("stage", "kind", "step")
        ]
        if "loss" in a:
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)
    for name in ("base", "sft", "rlhf"):
        answers = [
            json.loads((folder / "evaluations" / f"{name}.json").read_text())["answers"]
            for folder in (one, two)
        ]
        assert answers[0] == answers[1] and len(answers[0]) == 8
    assert (two / "training_results.json").exists() and (two / "report.html").exists()
