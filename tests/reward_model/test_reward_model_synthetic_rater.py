"""A model's rating is the mean of its five digit probabilities, and nothing else."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from reward_model_backbones import byte_tokenizer

from modern_rlhf.errors import DataError, ModelError
from modern_rlhf.records import Rating
from modern_rlhf.reward_model.synthetic_rater import SyntheticRater, agreement, digit_ids

PROMPTS = ["sort a list", "open the file whose name was given and read all of it"]
RESPONSES = ["sorted(x)", "x"]


def tiny_model(tokenizer: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=512,
            initializer_range=0.3,
            attn_pdrop=0.5,
            resid_pdrop=0.5,
            embd_pdrop=0.5,
        )
    )


@pytest.fixture
def rater() -> SyntheticRater:
    tokenizer = byte_tokenizer("pad_is_eos")
    return SyntheticRater(tiny_model(tokenizer).train(), tokenizer, name="tiny")


def test_rating_is_the_expectation_of_the_digit_probabilities(rater: SyntheticRater) -> None:
    from modern_rlhf.reward_model.synthetic_rater import INSTRUCTION

    for prompt, response, found in zip(
        PROMPTS, RESPONSES, rater.rate(PROMPTS, RESPONSES), strict=True
    ):
        text = INSTRUCTION.format(prompt=prompt, response=response) + rater.cue
        ids = torch.tensor([rater.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            probabilities = rater.model.eval()(ids).logits[0, -1].softmax(-1)
        digits = [float(probabilities[rater.tokenizer.convert_tokens_to_ids(d)]) for d in "12345"]
        assert found.digit_mass == pytest.approx(sum(digits), rel=1e-4)
        assert found.probabilities == pytest.approx([d / sum(digits) for d in digits], rel=1e-4)
        expected = sum(level * d for level, d in enumerate(digits, start=1)) / sum(digits)
        assert found.expected == pytest.approx(expected, rel=1e-4)
        assert 1.0 < found.expected < 5.0


def test_a_model_sure_of_another_word_still_rates(rater: SyntheticRater) -> None:
    """The digits' probabilities are 0 in float32 here; what the model thinks of them is not."""
    head = torch.nn.Linear(32, len(rater.tokenizer), bias=True)
    torch.nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias.zero_()
        head.bias[rater.tokenizer.convert_tokens_to_ids("x")] = 200.0
        # log-odds of 3 to 5 are ln 3: shares 0, 0, 3/4, 0, 1/4 and so 3 * 3/4 + 5 / 4 = 3.5
        for digit, logit in zip("12345", (-99.0, -99.0, math.log(3.0), -99.0, 0.0), strict=True):
            head.bias[rater.tokenizer.convert_tokens_to_ids(digit)] = logit
    rater.model.lm_head = head
    (found,) = rater.rate(["p"], ["r"])
    assert found.expected == pytest.approx(3.5)
    assert found.probabilities == pytest.approx((0.0, 0.0, 0.75, 0.0, 0.25))
    assert 0.0 < found.digit_mass < 1e-80


def test_rating_depends_on_neither_batch_nor_chance(rater: SyntheticRater) -> None:
    together = rater.rate(PROMPTS, RESPONSES, batch_size=2)
    again = rater.rate(PROMPTS, RESPONSES, batch_size=1)
    assert rater.model.training  # dropout was off only while rating
    for a, b in zip(together, again, strict=True):
        assert a.expected == pytest.approx(b.expected, abs=1e-4)
    assert rater.rate(PROMPTS, RESPONSES) == rater.rate(PROMPTS, RESPONSES)
    assert abs(together[0].expected - together[1].expected) > 1e-4


def test_long_texts_lose_their_end_never_the_instruction(rater: SyntheticRater) -> None:
    row = rater._row([70] * 2000, [71] * 2000)
    before, between, after = rater.frame
    assert len(row) == rater.max_length
    assert row[: len(before)] == before and row[-len(after) :] == after
    texts = row[len(before) : -len(after)]
    half = (len(texts) - len(between)) // 2
    assert texts[-half:] == [71] * half and texts[:half] == [70] * half
    rater.rate(["p" * 2000], ["r" * 2000])


def test_rows_are_marked_synthetic(rater: SyntheticRater) -> None:
    rows = rater.rows(PROMPTS, RESPONSES)
    expected = rater.rate(PROMPTS, RESPONSES)[0].expected
    assert rows[0]["synthetic"] is True and rows[0]["rating"] == pytest.approx(expected, abs=1e-5)
    assert {"id", "prompt", "response", "rating", "comment"} <= set(rows[0])


def test_rows_are_read_back_by_the_store(rater: SyntheticRater, tmp_path: Any) -> None:
    from modern_rlhf.feedback.store import SYNTHETIC_PREFIX, load_feedback
    from modern_rlhf.feedback.writing import write_new_json

    write_new_json(tmp_path, f"{SYNTHETIC_PREFIX}_x", rater.rows(PROMPTS, RESPONSES))
    found = load_feedback(tmp_path).ratings
    rated = rater.rate(PROMPTS, RESPONSES)
    assert [r.overall for r in found] == pytest.approx([one.expected - 3.0 for one in rated])
    assert all(r.synthetic for r in found)


def test_digits_with_and_without_a_space_count() -> None:
    class Words:
        """A tokenizer with ` 1` and `1` as tokens of their own, and ` 5` only."""

        table = {"1": 10, " 1": 11, "2": 12, "3": 13, "4": 14, " 5": 15}

        def __call__(self, text: str, add_special_tokens: bool) -> Any:
            ids = [self.table[text]] if text in self.table else [1, 2]
            return {"input_ids": ids}

        def decode(self, ids: list[int]) -> str:
            return {v: k for k, v in self.table.items()}[ids[0]]

    assert digit_ids(Words()) == [[10, 11], [12], [13], [14], [15]]
    Words.table = {"1": 10}
    with pytest.raises(ModelError, match="'2'"):
        digit_ids(Words())


def test_the_cue_ends_where_the_next_token_is_a_digit(rater: SyntheticRater) -> None:
    # Bytes spell " 3" as two tokens, so the space belongs to the cue; GPT-2's " 3" is one.
    assert rater.cue == "Rating (1-5): "
    vocabulary = rater.tokenizer.get_vocab()
    rater.tokenizer.add_tokens([f" {digit}" for digit in "12345"])
    assert len(rater.tokenizer) == len(vocabulary) + 5
    again = SyntheticRater(rater.model, rater.tokenizer, name="t")
    assert again.cue == "Rating (1-5):" and all(len(ids) == 2 for ids in again.digit_ids)


def test_chat_models_are_asked_in_their_own_format() -> None:
    tokenizer = byte_tokenizer("decoder")
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    rater = SyntheticRater(tiny_model(tokenizer), tokenizer, name="chat")
    text = tokenizer.decode([token for part in rater.frame for token in part])
    assert text.startswith("<user>Rate how well") and text.endswith("<assistant>Rating (1-5): ")


def test_wrong_use_is_refused() -> None:
    tokenizer = byte_tokenizer("decoder")
    with pytest.raises(ModelError, match="too short"):
        SyntheticRater(tiny_model(tokenizer), tokenizer, name="t", max_length=40)
    rater = SyntheticRater(tiny_model(tokenizer), tokenizer, name="t")
    assert rater.rate([], []) == []
    with pytest.raises(DataError, match="1 prompts for 0"):
        rater.rate(["a"], [])


def rating(response: str, value: float, **more: Any) -> Rating:
    return Rating("p", response, more.pop("scores", {"overall": value}), **more)


def test_agreement_is_over_answers_that_both_rated() -> None:
    real = [
        rating("a", 0, scores={"correct": 2.0, "useful": 0.0}),  # mean 1
        rating("b", -1.0),
        rating("b", -2.0),  # mean -1.5
        rating("c", 0.5),
        rating("d", 2.0),
        rating("only people", 2.0),
    ]
    synthetic = [rating("a", 1.0), rating("b", -0.5), rating("c", 0.5), rating("d", 1.0)]
    found = agreement(synthetic, real)
    assert (found["groups"], found["low"]) == (1, None)  # four answers to one question
    assert found["n"] == 4
    assert found["mean_absolute_error"] == pytest.approx((0 + 1.0 + 0 + 1.0) / 4)
    assert found["spearman"] == pytest.approx(0.948683, abs=1e-5)  # ranks 3.5 1 2 3.5 and 3 1 2 4
    assert agreement(synthetic, [])["mean_absolute_error"] is None
    assert SimpleNamespace(**agreement([], real)).reason == "fewer than 4 values"
