"""Checkpoints of a trainer: damage, another model's, a folder in use, a kill before the first one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modern_rlhf.checkpoint.store import CheckpointStore
from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.errors import CheckpointError, OutputError
from modern_rlhf.pipeline.function_style import create_trainer
from modern_rlhf.tracking import RunTracker, read_metrics
from modern_rlhf.trainer.processes import Processes
from modern_rlhf.trainer.runtime import Runtime
from modern_rlhf.trainer.sft import SFTTrainer
from modern_rlhf.utils.lock import RunLock, is_locked

ROWS = [{"prompt": p, "response": f"{p}{p}!"} for p in "abcdef"]
CONFIG = TrainingConfig(batch_size=2, sft_epochs=3, sft_learning_rate=1e-2, save_steps=3)


def trainer(lm: Any, tokenizer: Any, folder: Path, *, resume: bool = False) -> SFTTrainer:
    store, tracker = CheckpointStore(folder / "sft"), RunTracker(folder)
    return SFTTrainer(
        lm,
        tokenizer,
        train_data=ROWS,
        config=CONFIG,
        model_config=ModelConfig(prompt_style="plain"),
        runtime=Runtime(store=store, tracker=tracker, resume=resume),
    )


def flat(lm: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in lm.parameters()])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_the_previous_checkpoint_serves_when_the_newest_is_damaged(
    tiny_llama: Callable[..., Any],
    byte_tokenizer: Any,
    tmp_path: Path,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = trainer(tiny_llama(), byte_tokenizer, tmp_path)
    assert first.train().steps == 9
    weights, lines = flat(first.lm), read_metrics(tmp_path / "metrics.jsonl")
    assert CheckpointStore(tmp_path / "sft").steps() == [6, 9]
    damage(tmp_path / "sft" / "checkpoint-9" / "optimizer.safetensors")
    again = trainer(tiny_llama(seed=1), byte_tokenizer, tmp_path, resume=True)
    again.train()
    assert "optimizer.safetensors" in caplog.text and "checkpoint-6" in caplog.text
    assert torch.equal(flat(again.lm), weights)
    assert read_metrics(tmp_path / "metrics.jsonl") == lines


def test_the_checkpoint_of_another_model_is_refused_by_name(
    tiny_llama_config: Any, tiny_llama: Callable[..., Any], byte_tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import LlamaForCausalLM

    trainer(tiny_llama(), byte_tokenizer, tmp_path).train()
    tiny_llama_config.intermediate_size = 48
    other = LlamaForCausalLM(tiny_llama_config)
    with pytest.raises(CheckpointError, match="another model.*mlp"):
        trainer(other, byte_tokenizer, tmp_path, resume=True).train()


def test_a_folder_in_use_is_refused_and_given_back(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, tmp_path: Path
) -> None:
    built = trainer(tiny_llama(), byte_tokenizer, tmp_path)
    with RunLock(tmp_path / "sft"), pytest.raises(OutputError, match="process"):
        built.train()
    assert not (tmp_path / "metrics.jsonl").exists()
    built.train()
    assert is_locked(tmp_path / "sft") is False


def test_a_run_that_ended_before_its_first_checkpoint_begins_again(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    trainer(tiny_llama(), byte_tokenizer, whole).train()
    first = trainer(tiny_llama(), byte_tokenizer, broken)
    first.runtime.tracker.log("other", 1, {"loss": 1.0})  # type: ignore[union-attr]
    accumulate = first.accumulate

    def dies(examples: Any) -> dict[str, float]:
        if len(read_metrics(broken / "metrics.jsonl")) == 3:
            raise KeyboardInterrupt
        return accumulate(examples)

    monkeypatch.setattr(first, "accumulate", dies)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    assert CheckpointStore(broken / "sft").steps() == []
    trainer(tiny_llama(), byte_tokenizer, broken, resume=True).train()
    lines = read_metrics(broken / "metrics.jsonl")
    assert lines[0]["stage"] == "other"  # what was there before stays
    assert lines[1:] == read_metrics(whole / "metrics.jsonl")


@pytest.mark.parametrize("number", [1, 2, 5, 7])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_shares_cover_everything_once(number: int, count: int) -> None:
    shares = [Processes(rank=r, count=count, device="cpu").share(number) for r in range(count)]
    assert [i for share in shares for i in share] == list(range(number))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("kind", ["sft", "dpo", "ppo"])
def test_recomputed_activations_change_nothing_but_the_work(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, kind: str
) -> None:
    def run(recompute: bool) -> tuple[torch.Tensor, int]:
        lm, passes = tiny_llama(), 0

        def count(*_: Any) -> None:
            nonlocal passes
            passes += 1

        lm.model.layers[0].mlp.register_forward_pre_hook(count)
        options: dict[str, Any] = {
            "config": TrainingConfig(
                algorithm="ppo" if kind == "sft" else kind,
                total_steps=1,
                batch_size=2,
                rollout_batch_size=8,
                max_response_tokens=4,
                ppo_epochs=1,
                sft_epochs=0.3,
                gradient_checkpointing=recompute,
            ),
            "model_config": ModelConfig(prompt_style="plain"),
        }
        if kind == "ppo":
            options |= {"prompts": list("abcd"), "reward": lambda p, r: [float(len(t)) for t in r]}
        elif kind == "sft":
            options["train_data"] = ROWS
        else:
            options["train_data"] = [{"prompt": "q", "chosen": "yes", "rejected": "no"}] * 4
        create_trainer(kind, lm, byte_tokenizer, **options).train()
        return flat(lm), passes

    plain, few = run(recompute=False)
    again, many = run(recompute=True)
    assert torch.allclose(plain, again, atol=1e-6)
    assert many > few


def test_deterministic_kernels_are_switched_on(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    built = SFTTrainer(
        tiny_llama(),
        byte_tokenizer,
        train_data=ROWS,
        config=dataclasses.replace(CONFIG, deterministic=True, sft_epochs=0.3),
    )
    try:
        built.train()
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def test_a_run_that_stopped_early_stays_stopped_when_resumed(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, tmp_path: Path
) -> None:
    def run(seed: int, resume: bool) -> SFTTrainer:
        built = SFTTrainer(
            tiny_llama(seed=seed),
            byte_tokenizer,
            train_data=ROWS,
            config=dataclasses.replace(CONFIG, eval_steps=1, early_stopping_patience=2),
            model_config=ModelConfig(prompt_style="plain"),
            runtime=Runtime(
                store=CheckpointStore(tmp_path / "sft"), tracker=RunTracker(tmp_path), resume=resume
            ),
            evaluate=lambda step, epoch: {"score": -abs(step - 2)},  # best after step 2
        )
        result = built.train()
        assert (result.steps, result.stopped_early) == (4, True)
        return built

    weights = flat(run(0, resume=False).lm)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    # Killed after the last checkpoint, before anybody was told that the stage is over.
    assert torch.equal(flat(run(1, resume=True).lm), weights)
    assert read_metrics(tmp_path / "metrics.jsonl") == lines


@pytest.mark.parametrize("asked", [True, False])
def test_the_best_evaluated_model_is_the_end_where_that_is_asked_for(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, tmp_path: Path, asked: bool
) -> None:
    seen: dict[int, torch.Tensor] = {}

    def run(seed: int, resume: bool) -> None:
        lm = tiny_llama(seed=seed)

        def evaluate(step: int, epoch: float) -> dict[str, float]:
            seen[step] = flat(lm).clone()
            return {"score": -abs(step - 4)}

        result = SFTTrainer(
            lm,
            byte_tokenizer,
            train_data=ROWS,
            config=dataclasses.replace(
                CONFIG, save_steps=2, eval_steps=2, load_best_model_at_end=asked
            ),
            model_config=ModelConfig(prompt_style="plain"),
            runtime=Runtime(
                store=CheckpointStore(tmp_path / "sft"), tracker=RunTracker(tmp_path), resume=resume
            ),
            evaluate=evaluate,
        ).train()
        wanted = 4 if asked else result.steps
        assert result.steps == 9 and result.model_step == wanted
        assert torch.equal(flat(lm), seen[wanted])

    run(0, resume=False)
    run(1, resume=True)  # killed before anybody was told that the stage is over
