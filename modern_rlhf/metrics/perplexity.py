"""Perplexity of the reference answers under a policy, given their prompts.

exp of the mean negative log-likelihood a token, at temperature 1. The value over a set weighs tokens
equally (the usual corpus perplexity); the per-item values are each answer's own. Models with
different tokenizers are not comparable by it. Lower is better, so it is no 0-1 score and no part of
the evaluator; a perfect model reaches 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from modern_rlhf.errors import MetricError
from modern_rlhf.metrics.results import MetricResult
from modern_rlhf.metrics.stats import Floats, bootstrap_statistic

if TYPE_CHECKING:
    from modern_rlhf.models.forward import Policy

TOKENS_AT_ONCE = 4096


def perplexity_of_sums(sums: Floats) -> Floats:
    """Perplexity of summed statistics [B, 2] (negative log-likelihood in nats, tokens) -> [B]."""
    import numpy as np

    values: Floats = np.exp(sums[:, 0] / sums[:, 1])
    return values


def reference_perplexity(
    policy: Policy,
    prompt_ids: Sequence[Sequence[int]],
    reference_ids: Sequence[Sequence[int] | None],
    *,
    pad_id: int,
    samples: int = 1000,
    seed: int = 0,
) -> MetricResult:
    """Perplexity of N tokenised references, each after its tokenised prompt.

    An item whose reference is None or empty, or whose prompt is empty (nothing would predict the
    first token), is left out.

    Raises:
        MetricError: the two lists differ in length.
    """
    import numpy as np
    import torch

    from modern_rlhf.models.forward import make_sequences

    if len(prompt_ids) != len(reference_ids):
        raise MetricError(f"{len(prompt_ids)} prompts and {len(reference_ids)} references")
    rows = [
        (place, list(prompt), list(answer))
        for place, (prompt, answer) in enumerate(zip(prompt_ids, reference_ids, strict=True))
        if prompt and answer
    ]
    rows.sort(key=lambda row: len(row[1]) + len(row[2]))
    device = next(policy.parameters()).device
    per_item: list[float | None] = [None] * len(prompt_ids)
    statistics: dict[int, tuple[float, int]] = {}
    start = 0
    while start < len(rows):
        end = start + 1
        while end < len(rows):
            width = len(rows[end][1]) + len(rows[end][2])
            if (end + 1 - start) * width > TOKENS_AT_ONCE:
                break
            end += 1
        batch = rows[start:end]
        sequences = make_sequences(
            [prompt for _, prompt, _ in batch], [answer for _, _, answer in batch], pad_id=pad_id
        ).to(device)
        with torch.inference_mode():
            totals = policy(sequences).log_probs.double().sum(dim=1).tolist()
        for (place, _, answer), total in zip(batch, totals, strict=True):
            statistics[place] = (-total, len(answer))
            per_item[place] = math.exp(-total / len(answer))
        start = end
    table = np.array([statistics[place] for place in sorted(statistics)], dtype=np.float64)
    found = bootstrap_statistic(table, perplexity_of_sums, samples=samples, seed=seed)
    return MetricResult(
        value=found.value,
        low=found.low,
        high=found.high,
        n=found.n,
        per_item=per_item,
        reason=None if found.n else "no item has both a prompt and a reference",
        details={
            "aggregate": "by token",
            "direction": "lower is better",
            "references": "the first reference",
        },
        statistics=[list(statistics.get(place, (0.0, 0))) for place in range(len(prompt_ids))],
    )
