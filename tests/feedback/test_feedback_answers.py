"""Answers, pairs, the order in which they are dealt out, and highlighting."""

from __future__ import annotations

import html
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modern_rlhf.errors import DataError
from modern_rlhf.feedback.answers import (
    Sampler,
    form_key,
    item_key,
    pair_items,
    read_answers,
    single_items,
)
from modern_rlhf.feedback.forms import ComparisonForm, Side
from modern_rlhf.feedback.highlight import highlight


def answers_file(tmp_path, rows):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def some_items(count: int):
    sides = [Side(f"q{n}", f"a{n}{k}", n) for n in range(count) for k in range(2)]
    return pair_items(sides)


def test_answers_of_one_question_become_pairs(tmp_path):
    rows = [
        {"prompt": "p", "response": "a", "model": "m1"},
        {"prompt": "p", "response": "b", "model": "m2"},
        {"prompt": "p", "response": "c", "model": "m3"},
        {"question": "q", "answer": "only one", "question_id": 7},
    ]
    answers = read_answers(answers_file(tmp_path, rows))
    assert [(s.model_tag, s.level_0, s.csv_path) for s in answers[:2]] == [
        ("m1", 0, "answers.jsonl"),
        ("m2", 1, "answers.jsonl"),
    ]
    pairs = [{side.answer for side in item.sides} for item in pair_items(answers)]
    assert pairs == [{"a", "b"}, {"a", "c"}, {"b", "c"}]
    assert len(single_items(answers)) == 4
    assert answers[3].question_id == 7


def test_equal_answers_are_no_pair(tmp_path):
    rows = [{"prompt": "p", "response": text} for text in ("a", " a\n", "b", "b")]
    assert len(pair_items(read_answers(answers_file(tmp_path, rows)))) == 2  # a-b and " a\n"-b
    with pytest.raises(DataError, match="answers.jsonl: no question has two different answers"):
        pair_items(read_answers(answers_file(tmp_path, rows[:2])))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n", "holds no answer"),
        ('{"prompt": "p", "response": "r"}\n{"prompt"', "line 2: broken JSON"),
        ("[1]\n", "line 1: expected a JSON object"),
        ('{"prompt": "p"}\n', "expected text under one of response, answer"),
        ('{"prompt": " ", "response": "r"}\n', "expected text under one of prompt, question"),
        ('{"prompt": "p", "response": "\\ud800"}\n', "line 1: \\ud800 is half of a surrogate pair"),
        ('{"prompt": "p", "response": "r", "ID": NaN}\n', "line 1: 'ID' is nan; expected text or"),
        (
            '{"prompt": "p", "response": "r", "task_id": [1]}\n',
            "line 1: 'task_id' is [1]; expected",
        ),
    ],
)
def test_bad_answer_files_are_one_line(tmp_path, content, message):
    path = tmp_path / "answers.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=re.escape(message)):
        read_answers(path)


def test_only_answers_to_one_question_are_paired(tmp_path):
    rows = [
        {"prompt": "first", "response": "a"},  # no id, and so the first of its kind
        {"prompt": "second", "response": "b", "question_id": 0},
        {"prompt": "third", "response": "c", "question_id": ""},  # no id in a table
        {"prompt": "fourth", "response": "d", "question_id": ""},
        {"prompt": "fifth", "response": "e", "question_id": 7.0},  # what a table makes of 7
        {"prompt": "fifth, in other words", "response": "f", "question_id": 7},
    ]
    (item,) = pair_items(read_answers(answers_file(tmp_path, rows)))
    assert [side.answer for side in item.sides] == ["e", "f"]


def test_a_question_without_an_id_has_the_same_one_in_every_file(tmp_path):
    pair = [{"prompt": "p", "response": text} for text in "ab"]
    (alone,) = pair_items(read_answers(answers_file(tmp_path, pair)))
    before = [{"prompt": "q", "response": text} for text in "ab"]
    later = pair_items(read_answers(answers_file(tmp_path, before + pair)))
    assert [item.key == alone.key for item in later] == [False, True]  # the answers are the same


def test_a_key_does_not_depend_on_the_order_and_fits_the_stored_form():
    left, right = Side("q", "a", 5), Side("other text", "b", 5)
    assert item_key(left, right) == item_key(right, left) != item_key(left)
    assert form_key(ComparisonForm("r", "t", right, left)) == item_key(left, right)
    assert item_key(Side("q", "a", 5)) == item_key(Side("q", "a", "5"))  # ids may be text or number


def test_a_rater_gets_every_item_once_and_then_none():
    sampler = Sampler(some_items(5))
    seen = []
    while (item := sampler.next("ann")) is not None:
        seen.append(item.key)
        sampler.add_rating(item.key, "ann")
    assert sorted(seen) == sorted(sampler.items)
    assert sampler.progress("ann") == (5, 5)


def test_items_begun_by_one_rater_go_to_a_second_first_and_then_rest():
    sampler = Sampler(some_items(6), raters_per_item=2)
    first = sampler.next("ann")
    sampler.add_rating(first.key, "ann")
    assert sampler.next("bob").key == first.key
    sampler.add_rating(first.key, "bob")
    assert sampler.next("eve").key != first.key  # two raters are enough, others have none yet


def test_raters_at_the_same_time_share_the_work():
    sampler = Sampler(some_items(10), raters_per_item=1)
    assert len({sampler.next(f"rater{n}").key for n in range(10)}) == 10


def test_an_item_that_was_released_or_taken_back_comes_again():
    sampler = Sampler(some_items(1))
    (key,) = sampler.items
    assert sampler.next("ann").key == key
    assert sampler.next("ann") is None  # it is on this rater's other screen
    sampler.release(key, "ann")
    assert sampler.next("ann").key == key
    sampler.add_rating(key, "ann")
    assert sampler.next("ann") is None
    sampler.remove_rating(key, "ann")
    assert sampler.next("ann").key == key
    assert sampler.next("bob", without=[key]) is None


def test_left_and_right_are_a_fair_coin():
    sampler = Sampler(some_items(1), seed=1)
    (key,) = sampler.items
    swapped = sum(sampler.swapped(key, f"rater{n}") for n in range(1000))
    assert 420 < swapped < 580  # five standard deviations of 15.8 around 500
    assert sampler.swapped(key, "ann") == sampler.swapped(key, "ann")


@given(st.text(alphabet="<>&'\"#\n\\abf()@0123. é\u202e`~", max_size=60))
@settings(deadline=None, max_examples=300)
def test_highlighting_changes_no_character_and_lets_no_markup_through(source):
    marked = highlight(source)
    seen = re.sub(
        r'<span class="unseen">U\+([0-9A-F]{4})</span>', lambda m: chr(int(m[1], 16)), marked
    )
    bare = re.sub(r'<span class="[a-z]+">|</span>', "", seen)
    assert "<" not in bare and ">" not in bare
    assert html.unescape(bare) == source


def test_characters_that_a_page_would_drop_hide_or_reorder_are_spelled_out():
    source = "a\0b # \u202e c\u200b = '\u2066'\r\n\tf\u200d\u2028g"
    marked = highlight(source)
    assert re.findall(r'<span class="unseen">(.*?)</span>', marked) == [
        "U+0000", "U+202E", "U+200B", "U+2066"
    ]  # fmt: skip
    assert not set("\0\u202e\u200b\u2066") & set(marked)
    assert {"\r", "\n", "\t", "\u200d", "\u2028"} <= set(marked)


def test_highlighting_knows_python():
    marked = highlight("@dec\ndef f(x):  # note\n    return len('a') + 0x1F")
    assert '<span class="decorator">@dec</span>' in marked
    assert '<span class="keyword">def</span>' in marked
    assert '<span class="comment"># note</span>' in marked
    assert '<span class="builtin">len</span>' in marked
    assert '<span class="string">&#x27;a&#x27;</span>' in marked
    assert '<span class="number">0x1F</span>' in marked


def test_highlighting_leaves_prose_around_fences_plain():
    source = "It is for you:\n```python\nfor x in y: pass\n```\nand `x` is it\n~~~bash\nfor f in *\n~~~\n"
    marked = highlight(source)
    assert marked.count('<span class="keyword">for</span>') == 1  # the one in the Python block
    assert '<span class="keyword">is</span>' not in marked
    assert marked.count('<span class="fence">') == 4
    assert '<span class="prose">It is for you:\n</span>' in marked and "`x` is it" in marked
    # A fence that is never closed, and one inside a block of another kind.
    assert '<span class="keyword">pass</span>' in highlight("so:\n```\npass")
    assert highlight("````\n```\npass\n````\npass").count("keyword") == 1


def test_highlighting_is_linear_on_hostile_text():
    import time

    start = time.process_time()
    for text in ('"' * 50_000, "'''" + "\\" * 50_000, "a" * 50_000, "0_" * 25_000, "@" * 50_000,
                 "0" * 50_000 + "\u00e9", "0." * 25_000 + "e", "1e+" * 20_000,
                 "`" * 50_000, "~" * 50_000 + "`", "```" + "a" * 50_000 + "`", "```\n" * 20_000):  # fmt: skip
        highlight(text)
    assert time.process_time() - start < 5
