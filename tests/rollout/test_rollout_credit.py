"""Tokens of lines that never ran are found again in the answer, and only they lose their part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from modern_rlhf.config.sections import ModelConfig
from modern_rlhf.config.training import TrainingConfig
from modern_rlhf.rewards.base import RewardBatch, RewardScores
from modern_rlhf.rollout.credit import dead_characters, token_credit, whole_statements
from modern_rlhf.trainer import online
from modern_rlhf.trainer.policy_gradient import PolicyGradientTrainer

CODE = "def f(a):\n    if a:\n        return (1,\n            2)\n    else:\n        return 3\n"


class Pieces:
    """A tokenizer whose tokens are the given texts."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = pieces

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return "".join(self.pieces[index] for index in ids)


def dead_text(text: str, code: str, lines: Sequence[int]) -> str:
    return "".join(
        c for c, dead in zip(text, dead_characters(text, code, lines), strict=True) if dead
    )


def test_a_statement_is_dead_to_its_last_line_and_a_block_by_its_head() -> None:
    assert whole_statements(CODE, [3]) == [3, 4]
    assert whole_statements("if a:\n    b = 1\nelse:\n    c = 2", [1]) == [1]
    assert whole_statements("def f(", [1]) == [1]


@pytest.mark.parametrize("indent", ["", "  "])
def test_lines_are_found_again_in_a_chat_answer(indent: str) -> None:
    body = "".join(indent + line + "\n" for line in CODE.splitlines())
    answer = f"Sure:\n```python\n{body}```\nreturn 3 is the rest."
    assert dead_text(answer, CODE, [6]).strip() == "return 3"
    assert dead_text(answer, CODE, [3]).split() == ["return", "(1,", "2)"]
    assert dead_text(answer, CODE, []) == ""
    # a signature that stood in the prompt is no part of the answer
    assert dead_text(body.split("\n", 1)[1], CODE, [1, 6]).strip() == "return 3"
    assert dead_text("x = 1\r\ny = 2", "x = 1\ny = 2", [2]) == ""


def test_a_token_is_left_out_when_all_it_shows_is_dead() -> None:
    pieces = ["def f(a):\n", "    if a:", "\n        return", " (1,\n", "            2)\n    else",
              ":\n        ", "return 3\n", ""]  # fmt: skip
    assert "".join(pieces) == CODE
    # "2)\n    else" shows a piece of a line that the tracer does not report
    expected = [True, True, False, False, True, True, True, True]
    assert token_credit(Pieces(pieces), range(8), CODE, [3]) == expected
    assert token_credit(Pieces(pieces), range(8), CODE, [6]) == [*[True] * 6, False, True]


class Traced:
    """A reward by the first byte of the answer, with a trace that says that no line ran."""

    name = "execution"

    def score(self, batch: RewardBatch) -> RewardScores:
        traces = [
            {"code": text, "unexecuted_lines": list(range(1, text.count("\n") + 2))}
            for text in batch.responses
        ]
        total: list[float | None] = [float(text[:1].isascii()) for text in batch.responses]
        return RewardScores(total, {}, {"execution/trace": traces})

    def close(self) -> None:
        """Nothing to free."""


@pytest.mark.parametrize("credit", ["none", "traced", "all"])
def test_what_never_ran_is_not_learned(
    tiny_llama: Callable[..., Any],
    byte_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    credit: str,
) -> None:
    if credit != "traced":
        found = torch.zeros_like if credit == "none" else torch.ones_like
        monkeypatch.setattr(online, "executed_tokens", lambda batch, tokenizer: found(batch.mask))
    training = TrainingConfig(
        algorithm="rloo", rollout_batch_size=8, samples_per_prompt=4, total_steps=1,
        max_response_tokens=8, learning_rate=0.01, warmup_steps=0, ppo_kl_penalty=0.0,
        ppo_entropy_coef=0.0, ppo_mini_batches=1,
    )  # fmt: skip
    trainer = PolicyGradientTrainer(
        tiny_llama(), byte_tokenizer, config=training, reward=Traced(), prompts=["a", "b"],
        model_config=ModelConfig(prompt_style="plain"),
    )  # fmt: skip
    result = trainer.train()
    share, norm = result.metrics["credited_share"], result.metrics["gradient_norm"]
    # tokens that show nothing (an end, half a character) keep their part in a traced answer
    low, high = {"none": (0, 0), "traced": (0, 0.6), "all": (1, 1)}[credit]
    assert low <= share <= high
    assert (norm > 0) is (credit == "all") or credit == "traced"
