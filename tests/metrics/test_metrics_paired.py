"""Two reports compared: metrics that are means, metrics that are not, splits, adjusted p-values."""

from __future__ import annotations

import math

import pytest

from modern_rlhf.errors import MetricError
from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
from modern_rlhf.metrics.paired import compare_reports
from modern_rlhf.metrics.results import MetricResult, MetricsReport
from modern_rlhf.metrics.stats import holm

REFERENCES = ["x = sorted(y, key=len)", "print(a, b, sep='')", "d.update(e)"]


def made(**columns: MetricResult) -> MetricsReport:
    return MetricsReport(dict(columns), 3)


def scores(values: list[float | None]) -> MetricResult:
    return MetricResult(None, None, None, 0, values)


def perplexity(rows: list[tuple[float, int]], values: list[float | None]) -> MetricResult:
    return MetricResult(None, None, None, 0, values, statistics=rows)


def test_corpus_bleu_is_compared_as_a_corpus() -> None:
    evaluator = ModernMetricsEvaluator(metrics=["bleu", "chrf"], bootstrap_samples=0)
    worse = evaluator.evaluate(["x = sorted(y)", "print(a, b)", "d"], REFERENCES)
    better = evaluator.evaluate(REFERENCES, REFERENCES)
    found = compare_reports(worse, better, samples=50)
    for name in ("bleu", "chrf"):
        values = better[name].value, worse[name].value
        assert None not in values
        assert found[name].difference == pytest.approx(values[0] - values[1])  # type: ignore[operator]
    # The mean of the items' own values is another number.
    means = [sum(report["bleu"].per_item) / 3 for report in (better, worse)]  # type: ignore[arg-type]
    assert found["bleu"].difference != pytest.approx(means[0] - means[1], abs=1e-3)


def test_perplexity_weighs_tokens_and_leaves_out_what_one_side_lacks() -> None:
    first = perplexity([(2.0, 1), (1.0, 3), (0.0, 0)], [1.0, 1.0, None])
    second = perplexity([(4.0, 1), (2.0, 3), (9.0, 1)], [1.0, 1.0, 1.0])
    found = compare_reports(made(perplexity=first), made(perplexity=second), samples=20)
    # exp(6 / 4) - exp(3 / 4) over the two items that both have.
    assert found["perplexity"].difference == pytest.approx(math.exp(1.5) - math.exp(0.75))
    assert found["perplexity"].n == 2


def test_splits_and_metrics_without_a_common_item() -> None:
    first = made(pass_at_1=scores([0.0, 1.0, 0.0]), chrf=scores([None, 0.5, None]))
    second = made(pass_at_1=scores([1.0, 1.0, None]), chrf=scores([0.2, None, None]))
    found = compare_reports(first, second, splits=["seen", "unseen", "seen"], samples=20)
    assert {name: one.difference for name, one in found.items()} == {
        "pass_at_1": 0.5,
        "pass_at_1/seen": 1.0,
        "pass_at_1/unseen": 0.0,
    }


def test_reports_of_other_items_are_refused() -> None:
    with pytest.raises(MetricError, match="equal lengths"):
        compare_reports(made(chrf=scores([1.0])), made(chrf=scores([1.0, 0.0])))


def test_holm_by_hand() -> None:
    # Sorted .01 .03 .04 times 3 2 1: .03, .06, max(.06, .04).
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
