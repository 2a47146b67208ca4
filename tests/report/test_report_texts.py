"""The closing table, samples.md, curves and the HTML page: right numbers, no way to attack."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modern_rlhf.evaluation.evaluator import PERIODIC_METRICS
from modern_rlhf.honesty import assess
from modern_rlhf.metrics.results import MetricsReport
from modern_rlhf.report.curves import (
    evaluation_curves,
    logged_keys,
    smoothed,
    stage_spans,
    training_curve,
)
from modern_rlhf.report.html import render
from modern_rlhf.report.html_tables import differences_table, reward_table
from modern_rlhf.report.inputs import read_run
from modern_rlhf.report.labels import duration, number
from modern_rlhf.report.samples import read_samples, write_samples
from modern_rlhf.report.table import closing_table

# --- the closing table ---------------------------------------------------------------------------


def test_the_closing_table_word_for_word() -> None:
    results = {
        "models": {
            "base": {"bleu": {"value": 0.1, "low": 0.05, "high": 0.15, "n": 20, "reason": None}},
            "sft": {
                "bleu": {"value": 0.25, "low": None, "high": None, "n": 20, "reason": None},
                "bertscore": {
                    "value": None,
                    "low": None,
                    "high": None,
                    "n": 0,
                    "reason": "offline",
                },
            },
            "rlhf": {
                "bleu": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 18, "reason": None},
                "kl": {"value": 123.456, "low": None, "high": None, "n": 20, "reason": None},
                "chrf": {"value": 0.9, "low": None, "high": None, "n": 20, "reason": None},
            },
        },
        "targets": {"bleu": 0.4, "bertscore": 0.7},
        "targets_met": {"bleu": True, "bertscore": None},
        "honesty_assessment": {"a": {"flag": True}, "b": {"flag": False}, "c": {"flag": None}},
    }
    assert closing_table(results).split("\n") == [
        "metric            base                  SFT    RLHF                  target",
        "----------------  --------------------  -----  --------------------  -----------------",
        "BLEU              0.100 [0.050, 0.150]  0.250  0.500 [0.400, 0.600]  0.40 met",
        "BERTScore         -                     n/a    -                     0.70 not measured",
        "KL to SFT (nats)  -                     -      123.5",
        "",
        "BERTScore n/a (SFT): offline",
        "Intervals: 95% over 18 to 20 items (bootstrap; binomial for rates of few).",
        "Targets met: 1 of 2.",
        "Honesty checks that raised a flag: a.",
    ]


def test_a_missed_target_and_a_single_model() -> None:
    entry = {"value": 0.3, "low": 0.2, "high": 0.4, "n": 5, "reason": None}
    results = {
        "models": {"base": {"codebleu": entry}},
        "targets": {"codebleu": 0.6},
        "targets_met": {"codebleu": False},
    }
    text = closing_table(results)
    assert "0.60 missed" in text and "Targets met: 0 of 1." in text and "RLHF" not in text
    assert text.isascii()
    assert closing_table({})  # an empty run crashes nothing


def test_numbers_and_durations_are_for_people() -> None:
    shown = [number(v) for v in (0.4214, 12.0, 123.456, 1e-5, 0, -0.5, 2.5e7, None, True)]
    assert shown == ["0.421", "12.000", "123.5", "1.00e-05", "0.000", "-0.500", "2.50e+07"] + [
        "n/a",
        "n/a",
    ]
    spans = [duration(s) for s in (0.2, 59, 60, 185, 3600, 7800, 90061)]
    assert spans == ["0 s", "59 s", "1 min", "3 min 5 s", "1 h", "2 h 10 min", "1 d 1 h"]


# --- samples.md ----------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["```", "````\n```", "## Sample 2\n### SFT\n```", "\n", "a\r\nb", "### Base (pass)"]
)
answers = st.fixed_dictionaries(
    {"text": texts, "verdict": st.none() | st.sampled_from(["pass", "syntax_error"])}
)
rows = st.fixed_dictionaries(
    {"prompt": texts},
    optional={"reference": texts, "base": answers, "sft": answers, "rlhf": answers},
)


@settings(deadline=None, max_examples=40)  # each example writes and fsyncs a file
@given(written=st.lists(rows, max_size=3))
def test_samples_are_read_back_as_they_were_written(
    written: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("samples") / "samples.md"
    write_samples(path, written)
    assert read_samples(path) == written


def test_samples_can_be_plain_strings_and_are_for_people(
    tmp_path: Path, samples: list[dict[str, Any]]
) -> None:
    path = tmp_path / "samples.md"
    write_samples(path, samples)
    text = path.read_text(encoding="utf-8")
    assert "## Sample 1" in text and "### SFT (fail)" in text and "### RLHF (pass)" in text
    assert "```python\ndef add(a, b):\n    return a + b\n```" in text
    assert read_samples(path)[1]["sft"] == {"text": "", "verdict": None}
    assert read_samples(tmp_path / "none.md") == []


# --- curves --------------------------------------------------------------------------------------


def line(stage: str, kind: str, step: int, epoch: float | None, **values: Any) -> dict[str, Any]:
    return {"schema": 1, "stage": stage, "kind": kind, "step": step, "epoch": epoch, **values}


def test_stages_follow_one_another_and_the_reward_model_is_left_out() -> None:
    lines = [
        line("sft", "train", 1, 0.5, loss=1.0),
        line("sft", "eval", 2, 1.0, bleu=0.1),
        line("reward", "eval", 1, 2.0, accuracy=0.7),
        line("ppo", "eval", 0, 0.0, bleu=0.1),
        line("ppo", "eval", 9, 3.0, bleu=0.3, bleu_low=0.2, bleu_high=0.4),
    ]
    spans = stage_spans(lines)
    assert [(span.stage, span.start, span.end) for span in spans] == [
        ("sft", 0.0, 1.0),
        ("ppo", 1.0, 4.0),
    ]
    curves = evaluation_curves(lines)
    assert list(curves) == ["bleu"]
    ppo = curves["bleu"]["ppo"]
    assert ppo.x == [1.0, 4.0] and ppo.y == [0.1, 0.3]
    assert math.isnan(ppo.low[0]) and (ppo.low[1], ppo.high[1]) == (0.2, 0.4)


def test_nulls_are_gaps_and_companions_are_no_curves() -> None:
    lines = [
        line("ppo", "train", 1, 0.1, reward=1.0, reward_std=0.5, kl=None, kl_nonfinite="nan"),
        line("ppo", "train", 2, 0.2, reward=2.0, reward_std=0.5, clip_fraction_low=0.1),
    ]
    assert logged_keys(lines, "ppo") == ["reward", "kl", "clip_fraction_low"]
    curve = training_curve(lines, "ppo", "reward")
    assert (curve.x, curve.low, curve.high) == ([1.0, 2.0], [0.5, 1.5], [1.5, 2.5])
    assert math.isnan(training_curve(lines, "ppo", "kl").y[0])
    evaluated = [line("ppo", "eval", 1, 1.0, bleu=0.1, bleu_low=0.0, bleu_high=0.2)]
    assert logged_keys(evaluated, "ppo", "eval") == ["bleu"]


def test_smoothing_keeps_straight_lines_straight_and_passes_gaps() -> None:
    straight = [float(value) for value in range(9)]
    assert smoothed(straight, 5) == straight
    assert smoothed([1.0, math.nan, 3.0], 3)[1] == 2.0  # (1 + 3) / 2
    assert smoothed([0.0, 3.0, 0.0], 3) == [0.0, 1.0, 0.0]
    assert math.isnan(smoothed([math.nan], 3)[0])


# --- the page ------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects tags, links to anything, texts, and checks that tags are closed in order."""

    VOID = {"meta", "img", "br", "link", "input"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.sources: list[str] = []
        self.images: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"an event handler: {name}"
            if name in ("src", "href", "action", "data", "poster"):
                self.sources.append(value or "")
        if tag == "img":
            self.images.append(dict(attrs)["alt"] or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def page(reported: list[Path]) -> str:
    return reported[-1].read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_asks_nobody_for_anything(page: str) -> None:
    found = Page(page)
    assert all(s.startswith(("data:image/png;base64,", "#")) for s in found.sources)
    assert "script" not in found.tags and "link" not in found.tags and "iframe" not in found.tags
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import", page)
    assert len(found.images) == 7 and all(found.images)  # each picture has words beside it


def test_the_page_holds_the_numbers_of_the_files(page: str) -> None:
    text = " ".join(" ".join(Page(page).texts).split())
    assert "0.440 [0.400, 0.480]" in text  # BLEU of the RLHF model with its interval
    assert "3 of 5 targets met" in text and "1 honesty flag raised" in text
    assert "0.60 missed" in text and "BERTScore n/a (base, SFT, RLHF): no encoder" in text
    assert "RLHF minus SFT" in text and "+0.152 [0.122, 0.182], p 0.001" in text
    assert "pass@1, eval seen +0.300 [0.200, 0.400]" in text
    assert "pass@1, eval unseen 0.100 [0.060, 0.140] 0.340 [0.300, 0.380]" in text
    assert "reward hacking raised" in text and "reward gain 1.700" in text
    assert "4,210.0 (1 h 10 min)" in text and "builtin:tiny-code-lm" in text
    assert re.search(r"metrics\.jsonl line \d+ is torn", text)
    assert "made-up numbers for tests" in text  # the configuration is there
    assert "commit 0123abc" in text
    assert "pairwise accuracy 0.780 [0.730, 0.830] 300" in text  # the reward model's
    assert "accuracy of longer wins 0.410 [0.350, 0.470]" in text
    assert "synthetic and people's ratings 0.290 [0.040, 0.510] 60 made <up>: Pearson" in text
    for heading in (
        "Results",
        "Honesty assessment",
        "Reward model",
        "Plots",
        "Samples",
        "Stages",
        "Configuration",
    ):
        assert heading in text


def test_a_difference_is_coloured_by_what_is_better() -> None:
    def gap(value: float) -> dict[str, float]:
        return {"difference": value, "low": value - 0.1, "high": value + 0.1, "p_value": 0.01}

    differences = {"bleu": 0.3, "pass_at_1/eval_seen": -0.3, "perplexity": -5.0, "safety": 0.3}
    differences |= {"kl": 2.0, "style": 0.05}
    text = differences_table({"sft - base": {name: gap(v) for name, v in differences.items()}})
    found = dict(re.findall(r'<th scope="row">([^<]+)</th><td class="(\w*)">', text))
    assert found == {
        "BLEU": "good",
        "pass@1, eval seen": "bad",
        "reference perplexity": "good",
        "flagged as unsafe": "bad",
        "KL to SFT (nats)": "",  # neither: RLHF has to move away
        "style violations a line": "",  # the interval holds 0
    }


@pytest.mark.parametrize(
    ("judges", "told"), [("people", "people's ratings"), ("simulated", "simulated ratings")]
)
def test_the_page_says_whose_ratings_these_are(judges: str, told: str) -> None:
    entry = {"pearson": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    evaluation = {
        "accuracy": {"value": 0.7, "low": 0.6, "high": 0.8, "n": 9},
        "judges": {"pairs": judges, "ratings": judges},
        "rating_correlation": {"score": entry},
    }
    text = " ".join(Page(reward_table(evaluation)).texts)
    assert f"score and {told}" in text
    assert f"held-out pairs judged by {judges.replace('simulated', 'simulated raters')}" in text


def test_the_made_up_run_logs_only_what_runs_log(finished_run: Path, repository: Path) -> None:
    """Or the tests of this folder would test a log that nobody writes."""
    cells = re.findall(r"^\| (`.+?) \|", (repository / "docs" / "metrics.md").read_text(), re.M)
    keys = re.findall(r"`([^`]+)`", " ".join(cells))
    page = re.compile("|".join(re.sub(r"<\w+>", r"\\w+", key) for key in keys))
    run = read_run(finished_run)
    written = {key for row in run.metrics if row["kind"] == "train" for key in row}
    assert {key.removesuffix("_nonfinite") for key in written if not page.fullmatch(key)} == {
        "explained_variance"
    }
    periodic = {f"{name}{end}" for name in PERIODIC_METRICS for end in ("", "_low", "_high")}
    evaluated = {key for row in run.metrics if row["kind"] == "eval" for key in row}
    assert evaluated <= {*periodic, "schema", "stage", "kind", "step", "epoch", "score"}
    assert {row["stage"] for row in run.metrics if row["kind"] == "eval"} == {"sft", "ppo"}
    nothing: dict[str, Any] = {"train_prompts": [], "train_answers": [], "eval_prompts": []}
    reports = {"base": MetricsReport({}, 0, {}, [])}
    checks = assess(reports_by_model=reports, eval_references=[], baselines={}, **nothing)
    assert run.results["honesty_assessment"].keys() <= checks.keys()


def test_generated_text_stays_text(page: str) -> None:
    assert "<script>alert" not in page and "<img src=http" not in page
    texts = "".join(Page(page).texts)
    assert "<script>alert(1)</script>" in texts and "<img src=http://example.org/x.png>" in texts


def test_hostile_results_are_escaped_and_odd_ones_crash_nothing(tmp_path: Path) -> None:
    evil = "</td><script>x</script>"
    results = {
        "schema": 1,
        "seed": evil,
        "models": {"rlhf": {evil: {"value": 1.0, "low": None, "high": None, "n": 1}}},
        "honesty_assessment": {
            evil: {"flag": True, "evidence": {evil: evil, "l": [evil]}},
            "b": None,
        },
        "stages": {evil: {"seconds": evil, evil: 3}},
        "comparisons": {evil: {evil: {"difference": 1}}, "b": None},
        "by_split": {"rlhf": {evil: {evil: {"value": None}}}},
    }
    (tmp_path / "training_results.json").write_text(json.dumps(results))
    (tmp_path / "config.json").write_text("[1")
    run = read_run(tmp_path)
    assert run.problems and run.problems[0].startswith("config.json cannot be read")
    text = render(run, [])
    Page(text)
    assert "<script>" not in text


def test_verdicts_of_the_first_and_last_quarter(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run", steps=8)
    rollouts = [
        json.dumps({"step": step, "verdict": "pass" if step > 6 else "fail"})
        for step in range(1, 9)
    ]
    (folder / "rollouts.jsonl").write_text("\n".join(rollouts) + "\n")
    text = " ".join("".join(Page(render(read_run(folder), [])).texts).split())
    assert "steps 1 to 2 (2 answers)fail 100.0%" in text
    assert "steps 7 to 8 (2 answers)pass 100.0%" in text
    assert "all steps (8 answers)fail 75.0%, pass 25.0%" in text
