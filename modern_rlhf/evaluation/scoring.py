"""What is measured of a policy beside the metrics of its greedy answers.

Pass rates of its sampled answers, the perplexity that it gives the references, and the signs that it
games the judge. Functions of a policy (`answers.Answerer`), its answers and the evaluation set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from modern_rlhf.data_loader.encoding import encode_demonstrations
from modern_rlhf.data_loader.evaluation_set import EvaluationSet
from modern_rlhf.evaluation.answers import Answerer
from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
from modern_rlhf.metrics.execution import pass_at_k
from modern_rlhf.metrics.perplexity import reference_perplexity
from modern_rlhf.metrics.results import MetricResult
from modern_rlhf.models.forward import Policy
from modern_rlhf.records import Demonstration
from modern_rlhf.sandbox.hack_watch import impossible_tasks, shares

T = TypeVar("T")

IMPOSSIBLE_SAMPLES = 4
"""Answers drawn for each impossible task."""


def sampled_rates(
    items: EvaluationSet, texts: Sequence[str], k: int, *, executor: Any
) -> tuple[dict[str, list[float | None]], list[str]]:
    """Pass rates of k sampled answers an item, and the programs in the N x k `texts`.

    `pass_at_1_sampled` is the share of an item's judged samples that pass, `pass_at_<k>` (k above 1)
    the unbiased estimate from all k; an item with a sample that could not be judged has none.
    """
    repeated = [item for item in items.items for _ in range(k)]
    found = ModernMetricsEvaluator(
        metrics=["pass_at_1"], executor=executor, bootstrap_samples=0
    ).evaluate(
        texts,
        [item.reference for item in repeated],
        [item.prompt for item in repeated],
        [item.task for item in repeated],
    )
    by_item = groups(found["pass_at_1"].per_item, k)
    rates = {"pass_at_1_sampled": [mean(group) for group in by_item]}
    if k > 1:
        judged = [[value for value in group if value is not None] for group in by_item]
        rates[f"pass_at_{k}"] = [
            pass_at_k(k, round(sum(group)), k) if len(group) == k else None for group in judged
        ]
    return rates, found.predictions


def hack_watch(
    answerer: Answerer, codes: Sequence[str], *, pass_rate: float | None, executor: Any
) -> dict[str, Any]:
    """Signatures in the programs `codes` of the answers, and the pass rate on impossible tasks.

    Args:
        pass_rate: of the greedy answers, kept beside the others.
    """
    tasks = impossible_tasks()
    repeated = [task for task in tasks for _ in range(IMPOSSIBLE_SAMPLES)]
    found = ModernMetricsEvaluator(
        metrics=["pass_at_1"], executor=executor, bootstrap_samples=0
    ).evaluate(
        answerer.quick([task.prompt for task in tasks], samples=IMPOSSIBLE_SAMPLES),
        [None] * len(repeated),
        [task.prompt for task in repeated],
        repeated,
    )
    return {
        "mean_length": sum(map(len, codes)) / max(1, len(codes)),
        "signatures": shares(codes),
        "impossible_pass_rate": found["pass_at_1"].value,
        "pass_rate": pass_rate,
    }


def perplexity_of_references(
    answerer: Answerer, items: EvaluationSet, *, samples: int, seed: int
) -> MetricResult:
    """Perplexity of the references under the policy, encoded as answers are for training."""
    known = [
        (place, Demonstration(item.prompt, item.reference))
        for place, item in enumerate(items.items)
        if item.reference and item.reference.strip()
    ]
    prompts: list[list[int]] = [[] for _ in items.items]
    answers: list[list[int] | None] = [None] * len(items)
    if known:
        encoded = encode_demonstrations(
            answerer.tokenizer,
            [demonstration for _, demonstration in known],
            max_length=answerer.max_prompt_tokens + answerer.max_response_tokens,
            max_prompt_length=answerer.max_prompt_tokens,
            style=answerer.prompt_style,  # type: ignore[arg-type]
            system=answerer.system_prompt,
            long_prompt="truncate_left",
        )
        for index, example in zip(encoded.indices, encoded.examples, strict=True):
            place, begin = known[index][0], example.prompt_length
            prompts[place] = example.input_ids[:begin]
            answers[place] = example.input_ids[begin:]
    with answerer.runtime.autocast():
        return reference_perplexity(
            Policy(answerer.lm),
            prompts,
            answers,
            pad_id=answerer.tokenizer.pad_token_id,
            samples=samples,
            seed=seed,
        )


def groups(values: Sequence[T], size: int) -> list[list[T]]:
    """The values in consecutive groups of `size`."""
    return [list(values[start : start + size]) for start in range(0, len(values), size)]


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are known, None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
