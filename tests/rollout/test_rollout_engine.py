"""Sampling: same tokens as a plain loop, log-probs of the training forward, independent rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from modern_rlhf.models.forward import Policy, make_sequences
from modern_rlhf.records import Prompt
from modern_rlhf.rewards.base import RewardBatch, RewardScores
from modern_rlhf.rewards.functions import FunctionReward
from modern_rlhf.rollout.collect import collect, decode_response, score_once
from modern_rlhf.rollout.engine import HuggingFaceEngine, split_lines
from modern_rlhf.rollout.types import RolloutBatch, Share

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


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=259, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    lm = GPT2LMHeadModel(config).eval()
    lm.transformer.wpe.weight.data *= 30  # so that a wrong position is another token
    return lm


@pytest.mark.parametrize("kind", ["rotary", "learned positions"])
def test_greedy_equals_a_loop_without_cache_or_padding(
    tiny_llama: Callable[..., Any], kind: str
) -> None:
    # D8: prompts of different lengths are padded on the left; learned positions would be shifted by it.
    lm = tiny_llama() if kind == "rotary" else gpt2()
    got = sample(engine(lm), samples_per_prompt=1, temperature=0.0, generator=None)
    assert [g.token_ids for g in got] == [greedy_by_hand(lm, p, 12) for p in PROMPTS]


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.05])  # at the last most samples agree
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


def test_what_samples_share_is_decoded_once(
    tiny_llama: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny_llama()
    batches: list[int] = []
    forward = lm.model.forward
    monkeypatch.setattr(
        lm.model, "forward", lambda **k: batches.append(len(k["input_ids"])) or forward(**k)
    )
    got = sample(engine(lm), samples_per_prompt=8, temperature=0.05)
    # At every step as many lines as there are different beginnings that go on.
    for step, lines in enumerate(batches[1:], start=1):
        beginnings = {
            (row // 8, tuple(g.token_ids[:step]))
            for row, g in enumerate(got)
            if len(g.token_ids) > step
        }
        assert lines == len(beginnings)
    assert batches[0] == len(PROMPTS) and 4 < max(batches) < 32  # some split, not all


def test_split_lines_by_hand() -> None:
    # Lines 0 and 1; the rows of line 0 draw 7, 9, 7, that of line 1 draws 7; line 2 has ended.
    source, drawn, place = split_lines(torch.tensor([0, 0, 0, 1]), torch.tensor([7, 9, 7, 7]))
    assert source.tolist() == [0, 1, 0] and drawn.tolist() == [7, 7, 9]
    assert place.tolist() == [0, 2, 0, 1]
    # Line 0 has ended: line 3 moves to its place, 1 and 2 stay.
    source, drawn, place = split_lines(torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6]))
    assert source.tolist() == [3, 1, 2] and drawn.tolist() == [6, 4, 5]
    assert place.tolist() == [1, 2, 0]


@pytest.mark.parametrize("seed", range(5))
def test_split_lines_keeps_every_row_s_history(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    line = torch.randint(0, 6, (20,), generator=draw)
    token = torch.randint(0, 3, (20,), generator=draw)
    source, drawn, place = split_lines(line, token)
    assert torch.equal(source[place], line) and torch.equal(drawn[place], token)
    pairs = {(a, b) for a, b in zip(line.tolist(), token.tolist(), strict=True)}
    assert len(source) == len(pairs) and sorted(set(place.tolist())) == list(range(len(pairs)))


def test_a_sliding_window_is_sampled_as_the_training_forward_sees_it() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    lm = MistralForCausalLM(
        MistralConfig(vocab_size=259, sliding_window=5, pad_token_id=258, **shape, **heads)
    ).eval()
    got = sample(engine(lm), temperature=0.3)
    repeated = [p for p in PROMPTS for _ in range(3)]
    with torch.no_grad():
        sequences = make_sequences(repeated, [g.token_ids for g in got], pad_id=258)
        out = Policy(lm)(sequences, temperature=0.3)
    for row, generation in enumerate(got):
        mine = out.log_probs[row, : len(generation.token_ids)].tolist()
        assert generation.log_probs == pytest.approx(mine, abs=1e-4)


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


def test_stop_strings_end_a_response_where_they_first_appear(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    lm, stops = tiny_llama(), [a + b for a in "abcdefghijklm" for b in map(chr, range(33, 127))]
    plain = sample(engine(lm), samples_per_prompt=8, max_new_tokens=40)
    source = engine(lm, stop_strings=stops, tokenizer=byte_tokenizer)
    stopped = sample(source, samples_per_prompt=8, max_new_tokens=40)
    cut = 0
    for whole, part in zip(plain, stopped, strict=True):
        ids = whole.token_ids
        texts = [
            byte_tokenizer.decode(ids[: i + 1], skip_special_tokens=True) for i in range(len(ids))
        ]
        ends = [i + 1 for i, text in enumerate(texts) if any(stop in text for stop in stops)]
        assert part.token_ids == (ids[: ends[0]] if ends else ids)
        assert part.finished == (bool(ends) or whole.finished)
        text = decode_response(byte_tokenizer, part, stops)
        assert not any(stop in text for stop in stops) and texts[-1].startswith(text)
        cut += bool(ends)
    assert 3 < cut < 32


def test_processes_draw_what_one_would(tiny_llama: Callable[..., Any]) -> None:
    source, whole_generator = engine(tiny_llama()), torch.Generator().manual_seed(7)
    whole = sample(source, generator=whole_generator)
    parts = []
    for places in ([0, 1], [2, 3]):
        generator = torch.Generator().manual_seed(7)
        share = Share(places, len(PROMPTS))
        parts += sample(source, [PROMPTS[i] for i in places], generator=generator, share=share)
        assert torch.equal(generator.get_state(), whole_generator.get_state())
    assert [one.token_ids for one in parts] == [one.token_ids for one in whole]
    # D24: a process that took its neighbour's place would sample the same texts twice.
    assert [one.token_ids for one in parts[:3]] != [one.token_ids for one in parts[6:9]]


def test_rollouts_of_processes_are_joined_in_order(
    tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> None:
    def rollout(places: list[int]) -> RolloutBatch:
        batch = collect(
            [Prompt(f"p{i}") for i in places],
            [PROMPTS[i] for i in places],
            engine=engine(tiny_llama(), stop_strings=[], tokenizer=byte_tokenizer),
            tokenizer=byte_tokenizer,
            reward=FunctionReward(lambda prompts, responses: [float(len(t)) for t in responses]),
            samples_per_prompt=2,
            max_new_tokens=5 + places[0],
            temperature=1.0,
            generator=torch.Generator().manual_seed(0),
            share=Share(places, 4),
        )
        batch.log_probs = batch.sampling_log_probs * 2
        batch.credited = batch.mask
        return batch

    first, second = rollout([0, 1]), rollout([2, 3])
    second.scores.details["verdict"] = ["passed"] * 4  # type: ignore[index]
    both = RolloutBatch.joined([first, second])
    assert [p.prompt for p in both.prompts] == ["p0", "p0", "p1", "p1", "p2", "p2", "p3", "p3"]
    assert both.texts == first.texts + second.texts
    assert both.scores.total == [*first.scores.total, *second.scores.total]
    assert both.scores.details["verdict"] == [None] * 4 + ["passed"] * 4
    assert both.values is None and both.log_probs is not None
    width = max(first.sampling_log_probs.shape[1], second.sampling_log_probs.shape[1])
    assert both.log_probs.shape == (8, width)
    assert torch.equal(both.log_probs[4:, : second.log_probs.shape[1]], second.log_probs)
    assert not both.log_probs[:4, first.log_probs.shape[1] :].any()
    assert both.credited is not None and torch.equal(both.credited, both.mask)
    assert RolloutBatch.joined([first]) is first
    second.credited = None
    with pytest.raises(AssertionError, match="credited"):
        RolloutBatch.joined([first, second])


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


def test_equal_answers_to_a_prompt_are_scored_once() -> None:
    class Recorder(CountingReward):
        seen: list[tuple[str, str]] = []

        def score(self, batch: RewardBatch) -> RewardScores:
            self.seen += zip([p.prompt for p in batch.prompts], batch.responses, strict=True)
            values = [float(len(text)) for text in batch.responses]
            return RewardScores(
                values, {"a": list(values)}, {"b": [t * 2 for t in batch.responses]}
            )

    one, other = Prompt("p"), Prompt("q")
    prompts, texts = [one, one, one, other, other], ["x", "yy", "x", "x", "zzz"]
    found = score_once(Recorder(), prompts, texts)
    assert Recorder.seen == [("p", "x"), ("p", "yy"), ("q", "x"), ("q", "zzz")]
    assert found.total == found.components["a"] == [1, 2, 1, 1, 3]
    assert found.details["b"] == ["xx", "yyyy", "xx", "xx", "zzzzzz"]
