"""Corpus and sentence BLEU: values by hand, parity with NLTK, the human-graded set."""

from __future__ import annotations

import math
import random
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest

from modern_rlhf.metrics.bleu import (
    bleu_of_sums,
    bleu_scores,
    corpus_bleu,
    sentence_value,
)
from modern_rlhf.metrics.ngrams import item_statistics
from modern_rlhf.metrics.texts import code_tokens


def corpus(hypotheses: list[str], references: list[str]) -> float:
    return corpus_bleu([code_tokens(h) for h in hypotheses], [[code_tokens(r)] for r in references])


def test_published_values() -> None:
    # All precisions 1, BP = exp(1 - 6/5).
    assert corpus(["a b c d e"], ["a b c d e f"]) == pytest.approx(0.818731, abs=5e-7)
    assert corpus(["sorted(x)"], ["x.sort()"]) == 0.0
    # 6 tokens against 3 + 6: BP = exp(1 - 9/6).
    both = corpus(["", "print(a, b)"], ["x = 1", "print(a, b)"])
    assert both == pytest.approx(0.606531, abs=5e-7)


def test_identical_is_one_even_below_four_tokens() -> None:
    for text in ("x", "x = 1", "x.sort()", "for i in range(3):\n    print(i)"):
        tokens = code_tokens(text)
        assert corpus([text], [text]) == 1.0
        assert sentence_value(item_statistics(tokens, [tokens])) == pytest.approx(1.0, abs=1e-12)


def test_short_hypothesis_without_a_four_gram_is_zero_when_the_reference_has_one() -> None:
    # `a b c` has no 4-gram, the reference has: the order counts, and has no match.
    assert corpus(["a b c"], ["a b c d"]) == 0.0


def test_empty_hypotheses_are_zero() -> None:
    assert corpus([""], ["x = 1"]) == 0.0
    assert sentence_value(item_statistics([], [["x"]])) == 0.0
    assert corpus_bleu([], []) == 0.0


def naive_corpus_bleu(hypotheses: list[list[str]], references: list[list[list[str]]]) -> float:
    """Float64 loop over positions, written without the vectorised code's layout."""
    log_sum = 0.0
    for n in (1, 2, 3, 4):
        match = total = 0
        for hypothesis, texts in zip(hypotheses, references, strict=True):
            grams = [tuple(hypothesis[i : i + n]) for i in range(len(hypothesis) - n + 1)]
            total += len(grams)
            seen: Counter[tuple[str, ...]] = Counter()
            for gram in grams:
                seen[gram] += 1
                allowed = max(
                    sum(tuple(text[i : i + n]) == gram for i in range(len(text) - n + 1))
                    for text in texts
                )
                match += seen[gram] <= allowed
        if match == 0:
            return 0.0
        log_sum += math.log(match / total) / 4
    h = sum(map(len, hypotheses))
    r = sum(
        min((abs(len(t) - len(hyp)), len(t)) for t in texts)[1]
        for hyp, texts in zip(hypotheses, references, strict=True)
    )
    return math.exp(log_sum) * (1.0 if h >= r else math.exp(1 - r / h))


def random_corpus(seed: int) -> tuple[list[list[str]], list[list[list[str]]]]:
    draw = random.Random(seed)
    hypotheses, references = [], []
    for _ in range(12):
        reference = [draw.choice("abcd") for _ in range(draw.randint(4, 14))]
        other = [draw.choice("abcd") for _ in range(draw.randint(4, 14))]
        hypothesis = reference[: draw.randint(2, 14)] + [draw.choice("abcd")]
        hypotheses.append(hypothesis)
        references.append([reference, other][: draw.randint(1, 2)])
    return hypotheses, references


@pytest.mark.parametrize("seed", range(8))
def test_parity_with_a_naive_loop_and_with_nltk(seed: int) -> None:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from nltk.translate.bleu_score import corpus_bleu as nltk_corpus_bleu

    hypotheses, references = random_corpus(seed)
    ours = corpus_bleu(hypotheses, references)
    assert ours == pytest.approx(naive_corpus_bleu(hypotheses, references), abs=1e-12)
    # NLTK counts one n-gram in a hypothesis too short to have any, CoNaLa's protocol none.
    long = [i for i, tokens in enumerate(hypotheses) if len(tokens) >= 4]
    assert len(long) >= 6
    some, theirs = [hypotheses[i] for i in long], [references[i] for i in long]
    assert corpus_bleu(some, theirs) == pytest.approx(nltk_corpus_bleu(theirs, some), abs=1e-12)
    smoothing = SmoothingFunction().method3
    for hypothesis, texts in zip(hypotheses, references, strict=True):
        theirs = sentence_bleu(texts, hypothesis, smoothing_function=smoothing, auto_reweigh=True)
        mine = sentence_value(item_statistics(hypothesis, texts))
        assert mine == pytest.approx(theirs, abs=1e-12)


def test_sums_of_statistics_give_the_corpus_value_in_any_order() -> None:
    hypotheses, references = random_corpus(3)
    rows = [item_statistics(h, r) for h, r in zip(hypotheses, references, strict=True)]
    value = corpus_bleu(hypotheses, references)
    random.Random(1).shuffle(rows)
    assert bleu_of_sums(np.array([rows], dtype=float).sum(axis=1))[0] == value


def test_item_without_reference_is_left_out() -> None:
    whole, sentence = bleu_scores([["a"], ["b"]], [[["a"]], []])
    assert whole.per_item == [1.0, None]
    assert sentence.per_item == [1.0, None]


def test_stored_sentence_bleu_of_the_graded_set(graded_rows: list[dict[str, Any]]) -> None:
    # The stored column is rounded to three decimals.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, sentence = bleu_scores(
            [code_tokens(row["hyp"]) for row in graded_rows],
            [[code_tokens(text) for text in row["refs"]] for row in graded_rows],
        )
    worst = max(
        abs(mine - row["bleu"])
        for mine, row in zip(sentence.per_item, graded_rows, strict=True)
        if mine is not None
    )
    assert worst <= 5.01e-4
