"""The demonstrations and the CoNaLa-format sample as shipped."""

from __future__ import annotations

import ast
import csv
import json
from collections import Counter
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def demonstrations():
    path = ROOT / "datasets_for_training/sft_dataset.csv"
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def conala(name):
    return json.loads((ROOT / "conala-corpus" / name).read_text(encoding="utf-8"))


def test_demonstrations_are_training_tasks_and_cover_all_families():
    lines = (ROOT / "datasets_for_training/tasks.jsonl").read_text(encoding="utf-8").splitlines()
    tasks = {row["task_id"]: row for row in map(json.loads, lines)}
    rows = demonstrations()
    assert list(rows[0]) == ["question", "best_answer", "model_tag", "source_json", "datetime"]
    assert len(rows) == 1200 < len(tasks)
    for row in rows:
        task = tasks[row["source_json"]]
        assert (row["question"], row["best_answer"]) == (task["text"], task["code"])
        assert row["model_tag"] == "reference"
        datetime.strptime(row["datetime"], "%Y-%m-%d %H:%M:%S")
    assert len({row["source_json"] for row in rows}) == len(rows)
    per_family = Counter(tasks[row["source_json"]]["family"] for row in rows)
    assert len(per_family) == len({task["family"] for task in tasks.values()})
    assert max(per_family.values()) - min(per_family.values()) <= 1


def test_conala_sample_has_the_format_of_the_corpus():
    train, test = conala("conala-train.json"), conala("conala-test.json")
    assert len(train) >= 60 and len(test) >= 20
    for row in train + test:
        assert list(row) == ["intent", "rewritten_intent", "snippet", "question_id"]
        assert row["intent"]
        assert row["rewritten_intent"] is None or row["rewritten_intent"].strip()
        assert "\n" not in row["snippet"]
        ast.parse(row["snippet"])
    assert any(row["rewritten_intent"] is None for row in train)
    assert max(Counter(row["question_id"] for row in train).values()) > 1
    assert not {r["question_id"] for r in train} & {r["question_id"] for r in test}
    assert not {r["snippet"] for r in train} & {r["snippet"] for r in test}


def test_mined_sample_streams_line_by_line():
    lines = (ROOT / "conala-corpus/conala-mined.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) >= 40
    for row in rows:
        assert list(row) == ["question_id", "intent", "snippet", "id", "prob"]
        assert 0 < row["prob"] < 1
        ast.parse(row["snippet"])
    assert len({row["id"] for row in rows}) == len(rows)
