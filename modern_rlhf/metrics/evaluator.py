"""One call that runs every metric on the same items and reports values, intervals and reasons.

Metrics are computed in families that share work (tokens, trees, model passes): those of texts alone
(`families.TEXT_FAMILIES`), together and on several cores where it pays, and those that need a model, a
tool or an executor (`_OTHER_FAMILIES`). Adding a metric adds a row and a pure function elsewhere. A
family that cannot run says why, and its metrics are None with that reason; nothing stands in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from modern_rlhf.errors import MetricError, ModelError
from modern_rlhf.metrics import diagnostics
from modern_rlhf.metrics.bleu import corpus_bleu
from modern_rlhf.metrics.codebleu_package import package_scores
from modern_rlhf.metrics.execution import Verdicts
from modern_rlhf.metrics.families import TEXT_FAMILIES, Scores
from modern_rlhf.metrics.paired import AGGREGATES
from modern_rlhf.metrics.parallel import default_workers, score_in_parts
from modern_rlhf.metrics.prepared import Prepared, prepare
from modern_rlhf.metrics.results import ItemScores, MetricResult, MetricsReport
from modern_rlhf.metrics.stats import (
    bootstrap_interval,
    bootstrap_statistic,
    proportion_interval,
)
from modern_rlhf.metrics.texts import clean_text, code_tokens
from modern_rlhf.records import Task

BUILTIN_ENCODER = "builtin:tiny-code-lm"
"""What BERTScore falls back on when no encoder is named; the result says so."""

DEFAULT_METRICS = (
    "pass_at_1",
    "bleu",
    "sentence_bleu",
    "chrf",
    "rouge",
    "rouge1",
    "rouge2",
    "codebleu",
    "ruby",
    "bertscore",
    "exact_match",
    "syntax_valid",
)
"""What is computed unless told otherwise: on each of these a perfect answer scores 1, an empty one 0.

`codebleu_package` (neither holds for it), `embedding_similarity`, the diagnostics `complexity`, `style`
and `safety` (which describe the code and compare it with nothing) and the parts of RUBY (`ruby.PARTS`)
are computed when named.
"""

ALL_METRICS = (
    *DEFAULT_METRICS,
    "codebleu_package",
    "embedding_similarity",
    "complexity",
    "style",
    "safety",
)
_BINARY = ("exact_match", "syntax_valid", "safety")
_PASS_AT = re.compile(r"pass_at_([1-9][0-9]*)")


class ModernMetricsEvaluator:
    """Runs metrics on predictions and references.

    Args:
        metrics: names to compute, in order; None is `DEFAULT_METRICS` (and `pass_at_<k>` when k
            samples an item are given).
        bertscore_model: hub id, local directory or `builtin:` name of the encoder of BERTScore;
            None is `builtin:tiny-code-lm`, named as such in the result.
        executor: runs programs against tests (`sandbox`); None leaves `pass_at_*` without a value.
        bootstrap_samples: resamples behind every 95% interval; 0 for none.
        seed: of the resampling.
        device: where the encoder of BERTScore runs.
        workers: cores for the metrics of texts; None is all usable ones from
            `parallel.PARALLEL_FROM` items on, and 1 below. The numbers do not depend on it.

    Raises:
        MetricError: an unknown metric name, a negative `bootstrap_samples`, or no worker.
    """

    def __init__(
        self,
        *,
        metrics: Sequence[str] | None = None,
        bertscore_model: str | None = None,
        executor: Any = None,
        bootstrap_samples: int = 1000,
        seed: int = 0,
        device: str = "cpu",
        workers: int | None = None,
    ) -> None:
        for name in metrics or ():
            _family_of(name)
        if bootstrap_samples < 0:
            raise MetricError(f"bootstrap_samples must be 0 or more, got {bootstrap_samples}")
        if workers is not None and workers < 1:
            raise MetricError(f"workers must be 1 or more, got {workers}")
        self.metrics = tuple(dict.fromkeys(metrics)) if metrics is not None else None
        self.bertscore_model = bertscore_model or BUILTIN_ENCODER
        self.executor = executor
        self.bootstrap_samples = bootstrap_samples
        self.seed = seed
        self.device = device
        self.workers = workers

    def evaluate(
        self,
        predictions: Sequence[str],
        references: Sequence[str | Sequence[str] | None],
        prompts: Sequence[str] | None = None,
        tasks: Sequence[Task | None] | None = None,
        samples: Sequence[Sequence[str]] | None = None,
        *,
        extract: bool = True,
    ) -> MetricsReport:
        """Score N predictions, each against one reference or several.

        Args:
            predictions: N answers as generated; code is extracted from them first.
            references: N texts or lists of texts; None or blank leaves the item out of the metrics
                that need one.
            prompts: N prompts; with them `bleu` tells what echoing the prompt scores.
            tasks: N tasks with tests, None where an item has none.
            samples: k sampled answers an item, for `pass_at_<k>`.
            extract: whether code is extracted from the answers; baselines are scored as they are.

        Raises:
            MetricError: lengths differ or an item has the wrong type.
        """
        items = prepare(
            predictions,
            references,
            prompts=prompts,
            tasks=tasks,
            samples=samples,
            extract=extract,
        )
        names = self._names(items)
        computed = self._texts(items, names)
        results = {}
        for name in names:
            if name not in computed:
                computed.update(self._run(name, items, names))
            results[name] = self._result(name, computed[name], len(items))
        return MetricsReport(results, len(items), items.extraction, items.predictions)

    def _names(self, items: Prepared) -> tuple[str, ...]:
        if self.metrics is not None:
            return self.metrics
        k = min((len(texts) for texts in items.samples or ()), default=0)
        return DEFAULT_METRICS if k < 2 else ("pass_at_1", f"pass_at_{k}", *DEFAULT_METRICS[1:])

    def _texts(self, items: Prepared, names: Sequence[str]) -> Scores:
        """The scores of all metrics of texts alone that are asked for."""
        families = list(dict.fromkeys(map(_family_of, names)))
        wanted = [family for family in families if family in TEXT_FAMILIES]
        workers = default_workers(len(items)) if self.workers is None else self.workers
        scores: Scores = {}
        for family, findings in score_in_parts(items, wanted, workers=workers).items():
            if isinstance(findings, str):
                members = TEXT_FAMILIES[family].names
                scores.update({name: _absent(len(items), findings) for name in members})
            else:
                scores.update(TEXT_FAMILIES[family].summarise(findings))
        if "bleu" in scores and items.prompts is not None:
            scores["bleu"].details["echo_of_prompt"] = _echo_bleu(items)
        return scores

    def _run(self, name: str, items: Prepared, names: Sequence[str]) -> Scores:
        """The scores of the family that `name` belongs to, one that is not of texts alone."""
        family = _family_of(name)
        if family == "execution":
            return _execution(self, items, [one for one in names if _PASS_AT.fullmatch(one)])
        members, compute = _OTHER_FAMILIES[family]
        try:
            return compute(self, items)
        except ImportError as missing:
            reason = f"the package {missing.name or missing} is not installed"
        except ModelError as error:
            reason = str(error)
        return {member: _absent(len(items), reason) for member in members}

    def _result(self, name: str, scores: ItemScores, n_items: int) -> MetricResult:
        settings = {"samples": self.bootstrap_samples, "seed": self.seed}
        if name in _BINARY or _PASS_AT.fullmatch(name):
            interval = proportion_interval(scores.per_item, **settings)
        elif scores.statistics is None:
            interval = bootstrap_interval(scores.per_item, **settings)
        else:
            kept = [
                row
                for row, one in zip(scores.statistics, scores.per_item, strict=True)
                if one is not None
            ]
            table = np.asarray(kept, dtype=np.float64)
            interval = bootstrap_statistic(table, AGGREGATES[name], **settings)
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


def _echo_bleu(items: Prepared) -> float:
    """Corpus BLEU of the prompts as answers: the floor below which BLEU means nothing."""
    kept = [
        (code_tokens(clean_text(prompt)), tokens)
        for prompt, tokens in zip(items.prompts or (), items.reference_tokens, strict=True)
        if tokens
    ]
    return corpus_bleu([prompt for prompt, _ in kept], [tokens for _, tokens in kept])


def _codebleu_package(_: ModernMetricsEvaluator, items: Prepared) -> Scores:
    return {"codebleu_package": package_scores(items.predictions, items.references)}


def _bertscore(evaluator: ModernMetricsEvaluator, items: Prepared) -> Scores:
    from modern_rlhf.metrics.bertscore import bertscore_scores, shared_backbone

    return bertscore_scores(
        items.predictions,
        items.references,
        backbone=shared_backbone(evaluator.bertscore_model, evaluator.device),
    )


def _complexity(_: ModernMetricsEvaluator, items: Prepared) -> Scores:
    return {"complexity": diagnostics.complexity_scores(items.predictions, items.trees)}


def _style(_: ModernMetricsEvaluator, items: Prepared) -> Scores:
    return {"style": diagnostics.style_scores(items.predictions, items.trees)}


def _safety(_: ModernMetricsEvaluator, items: Prepared) -> Scores:
    return {"safety": diagnostics.safety_scores(items.predictions, items.trees)}


def _execution(evaluator: ModernMetricsEvaluator, items: Prepared, names: Sequence[str]) -> Scores:
    """pass@1 of the predictions, and pass@k of the samples, each set of programs run once."""
    n = len(items)
    if items.tasks is None or not any(items.tasks):
        return {name: _absent(n, "no item has tests") for name in names}
    if evaluator.executor is None:
        return {name: _absent(n, "no executor was given to run the tests") for name in names}
    scores: Scores = {}
    runs: dict[str, Verdicts] = {}
    for name in names:
        k = int(name.removeprefix("pass_at_"))
        source = "predictions" if k == 1 else "samples"
        answers = [[code] for code in items.predictions] if k == 1 else items.samples
        if answers is None:
            scores[name] = _absent(n, f"pass@{k} needs {k} samples an item; none were given")
            continue
        if source not in runs:
            runs[source] = Verdicts(answers, items.tasks, executor=evaluator.executor)
        scores[name] = runs[source].scores(k, source=source)
    return scores


_OTHER_FAMILIES: dict[
    str, tuple[tuple[str, ...], Callable[[ModernMetricsEvaluator, Prepared], Scores]]
] = {
    "codebleu_package": (("codebleu_package",), _codebleu_package),
    "bertscore": (("bertscore", "embedding_similarity"), _bertscore),
    "complexity": (("complexity",), _complexity),
    "style": (("style",), _style),
    "safety": (("safety",), _safety),
}
_FAMILY_BY_NAME = {
    name: family
    for table in (TEXT_FAMILIES, _OTHER_FAMILIES)
    for family, (names, *_) in table.items()
    for name in names
}


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
