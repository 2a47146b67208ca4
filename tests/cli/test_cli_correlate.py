"""`correlate`: reads graded answers of both kinds and prints a table that orders metrics rightly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modern_rlhf.cli.correlate import METRICS, read_graded
from modern_rlhf.errors import DataError
from modern_rlhf.main import main

# Grades that follow the share of the reference's words kept: chrF must see it, exact match hardly.
ROWS = [
    {"item": i, "prediction": p, "references": [f"sorted(values_{i}, key=len)"], "grade": g}
    for i in range(6)
    for p, g in [
        (f"sorted(values_{i}, key=len)", 4),
        (f"sorted(values_{i}, key=str)", 3),
        (f"sorted(values_{i})", 2),
        ("print(3)", 0),
    ]
]


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_table(tmp_path: Path, capsys) -> None:
    path = write(tmp_path / "graded.jsonl", ROWS)
    assert (
        main(["correlate", path, "--metrics", "exact_match,chrf", "--bootstrap-samples", "50"]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("24 graded answers to 6 items")
    assert [line.split()[0] for line in lines[2:]] == ["chrf", "exact_match"]
    spearman = float(lines[2].split("]")[1].split()[0])
    assert spearman > 0.9


def test_what_it_writes(tmp_path: Path, capsys) -> None:
    path, out = write(tmp_path / "graded.jsonl", ROWS), tmp_path / "out"
    command = ["correlate", path, "--metrics", "chrf,exact_match", "--bootstrap-samples", "50"]
    assert main([*command, "--output-dir", str(out)]) == 0
    written = json.loads((out / "agreement.json").read_text())
    assert (written["answers"], written["items"]) == (24, 6)
    lines = (out / "agreement.csv").read_text().splitlines()
    assert lines[0] == "column,measure,value,low,high,n"
    cells = dict(zip(lines[0].split(","), lines[2].split(","), strict=True))
    assert (cells["column"], cells["measure"]) == ("chrf", "spearman")
    # The numbers of the file are those of the table.
    table = capsys.readouterr().out.splitlines()[2]
    assert f"{float(cells['value']):.3f} [{float(cells['low']):.3f}" in table
    assert (out / "agreement.png").read_bytes().startswith(b"\x89PNG")


def test_a_metric_without_references_says_why(tmp_path: Path, capsys) -> None:
    rows = [{k: v for k, v in row.items() if k != "references"} for row in ROWS]
    path = write(tmp_path / "graded.jsonl", rows)
    assert main(["correlate", path, "--metrics", "chrf", "--bootstrap-samples", "0"]) == 0
    row = capsys.readouterr().out.splitlines()[2].split(maxsplit=2)
    assert row[:2] == ["chrf", "0"]
    assert len(row[2]) > 10  # a reason, not a number


def test_other_names_of_the_columns(tmp_path: Path) -> None:
    row = {"refs": ["a"], "hyp": "b", "human": 3, "question_id": 7, "intent": "do it"}
    graded = read_graded(write(tmp_path / "g.jsonl", [row]))
    assert (graded.predictions, graded.references, graded.grades) == (["b"], [["a"]], [3.0])
    assert (graded.groups, graded.prompts) == (["7"], ["do it"])


def test_rows_without_an_item_are_items_of_their_own(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "item"} for row in ROWS[:3]]
    assert read_graded(write(tmp_path / "g.jsonl", rows)).groups == ["line 1", "line 2", "line 3"]


def test_no_metric_at_all_is_refused(tmp_path: Path, capsys) -> None:
    path = write(tmp_path / "graded.jsonl", ROWS)
    assert main(["correlate", path, "--metrics", ","]) == 2
    assert "--metrics names none" in capsys.readouterr().err


def test_human_feedback_is_graded_answers(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "prompt": "p", "response": "good", "rating": 5, "comment": ""},
        {"id": 2, "prompt": "p", "response": "bad", "rating": 1, "comment": ""},
    ]
    (tmp_path / "ratings.json").write_text(json.dumps(rows))
    graded = read_graded(str(tmp_path))
    # 1-5 ratings become -2..2
    assert dict(zip(graded.predictions, graded.grades, strict=True)) == {"good": 2.0, "bad": -2.0}
    other = {"id": 3, "prompt": "q", "response": "fair", "rating": 3, "comment": ""}
    (tmp_path / "ratings.json").write_text(json.dumps([*rows, other]))
    first, second, third = read_graded(str(tmp_path)).groups
    assert first == second != third  # without a question id the prompt is the item


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prediction": "x"}\n', "line 1: no 'grade'"),
        ('{"grade": 1}\n', "line 1: no 'prediction'"),
        ('{"prediction": "x", "grade": "high"}\n', "the grade 'high' is not a number"),
        ('{"prediction": "x", "grade": true}\n', "is not a number"),
        (f'{{"prediction": "x", "grade": {"9" * 400}}}\n', "the grade '9999.* is not a number"),
        ('{"prediction": "x", "grade": 1, "references": 7}\n', "references are 7; expected texts"),
        ("[1]\n", "expected an object"),
        ('{"prediction": \n', "broken JSON"),
        ("\n\n", "no graded answer"),
    ],
)
def test_unusable_rows_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_graded(str(path))


def test_every_metric_of_an_answer_is_asked_for() -> None:
    """All but those that need tests, or are of a corpus (its form for an answer is `sentence_bleu`)."""
    from modern_rlhf.metrics.evaluator import ALL_METRICS

    assert set(METRICS) == set(ALL_METRICS) - {"pass_at_1", "bleu"}


def test_a_reward_model_and_its_heads_are_columns(tiny_model_folder: Path, tmp_path: Path) -> None:
    import torch
    from scipy.stats import spearmanr

    from modern_rlhf.reward_model.model import CustomRewardModel

    seeded = torch.Generator().manual_seed(0)
    model = CustomRewardModel(str(tiny_model_folder), generator=seeded)
    model.save_pretrained(tmp_path / "reward")
    path, out = write(tmp_path / "graded.jsonl", ROWS), tmp_path / "out"
    command = ["correlate", path, "--metrics", "chrf", "--reward-model", str(tmp_path / "reward")]
    assert main([*command, "--bootstrap-samples", "20", "--output-dir", str(out)]) == 0
    columns = json.loads((out / "agreement.json").read_text())["columns"]
    answers = [str(row["prediction"]) for row in ROWS]
    heads = model.score_heads([""] * len(ROWS), answers)
    assert set(columns) == {"chrf", "reward", *(f"reward.{head}" for head in heads)}
    grades = [row["grade"] for row in ROWS]
    for name, scores in {"reward": model.score([""] * len(ROWS), answers), **heads}.items():
        found = columns[name if name == "reward" else f"reward.{name}"]["spearman"]
        assert found["value"] == pytest.approx(spearmanr(scores, grades)[0], abs=1e-6), name
        assert -1.0 <= found["low"] <= found["high"] <= 1.0


def test_an_unknown_metric_is_one_line(tmp_path: Path, capsys) -> None:
    path = write(tmp_path / "graded.jsonl", ROWS)
    assert main(["correlate", path, "--metrics", "blue"]) == 1
    err = capsys.readouterr().err
    assert "blue" in err and err.count("\n") == 1


def test_answers_are_scored_as_they_were_graded(tmp_path: Path) -> None:
    """Graded sets write quotes as backticks: three of them in a row are no Markdown fence."""
    wanted = "```a,b,c```.split(`,`, 1)"
    graded = (("```a,b,c```.split(`,`)", 3), ("a,b,c.split", 2), ("zzz", 0))
    rows = [{"hyp": text, "refs": [wanted], "human": grade} for text, grade in graded]
    path, out = write(tmp_path / "g.jsonl", rows), tmp_path / "out"
    command = ["correlate", path, "--metrics", "chrf", "--bootstrap-samples", "0"]
    assert main([*command, "--output-dir", str(out)]) == 0
    written = json.loads((out / "agreement.json").read_text())
    # Cut down to `a,b,c` the best answer would come second.
    assert written["columns"]["chrf"]["spearman"]["value"] == pytest.approx(1.0)


def test_the_real_grades(shared_data: Path, tmp_path: Path, capsys) -> None:
    """On the graded CoNaLa answers the command finds what the stored columns of the set have."""
    from scipy.stats import pearsonr

    path = shared_data / "metric_fixture" / "conala_metric_fixture.jsonl"
    command = ["correlate", str(path), "--metrics", "chrf,rouge,codebleu"]
    assert main([*command, "--bootstrap-samples", "0", "--output-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["chrf", "rouge", "codebleu"]
    columns = json.loads((tmp_path / "agreement.json").read_text())["columns"]
    found = {name: entry["pearson"]["value"] for name, entry in columns.items()}
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    human = [row["human"] for row in rows]
    for name, stored in (("chrf", "chrf"), ("rouge", "rougel")):
        known = pearsonr([row[stored] for row in rows], human)[0]
        assert found[name] == pytest.approx(known, abs=0.01)
    assert found["codebleu"] >= 0.50
