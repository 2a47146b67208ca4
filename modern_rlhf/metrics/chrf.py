"""chrF, from sacrebleu: the F-score of character n-grams.

Popovic, WMT 2015: character n-grams of orders 1-6, white space removed, beta = 2 (recall counts
twice); sacrebleu takes the reference with the highest score. On human grades of CoNaLa answers it
is the best single metric. It sees raw characters, not code tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from modern_rlhf.metrics.results import ItemScores


def chrf_items(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> list[float | None]:
    """Sentence chrF (0..1) of N items; None without references, 0 for a blank prediction."""
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF()
    scores: list[float | None] = []
    for prediction, texts in zip(predictions, references, strict=True):
        if not texts:
            scores.append(None)
        elif not prediction.strip():
            scores.append(0.0)
        else:
            scores.append(metric.sentence_score(prediction, list(texts)).score / 100.0)
    return scores


def chrf_summary(scores: Sequence[float | None]) -> ItemScores:
    """The scores with what a reader must know about them."""
    details = {
        "implementation": "sacrebleu",
        "signature": "char order 6, word order 0, beta 2",
        "references": "maximum over references",
        "aggregate": "mean of sentence scores",
    }
    return ItemScores(list(scores), details)


def chrf_scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> ItemScores:
    """Sentence chrF (0..1) of N items; see `chrf_items`."""
    return chrf_summary(chrf_items(predictions, references))
