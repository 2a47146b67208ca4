"""Text metrics in parts: the numbers do not depend on parts, processes, or a process that dies."""

from __future__ import annotations

import logging
import random

import pytest

from modern_rlhf.errors import MetricError
from modern_rlhf.metrics import chrf, parallel
from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
from modern_rlhf.metrics.families import TEXT_FAMILIES
from modern_rlhf.metrics.results import MetricsReport

NAMES = tuple(name for family in TEXT_FAMILIES.values() for name in family.names)


def items(count: int) -> tuple[list[str], list[list[str] | None]]:
    draw = random.Random(0)

    def code() -> str:
        a, b = draw.choice("xyz"), draw.choice("uvw")
        return draw.choice(
            [
                f"{a} = {b}",
                f"{a}.sort()",
                f"[{a} for {a} in {b}]",
                f"f({a}, '{b}'",
                "",
                "größe\ud800",
            ]
        )

    references = [draw.choice([[code()], [code(), code()], None]) for _ in range(count)]
    return [code() for _ in range(count)], references


def report(workers: int) -> MetricsReport:
    evaluator = ModernMetricsEvaluator(metrics=NAMES, bootstrap_samples=20, workers=workers)
    return evaluator.evaluate(*items(50), extract=False)


def test_parts_and_processes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = report(workers=1)
    monkeypatch.setattr(parallel, "ITEMS_A_PART", 7)
    assert report(workers=1) == whole
    assert report(workers=2) == whole


def test_the_other_process_scores_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = report(workers=1)
    monkeypatch.setattr(parallel, "ITEMS_A_PART", 7)
    # The caller does nothing but wait.
    here: list[int] = []
    next_part = parallel._next

    def only_feeders(waiting: object) -> int | None:
        import threading

        if threading.current_thread() is threading.main_thread():
            return None
        here.append(1)
        return next_part(waiting)  # type: ignore[arg-type]

    monkeypatch.setattr(parallel, "_next", only_feeders)
    assert report(workers=2) == whole
    assert len(here) == 9  # 8 parts, and none


def test_a_process_that_dies_leaves_its_part_to_the_caller(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = report(workers=1)
    monkeypatch.setattr(parallel, "ITEMS_A_PART", 7)
    monkeypatch.setattr(parallel, "_START", "import sys; sys.stdin.readline(); sys.exit(3)")
    with caplog.at_level(logging.WARNING):
        assert report(workers=2) == whole
    assert "scored here" in caplog.text


def test_a_missing_package_is_a_reason_and_costs_no_other_metric(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(*_: object) -> list[float | None]:
        raise ImportError("No module named 'sacrebleu'", name="sacrebleu")

    monkeypatch.setattr(chrf, "chrf_items", absent)
    found = report(workers=1)
    assert (found["chrf"].value, found["chrf"].reason) == (
        None,
        "the package sacrebleu is not installed",
    )
    assert found["rouge"].value is not None


def test_few_items_start_no_process_and_no_worker_is_refused() -> None:
    assert parallel.default_workers(parallel.PARALLEL_FROM - 1) == 1
    assert parallel.default_workers(parallel.PARALLEL_FROM) >= 1
    with pytest.raises(MetricError, match="workers must be 1 or more"):
        ModernMetricsEvaluator(workers=0)
