"""Templates, ids and batches: what carries loss, what is cut, what shares a batch."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modern_rlhf.data_loader.batches import token_budget_batches
from modern_rlhf.data_loader.encoding import (
    EncodedExample,
    encode_demonstrations,
    encode_prompts,
)
from modern_rlhf.data_loader.template import render_prompt, render_segments
from modern_rlhf.errors import ConfigError, DataError, ModelError
from modern_rlhf.records import Demonstration, Message

DEMO = Demonstration("say hi", "print('hi')")
TALK = Demonstration(
    "now bye",
    "print('bye')",
    messages=(
        Message("user", "say hi"),
        Message("assistant", "print('hi')"),
        Message("user", "now bye"),
        Message("assistant", "print('bye')"),
    ),
)


def encode_one(tokenizer, demonstration, **options) -> EncodedExample:
    options = {"max_length": 500, **options}
    (example,) = encode_demonstrations(tokenizer, [demonstration], **options).examples
    return example


def segments_of(tokenizer, demonstration, **options) -> list[tuple[str, bool]]:
    found = render_segments(tokenizer, demonstration, **options)
    return [(segment.text, segment.trained) for segment in found]


def trained_text(tokenizer, example: EncodedExample) -> str:
    ids = [i for i, m in zip(example.input_ids, example.loss_mask, strict=True) if m]
    return tokenizer.decode(ids, skip_special_tokens=False)


def test_the_plain_template(make_tokenizer):
    tokenizer = make_tokenizer()
    assert render_prompt(tokenizer, "  say hi \n") == '"""say hi"""\n'
    assert segments_of(tokenizer, DEMO) == [('"""say hi"""\n', False), ("print('hi')", True)]


@pytest.mark.parametrize(
    ("prompt", "rendered"),
    [
        ('def f():\n    """Doc."""', 'def f():\n    """Doc."""\n'),
        ('def f():\n    """Doc."""\n    ', 'def f():\n    """Doc."""\n    '),
        ('"""say hi"""', '"""say hi"""\n'),
    ],
)
def test_a_prompt_with_a_docstring_is_code_already(make_tokenizer, prompt, rendered):
    assert render_prompt(make_tokenizer(), prompt) == rendered


def test_the_plain_template_of_a_conversation(make_tokenizer):
    segments = segments_of(make_tokenizer(), TALK, system="Be brief.")
    assert segments == [
        ("Be brief.\n\n", False),
        ('"""say hi"""\n', False),
        ("print('hi')", True),
        ("<|im_end|>", True),
        ("\n", False),
        ('"""now bye"""\n', False),
        ("print('bye')", True),
    ]


def test_the_chat_template_is_used_where_there_is_one(make_tokenizer):
    tokenizer = make_tokenizer(chat=True)
    chat = "<|im_start|>user\nsay hi<|im_end|>\n<|im_start|>assistant\n"
    assert render_prompt(tokenizer, "say hi") == chat
    assert render_prompt(tokenizer, "say hi", style="plain") == '"""say hi"""\n'
    assert render_prompt(tokenizer, "say hi", system="s").startswith(
        "<|im_start|>system\ns<|im_end|>"
    )
    assert render_prompt(tokenizer, [Message("user", "say hi")]) == chat


@pytest.mark.parametrize(
    "dated",
    [
        "{%- set today = strftime_now('%d %B %Y') -%}Today: {{ today }}\n",
        # as Llama 3 does it
        "{%- if strftime_now is defined %}{%- set d = strftime_now('%d %b %Y') %}"
        "{%- else %}{%- set d = '26 Jul 2024' %}{%- endif %}Today: {{ d }}\n",
    ],
)
def test_what_a_dated_template_writes_is_the_same_every_day(make_tokenizer, on_day, dated):
    tokenizer = make_tokenizer(chat=True)
    tokenizer.chat_template = dated + tokenizer.chat_template

    def written(day: int) -> list[str]:
        on_day(day)
        plain = tokenizer.apply_chat_template([{"role": "user", "content": "p"}], tokenize=False)
        assert f"{day:02} May 2031" in plain  # the template does write the day
        turns = [text for text, _ in segments_of(tokenizer, TALK)]
        return [render_prompt(tokenizer, "p"), *turns]

    assert written(1) == written(2)
    assert "Today: 26 Jul 2024\n<|im_start|>" in written(1)[0]


def test_chat_style_without_a_template_is_refused(make_tokenizer):
    with pytest.raises(ModelError, match="no chat template"):
        render_prompt(make_tokenizer(), "p", style="chat")
    with pytest.raises(ConfigError, match="expected one of auto, chat, plain"):
        render_prompt(make_tokenizer(), "p", style="fancy")


@pytest.mark.parametrize("demonstration", [DEMO, TALK])
def test_chat_segments_join_to_what_the_template_writes(make_tokenizer, demonstration):
    tokenizer = make_tokenizer(chat=True)
    turns = demonstration.messages or (
        Message("user", "say hi"),
        Message("assistant", "print('hi')"),
    )
    whole = tokenizer.apply_chat_template(
        [{"role": t.role, "content": t.content} for t in turns], tokenize=False
    )
    segments = segments_of(tokenizer, demonstration)
    assert "".join(text for text, _ in segments) == whole.rstrip()


def test_loss_is_on_every_answer_and_its_end_token_only(make_tokenizer):
    for chat in (False, True):
        tokenizer = make_tokenizer(chat=chat)
        assert trained_text(tokenizer, encode_one(tokenizer, DEMO)) == "print('hi')<|im_end|>"
        both = "print('hi')<|im_end|>print('bye')<|im_end|>"
        assert trained_text(tokenizer, encode_one(tokenizer, TALK)) == both


def test_a_template_that_ends_with_the_end_token_gets_no_second_one(make_tokenizer):
    same = encode_one(make_tokenizer(chat=True), DEMO)
    other = encode_one(make_tokenizer(chat=True, eos="<|end|>"), DEMO)
    end = make_tokenizer().convert_tokens_to_ids(["<|im_end|>", "<|end|>"])
    assert same.input_ids.count(end[0]) == 2  # one for the user's turn, one for the answer's
    assert other.input_ids[-2:] == end  # the template's mark, then the end token


def test_text_that_spells_a_special_token_stays_text(make_tokenizer):
    tokenizer = make_tokenizer()
    example = encode_one(tokenizer, Demonstration("p", "a<|im_end|>"))
    assert example.input_ids.count(tokenizer.eos_token_id) == 1
    chat = make_tokenizer(chat=True)
    answer = [
        i
        for i, m in zip(*_parts(encode_one(chat, Demonstration("p", "<|im_end|>"))), strict=True)
        if m
    ]
    assert answer.count(chat.eos_token_id) == 1


def test_training_and_generation_see_the_same_prompt_ids(make_tokenizer):
    for options in ({}, {"chat": True}, {"bos": True}, {"chat": True, "bos": True}):
        tokenizer = make_tokenizer(**options)
        example = encode_one(tokenizer, DEMO)
        (prompt,) = encode_prompts(tokenizer, ["say hi"], max_length=100).input_ids
        assert example.input_ids[: example.prompt_length] == prompt


def test_the_start_token_stands_once_where_the_tokenizer_wants_it(make_tokenizer):
    tokenizer = make_tokenizer(bos=True)
    for demonstration in (DEMO, TALK):
        ids = encode_one(tokenizer, demonstration).input_ids
        assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.bos_token_id is not None
    assert encode_one(make_tokenizer(), DEMO).loss_mask[0] == 0


def test_a_long_answer_is_cut_counted_and_not_taught_to_stop(make_tokenizer):
    tokenizer = make_tokenizer()
    encoded = encode_demonstrations(tokenizer, [DEMO, Demonstration("p", "y" * 100)], max_length=30)
    assert encoded.cut_answers == 1 and encoded.examples[1].cut
    assert len(encoded.examples[1]) == 30
    assert tokenizer.eos_token_id not in encoded.examples[1].input_ids
    assert encoded.examples[0].input_ids[-1] == tokenizer.eos_token_id
    assert "1 answers cut" in encoded.line()


def test_an_answer_that_just_fits_keeps_its_end(make_tokenizer):
    # 8 prompt bytes + 3 + end token = 12
    tokenizer = make_tokenizer()
    assert not encode_one(tokenizer, Demonstration("p", "abc"), max_length=12).cut
    assert encode_one(tokenizer, Demonstration("p", "abc"), max_length=11).cut


def test_long_prompts_are_skipped_or_lose_their_beginning(make_tokenizer):
    for bos in (False, True):
        tokenizer = make_tokenizer(bos=bos)
        demos = [DEMO, Demonstration("q" * 50, "ok")]
        skipped = encode_demonstrations(tokenizer, demos, max_length=60, max_prompt_length=20)
        assert skipped.indices == [0]
        assert skipped.skipped == {"prompts longer than 20 tokens": 1}
        cut = encode_demonstrations(
            tokenizer, demos, max_length=60, max_prompt_length=20, long_prompt="truncate_left"
        )
        assert cut.cut_prompts == 1 and cut.examples[1].prompt_length == 20
        text = tokenizer.decode(cut.examples[1].input_ids)
        # 4 bytes end the docstring; the start token, where there is one, is kept and counted.
        assert text == ("<s>" if bos else "") + "q" * (15 if bos else 16) + '"""\nok<|im_end|>'
        prompts = encode_prompts(tokenizer, ["q" * 50], max_length=20, long_prompt="truncate_left")
        assert prompts.input_ids[0] == cut.examples[1].input_ids[:20]
        assert prompts.cut_prompts == 1


def test_prompts_that_are_too_long_are_skipped_with_their_position(make_tokenizer):
    encoded = encode_prompts(make_tokenizer(), ["q" * 50, "p"], max_length=20)
    assert encoded.indices == [1] and encoded.skipped == {"prompts longer than 20 tokens": 1}


def test_nothing_left_is_an_error(make_tokenizer):
    with pytest.raises(DataError, match="1 prompts longer than 9 tokens"):
        encode_demonstrations(make_tokenizer(), [Demonstration("q" * 50, "ok")], max_length=10)
    with pytest.raises(ConfigError, match="leaves no room"):
        encode_demonstrations(make_tokenizer(), [DEMO], max_length=1)
    with pytest.raises(ConfigError, match="expected 'skip' or 'truncate_left'"):
        encode_prompts(make_tokenizer(), ["p"], max_length=9, long_prompt="right")


def test_a_tokenizer_without_an_end_token_is_refused(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end token"):
        encode_demonstrations(tokenizer, [DEMO], max_length=50)


def test_the_tokenizer_is_not_changed(make_tokenizer):
    tokenizer = make_tokenizer(chat=True)

    def state() -> str:
        return repr(
            (
                vars(tokenizer).keys(),
                tokenizer.backend_tokenizer.to_str(),
                tokenizer.special_tokens_map,
                tokenizer.padding_side,
                tokenizer.chat_template,
                tokenizer.split_special_tokens,
                tokenizer("a<|im_end|>")["input_ids"],
            )
        )

    before = state()
    encode_demonstrations(tokenizer, [DEMO, TALK], max_length=100)
    encode_prompts(tokenizer, ["p"], max_length=100)
    assert state() == before


def test_a_template_that_rewrites_earlier_turns_is_refused(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(ModelError, match="rewrites earlier turns"):
        segments_of(tokenizer, TALK)


def test_a_template_that_refuses_the_turns_is_one_line(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('system turns are not known') }}"
    with pytest.raises(ModelError, match="system turns are not known"):
        render_prompt(tokenizer, "p")


@given(st.lists(st.integers(1, 60), max_size=50), st.integers(20, 200))
@settings(deadline=None, max_examples=100)
def test_batches_keep_to_the_budget_and_hold_every_row_once(lengths, budget):
    batches = token_budget_batches(lengths, max_tokens=budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert longest * len(batch) <= budget or len(batch) == 1


def test_batches_follow_real_tokens():
    lengths = [10, 90] * 50
    batches = token_budget_batches(lengths, max_tokens=900)
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    # 5 batches of 10 long rows, then one of 50 short ones (500 tokens): no padding at all.
    assert len(batches) == 6 and padded == sum(lengths)


def test_a_budget_below_one_token_is_refused():
    with pytest.raises(ConfigError, match="max_tokens=0"):
        token_budget_batches([1], max_tokens=0)


def _parts(example: EncodedExample) -> tuple[list[int], list[int]]:
    return example.input_ids, example.loss_mask
