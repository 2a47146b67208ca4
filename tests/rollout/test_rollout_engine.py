"""Sampling: same tokens as a plain loop, log-probs of the training forward, independent rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from modern_rlhf.models.forward import Policy, make_sequences
from modern_rlhf.records import Prompt
from modern_rlhf.rewards.base import RewardBatch, RewardScores
from modern_rlhf.rollout.collect import collect
from modern_rlhf.rollout.engine import HuggingFaceEngine

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14, 15], [16]]


def engine(lm: Any, **options: Any) -> HuggingFaceEngine:
    return HuggingFaceEngine(lm, eos_ids=[257], pad_id=258, **options)


def sample(source: HuggingFaceEngine, prompts: Any = PROMPTS, **options: Any) -> Any:
    settings: dict[str, Any] = {
        "samples_per_prompt": 3,
        "max_new_tokens": 12,
        "temperature": 1.0,
        "generator": torch.Generator().manual_seed(0),
    }
    return source.generate(prompts, **(settings | options))


def greedy_by_hand(lm: Any, prompt: list[int], limit: int) -> list[int]:
    ids = list(prompt)
    for _ in range(limit):
        token = int(lm(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        ids.append(token)
        if token == 257:
            break
    return ids[len(prompt) :]


def test_greedy_equals_a_loop_without_cache_or_padding(tiny_llama: Callable[..., Any]) -> None:
    lm = tiny_llama()
    got = sample(engine(lm), samples_per_prompt=1, temperature=0.0, generator=None)
    assert [g.token_ids for g in got] == [greedy_by_hand(lm, p, 12) for p in PROMPTS]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_log_probs_are_those_of_the_training_forward(
    tiny_llama: Callable[..., Any], temperature: float
) -> None:
    # D10, D33: the first ratio is 1 within 1e-5 in float32.
    lm = tiny_llama()
    got = sample(engine(lm), temperature=temperature)
    repeated = [p for p in PROMPTS for _ in range(3)]
    sequences = make_sequences(repeated, [g.token_ids for g in got], pad_id=258)
    with torch.no_grad():
        out = Policy(lm)(sequences, temperature=temperature)
    for row, generation in enumerate(got):
        mine = out.log_probs[row, : len(generation.token_ids)].tolist()
        assert generation.log_probs == pytest.approx(mine, abs=1e-5)


def test_a_row_does_not_depend_on_its_neighbours_or_the_batch_size(
    tiny_llama: Callable[..., Any],
) -> None:
    lm = tiny_llama()
    whole = sample(engine(lm))
    small = sample(engine(lm, max_rows=3))
    assert [g.token_ids for g in whole] == [g.token_ids for g in small]


def test_equal_seeds_repeat_and_others_differ(tiny_llama: Callable[..., Any]) -> None:
    source = engine(tiny_llama())
    first, again = sample(source), sample(source)
    other = sample(source, generator=torch.Generator().manual_seed(1))
    assert first == again
    assert first != other


def test_samples_follow_the_model_distribution(tiny_llama: Callable[..., Any]) -> None:
    # One step, 4,000 samples of one prompt: frequencies against probabilities. The largest deviation
    # of a frequency is about 3 * sqrt(p (1 - p) / n) <= 0.024.
    lm = tiny_llama()
    got = sample(engine(lm, max_rows=4000), [[5, 6]], samples_per_prompt=4000, max_new_tokens=1)
    counts = torch.bincount(torch.tensor([g.token_ids[0] for g in got]), minlength=259) / 4000
    with torch.no_grad():
        probabilities = lm(input_ids=torch.tensor([[5, 6]])).logits[0, -1].softmax(-1)
    assert float((counts - probabilities).abs().max()) < 0.024


def test_nothing_follows_the_end_token(tiny_llama: Callable[..., Any]) -> None:
    # Every token as an end token: exactly one is generated and the row counts as finished.
    lm = tiny_llama()
    source = HuggingFaceEngine(lm, eos_ids=range(259), pad_id=258)
    assert all(len(g.token_ids) == 1 and g.finished for g in sample(source))
    unfinished = sample(HuggingFaceEngine(lm, eos_ids=[400], pad_id=258))
    assert all(len(g.token_ids) == 12 and not g.finished for g in unfinished)


def test_half_of_the_tokens_ending_rows_shrinks_the_batch_correctly(
    tiny_llama: Callable[..., Any],
) -> None:
    lm = tiny_llama()
    source = HuggingFaceEngine(lm, eos_ids=range(0, 259, 4), pad_id=258)
    for generation in sample(source):
        inner, last = generation.token_ids[:-1], generation.token_ids[-1]
        assert all(token % 4 for token in inner)
        assert generation.finished == (last % 4 == 0)
    repeated = [p for p in PROMPTS for _ in range(3)]
    got = sample(source)
    with torch.no_grad():
        out = Policy(lm)(make_sequences(repeated, [g.token_ids for g in got], pad_id=258))
    for row, generation in enumerate(got):
        mine = out.log_probs[row, : len(generation.token_ids)].tolist()
        assert generation.log_probs == pytest.approx(mine, abs=1e-5)


def test_sync_takes_over_new_weights(tiny_llama: Callable[..., Any]) -> None:
    lm = tiny_llama()
    source = engine(lm, dtype=torch.bfloat16)
    before = sample(source, temperature=0.0, generator=None)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.copy_(tiny_llama(seed=5).state_dict()[_name_of(lm, parameter)])
    assert sample(source, temperature=0.0, generator=None) == before
    source.sync()
    assert sample(source, temperature=0.0, generator=None) != before


def _name_of(lm: Any, parameter: Any) -> str:
    return next(name for name, value in lm.named_parameters() if value is parameter)


def test_stop_strings_end_a_response(tiny_llama: Callable[..., Any], byte_tokenizer: Any) -> None:
    lm = tiny_llama()
    plain = sample(engine(lm), temperature=0.0, generator=None, samples_per_prompt=1)
    text = byte_tokenizer.decode(plain[0].token_ids[:2], skip_special_tokens=True)
    if not text.strip("\ufffd"):
        pytest.skip("the random model's first bytes are no text")
    source = engine(lm, stop_strings=[text], tokenizer=byte_tokenizer)
    stopped = sample(source, temperature=0.0, generator=None, samples_per_prompt=1)
    assert stopped[0].finished and len(stopped[0].token_ids) <= 2


class CountingReward:
    name = "length"

    def score(self, batch: RewardBatch) -> RewardScores:
        return RewardScores([None if i == 1 else float(i) for i in range(len(batch))])

    def close(self) -> None:
        pass


def test_collect_aligns_everything_and_marks_unscorable_episodes(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    batch = collect(
        [Prompt(f"p{i}") for i in range(4)],
        PROMPTS,
        engine=engine(tiny_llama()),
        tokenizer=byte_tokenizer,
        reward=CountingReward(),
        samples_per_prompt=2,
        max_new_tokens=6,
        temperature=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    assert [p.prompt for p in batch.prompts] == ["p0", "p0", "p1", "p1", "p2", "p2", "p3", "p3"]
    assert batch.valid.tolist() == [True, False, *[True] * 6]
    # D38: an unscorable episode has no token in any loss.
    assert batch.mask[1].sum() == 0 and batch.mask[0].sum() == len(batch.response_ids[0])
