"""`evaluate` for real, on tiny models and three items: what it prints, leaves, reads and resumes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modern_rlhf.cli.evaluate import _with_holm
from modern_rlhf.data_loader.evaluation_set import load_evaluation_set
from modern_rlhf.evaluation import METRICS
from modern_rlhf.main import main

QUICK = "pass_at_1,bleu,chrf,perplexity"


def write_tasks(path: Path) -> None:
    rows = [
        {
            "task_id": f"t{i}",
            "text": f"Write add{i}(x).",
            "code": f"def add{i}(x):\n    return x + {i}",
            "test_list": [f"assert add{i}(1) == {i + 1}"],
        }
        for i in range(3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def command(
    tmp_path: Path, tiny_llama: Callable[..., Any], byte_tokenizer: Any
) -> Callable[..., list[str]]:
    """`command(0, 1, *more)`: the command line for the tiny models of these seeds."""
    write_tasks(tmp_path / "tasks.jsonl")

    def build(*seeds: int, more: tuple[str, ...] = ("--metrics", QUICK)) -> list[str]:
        models = []
        for seed in seeds:
            folder = tmp_path / f"model{seed}"
            tiny_llama(seed).save_pretrained(folder)
            byte_tokenizer.save_pretrained(folder)
            models += ["--model", str(folder)]
        fixed = ["--data", str(tmp_path / "tasks.jsonl"), "--output-dir", str(tmp_path / "out")]
        small = ["--max-new-tokens", "12", "--bootstrap-samples", "50", "--device", "cpu"]
        return ["evaluate", *models, *fixed, *small, *more]

    return build


def test_two_models_compared_on_every_metric(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(0, 1, more=("--samples", "2"))) == 0
    printed = capsys.readouterr().out
    assert "| pass@1 | 0.000 [0.000, 0.708] | 0.000 [0.000, 0.708] |" in printed
    assert "p (Holm)" in printed and "BLEU of echoing the prompt" in printed
    out = tmp_path / "out"
    written = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    first, second = written["models"].values()
    assert set(METRICS) | {"pass_at_1_sampled", "pass_at_2"} == set(first) == set(second)
    for name, entry in first.items():
        assert entry["value"] is not None or entry["reason"], name
    # Byte soup is no Python: what describes programs has none to describe, and says so.
    assert first["perplexity"]["value"] > 1
    assert first["syntax_valid"]["n"] == 3
    (rows,) = written["differences"].values()
    gap = second["perplexity"]["value"] - first["perplexity"]["value"]
    assert rows["perplexity"]["difference"] == pytest.approx(gap)
    assert rows["perplexity"]["p_value_holm"] >= rows["perplexity"]["p_value"]
    table = list(csv.DictReader((out / "comparison.csv").open(encoding="utf-8")))
    cells = {(row["model"], row["metric"]): row for row in table}
    label = list(written["models"])[1]
    assert float(cells[label, "perplexity"]["vs_first_difference"]) == pytest.approx(gap)
    items = list(csv.DictReader((out / "items.csv").open(encoding="utf-8")))
    assert len(items) == 3
    assert float(items[0][f"{label}: perplexity"]) > 1
    for name in ("metrics.png", "differences.png"):
        assert (out / "plots" / name).read_bytes().startswith(b"\x89PNG")
    assert (out / "comparison.md").read_text(encoding="utf-8").strip() in printed
    assert not list(out.glob("answers-*"))


def test_finished_models_are_read_and_changed_ones_are_not(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    def evaluations() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("evaluation-*.json")}

    line = command(0, 0)
    assert main(line) == 0
    before = evaluations()
    assert len(before) == 1  # the same model twice is one evaluation
    assert main(line) == 0
    assert evaluations() == before
    # Another model under the same name, and other items in the same file, are other evaluations.
    other = command(1)[2]
    Path(line[2], "model.safetensors").write_bytes(Path(other, "model.safetensors").read_bytes())
    assert main(line) == 0
    assert len(evaluations()) == 2
    data = tmp_path / "tasks.jsonl"
    data.write_text(data.read_text().replace("Write add0", "Please write add0"))
    assert main(line) == 0
    assert len(evaluations()) == 3


def test_answers_made_before_a_kill_are_not_made_again(
    command: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
    from modern_rlhf.rollout import resumable
    from modern_rlhf.rollout.engine import HuggingFaceEngine

    monkeypatch.setattr(resumable, "ROWS_AT_ONCE", 2)
    whole = command(0)
    assert main([*whole, "--output-dir", str(tmp_path / "whole")]) == 0
    calls: list[int] = []
    generate = HuggingFaceEngine.generate

    def counting(self: Any, prompts: Any, **more: Any) -> Any:
        calls.append(len(prompts))
        if len(calls) == 4:  # greedy 2 + 1, sampled 2, and here it is killed
            raise KeyboardInterrupt
        return generate(self, prompts, **more)

    monkeypatch.setattr(HuggingFaceEngine, "generate", counting)
    assert main(whole) != 0
    assert calls == [2, 1, 2, 1]
    scored: list[int] = []
    evaluate = ModernMetricsEvaluator.evaluate

    def watching(self: Any, predictions: Any, *more: Any, **named: Any) -> Any:
        scored.append(len(predictions))
        return evaluate(self, predictions, *more, **named)

    monkeypatch.setattr(ModernMetricsEvaluator, "evaluate", watching)
    assert main(whole) == 0
    assert calls[4] == 1  # only the part that was missing (then the impossible tasks)
    one, two = (
        json.loads((tmp_path / name / "comparison.json").read_text()) for name in ("whole", "out")
    )
    assert one == two


def test_holm_counts_the_tests_of_all_pairs() -> None:
    """A third model asks more questions of the same items: they are all one family."""

    def row(p_value: float | None) -> dict[str, Any]:
        return {"difference": 0.1, "p_value": p_value}

    pairs = {"b - a": {"bleu": row(0.01), "chrf": row(None)}, "c - a": {"bleu": row(0.02)}}
    found = _with_holm(pairs)
    assert found["b - a"]["bleu"]["p_value_holm"] == pytest.approx(0.02)  # the less of two, twice
    assert found["c - a"]["bleu"]["p_value_holm"] == pytest.approx(0.02)
    assert found["b - a"]["chrf"]["p_value_holm"] is None
    assert found["c - a"]["bleu"]["difference"] == 0.1


def test_the_bar_counts_every_answer_of_every_model(
    command: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from modern_rlhf.cli import evaluate

    bars: list[tuple[str, int, list[int]]] = []

    class Bar:
        def __init__(self, *, total: int, desc: str, **_: Any) -> None:
            bars.append((desc, total, []))

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, count: int) -> None:
            bars[-1][2].append(count)

    monkeypatch.setattr(evaluate, "tqdm", Bar)
    line = command(0, more=("--metrics", "chrf", "--samples", "2"))
    assert main(line) == 0
    # Three items, greedy and two samples of each.
    assert [(desc, total, sum(steps)) for desc, total, steps in bars] == [(line[2], 9, 9)]


HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": "def f(x):\n    '''Double.'''\n",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
    "entry_point": "f",
}
ODEX = {
    "task_id": 1,
    "intent": "double `x`",
    "prompt": "def f_1(x):\n\treturn ",
    "suffix": "",
    "canonical_solution": "2 * x",
    "test_start": "\ndef check(candidate):",
    "test": ["\n    assert candidate(2) == 4\n"],
    "entry_point": "f_1",
}
MBPP = {
    "task_id": 2,
    "text": "Double.",
    "code": "def g(x): return 2*x",
    "test_list": ["assert g(1)==2"],
}
CONALA = {
    "intent": "double x",
    "rewritten_intent": "double `x`",
    "snippet": "2 * x",
    "question_id": 3,
}


@pytest.mark.parametrize(
    ("row", "has_tests"), [(HUMAN_EVAL, True), (ODEX, True), (MBPP, True), (CONALA, False)]
)
def test_the_formats_it_reads(row: dict[str, Any], has_tests: bool, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (item,) = load_evaluation_set(str(path), max_items=None, seed=0).items
    assert item.reference and (item.task is not None) == has_tests


@pytest.mark.parametrize(("row", "answer"), [(HUMAN_EVAL, "    return x + x"), (ODEX, "x + x")])
def test_answers_that_continue_the_prompt_pass_its_tests(
    row: dict[str, Any], answer: str, tmp_path: Path
) -> None:
    from modern_rlhf.metrics.evaluator import ModernMetricsEvaluator
    from modern_rlhf.sandbox.executor import SandboxExecutor

    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    items = load_evaluation_set(str(path), max_items=None, seed=0)
    with SandboxExecutor(workers=1) as executor:
        report = ModernMetricsEvaluator(metrics=["pass_at_1"], executor=executor).evaluate(
            [answer], items.references, items.prompts, items.tasks
        )
    assert report["pass_at_1"].value == 1.0
