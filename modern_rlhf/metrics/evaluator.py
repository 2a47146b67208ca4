"""One call that runs every metric on the same items and reports values, intervals and reasons.

Metrics are computed in families that share work (tokens, trees, model passes). Which family makes
which names is one table, `_FAMILIES`; adding a metric adds a row and a pure function elsewhere. A
family that cannot run says why, and its metrics are None with that reason; nothing stands in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from modern_rlhf.errors import MetricError
from modern_rlhf.metrics import bleu, chrf, exact, rouge
from modern_rlhf.metrics.prepared import Prepared, prepare
from modern_rlhf.metrics.results import ItemScores, MetricResult, MetricsReport
from modern_rlhf.metrics.stats import bootstrap_interval, bootstrap_statistic
from modern_rlhf.records import Task

Scores = dict[str, ItemScores]

DEFAULT_METRICS = (
    "pass_at_1",
    "bleu",
    "sentence_bleu",
    "chrf",
    "rouge",
    "rouge1",
    "rouge2",
    "exact_match",
    "syntax_valid",
)
_PASS_AT = re.compile(r"pass_at_([1-9][0-9]*)")


class ModernMetricsEvaluator:
    """Runs metrics on predictions and references.

    Args:
        metrics: names to compute, in order; None is `DEFAULT_METRICS` (and `pass_at_<k>` when k
            samples an item are given).
        bertscore_model: hub id, local directory or `builtin:` name of the encoder of BERTScore;
            None is `builtin:tiny-code-lm`, named as such in the result.
        bertscore_layer: hidden layer BERTScore compares; None is the model's customary one.
        executor: runs programs against tests (`sandbox`); None leaves `pass_at_*` without a value.
        bootstrap_samples: resamples behind every 95% interval; 0 for none.
        seed: of the resampling.

    Raises:
        MetricError: an unknown metric name, or a negative `bootstrap_samples`.
    """

    def __init__(
        self,
        *,
        metrics: Sequence[str] | None = None,
        bertscore_model: str | None = None,
        bertscore_layer: int | None = None,
        executor: Any = None,
        bootstrap_samples: int = 1000,
        seed: int = 0,
    ) -> None:
        for name in metrics or ():
            _family_of(name)
        if bootstrap_samples < 0:
            raise MetricError(f"bootstrap_samples must be 0 or more, got {bootstrap_samples}")
        self.metrics = tuple(dict.fromkeys(metrics)) if metrics is not None else None
        self.bertscore_model = bertscore_model
        self.bertscore_layer = bertscore_layer
        self.executor = executor
        self.bootstrap_samples = bootstrap_samples
        self.seed = seed

    def evaluate(
        self,
        predictions: Sequence[str],
        references: Sequence[str | Sequence[str] | None],
        prompts: Sequence[str] | None = None,
        tasks: Sequence[Task | None] | None = None,
        samples: Sequence[Sequence[str]] | None = None,
    ) -> MetricsReport:
        """Score N predictions, each against one reference or several.

        Args:
            predictions: N answers as generated; code is extracted from them first.
            references: N texts or lists of texts; None or blank leaves the item out of the metrics
                that need one.
            prompts: N prompts (the prefix of perplexity).
            tasks: N tasks with tests, None where an item has none.
            samples: k sampled answers an item, for `pass_at_<k>`.

        Raises:
            MetricError: lengths differ or an item has the wrong type.
        """
        items = prepare(predictions, references, prompts=prompts, tasks=tasks, samples=samples)
        computed: Scores = {}
        results = {}
        for name in self._names(items):
            if name not in computed:
                computed.update(self._run(_family_of(name), items))
            results[name] = self._result(computed[name], len(items))
        return MetricsReport(results, len(items), items.extraction, items.predictions)

    def _names(self, items: Prepared) -> tuple[str, ...]:
        if self.metrics is not None:
            return self.metrics
        k = min((len(texts) for texts in items.samples or ()), default=0)
        return DEFAULT_METRICS if k < 2 else ("pass_at_1", f"pass_at_{k}", *DEFAULT_METRICS[1:])

    def _run(self, family: str, items: Prepared) -> Scores:
        names, compute = _FAMILIES[family]
        try:
            return compute(self, items)
        except ImportError as missing:
            reason = f"the package {missing.name or missing} is not installed"
            return {name: _absent(len(items), reason) for name in names}

    def _result(self, scores: ItemScores, n_items: int) -> MetricResult:
        settings = {"samples": self.bootstrap_samples, "seed": self.seed}
        if scores.statistics is None:
            interval = bootstrap_interval(scores.per_item, **settings)
        else:
            kept = [
                row
                for row, one in zip(scores.statistics, scores.per_item, strict=True)
                if one is not None
            ]
            table = np.asarray(kept, dtype=np.float64)
            interval = bootstrap_statistic(table, bleu.bleu_of_sums, **settings)
        reason = None
        if interval.value is None:
            nothing = "there are no items" if n_items == 0 else "no item could be scored"
            reason = scores.reason or nothing
        return MetricResult(
            value=interval.value,
            low=interval.low,
            high=interval.high,
            n=interval.n,
            per_item=scores.per_item,
            reason=reason,
            details=scores.details,
            statistics=scores.statistics,
        )


def _absent(n: int, reason: str) -> ItemScores:
    return ItemScores([None] * n, reason=reason)


def _bleu(_: ModernMetricsEvaluator, items: Prepared) -> Scores:
    corpus, sentence = bleu.bleu_scores(items.prediction_tokens, items.reference_tokens)
    return {"bleu": corpus, "sentence_bleu": sentence}


def _rouge(_: ModernMetricsEvaluator, items: Prepared) -> Scores:
    return rouge.rouge_scores(items.prediction_tokens, items.reference_tokens)


def _chrf(_: ModernMetricsEvaluator, items: Prepared) -> Scores:
    return {"chrf": chrf.chrf_scores(items.predictions, items.references)}


def _exact(_: ModernMetricsEvaluator, items: Prepared) -> Scores:
    return {"exact_match": exact.exact_match_scores(items.predictions, items.references)}


def _syntax(_: ModernMetricsEvaluator, items: Prepared) -> Scores:
    return {"syntax_valid": exact.syntax_scores([items.trees[text] for text in items.predictions])}


_FAMILIES: dict[
    str, tuple[tuple[str, ...], Callable[[ModernMetricsEvaluator, Prepared], Scores]]
] = {
    "bleu": (("bleu", "sentence_bleu"), _bleu),
    "rouge": (("rouge", "rouge1", "rouge2"), _rouge),
    "chrf": (("chrf",), _chrf),
    "exact": (("exact_match",), _exact),
    "syntax": (("syntax_valid",), _syntax),
}
_FAMILY_BY_NAME = {name: family for family, (names, _) in _FAMILIES.items() for name in names}


def _family_of(name: str) -> str:
    if _PASS_AT.fullmatch(name):
        return "execution"
    family = _FAMILY_BY_NAME.get(name)
    if family is None:
        from difflib import get_close_matches

        known = [*_FAMILY_BY_NAME, "pass_at_1"]
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise MetricError(f"there is no metric named {name!r}; {hint}")
    return family
