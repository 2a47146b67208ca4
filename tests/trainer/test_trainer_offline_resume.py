"""A resumed DPO or KTO run has the reference sums of its own rows, and a rate of its own session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modern_rlhf.checkpoint.store import CheckpointStore
from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.errors import CheckpointError, StopRequested
from modern_rlhf.pipeline.function_style import create_trainer
from modern_rlhf.trainer.runtime import Runtime

ROWS: dict[str, list[dict[str, Any]]] = {
    "dpo": [{"prompt": p, "chosen": f"good {p}", "rejected": f"bad {p}"} for p in "abcdefgh"],
    "kto": [{"prompt": p, "completion": f"{p}!", "label": p < "e"} for p in "abcdefgh"],
}


class StopAfter:
    def __init__(self, polls: int) -> None:
        self.left = polls

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def trainer(kind: str, lm: Any, tokenizer: Any, folder: Path, rows: Any, **runtime: Any) -> Any:
    return create_trainer(
        kind,
        lm,
        tokenizer,
        train_data=rows,
        config=TrainingConfig(algorithm=kind, batch_size=2, rlhf_epochs=1, max_response_tokens=12),
        model_config=ModelConfig(prompt_style="plain"),
        runtime=Runtime(store=CheckpointStore(folder), **runtime),
    )


def stopped(kind: str, lm: Any, tokenizer: Any, folder: Path) -> Any:
    first = trainer(kind, lm, tokenizer, folder, ROWS[kind], stop=StopAfter(2))
    with pytest.raises(StopRequested):
        first.train()
    return first


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_other_rows_than_the_checkpoints_are_refused(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, tmp_path: Path, kind: str
) -> None:
    stopped(kind, tiny_llama(), byte_tokenizer, tmp_path)
    text = "chosen" if kind == "dpo" else "completion"
    changed = {
        "more": [*ROWS[kind], {**ROWS[kind][0], "prompt": "x"}],
        "fewer": ROWS[kind][1:],
        "order": ROWS[kind][::-1],
        "text": [{**ROWS[kind][0], text: "other"}, *ROWS[kind][1:]],
    }
    for name, rows in changed.items():
        again = trainer(kind, tiny_llama(), byte_tokenizer, tmp_path, rows, resume=True)
        with pytest.raises(CheckpointError, match=f"of other rows.* {len(rows)} now"):
            again.train()
            pytest.fail(name)


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_a_checkpoint_of_before_the_digest_is_taken_if_its_rows_are_as_many(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, tmp_path: Path, kind: str
) -> None:
    first = stopped(kind, tiny_llama(), byte_tokenizer, tmp_path)
    state = first.state()
    del state["trainer"]["rows"]
    other = trainer(kind, tiny_llama(), byte_tokenizer, tmp_path / "other", ROWS[kind])
    other.restore(state)
    assert all((other.reference[name] == first.reference[name]).all() for name in first.reference)
    fewer = trainer(kind, tiny_llama(), byte_tokenizer, tmp_path / "fewer", ROWS[kind][2:])
    with pytest.raises(CheckpointError, match="of other rows"):
        fewer.restore(state)


def test_the_rate_of_a_resumed_stage_counts_its_own_tokens(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any, tmp_path: Path
) -> None:
    first = stopped("dpo", tiny_llama(), byte_tokenizer, tmp_path)
    before = first.keeper.tokens
    again = trainer("dpo", tiny_llama(), byte_tokenizer, tmp_path, ROWS["dpo"], resume=True)
    result = again.train()
    assert 0 < before < result.tokens
    assert result.tokens_per_second == pytest.approx((result.tokens - before) / result.seconds)
