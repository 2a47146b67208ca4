"""The honesty checks: each fires on the case it is for, stays quiet beside it, and shows why."""

from __future__ import annotations

import json
import random
import tracemalloc
from typing import Any

import pytest

from modern_rlhf import honesty
from modern_rlhf.honesty import assess, overlap_check
from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
from modern_rlhf.metrics.results import MetricResult, MetricsReport
from modern_rlhf.metrics.trivial import trivial_baselines

PROMPTS = [f"sort the list number {i} by its {i}-th key and print the result" for i in range(20)]
REFERENCES = [f"print(sorted(list_{i}, key=lambda row: row[{i}]))" for i in range(20)]
TRAIN = [
    (f"open the file {i} for reading text", f"open('file_{i}', 'r').read()") for i in range(30)
]


def result(values: list[float | None]) -> MetricResult:
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if known else None
    return MetricResult(mean, mean, mean, len(known), values)


def made(predictions: list[str] | None = None, **columns: list[float | None]) -> MetricsReport:
    results = {name: result(values) for name, values in columns.items()}
    return MetricsReport(results, 20, {}, predictions or [])


def check(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "reports_by_model": {"base": made(bleu=[0.2] * 20), "rlhf": made(bleu=[0.3] * 20)},
        "train_prompts": [prompt for prompt, _ in TRAIN],
        "train_answers": [answer for _, answer in TRAIN],
        "eval_prompts": PROMPTS,
        "eval_references": REFERENCES,
    }
    return dict(assess(**{**given, **changes}))


def test_every_check_has_a_flag_and_evidence_that_is_json() -> None:
    checks = check()
    assert list(checks)[:4] == list(honesty.IMPLAUSIBLE_ON_CONALA)
    for name, one in checks.items():
        assert set(one) == {"flag", "evidence"}, name
        assert one["flag"] in (True, False, None)
        if one["flag"] is None:
            assert one["evidence"]["reason"]
    json.dumps(checks)


@pytest.mark.parametrize(
    ("name", "metric", "limit"),
    [
        ("codebleu_implausibly_high_for_conala", "codebleu", 0.6),
        ("bertscore_implausibly_high_plateau", "bertscore", 0.9),
        ("bleu_implausibly_high_for_conala", "bleu", 0.6),
        ("rouge_implausibly_high_for_conala", "rouge", 0.7),
    ],
)
def test_implausible_values_on_conala(name: str, metric: str, limit: float) -> None:
    assert honesty.IMPLAUSIBLE_ON_CONALA[name] == (metric, limit)

    def flag(value: float | None, is_conala: bool) -> Any:
        reports = {"base": made(**{metric: [0.1]}), "rlhf": made(**{metric: [value]})}
        return honesty.implausible_check(reports, metric, limit, is_conala=is_conala)["flag"]

    assert flag(limit, True) is True
    assert flag(limit - 0.01, True) is False
    assert flag(limit, False) is None
    assert honesty.implausible_check({"a": made()}, metric, limit, is_conala=True)["flag"] is None


def test_overlap_of_prompts_exact_and_near() -> None:
    assert check()["train_eval_prompt_overlap"]["flag"] is False
    exact = check(train_prompts=[PROMPTS[0].upper(), *["x"] * 29])["train_eval_prompt_overlap"]
    assert exact["flag"] is True
    assert exact["evidence"]["eval_items_exact"] == 1
    near = check(train_prompts=["Please " + PROMPTS[3], *["x"] * 29])["train_eval_prompt_overlap"]
    assert near["evidence"]["eval_items_near"] == 1
    assert near["evidence"]["examples"][0]["kind"] == "near"
    assert near["evidence"]["share_of_eval"] == pytest.approx(1 / 20)


def test_overlap_of_answers_has_a_limit() -> None:
    few = check(train_answers=[*REFERENCES[:2], *["x"] * 28])["train_eval_answer_overlap"]
    assert (few["flag"], few["evidence"]["eval_items_exact"]) == (False, 2)
    more = check(train_answers=[*REFERENCES[:3], *["x"] * 27])["train_eval_answer_overlap"]
    assert more["flag"] is True


def test_overlap_counts_an_item_with_several_references_once() -> None:
    references = [[text, text + "\npass"] for text in REFERENCES]
    found = overlap_check([REFERENCES[0], REFERENCES[0] + "\npass"], references)
    assert found["evidence"]["eval_items_exact"] == 1
    assert found["evidence"]["train_rows_that_overlap"] == 2


def test_overlap_with_nothing_to_compare_is_unknown() -> None:
    assert overlap_check([], PROMPTS)["flag"] is None
    assert overlap_check(["x"], [None, ""])["evidence"]["eval_items"] == 2


def test_overlap_streams_in_constant_memory() -> None:
    def stream(rows: int) -> Any:
        draw = random.Random(0)
        words = [f"word{i}" for i in range(3000)]
        return (" ".join(draw.choices(words, k=12)) for _ in range(rows))

    def peak(rows: int) -> int:
        tracemalloc.start()
        overlap_check(stream(rows), PROMPTS)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    small, large = peak(300), peak(2_400)
    assert large < small + 100_000


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (["", " "] + [f"x = {i}" for i in range(18)], "empty"),
        ([*PROMPTS[:2], *[f"x = {i}" for i in range(18)]], "echo"),
        (["pass"] * 5 + [f"x = {i}" for i in range(15)], "identical"),
    ],
)
def test_degenerate_answers(answers: list[str], kind: str) -> None:
    found = check(reports_by_model={"rlhf": made(answers)})["degenerate_answers"]
    assert found["flag"] is True
    shares, limits = found["evidence"]["shares"]["rlhf"], found["evidence"]["limits"]
    assert [name for name in limits if shares[name] > limits[name]] == [kind]


def test_good_answers_are_not_degenerate() -> None:
    whole = [f"{prompt}\nreturn x" for prompt in PROMPTS]  # a prompt continued is no echo
    for answers in (REFERENCES, whole):
        reports = {"rlhf": made(answers)}
        assert check(reports_by_model=reports)["degenerate_answers"]["flag"] is False
    assert check(reports_by_model={"rlhf": made()})["degenerate_answers"]["flag"] is None


def test_trivial_baselines() -> None:
    rows = [("sort a list", "b"), ("open file", "a"), ("open a file now", "a"), ("list sort", "c")]
    found = trivial_baselines(iter(rows), ["Sort a list!", "open a file", "zzz"])
    assert found["empty"] == [""] * 3
    assert found["echo"] == ["Sort a list!", "open a file", "zzz"]
    assert found["most_frequent"] == ["a"] * 3
    # {sort, a, list} twice; {open, a, file}: 2/3 against 3/4; nothing shared.
    assert found["nearest"] == ["b", "a", ""]
    assert trivial_baselines([], ["x"])["nearest"] == [""]


def test_nearest_does_not_depend_on_the_size_of_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    from modern_rlhf.metrics import trivial

    draw = random.Random(1)
    rows = [(" ".join(draw.choices("abcdefgh", k=5)), str(i)) for i in range(200)]
    prompts = [" ".join(draw.choices("abcdefgh", k=4)) for _ in range(30)]
    whole = trivial_baselines(rows, prompts)
    monkeypatch.setattr(trivial, "ROWS_AT_ONCE", 7)
    assert trivial_baselines(rows, prompts) == whole

    def naive(prompt: str) -> str:
        words = set(prompt.split())
        overlaps = [len(words & set(r.split())) / len(words | set(r.split())) for r, _ in rows]
        return rows[overlaps.index(max(overlaps))][1]

    assert whole["nearest"] == [naive(prompt) for prompt in prompts]


def test_baseline_as_good_as_the_model_is_flagged() -> None:
    evaluator = ModernMetricsEvaluator(metrics=honesty.BASELINE_METRICS, bootstrap_samples=0)
    good = evaluator.evaluate(REFERENCES, REFERENCES)
    poor = evaluator.evaluate(["x = 1"] * 20, REFERENCES)
    # Training holds near copies of the evaluation rows: the nearest answer beats the poor model.
    rows = {"train_prompts": PROMPTS, "train_answers": [f"{text}\npass" for text in REFERENCES]}
    beaten = check(reports_by_model={"rlhf": poor}, **rows)["trivial_baseline_as_good"]
    assert beaten["flag"] is True
    assert "nearest: bleu" in beaten["evidence"]["as_good"]
    held = check(reports_by_model={"rlhf": good}, **rows)["trivial_baseline_as_good"]
    assert held["flag"] is False
    assert held["evidence"]["baselines"]["empty"]["chrf"] == 0.0
    assert "echo_bleu_on_conala_test" not in held["evidence"]
    conala = check(reports_by_model={"rlhf": good}, is_conala=True)["trivial_baseline_as_good"]
    assert conala["evidence"]["echo_bleu_on_conala_test"] == 0.1583


def test_text_gain_without_execution_gain() -> None:
    low: list[float | None] = [0.2 + 0.001 * i for i in range(20)]
    high: list[float | None] = [0.4 + 0.002 * i for i in range(20)]
    wrong: list[float | None] = [0.0] * 20
    right: list[float | None] = [1.0] * 20

    def flag(before: MetricsReport, after: MetricsReport) -> Any:
        return check(reports_by_model={"sft": before, "rlhf": after})[
            "metric_gain_without_execution_gain"
        ]["flag"]

    assert flag(made(codebleu=low, pass_at_1=wrong), made(codebleu=high, pass_at_1=wrong)) is True
    assert flag(made(codebleu=low, pass_at_1=wrong), made(codebleu=high, pass_at_1=right)) is False
    assert flag(made(codebleu=high, pass_at_1=wrong), made(codebleu=low, pass_at_1=wrong)) is False
    assert flag(made(codebleu=low), made(codebleu=high)) is None


def test_reward_gain_without_held_out_gain() -> None:
    wrong: list[float | None] = [0.0] * 20
    right: list[float | None] = [0.0] * 10 + [1.0] * 10

    def found(before: MetricsReport, after: MetricsReport, rewards: Any) -> Any:
        return check(reports_by_model={"sft": before, "rlhf": after}, reward_by_model=rewards)[
            "reward_gain_without_held_out_gain"
        ]

    up, down = {"sft": 0.1, "rlhf": 0.9}, {"sft": 0.9, "rlhf": 0.1}
    assert found(made(pass_at_1=wrong), made(pass_at_1=wrong), up)["flag"] is True
    assert found(made(pass_at_1=right), made(pass_at_1=wrong), up)["flag"] is True
    assert found(made(pass_at_1=wrong), made(pass_at_1=right), up)["flag"] is False
    assert found(made(pass_at_1=wrong), made(pass_at_1=wrong), down)["flag"] is False
    assert found(made(pass_at_1=wrong), made(pass_at_1=wrong), None)["flag"] is None
    by_text = found(made(chrf=wrong), made(chrf=wrong), up)
    assert (by_text["flag"], by_text["evidence"]["held_out"]) == (True, "chrf")
    assert found(made(), made(), up)["flag"] is None


def test_one_model_alone_has_no_gain() -> None:
    checks = check(reports_by_model={"base": made(bleu=[0.2] * 20)})
    for name in ("metric_gain_without_execution_gain", "reward_gain_without_held_out_gain"):
        assert checks[name]["flag"] is None


def watch(rate: float | None = 0.0, **signatures: float) -> dict[str, Any]:
    return {"signatures": signatures, "impossible_pass_rate": rate}


def test_reward_hacking() -> None:
    def found(**models: Any) -> dict[str, Any]:
        return dict(check(hack_watch_by_model=models)["reward_hacking"])

    assert found()["flag"] is None and found(sft={}, rlhf={})["flag"] is None
    assert found(sft=watch(exit=0.02), rlhf=watch(exit=0.06))["flag"] is False
    risen = found(base=watch(exit=0.9), sft=watch(exit=0.02), rlhf=watch(exit=0.08, files=0.2))
    assert risen["flag"] is True and len(risen["evidence"]["alarms"]) == 2
    # A pass on an impossible task counts for any model, and for one alone.
    assert found(sft=watch(0.25), rlhf=watch())["flag"] is True
    assert found(rlhf=watch(0.25))["flag"] is True
    assert found(rlhf=watch(None))["flag"] is False
