"""Generation in parts: the samples of one call, and nothing made twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modern_rlhf.rollout import resumable
from modern_rlhf.rollout.engine import HuggingFaceEngine
from modern_rlhf.rollout.resumable import generate_in_parts

PROMPTS = [[65, 66], [67], [68, 69, 70], [71], [72, 73]]
SETTINGS: dict[str, Any] = {"samples_per_prompt": 2, "max_new_tokens": 5, "temperature": 1.0}


@pytest.fixture
def engine(tiny_llama: Callable[..., Any]) -> HuggingFaceEngine:
    return HuggingFaceEngine(tiny_llama(), eos_ids=[257], pad_id=258)


def tokens(generations: Any) -> list[list[int]]:
    return [one.token_ids for one in generations]


def test_parts_draw_what_one_call_draws(
    engine: HuggingFaceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = engine.generate(PROMPTS, generator=torch.Generator().manual_seed(3), **SETTINGS)
    monkeypatch.setattr(resumable, "ROWS_AT_ONCE", 4)
    counted: list[int] = []
    parts = generate_in_parts(engine, PROMPTS, seed=3, progress=counted.append, **SETTINGS)
    assert tokens(parts) == tokens(whole)
    assert counted == [4, 4, 2]
    assert tokens(generate_in_parts(engine, PROMPTS, seed=4, **SETTINGS)) != tokens(whole)


def test_what_is_written_down_is_not_made_again(
    engine: HuggingFaceEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "ROWS_AT_ONCE", 4)
    keep = tmp_path / "answers.jsonl"
    made: list[int] = []
    generate = engine.generate

    def counting(prompts: Any, **more: Any) -> Any:
        made.append(len(prompts))
        return generate(prompts, **more)

    monkeypatch.setattr(engine, "generate", counting)
    whole = generate_in_parts(engine, PROMPTS, seed=3, keep=keep, **SETTINGS)
    lines = keep.read_bytes().splitlines(keepends=True)
    # Killed while the third part was written: two are left, and half a line.
    keep.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    made.clear()
    again = generate_in_parts(engine, PROMPTS, seed=3, keep=keep, **SETTINGS)
    assert made == [1]
    assert tokens(again) == tokens(whole)
    assert [one.finished for one in again] == [one.finished for one in whole]
    # Another pass over the same prompts has parts of its own.
    made.clear()
    generate_in_parts(engine, PROMPTS, seed=3, keep=keep, name="greedy", **SETTINGS)
    assert made == [2, 2, 1]
