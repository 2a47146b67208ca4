"""Splits by group, and the leak check: exact against a naive double loop, and fast on a stream."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modern_rlhf.data_loader.overlap import (
    OverlapIndex,
    ngram_containment,
    normalise,
)
from modern_rlhf.data_loader.splits import remove_overlap, split_by_group
from modern_rlhf.errors import ConfigError
from modern_rlhf.records import Demonstration, PreferencePair, Task

HALVES = {"train": 0.5, "eval": 0.5}


def demo(prompt: str, response: str = "", group: str = "") -> Demonstration:
    return Demonstration(prompt, response, group_id=group)


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_a_group_is_never_divided_and_nothing_is_lost(groups, seed):
    items = [demo(f"prompt {index}", group=str(group)) for index, group in enumerate(groups)]
    parts = split_by_group(items, fractions=HALVES, seed=seed)
    assert not {d.group_id for d in parts["train"]} & {d.group_id for d in parts["eval"]}
    assert Counter(d.prompt for part in parts.values() for d in part) == Counter(
        d.prompt for d in items
    )


def test_adding_rows_moves_nobody():
    items = [demo(str(n), group=str(n)) for n in range(200)]
    few = split_by_group(items[::2], fractions=HALVES, seed=1)
    many = split_by_group([*reversed(items)], fractions=HALVES, seed=1)
    assert {d.group_id for d in few["eval"]} <= {d.group_id for d in many["eval"]}
    assert {d.group_id for d in few["train"]} <= {d.group_id for d in many["train"]}


def test_the_shares_are_met_and_the_seed_matters():
    items = [demo(str(n), group=str(n)) for n in range(4000)]
    fractions = {"train": 0.8, "validation": 0.1, "test": 0.1, "none": 0.0}
    parts = split_by_group(items, fractions=fractions, seed=0)
    # 4000 draws: the standard deviation of a share of 0.1 is 0.0047, so 0.02 is four of them.
    for name, share in fractions.items():
        assert abs(len(parts[name]) / 4000 - share) < 0.02
    other = split_by_group(items, fractions=fractions, seed=1)
    assert [d.group_id for d in other["test"]] != [d.group_id for d in parts["test"]]


def test_rows_without_a_group_go_by_their_normalised_prompt():
    items = [demo(f"sort list {n}") for n in range(40)] + [
        demo(f"Sort  LIST {n}?") for n in range(40)
    ]
    parts = split_by_group(items, fractions=HALVES, seed=0)
    for part in parts.values():
        assert Counter(normalise(d.prompt) for d in part).most_common(1)[0][1] == 2
        assert len(part) == 2 * len({normalise(d.prompt) for d in part})


def test_tasks_go_by_their_id():
    tasks = [Task(str(n), "same prompt", "x", ("assert x",)) for n in range(60)]
    parts = split_by_group(tasks, fractions=HALVES, seed=0)
    assert all(len(part) > 10 for part in parts.values())


@pytest.mark.parametrize("fractions", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": 0.9, "b": 0.2}])
def test_fractions_that_are_none_are_refused(fractions):
    with pytest.raises(ConfigError, match="split fractions"):
        split_by_group([demo("p")], fractions=fractions, seed=0)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("  Sort a\n list. ", "sort a list"),
        ('"""sort a list"""', "sort a list"),
        ("'''Sort a list?'''\n", "sort a list"),
        ("ＳＯＲＴ a list", "sort a list"),  # full-width letters are the same letters (NFKC)
        ("sort the list", None),
        ('def f():\n    """doc"""', None),
    ],
)
def test_normalise(text, same):
    assert (normalise(text) == "sort a list") == (same is not None)
    assert normalise(normalise(text)) == normalise(text)


def test_containment_by_hand():
    # a: the quick brown fox jumps over -> 2 five-grams; b holds the first of them.
    assert ngram_containment("the quick brown fox jumps over", "the quick brown fox jumps") == 0.5
    assert ngram_containment("the quick brown fox jumps", "the quick brown fox jumps over") == 1.0
    assert ngram_containment("a b c", "a b c d e f") == 0.0  # shorter than five: equality only
    assert ngram_containment("a b c", "A b  c.") == 1.0
    assert ngram_containment("a b c", "a b c d", n=2) == 1.0
    # Punctuation marks are tokens: x [ 0 ] = 1 -> 2 five-grams, x [ 0 ] = 2 shares one.
    assert ngram_containment("x[0] = 1", "x[0] = 2") == 0.5


words = st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join)


@given(st.lists(words, max_size=8), st.lists(words, max_size=8), st.sampled_from([0.3, 0.5, 1.0]))
@settings(deadline=None, max_examples=150)
def test_the_index_agrees_with_a_double_loop(train, evaluation, threshold):
    expected = set()
    for i, a in enumerate(train):
        for j, b in enumerate(evaluation):
            if not normalise(b):
                continue
            if normalise(a) == normalise(b):
                expected.add((i, j, "exact", 1.0))
            elif ngram_containment(b, a, n=3) >= threshold and len(b.split()) >= 3:
                expected.add((i, j, "near", ngram_containment(b, a, n=3)))
    index = OverlapIndex(evaluation, threshold=threshold, n=3)
    found = [match for position, text in enumerate(train) for match in index.match(position, text)]
    assert set(map(tuple, found)) == expected and len(found) == len(expected)


def test_a_stream_of_train_texts_is_fast():
    # 20,000 texts against 1,000: a double loop would take 20 million comparisons (minutes).
    evaluation = [f"how to turn item {n} of a list into text number {n}" for n in range(1000)]
    index = OverlapIndex(evaluation)
    start = time.process_time()
    found = [
        match
        for n in range(20_000)
        for match in index.match(n, f"show me how to parse the file called {n} into a table {n}")
    ]
    assert found == []
    assert time.process_time() - start < 8


def test_a_bad_threshold_is_refused():
    with pytest.raises(ConfigError, match=r"in \(0, 1\]"):
        OverlapIndex([], threshold=0)


def test_remove_overlap_counts_each_kind_and_keeps_the_rest():
    evaluation = [
        demo("Sort a list in place", "x.sort()", "1"),
        demo("read every line of the file named log", "with open('log') as f: f.readlines()", "2"),
    ]
    train = [
        demo("sort a list in place.", "sorted(x)", "10"),  # exact prompt
        demo("please read every line of the file named log", "f.read()", "11"),  # near prompt
        demo("order the numbers", "x.sort()", "12"),  # exact answer
        demo("something else", "with open('log') as f: f.readlines()  # all", "13"),  # near answer
        demo("unrelated", "print(1)", "2"),  # same question id
        demo("free", "print(2)", "14"),
    ]
    result = remove_overlap(train, evaluation)
    assert dict(result.counts) == {
        "exact_prompt": 1,
        "near_prompt": 1,
        "exact_answer": 1,
        "near_answer": 1,
        "same_group": 1,
    }
    assert [d.prompt for d in result.kept] == ["free"]
    assert (result.concerned, result.eval_concerned) == (5, 2)
    assert "5 training rows concern 2 evaluation rows" in result.line()


def test_remove_overlap_can_count_only_and_look_at_prompts_only():
    evaluation = [demo("sort a list", "x.sort()", "1")]
    train = [demo("other", "x.sort()", "2"), demo("Sort a list", "y", "3")]
    counted = remove_overlap(train, evaluation, remove=False)
    assert counted.concerned == 2 and len(counted.kept) == 2
    prompts = remove_overlap(train, evaluation, answers=False)
    assert [d.prompt for d in prompts.kept] == ["other"]


def test_an_empty_answer_matches_nothing():
    result = remove_overlap([demo("a", "", "1")], [demo("b", "", "2")])
    assert result.concerned == 0


def test_records_of_different_kinds_can_be_compared():
    pairs = [PreferencePair("sort a list", "x.sort()", "y")]
    tasks = [Task("t1", "Sort a list.", "def f(): ...", ("assert f",))]
    assert remove_overlap(pairs, tasks).counts == {"exact_prompt": 1}
