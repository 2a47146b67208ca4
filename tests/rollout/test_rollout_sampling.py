"""A model and its tokenizer as an engine: what ends an answer, what fills the padding."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from modern_rlhf.errors import ConfigError
from modern_rlhf.rollout.sampling import sampling_engine, stop_ids


def tokenizer(eos: int | None, pad: int | None = None) -> Any:
    return SimpleNamespace(eos_token_id=eos, pad_token_id=pad)


@pytest.mark.parametrize(
    ("eos", "configured", "expected"),
    [(7, None, [7]), (None, 9, [9]), (7, 9, [7, 9]), (7, [9, 7, 2], [2, 7, 9]), (0, None, [0])],
)
def test_an_answer_ends_at_the_eos_of_tokenizer_and_generation_config(
    eos: int | None, configured: Any, expected: list[int]
) -> None:
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=configured))
    assert stop_ids(model, tokenizer(eos)) == expected


def test_a_model_whose_answers_could_never_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="no EOS token"):
        stop_ids(SimpleNamespace(), tokenizer(None))


def test_the_engine_stops_and_pads_as_the_tokenizer_says(tiny_llama: Callable[..., Any]) -> None:
    lm = tiny_llama()
    lm.generation_config.eos_token_id = None

    def answers(**ids: int) -> list[list[int]]:
        drawn = sampling_engine(lm, tokenizer(**ids)).generate(
            [[5, 6, 7], [8]],  # of two lengths, so that there is padding
            samples_per_prompt=1,
            max_new_tokens=12,
            temperature=0.0,
            generator=torch.Generator().manual_seed(0),
        )
        return [list(one.token_ids) for one in drawn]

    free = answers(eos=258)  # no pad token: the end token fills
    assert answers(eos=258, pad=0) == free
    third = free[0][2]
    cut = free[0].index(third) + 1
    assert answers(eos=third)[0] == free[0][:cut]
