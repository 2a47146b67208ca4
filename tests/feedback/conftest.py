"""A comparison form as stored, an answers file with its page, and the folder of real data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def stored_form(**changes: Any) -> dict[str, Any]:
    """One valid form: left is better by 6 - 3 = 3 points, and the slider agrees."""

    def side(answer: str, model: str) -> dict[str, Any]:
        return {
            "level_0": 3,
            "index": 1,
            "ID": 42,
            "Question": "sort `x`",
            "Answer": answer,
            "CSV_PATH": "run.csv",
            "CODE_FORMATTING": True,
            "MODEL_TAG": model,
        }

    form = {
        "name_input": "ann",
        "datetime": "2024-05-06 07:08:09",
        "address": "",
        "comparison_slider": -1,
        "consistent_L": 2,
        "correct_L": 2,
        "useful_L": 2,
        "consistent_R": 1,
        "correct_R": 2,
        "useful_R": 0,
        "questions_df": [side("x.sort()", "sft"), side("sorted(x)", "base")],
    }
    return {**form, **changes}


ZEROS = {f"{aspect}_{side}": 0 for aspect in ("consistent", "correct", "useful") for side in "LR"}


@pytest.fixture
def form() -> Callable[..., dict[str, Any]]:
    """Builds a stored form; `zeros=True` leaves all six scales at zero."""

    def build(*, zeros: bool = False, **changes: Any) -> dict[str, Any]:
        return stored_form(**{**(ZEROS if zeros else {}), **changes})

    return build


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes records as JSON files of one folder and returns the folder."""

    def write(**files: Any) -> Path:
        folder = tmp_path / "feedback"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / f"{name}.json").write_text(text, encoding="utf-8")
        return folder

    return write


@pytest.fixture(scope="session")
def real_forms() -> Path:
    """The 207 real comparison forms; a test that wants them skips where they are absent."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "evaluation_results_server"
    if not folder.is_dir():
        pytest.skip("real comparison forms absent: shared/data beside the repository")
    return folder


@pytest.fixture
def answers(tmp_path: Path) -> str:
    """An answers file: three questions, two models, markup everywhere."""
    from feedback_rater import MARKUP

    rows = [
        {
            "prompt": f"question {n} {MARKUP}",
            "response": f"{m} = {n} {MARKUP}",
            "model": f"model-{m}",
            "question_id": n,
        }
        for n in range(3)
        for m in "ab"
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where ratings go; made by the room."""
    return tmp_path / "ratings"


@pytest.fixture
def app(answers: str, folder: Path) -> Any:
    """The rating page on these answers."""
    from modern_rlhf.feedback.server import build_app, open_room

    return build_app(open_room(answers, folder), host="127.0.0.1", port=8000)
