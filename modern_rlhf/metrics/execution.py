"""pass@k by execution, with the unbiased estimator of Chen et al., 2021 (arXiv 2107.03374).

pass@k = E[1 - C(n - c, k) / C(n, k)] with c of n samples correct. What an executor could not judge
(`infra_error`) says nothing about a program: the sample is left out and counted, never a 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modern_rlhf.errors import MetricError
from modern_rlhf.metrics.results import ItemScores
from modern_rlhf.records import Task

if TYPE_CHECKING:
    from modern_rlhf.sandbox.types import ExecutionResult, Executor

EMPTY = "empty"
"""The verdict on a blank answer, which is not executed: it fails."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of `k` samples drawn from `n`, `c` of them correct, is correct.

    Raises:
        MetricError: not 0 <= c <= n, or not 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise MetricError(f"pass@k needs 0 <= c <= n and 1 <= k <= n; got n={n}, c={c}, k={k}")
    missed = 1.0
    for left in range(n - c + 1, n + 1):
        missed *= max(0.0, 1.0 - k / left)
    return 1.0 - missed


class Verdicts:
    """The outcomes of k programs an item, all executed in one call.

    Attributes:
        results: by item, a list with the result of each sample (None for a blank one), or None
            where the item has no task.
    """

    def __init__(
        self,
        codes: Sequence[Sequence[str]],
        tasks: Sequence[Task | None],
        *,
        executor: Executor,
    ) -> None:
        from modern_rlhf.sandbox.types import program_of

        programs = []
        for samples, task in zip(codes, tasks, strict=True):
            if task is not None:
                programs += [program_of(task, code) for code in samples if code.strip()]
        found = iter(executor.run(programs) if programs else [])
        self.results: list[list[ExecutionResult | None] | None] = [
            None if task is None else [next(found) if code.strip() else None for code in samples]
            for samples, task in zip(codes, tasks, strict=True)
        ]

    def scores(self, k: int, *, source: str) -> ItemScores:
        """pass@k of every item; None without a task or with fewer than k judged samples.

        Args:
            source: which answers were executed, for the reader of the result.
        """
        values: list[float | None] = []
        for results in self.results:
            judged = [one for one in results or () if one is None or one.scorable]
            passed = sum(one is not None and one.passed for one in judged)
            enough = results is not None and len(judged) >= k
            values.append(pass_at_k(len(judged), passed, k) if enough else None)
        return ItemScores(values, {"source": source, "estimator": "unbiased", **self._account()})

    def _account(self) -> dict[str, Any]:
        every = [one for results in self.results or () for one in results or ()]
        counts = Counter(EMPTY if one is None else str(one.verdict) for one in every)
        share = [
            0.0 if one is None or not one.tests_run else one.tests_passed / one.tests_run
            for one in every
            if one is None or one.scorable
        ]
        return {
            "verdicts": dict(sorted(counts.items())),
            "tests_passed": sum(share) / len(share) if share else None,
            "infra_errors": counts["infra_error"],
            "weak_verdicts": sum(one is not None and one.weak_verdict for one in every),
            "without_tests": sum(results is None for results in self.results),
        }
