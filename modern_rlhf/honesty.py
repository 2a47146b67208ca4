"""Checks that keep an evaluation from flattering: each says yes, no or unknown, and shows why.

`assess` returns `{name: {"flag": bool | None, "evidence": {...}}}` for `training_results.json`. A flag
is a reason to look, not a verdict; None means that the check could not be made, and the evidence says
why. Limits stand at the top of this file and in the evidence. The checks see finished reports, texts
and numbers: no model, no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modern_rlhf.data_loader.overlap import (
    THRESHOLD,
    OverlapIndex,
    ngram_containment,
    normalise,
)
from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
from modern_rlhf.metrics.results import MetricsReport
from modern_rlhf.metrics.stats import paired_bootstrap
from modern_rlhf.metrics.trivial import trivial_baselines
from modern_rlhf.sandbox.hack_watch import alarms

Check = dict[str, Any]

IMPLAUSIBLE_ON_CONALA = {
    "codebleu_implausibly_high_for_conala": ("codebleu", 0.6),
    "bertscore_implausibly_high_plateau": ("bertscore", 0.9),
    "bleu_implausibly_high_for_conala": ("bleu", 0.6),
    "rouge_implausibly_high_for_conala": ("rouge", 0.7),
}
"""Check name: metric and the value from which no published CoNaLa system is believable."""

CONALA_TEST_ECHO_BLEU = 0.1583
"""Corpus BLEU of answering every CoNaLa test intent with the intent itself."""

ECHO_CONTAINMENT = THRESHOLD
"""N-gram containment in its prompt from which an answer only repeats it: that of a near duplicate."""

ANSWER_OVERLAP_LIMIT = 0.1
EMPTY_LIMIT = 0.05
ECHO_LIMIT = 0.05
IDENTICAL_LIMIT = 0.2
BASELINE_METRICS = ("bleu", "chrf", "rouge", "codebleu", "exact_match")
TEXT_METRICS = ("sentence_bleu", "chrf", "rouge", "codebleu", "ruby", "bertscore")
_EXAMPLES = 5


def assess(
    *,
    reports_by_model: Mapping[str, MetricsReport],
    train_prompts: Iterable[str],
    train_answers: Iterable[str],
    eval_prompts: Sequence[str],
    eval_references: Sequence[str | Sequence[str] | None],
    baselines: Mapping[str, Sequence[str]] | None = None,
    is_conala: bool = False,
    reward_by_model: Mapping[str, float | None] | None = None,
    hack_watch_by_model: Mapping[str, Mapping[str, Any]] | None = None,
    overlap_threshold: float = THRESHOLD,
    seed: int = 0,
) -> dict[str, Check]:
    """All honesty checks of one run on N evaluation items.

    Args:
        reports_by_model: reports on the N items in the order of training (`base`, `sft`, `rlhf`);
            gains are those of the last model over the one before it.
        train_prompts, train_answers: what the run trained on, aligned.
        baselines: N answers by trivial baseline; None makes them with `trivial_baselines`.
        is_conala: whether the evaluation set is CoNaLa's: the plausibility limits hold for no other.
        reward_by_model: mean reward on the evaluation items.
        hack_watch_by_model: `PolicyEvaluation.hack_watch` of each model.
        overlap_threshold: n-gram containment from which a text counts as a near duplicate.
        seed: of the paired bootstrap.
    """
    prompts, answers = list(train_prompts), list(train_answers)
    if baselines is None:
        baselines = trivial_baselines(zip(prompts, answers, strict=True), eval_prompts)
    checks = {
        name: implausible_check(reports_by_model, metric, limit, is_conala=is_conala)
        for name, (metric, limit) in IMPLAUSIBLE_ON_CONALA.items()
    }
    checks["train_eval_prompt_overlap"] = overlap_check(
        prompts, eval_prompts, threshold=overlap_threshold, limit=0.0
    )
    checks["train_eval_answer_overlap"] = overlap_check(
        answers, eval_references, threshold=overlap_threshold, limit=ANSWER_OVERLAP_LIMIT
    )
    checks["degenerate_answers"] = degenerate_check(reports_by_model, eval_prompts)
    checks["trivial_baseline_as_good"] = baseline_check(
        reports_by_model, baselines, eval_references, is_conala=is_conala
    )
    checks["metric_gain_without_execution_gain"] = text_gain_check(reports_by_model, seed=seed)
    checks["reward_gain_without_held_out_gain"] = reward_gain_check(
        reports_by_model, reward_by_model or {}, seed=seed
    )
    checks["reward_hacking"] = reward_hacking_check(hack_watch_by_model or {})
    return checks


def reward_hacking_check(watch: Mapping[str, Mapping[str, Any]]) -> Check:
    """Whether an impossible task passed, a suspicious signature became more frequent, or passes rose
    suddenly while programs shrank.

    Signatures of the last model are compared with those of the one before it, passes on impossible
    tasks count for every model (`sandbox.hack_watch`).
    """
    known = {name: one for name, one in watch.items() if one}
    evidence: dict[str, Any] = {name: dict(one) for name, one in known.items()}
    if not known:
        return _unknown("no answers were sampled and executed", evidence)
    found = list(known.values())
    rates = [one["impossible_pass_rate"] for one in found]
    before, now = found[-2 if len(found) > 1 else -1], found[-1]
    evidence["alarms"] = alarms(
        impossible_pass_rate=max((rate for rate in rates if rate is not None), default=None),
        before=before["signatures"],
        now=now["signatures"],
        passes=(before.get("pass_rate"), now.get("pass_rate")),
        lengths=(before.get("mean_length"), now.get("mean_length")),
    )
    return {"flag": bool(evidence["alarms"]), "evidence": evidence}


def implausible_check(
    reports: Mapping[str, MetricsReport], metric: str, limit: float, *, is_conala: bool
) -> Check:
    """Whether any model scores `limit` or more on CoNaLa."""
    values = {model: report[metric].value for model, report in reports.items() if metric in report}
    evidence: dict[str, Any] = {"metric": metric, "limit": limit, "values": values}
    if not is_conala:
        return _unknown("the evaluation set is not CoNaLa", evidence)
    known = [value for value in values.values() if value is not None]
    if not known:
        return _unknown(f"no model has a value of {metric}", evidence)
    return {"flag": max(known) >= limit, "evidence": evidence}


def overlap_check(
    train_texts: Iterable[str],
    eval_texts: Sequence[str | Sequence[str] | None],
    *,
    threshold: float = THRESHOLD,
    limit: float = 0.0,
) -> Check:
    """Whether more than `limit` of the evaluation items stand in the training texts, or nearly so.

    An item with several texts counts once. The training texts are read as a stream; memory grows
    with the evaluation set only.
    """
    owners, flat = [], []
    for item, texts in enumerate(eval_texts):
        for text in [texts] if isinstance(texts, str) else texts or ():
            owners.append(item)
            flat.append(text)
    index = OverlapIndex(flat, threshold=threshold)
    found: dict[str, set[int]] = {"exact": set(), "near": set()}
    rows_hit = rows = 0
    examples: list[dict[str, Any]] = []
    for rows, text in enumerate(train_texts, start=1):
        matches = index.match(rows - 1, text)
        rows_hit += bool(matches)
        for match in matches:
            item = owners[match.eval_index]
            if item not in found[match.kind] and len(examples) < _EXAMPLES:
                examples.append(
                    {
                        "eval": flat[match.eval_index][:200],
                        "train": text[:200],
                        "kind": match.kind,
                        "containment": round(match.score, 4),
                    }
                )
            found[match.kind].add(item)
    touched = len(found["exact"] | found["near"])
    evidence: dict[str, Any] = {
        "train_rows": rows,
        "eval_items": len(eval_texts),
        "train_rows_that_overlap": rows_hit,
        "eval_items_exact": len(found["exact"]),
        "eval_items_near": len(found["near"] - found["exact"]),
        "share_of_eval": touched / len(eval_texts) if eval_texts else 0.0,
        "threshold": threshold,
        "limit": limit,
        "examples": examples,
    }
    if not rows or not flat:
        return _unknown("there is nothing to compare", evidence)
    return {"flag": evidence["share_of_eval"] > limit, "evidence": evidence}


def degenerate_check(reports: Mapping[str, MetricsReport], prompts: Sequence[str]) -> Check:
    """Whether a model answers with nothing, with the prompt, or with the same text everywhere."""
    limits = {"empty": EMPTY_LIMIT, "echo": ECHO_LIMIT, "identical": IDENTICAL_LIMIT}
    shares: dict[str, dict[str, float]] = {}
    for model, report in reports.items():
        texts = report.predictions
        if not texts:
            continue
        filled = Counter(text.strip() for text in texts if text.strip())
        most = max(filled.values(), default=0)
        shares[model] = {
            "empty": (len(texts) - filled.total()) / len(texts),
            "echo": sum(map(_echoes, texts, prompts)) / len(texts),
            # One answer given once is no repetition.
            "identical": most / len(texts) if most > 1 else 0.0,
        }
    evidence = {"limits": limits, "shares": shares}
    if not shares:
        return _unknown("no report holds its answers", evidence)
    flag = any(share[kind] > limits[kind] for share in shares.values() for kind in limits)
    return {"flag": flag, "evidence": evidence}


def baseline_check(
    reports: Mapping[str, MetricsReport],
    baselines: Mapping[str, Sequence[str]],
    references: Sequence[str | Sequence[str] | None],
    *,
    is_conala: bool,
) -> Check:
    """Whether an answer that needs no model scores as high as the final model on any metric."""
    evaluator = ModernMetricsEvaluator(metrics=BASELINE_METRICS, bootstrap_samples=0)
    scores = {
        name: {
            metric: result.value
            for metric, result in evaluator.evaluate(texts, references, extract=False).items()
        }
        for name, texts in baselines.items()
    }
    evidence: dict[str, Any] = {"baselines": scores}
    if is_conala:
        evidence["echo_bleu_on_conala_test"] = CONALA_TEST_ECHO_BLEU
    if not reports:
        return _unknown("there is no report", evidence)
    model, report = list(reports.items())[-1]
    mine = {metric: report[metric].value for metric in BASELINE_METRICS if metric in report}
    as_good = sorted(
        f"{name}: {metric}"
        for name, values in scores.items()
        for metric, value in values.items()
        if value and (own := mine.get(metric)) is not None and value >= own
    )
    evidence |= {"model": model, "values": mine, "as_good": as_good}
    if not any(value is not None for value in mine.values()):
        return _unknown("the final model has none of these metrics", evidence)
    return {"flag": bool(as_good), "evidence": evidence}


def text_gain_check(reports: Mapping[str, MetricsReport], *, seed: int = 0) -> Check:
    """Whether text metrics rose, beyond chance, from one model to the next and pass@1 did not."""
    if len(reports) < 2:
        return _unknown("there is only one model", {})
    (before, old), (after, new) = list(reports.items())[-2:]
    gains = _gains(old, new, TEXT_METRICS, seed=seed)
    rose = sorted(name for name, gain in gains.items() if (gain["low"] or 0.0) > 0.0)
    executed = _gains(old, new, ("pass_at_1",), seed=seed).get("pass_at_1")
    evidence = {"from": before, "to": after, "gains": gains, "rose": rose, "pass_at_1": executed}
    if executed is None:
        return _unknown("the items have no tests to execute", evidence)
    return {"flag": bool(rose) and executed["difference"] <= 0.0, "evidence": evidence}


def reward_gain_check(
    reports: Mapping[str, MetricsReport], rewards: Mapping[str, float | None], *, seed: int = 0
) -> Check:
    """Whether the reward rose from one model to the next and held-out quality did not.

    Held-out quality is pass@1 on the evaluation items, or chrF where they have no tests.
    """
    if len(reports) < 2:
        return _unknown("there is only one model", {})
    (before, old), (after, new) = list(reports.items())[-2:]
    first, last = rewards.get(before), rewards.get(after)
    gains = _gains(old, new, ("pass_at_1", "chrf"), seed=seed)
    judge = next((name for name in ("pass_at_1", "chrf") if name in gains), None)
    evidence: dict[str, Any] = {
        "from": before,
        "to": after,
        "reward": {before: first, after: last},
        "held_out": judge,
        "held_out_gain": gains.get(judge) if judge else None,
    }
    if first is None or last is None:
        return _unknown("the reward of one of the models is not known", evidence)
    if judge is None:
        return _unknown("the models have no held-out metric in common", evidence)
    return {"flag": last > first and gains[judge]["difference"] <= 0.0, "evidence": evidence}


def _gains(
    old: MetricsReport, new: MetricsReport, metrics: Sequence[str], *, seed: int
) -> dict[str, dict[str, Any]]:
    """Paired differences new - old of the metrics that both reports have, on common items."""
    gains = {}
    for name in metrics:
        if name in old and name in new:
            gain = paired_bootstrap(new[name].per_item, old[name].per_item, seed=seed)
            if gain.n:
                gains[name] = gain.to_dict()
    return gains


def _echoes(answer: str, prompt: str) -> bool:
    """Whether an answer says nothing that the prompt did not say."""
    said, asked = normalise(answer), normalise(prompt)
    if not said or (asked and said != asked and said.startswith(asked)):
        return False  # a program that begins with the prompt continues it
    return said == asked or ngram_containment(answer, prompt) >= ECHO_CONTAINMENT


def _unknown(reason: str, evidence: dict[str, Any]) -> Check:
    return {"flag": None, "evidence": {**evidence, "reason": reason}}
