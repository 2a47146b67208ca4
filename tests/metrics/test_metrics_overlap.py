"""ROUGE, chrF, exact match and syntax validity."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scipy.stats import pearsonr

from modern_rlhf.metrics.chrf import chrf_scores
from modern_rlhf.metrics.exact import exact_match_items, parse_python, syntax_items
from modern_rlhf.metrics.ngrams import item_statistics
from modern_rlhf.metrics.rouge import rouge_l, rouge_n, rouge_scores
from modern_rlhf.metrics.texts import code_tokens


def by_order(mine: list[str], theirs: list[str]) -> list[float]:
    """ROUGE-1 and ROUGE-2."""
    row = item_statistics(mine, [theirs])
    return [rouge_n(mine, theirs, row, order=order) for order in (1, 2)]


def test_rouge_sees_punctuation() -> None:
    # 2 of 3 tokens are common in both directions.
    mine, theirs = code_tokens("a + b"), code_tokens("a - b")
    assert rouge_l(mine, theirs) == pytest.approx(2 / 3)
    assert by_order(mine, theirs) == [pytest.approx(2 / 3), 0.0]


@pytest.mark.parametrize("seed", range(5))
def test_rouge_parity_with_rouge_score(seed: int) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    class Tokens:
        def tokenize(self, text: str) -> list[str]:
            return code_tokens(text)

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Tokens())
    draw = random.Random(seed)
    for _ in range(20):
        one = " ".join(draw.choice("ab(.,") for _ in range(draw.randint(2, 15)))
        two = " ".join(draw.choice("ab(.,") for _ in range(draw.randint(2, 15)))
        theirs = scorer.score(two, one)
        mine, ref = code_tokens(one), code_tokens(two)
        expected = [theirs["rouge1"].fmeasure, theirs["rouge2"].fmeasure]
        assert by_order(mine, ref) == pytest.approx(expected, abs=1e-12)
        assert rouge_l(mine, ref) == pytest.approx(theirs["rougeL"].fmeasure, abs=1e-12)


def test_rouge_takes_the_best_reference_and_one_for_identical() -> None:
    scores = rouge_scores([["x"], [], ["a", "b"]], [[["x"]], [["x"]], [["z"], ["a", "b"]]])
    for name in ("rouge", "rouge1", "rouge2"):
        assert scores[name].per_item == [1.0, 0.0, 1.0]


def test_chrf_is_sacrebleu_per_sentence_and_scaled() -> None:
    from sacrebleu import sentence_chrf

    predictions = ["x.sort()", "print(a)", "x", ""]
    references = [["sorted(x)"], ["print(a, b)", "print(a)"], ["x"], ["x"]]
    result = chrf_scores(predictions, references).per_item
    for mine, text, texts in zip(result[:3], predictions, references, strict=False):
        assert mine == pytest.approx(sentence_chrf(text, texts).score / 100)
    assert result[1:] == [pytest.approx(1.0), pytest.approx(1.0), 0.0]


def test_stored_columns_of_the_graded_set(graded_rows: list[dict[str, Any]]) -> None:
    human = [row["human"] for row in graded_rows]
    hypotheses = [row["hyp"] for row in graded_rows]
    references = [row["refs"] for row in graded_rows]
    chrf = chrf_scores(hypotheses, references).per_item
    rouge = rouge_scores(
        [code_tokens(text) for text in hypotheses],
        [[code_tokens(text) for text in texts] for texts in references],
    )["rouge"].per_item
    for mine, column in ((chrf, "chrf"), (rouge, "rougel")):
        stored = [row[column] for row in graded_rows]
        # Three decimals are stored.
        assert max(abs(a - b) for a, b in zip(mine, stored, strict=True)) <= 5.01e-4  # type: ignore[operator]
        assert pearsonr(mine, human)[0] == pytest.approx(pearsonr(stored, human)[0], abs=0.01)


def test_exact_match_forgives_line_ends_only() -> None:
    result = exact_match_items(
        ["x = 1  \r\n", "x  = 1", "if a:\n  b", "", "y"],
        [["x = 1"], ["x = 1"], ["if a:\nb"], ["x"], ["x", "y"]],
    )
    assert result == [1.0, 0.0, 0.0, 0.0, 1.0]


def test_syntax_valid_needs_a_statement() -> None:
    texts = ["x = 1", "x = (1", "", "# only a comment", "sys.exit(`1`)", "x\x00"]
    assert syntax_items([parse_python(text) for text in texts]) == [1, 0, 0, 0, 0, 0]
