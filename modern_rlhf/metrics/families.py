"""Metrics of texts alone, as pairs of pure functions: items to findings, findings to scores.

Metrics that share work (tokens, trees) make one family. `score` looks at every item by itself, so a
set may be scored in parts, in any order and in several processes; a finding is made of JSON values and
so travels between them. `summarise` sees the findings of all items at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from modern_rlhf.metrics import bleu, chrf, codebleu, exact, rouge, ruby
from modern_rlhf.metrics.prepared import Prepared
from modern_rlhf.metrics.results import ItemScores

Findings = list[Any]
Scores = dict[str, ItemScores]


class Family(NamedTuple):
    """The metrics `names`, made by `score` (one finding an item) and `summarise`."""

    names: tuple[str, ...]
    score: Callable[[Prepared], Findings]
    summarise: Callable[[Findings], Scores]


def _codebleu(items: Prepared) -> Findings:
    return codebleu.codebleu_items(
        items.predictions,
        items.references,
        items.prediction_tokens,
        items.reference_tokens,
        items.pairs,
    )


def _bleu_scores(findings: Findings) -> Scores:
    corpus, sentence = bleu.bleu_summary(findings)
    return {"bleu": corpus, "sentence_bleu": sentence}


def _ruby_part(name: str) -> Family:
    return Family(
        (name,),
        lambda items: ruby.part_items(name, items.predictions, items.references),
        lambda findings: {name: ruby.part_summary(findings)},
    )


TEXT_FAMILIES: dict[str, Family] = {
    "bleu": Family(
        ("bleu", "sentence_bleu"),
        lambda items: bleu.item_rows(items.prediction_tokens, items.reference_tokens, items.pairs),
        _bleu_scores,
    ),
    "rouge": Family(
        ("rouge", "rouge1", "rouge2"),
        lambda items: rouge.rouge_items(
            items.prediction_tokens, items.reference_tokens, items.pairs
        ),
        rouge.rouge_summary,
    ),
    "chrf": Family(
        ("chrf",),
        lambda items: chrf.chrf_items(items.predictions, items.references),
        lambda findings: {"chrf": chrf.chrf_summary(findings)},
    ),
    "exact": Family(
        ("exact_match",),
        lambda items: exact.exact_match_items(items.predictions, items.references),
        lambda findings: {"exact_match": exact.exact_match_summary(findings)},
    ),
    "syntax": Family(
        ("syntax_valid",),
        lambda items: exact.syntax_items([items.trees[text] for text in items.predictions]),
        lambda findings: {"syntax_valid": exact.syntax_summary(findings)},
    ),
    "codebleu": Family(
        ("codebleu",), _codebleu, lambda findings: {"codebleu": codebleu.codebleu_summary(findings)}
    ),
    "ruby": Family(
        ("ruby",),
        lambda items: ruby.ruby_items(items.predictions, items.references, trees=items.trees),
        lambda findings: {"ruby": ruby.ruby_summary(findings)},
    ),
    **{name: _ruby_part(name) for name in ruby.PARTS},
}


def score_families(items: Prepared, names: Sequence[str]) -> dict[str, Findings | str]:
    """The findings of each named family, or why it cannot be computed here."""
    found: dict[str, Findings | str] = {}
    for name in names:
        try:
            found[name] = TEXT_FAMILIES[name].score(items)
        except ImportError as missing:
            found[name] = f"the package {missing.name or missing} is not installed"
    return found
