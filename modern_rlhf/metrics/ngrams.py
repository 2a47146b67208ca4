"""N-gram overlap of pairs of token lists, the counts that BLEU, ROUGE-N and CodeBLEU are functions of.

Counting is what these metrics spend their time on, so every pair is counted once (`pair_rows`) and the
row of its 14 counts is handed to all of them. Nothing here is a score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

ORDERS = 4
WIDTH = 3 * ORDERS + 2  # matches, hypothesis n-grams, reference n-grams (4 each), two lengths

Row = list[int]
"""Clipped matches of orders 1-4, hypothesis n-grams of orders 1-4, reference n-grams of orders 1-4 (the
most any reference has), hypothesis length, closest reference length."""


class Overlap(NamedTuple):
    """N-grams of one order: those found in both (clipped), in the hypothesis, in the reference."""

    matches: int
    hypothesis: int
    reference: int


def ngram_counts(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    """The n-grams of `tokens` with their counts; none where there are fewer tokens than `order`."""
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def item_statistics(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> Row:
    """The `Row` of a hypothesis and one or more references: corpus BLEU is a function of their sum.

    Matches are clipped at the maximum over the references; the closest length is the shorter on a tie.
    """
    lengths = [len(reference) for reference in references]
    closest = min(lengths, key=lambda length: (abs(length - len(hypothesis)), length))
    matches = [0] * ORDERS
    for order in range(1, ORDERS + 1):
        matches[order - 1] = _matches(hypothesis, references, order)
        if not matches[order - 1]:
            break  # without a common n-gram there is no longer one
    sizes = [max(0, len(hypothesis) - order) for order in range(ORDERS)]
    reference_sizes = [max(0, max(lengths) - order) for order in range(ORDERS)]
    return [*matches, *sizes, *reference_sizes, len(hypothesis), closest]


def _matches(hypothesis: Sequence[str], references: Sequence[Sequence[str]], order: int) -> int:
    """Common n-grams, each counted as often as the reference has it that has it most."""
    mine = ngram_counts(hypothesis, order)
    counts = [ngram_counts(reference, order) for reference in references]
    if len(counts) > 1:
        return sum(min(count, max(one[gram] for one in counts)) for gram, count in mine.items())
    common = mine.keys() & counts[0].keys()
    # Where the hypothesis repeats no n-gram, every common one is found once.
    if len(mine) == len(hypothesis) - order + 1:
        return len(common)
    return sum(map(min, map(mine.__getitem__, common), map(counts[0].__getitem__, common)))


def pair_rows(
    hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> list[list[Row]]:
    """For each of N tokenised items, the `Row` of the hypothesis with every one of its references."""
    return [
        [item_statistics(hypothesis, [text]) for text in texts]
        for hypothesis, texts in zip(hypotheses, references, strict=True)
    ]


def overlap(row: Sequence[int], order: int) -> Overlap:
    """The counts of one order (1-4) in a row."""
    return Overlap(row[order - 1], row[ORDERS + order - 1], row[2 * ORDERS + order - 1])
