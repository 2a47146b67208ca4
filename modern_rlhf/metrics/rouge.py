"""ROUGE-1, ROUGE-2 and ROUGE-L F-measures on code tokens.

Lin, ACL 2004: overlap of n-grams, or length of the longest common subsequence (LCS), as precision
and recall, combined by F1; the maximum over references. Equal to `rouge-score` 0.1.2 given the code
tokeniser, which drops no punctuation (with its own tokeniser `a + b` and `a - b` score 1.0), except
that equal texts too short for a bigram score 1. The LCS comes from rapidfuzz, whose bit-parallel
algorithm replaces that package's quadratic Python table.
"""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

from modern_rlhf.metrics.ngrams import Row, overlap, pair_rows
from modern_rlhf.metrics.results import ItemScores

_DETAILS = {"tokenizer": "conala", "measure": "F1", "references": "maximum over references"}


def rouge_n(
    hypothesis: Sequence[str], reference: Sequence[str], row: Sequence[int], *, order: int
) -> float:
    """F1 of the n-gram overlap of two token lists; 0 where either has no n-gram of the order.

    Two equal texts too short to have one (`x` has no bigram) score 1.

    Args:
        row: `ngrams.item_statistics` of the pair.
    """
    found = overlap(row, order)
    if not found.hypothesis or not found.reference:
        return float(bool(hypothesis) and list(hypothesis) == list(reference))
    return _f1(*found)


def rouge_l(hypothesis: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of the longest common subsequence of two token lists; 0 where either is empty."""
    common = LCSseq.similarity(hypothesis, reference)
    return _f1(common, len(hypothesis), len(reference))


def rouge_items(
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    pairs: Sequence[Sequence[Row]],
) -> list[list[float] | None]:
    """ROUGE-L, -1 and -2 of N tokenised items, each the best over references; None without any.

    Args:
        pairs: `ngrams.pair_rows` of the same items.
    """
    items: list[list[float] | None] = []
    for hypothesis, texts, rows in zip(hypotheses, references, pairs, strict=True):
        each = [
            (
                rouge_l(hypothesis, text),
                rouge_n(hypothesis, text, row, order=1),
                rouge_n(hypothesis, text, row, order=2),
            )
            for text, row in zip(texts, rows, strict=True)
        ]
        items.append([max(column) for column in zip(*each, strict=True)] if each else None)
    return items


def rouge_summary(items: Sequence[Sequence[float] | None]) -> dict[str, ItemScores]:
    """`rouge` (ROUGE-L), `rouge1` and `rouge2` out of what `rouge_items` returns."""
    return {
        name: ItemScores([None if one is None else one[place] for one in items], dict(_DETAILS))
        for place, name in enumerate(("rouge", "rouge1", "rouge2"))
    }


def rouge_scores(
    hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> dict[str, ItemScores]:
    """ROUGE-1, ROUGE-2 and ROUGE-L (`rouge`) of N tokenised items; None without references."""
    return rouge_summary(rouge_items(hypotheses, references, pair_rows(hypotheses, references)))


def _f1(common: int, mine: int, theirs: int) -> float:
    return 2.0 * common / (mine + theirs) if common else 0.0
