"""The evaluator: one call, aligned results, reasons instead of stand-ins."""

from __future__ import annotations

import json
import random

import pytest

import modern_rlhf.metrics as metrics_package
from modern_rlhf.errors import MetricError
from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
from modern_rlhf.metrics.families import TEXT_FAMILIES
from modern_rlhf.metrics.results import MetricsReport

LEXICAL = (
    "bleu",
    "sentence_bleu",
    "chrf",
    "rouge",
    "rouge1",
    "rouge2",
    "exact_match",
    "syntax_valid",
)
OF_TEXTS = tuple(name for family in TEXT_FAMILIES.values() for name in family.names)
CODES = ["x", "x = 1", "x.sort()", "print(a, b)", "def add(a, b):\n    return a + b\n"]


def test_public_names_are_lazy_and_right() -> None:
    assert metrics_package.ModernMetricsEvaluator is ModernMetricsEvaluator
    with pytest.raises(AttributeError, match="nonsense"):
        _ = metrics_package.nonsense


def test_identical_scores_one_and_empty_scores_zero() -> None:
    evaluator = ModernMetricsEvaluator(metrics=LEXICAL, bootstrap_samples=50)
    same, nothing = evaluator.evaluate(CODES, CODES), evaluator.evaluate([""] * 5, CODES)
    for name in LEXICAL:
        assert same[name].value == pytest.approx(1.0), name
        assert same[name].per_item == [pytest.approx(1.0)] * 5, name
        assert nothing[name].value == 0.0, name
        assert nothing[name].per_item == [0.0] * 5, name
    assert nothing.extraction["empty"] == 5


def test_fences_are_stripped_before_any_metric_and_counted() -> None:
    fenced = [f"```python\n{code}\n```" for code in CODES[:4]] + [CODES[4]]
    report = ModernMetricsEvaluator(metrics=LEXICAL, bootstrap_samples=0).evaluate(fenced, CODES)
    assert report["exact_match"].value == 1.0
    assert report.extraction["changed"] == 4
    assert sum(report.extraction["how"].values()) == 5
    assert report["chrf"].low is None


def test_corpus_bleu_value_is_not_the_mean_of_items() -> None:
    predictions, references = ["a b c d e f g h", "x y z w"], ["a b c d e f g h", "p q r s"]
    result = ModernMetricsEvaluator(metrics=["bleu"]).evaluate(predictions, references)["bleu"]
    # Matches 8, 7, 6, 5 of 12, 10, 8, 6 n-grams.
    assert result.value == pytest.approx((8 / 12 * 7 / 10 * 6 / 8 * 5 / 6) ** 0.25)
    assert result.per_item == [1.0, 0.0]


def test_several_references_take_the_best() -> None:
    report = ModernMetricsEvaluator(metrics=LEXICAL).evaluate(
        ["x.sort()", "x.sort()"], [["sorted(x)", "x.sort()"], ["x.sort()"]]
    )
    assert all(report[name].value == pytest.approx(1.0) for name in LEXICAL)


def test_item_without_reference_is_none_and_not_counted() -> None:
    report = ModernMetricsEvaluator(metrics=LEXICAL).evaluate(["x = 1", "y"], ["x = 1", None])
    for name in LEXICAL[:-1]:
        assert report[name].per_item[1] is None
        assert (report[name].n, report[name].value) == (1, pytest.approx(1.0))
    assert report["syntax_valid"].n == 2


def test_no_reference_at_all_gives_none_with_a_reason() -> None:
    report = ModernMetricsEvaluator(metrics=LEXICAL).evaluate(["x = 1"], [[]])
    for name in LEXICAL[:-1]:
        assert report[name].value is None
        assert report[name].reason
    empty = ModernMetricsEvaluator(metrics=LEXICAL).evaluate([], [])
    assert all(result.value is None and result.reason for result in empty.values())


def test_order_of_items_does_not_matter() -> None:
    draw = random.Random(0)

    def code() -> str:
        soup = "".join(draw.choice("ab(). ") for _ in range(20))
        a, b = draw.choice("ab"), draw.choice("ab")
        return draw.choice([soup, f"{a} = {b}\nfor c in {a}: {b}(c)", f"[{a} for {a} in {b}]"])

    predictions, references = ([code() for _ in range(30)] for _ in range(2))
    order = list(range(30))
    draw.shuffle(order)
    evaluator = ModernMetricsEvaluator(metrics=OF_TEXTS, bootstrap_samples=0)
    straight = evaluator.evaluate(predictions, references)
    shuffled = evaluator.evaluate([predictions[i] for i in order], [references[i] for i in order])
    for name in OF_TEXTS:
        assert shuffled[name].per_item == [straight[name].per_item[i] for i in order]
        value = straight[name].value
        assert value is not None
        assert shuffled[name].value == pytest.approx(value, abs=1e-12), name


def test_report_survives_json() -> None:
    report = ModernMetricsEvaluator(metrics=LEXICAL).evaluate(CODES, CODES[::-1])
    again = MetricsReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report
    assert set(report.summary()["bleu"]) == {"value", "low", "high", "n", "reason"}


def test_wrong_inputs_are_named() -> None:
    evaluator = ModernMetricsEvaluator(metrics=["bleu"])
    with pytest.raises(MetricError, match="references has 1 items"):
        evaluator.evaluate(["a", "b"], ["a"])
    with pytest.raises(MetricError, match=r"predictions\[0\]"):
        evaluator.evaluate([None], ["a"])  # type: ignore[list-item]
    with pytest.raises(MetricError, match="did you mean 'bleu'"):
        ModernMetricsEvaluator(metrics=["blue"])
