"""CodeBLEU, corrected for short snippets, and the package's own number beside it.

Ren et al., 2020 (arXiv 2009.10297): the weighted mean, .25 each, of n-gram BLEU, BLEU whose unigrams
weigh keywords five times other tokens, the share of the reference's syntax subtrees found, and the
share of its data flow found. The package `codebleu` 0.7.0 gives an empty answer 0.25 and a reference
against itself 0.797 on average; `codebleu` here differs from it in these points, all of them:

1. tokens are code tokens, not white-space pieces;
2. an empty answer scores 0;
3. data flow is left out, and the weights renormalised, when the reference has none; a real 0 stays;
4. an order of n-grams that neither side has is left out (as in `bleu`), and the weighted unigrams
   are divided by their real total, not by at least 1, so that `x = 1` can score 1;
5. several references: the maximum, not a sum;
6. comments and docstrings are recognised in the tree, not by a string starting in column 0;
7. the order of data-flow parents does not depend on the hash seed;
8. code too long or too deep for the tree or flow parts is scored on the others, and counted.

`codebleu_package` is computed by the package in a process of its own with `PYTHONHASHSEED=0`, since
its data-flow part depends on the hash seed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from keyword import kwlist
from typing import NamedTuple

from modern_rlhf.metrics.code_tree import CodeTree, CodeTreeBuilder, flow_match, syntax_match
from modern_rlhf.metrics.ngrams import ORDERS, Row, overlap, pair_rows
from modern_rlhf.metrics.results import ItemScores

KEYWORDS = frozenset((*kwlist, "match", "case", "type"))
_KEYWORD_WEIGHT, _OTHER_WEIGHT = 1.0, 0.2
_EPSILON = 0.1  # what an order without a match counts (the package's smoothing)


class CodeBleuScore(NamedTuple):
    """The score and its parts; `syntax` and `flow` are None where they are left out.

    `limited` says that a size limit, not the reference's nature, left a part out.
    """

    value: float
    ngram: float
    weighted: float
    syntax: float | None
    flow: float | None
    limited: bool


def codebleu_score(
    hypothesis: Sequence[str],
    reference: Sequence[str],
    row: Sequence[int],
    hypothesis_tree: CodeTree | None,
    reference_tree: CodeTree | None,
) -> CodeBleuScore:
    """Corrected CodeBLEU of one tokenised pair, its n-gram counts and trees (None: out of reach).

    Args:
        row: `ngrams.item_statistics` of the pair.
    """
    ngram, weighted = _ngram_parts(hypothesis, reference, row)
    syntax = flow = None
    limited = hypothesis_tree is None or reference_tree is None
    if hypothesis_tree is not None and reference_tree is not None:
        syntax = syntax_match(hypothesis_tree, reference_tree)
        flow = flow_match(hypothesis_tree, reference_tree)
        limited = reference_tree.flow is None or (
            hypothesis_tree.flow is None and bool(reference_tree.flow)
        )
    parts = [part for part in (ngram, weighted, syntax, flow) if part is not None]
    value = sum(parts) / len(parts) if hypothesis else 0.0
    return CodeBleuScore(value, ngram, weighted, syntax, flow, limited)


def codebleu_items(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    prediction_tokens: Sequence[Sequence[str]],
    reference_tokens: Sequence[Sequence[Sequence[str]]],
    pairs: Sequence[Sequence[Row]],
) -> list[CodeBleuScore | None]:
    """Corrected CodeBLEU of N items, the best reference of each; None without references.

    Args:
        pairs: `ngrams.pair_rows` of the same items.
    """
    builder = CodeTreeBuilder()
    tree = lru_cache(maxsize=4096)(builder.build)
    best: list[CodeBleuScore | None] = []
    for text, texts, tokens, token_lists, rows in zip(
        predictions, references, prediction_tokens, reference_tokens, pairs, strict=True
    ):
        others = [tree(other) for other in texts]
        # Half of all short references have no data flow: then the answer's is not needed.
        with_flow = any(other is not None and other.flow for other in others)
        mine = tree(text, with_flow=with_flow)
        scores = [
            codebleu_score(tokens, other_tokens, row, mine, other)
            for other_tokens, row, other in zip(token_lists, rows, others, strict=True)
        ]
        best.append(max(scores, key=lambda score: score.value, default=None))
    return best


def codebleu_summary(items: Sequence[CodeBleuScore | None]) -> ItemScores:
    """The values of N items, with the means of their parts and how many lack one."""
    known = [CodeBleuScore(*score) for score in items if score is not None]
    details = {
        "variant": "corrected",
        "weights": [0.25, 0.25, 0.25, 0.25],
        "tokenizer": "conala",
        "without_data_flow": sum(score.flow is None for score in known),
        "size_limited": sum(score.limited for score in known),
        "parts": {
            part: _mean([getattr(score, part) for score in known])
            for part in ("ngram", "weighted", "syntax", "flow")
        },
        "references": "maximum over references",
    }
    return ItemScores([None if score is None else score[0] for score in items], details)


def codebleu_scores(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    prediction_tokens: Sequence[Sequence[str]],
    reference_tokens: Sequence[Sequence[Sequence[str]]],
) -> ItemScores:
    """Corrected CodeBLEU of N items, the best reference of each; None without references."""
    pairs = pair_rows(prediction_tokens, reference_tokens)
    return codebleu_summary(
        codebleu_items(predictions, references, prediction_tokens, reference_tokens, pairs)
    )


def _ngram_parts(
    hypothesis: Sequence[str], reference: Sequence[str], row: Sequence[int]
) -> tuple[float, float]:
    """BLEU (precisions) and keyword-weighted BLEU (recalls), smoothed, with one brevity penalty."""
    if not hypothesis or not reference or not overlap(row, 1).matches:
        return 0.0, 0.0
    penalty = min(0.0, 1.0 - len(reference) / len(hypothesis))
    counts = [overlap(row, order) for order in range(1, ORDERS + 1)]
    orders = [one for one in counts if one.hypothesis or one.reference]
    precisions = [_log_ratio(one.matches, one.hypothesis) for one in orders]
    recalls = [_log_ratio(one.matches, one.reference) for one in orders[1:]]
    theirs = Counter(reference)
    mine = Counter(hypothesis)
    weights = {token: _KEYWORD_WEIGHT if token in KEYWORDS else _OTHER_WEIGHT for token in theirs}
    found = sum(min(count, mine[token]) * weights[token] for token, count in theirs.items())
    total = sum(count * weights[token] for token, count in theirs.items())
    recalls.insert(0, math.log(found / total))
    return (
        math.exp(penalty + sum(precisions) / len(orders)),
        math.exp(penalty + sum(recalls) / len(orders)),
    )


def _log_ratio(matches: int, size: int) -> float:
    return math.log((matches or _EPSILON) / max(1, size))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
