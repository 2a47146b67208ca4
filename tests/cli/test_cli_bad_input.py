"""Commands beside training on input that nobody meant: one line that names the place and the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modern_rlhf.cli.correlate import read_graded
from modern_rlhf.errors import DataError
from modern_rlhf.main import main


@pytest.mark.parametrize("grade", ["NaN", "Infinity", "9" * 5000, '"4"', "true"])
def test_a_grade_that_is_no_number(grade: str, tmp_path: Path) -> None:
    path = tmp_path / "graded.jsonl"
    path.write_text(f'{{"prediction": "x", "references": ["y"], "grade": {grade}}}\n')
    with pytest.raises(DataError, match="line 1: (the grade .* is not a number|broken JSON)"):
        read_graded(str(path))


def test_an_output_folder_that_is_a_file(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "p", "response": "r"}\n')
    model = str(tiny_model_folder)
    command = ["evaluate", "--model", model, "--data", str(data), "--output-dir", str(data)]
    assert main(command) == 1
    assert f"cannot write {data} (File exists): there is a file of that name" in (
        capsys.readouterr().err
    )
    assert data.read_text() == '{"prompt": "p", "response": "r"}\n'


@pytest.mark.parametrize(
    "results", ["{broken", "[1]", '{"models": null, "targets": {"bleu": "x"}}', '{"targets": null}']
)
def test_a_report_of_results_that_somebody_edited(results: str, tmp_path: Path) -> None:
    row = {"stage": "sft", "kind": "train", "step": 1, "epoch": 0.1, "loss": 1.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\nbroken\n")
    (tmp_path / "training_results.json").write_text(results)
    assert main(["report", str(tmp_path)]) == 0
    assert "metrics.jsonl line 2 is broken" in (tmp_path / "report.html").read_text()
