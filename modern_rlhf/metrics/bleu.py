"""BLEU on code tokens: corpus BLEU-4 by CoNaLa's protocol, and smoothed sentence BLEU.

Papineni et al., ACL 2002: BP * exp(mean_n log p_n), n = 1..4, with p_n the clipped n-gram matches
over the n-grams of the hypotheses, both summed over the corpus, and BP = exp(1 - r/h) when the
hypotheses (h tokens) are shorter than the references (r tokens). CoNaLa's protocol is this without
smoothing: 0 when any order has no match. Several references: counts are clipped at the maximum over
the references, and r takes the reference whose length is closest (the shorter one on a tie).

NLTK's `corpus_bleu` differs: it counts one n-gram in a hypothesis too short to have any.

One deviation: an order of which neither side has a single n-gram (only possible when every text is
below n tokens, such as `x = 1` alone) is left out instead of giving 0: a perfect answer scores 1.

Sentence BLEU is NLTK's `sentence_bleu` with `SmoothingFunction().method3` (the k-th order without a
match counts 1 / (2^k * n-grams); sacrebleu calls it "exp") over the orders that a hypothesis of its
length can have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from modern_rlhf.metrics.ngrams import ORDERS, WIDTH, Row, item_statistics, pair_rows
from modern_rlhf.metrics.results import ItemScores
from modern_rlhf.metrics.stats import Floats


def bleu_of_sums(sums: Floats) -> Floats:
    """Corpus BLEU of summed item statistics: [B, 14] -> [B] values in 0..1."""
    if sums.ndim != 2 or sums.shape[1] != WIDTH:
        raise ValueError(f"expected sums of shape [B, {WIDTH}], got {sums.shape}")
    matches, sizes = sums[:, :ORDERS], sums[:, ORDERS : 2 * ORDERS]
    in_references = sums[:, 2 * ORDERS : 3 * ORDERS]
    hypothesis_length, reference_length = sums[:, -2], sums[:, -1]
    used = (sizes > 0) | (in_references > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(used, np.log(matches / np.maximum(sizes, 1.0)), 0.0)
        mean_log = logs.sum(axis=1) / np.maximum(used.sum(axis=1), 1)
        penalty = np.minimum(0.0, 1.0 - reference_length / hypothesis_length)
        values = np.exp(penalty + mean_log)
    zero = (hypothesis_length == 0) | (used & (matches == 0)).any(axis=1) | ~used.any(axis=1)
    result: Floats = np.where(zero, 0.0, values)
    return result


def sentence_value(statistics: Sequence[int]) -> float:
    """Smoothed sentence BLEU (NLTK method3, effective orders) of one item's statistics."""
    length, closest = statistics[-2], statistics[-1]
    if length == 0 or statistics[0] == 0:
        return 0.0
    orders = min(ORDERS, length)
    total, empty_orders = 0.0, 0
    for order in range(orders):
        found, size = statistics[order], statistics[ORDERS + order]
        if found == 0:
            empty_orders += 1
            total -= math.log(2**empty_orders * size)
        else:
            total += math.log(found / size)
    penalty = min(0.0, 1.0 - closest / length)
    return math.exp(penalty + total / orders)


def corpus_bleu(
    hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> float:
    """Corpus BLEU-4 (0..1) of tokenised hypotheses, each with one or more tokenised references."""
    rows = [item_statistics(h, r) for h, r in zip(hypotheses, references, strict=True)]
    if not rows:
        return 0.0
    return float(bleu_of_sums(np.asarray([rows], dtype=np.float64).sum(axis=1))[0])


def item_rows(
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    pairs: Sequence[Sequence[Row]],
) -> list[Row | None]:
    """The statistics of N tokenised items; None for an item without references.

    Args:
        pairs: `ngrams.pair_rows` of the same items: an item with one reference is that pair.
    """
    rows: list[Row | None] = []
    for hypothesis, texts, alone in zip(hypotheses, references, pairs, strict=True):
        if len(texts) > 1:
            rows.append(item_statistics(hypothesis, texts))
        else:
            rows.append(alone[0] if alone else None)
    return rows


def bleu_summary(rows: Sequence[Sequence[int] | None]) -> tuple[ItemScores, ItemScores]:
    """Corpus BLEU (with its sufficient statistics) and sentence BLEU of the statistics of N items.

    An item without statistics is None in both. The corpus metric's `per_item` is the same formula
    on the single item: it explains the corpus value but its mean is not that value.
    """
    known = [row for row in rows if row is not None]
    alone = iter(bleu_of_sums(np.asarray(known, dtype=np.float64)).tolist() if known else [])
    several = "clipped at the maximum over references; closest reference length"
    corpus = ItemScores(
        per_item=[None if row is None else next(alone) for row in rows],
        details={"tokenizer": "conala", "smoothing": "none", "references": several},
        statistics=[row if row is not None else [0] * WIDTH for row in rows],
    )
    sentence = ItemScores(
        per_item=[None if row is None else sentence_value(row) for row in rows],
        details={
            "tokenizer": "conala",
            "smoothing": "nltk method3, effective orders",
            "references": several,
        },
    )
    return corpus, sentence


def bleu_scores(
    hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[ItemScores, ItemScores]:
    """Corpus and sentence BLEU of N tokenised items; see `bleu_summary`."""
    return bleu_summary(item_rows(hypotheses, references, pair_rows(hypotheses, references)))
