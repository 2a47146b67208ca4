"""What a page submits and what is stored of it: fields of text to checked JSON, and back.

Knows the two forms of rating (two answers side by side, a single one) and no sitting, server or page.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from modern_rlhf.errors import ModernRLHFError
from modern_rlhf.feedback.answers import form_key
from modern_rlhf.feedback.forms import HIGHEST, LOWEST, ComparisonForm, Side
from modern_rlhf.feedback.store import iter_records, load_forms
from modern_rlhf.records import ASPECTS

MAX_NAME = 80
MAX_COMMENT = 4000

Mode = Literal["compare", "single"]


class Refused(ModernRLHFError):
    """A request that cannot be carried out; `status` is its HTTP status, nothing has changed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Submission:
    """A stored rating: the item's key, who rated it, the sides as shown (none known of a single
    answer), the fields of the page, and the file."""

    key: str
    rater: str
    sides: tuple[Side, ...]
    answers: Mapping[str, str]
    path: Path


def canonical_name(text: str) -> str:
    """The one way a rater's name is written: no outer or double spaces, composed characters."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def rater_name(text: str) -> str:
    """The canonical name that somebody gave.

    Raises:
        Refused: that is no name.
    """
    name = canonical_name(text)
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise Refused(422, f"Please give a name of 1 to {MAX_NAME} printable characters.")
    return name


def values_of(
    mode: Mode,
    rater: str,
    moment: str,
    key: str,
    shown: tuple[Side, ...],
    answers: Mapping[str, str],
) -> dict[str, Any]:
    """The JSON to store of the fields `answers`, which rate the sides `shown` of the item `key`.

    Raises:
        Refused: a field is missing or out of range.
    """
    return (_form if mode == "compare" else _rating)(rater, moment, key, shown, answers)


def stored_submissions(mode: Mode, folder: Path) -> Iterator[Submission]:
    """What a page of this mode has stored in `folder`, in the order of the files' names."""
    return _stored_forms(folder) if mode == "compare" else _stored_ratings(folder)


def _form(
    rater: str, moment: str, key: str, shown: tuple[Side, ...], answers: Mapping[str, str]
) -> dict[str, Any]:
    left, right = shown
    return ComparisonForm(
        rater=rater,
        time=moment,
        left=left,
        right=right,
        slider=_level(answers, "comparison_slider", "Please set the slider."),
        left_scores=_scores(answers, "L"),
        right_scores=_scores(answers, "R"),
        comment=_comment(answers),
    ).to_json()


def _rating(
    rater: str, moment: str, key: str, shown: tuple[Side, ...], answers: Mapping[str, str]
) -> dict[str, Any]:
    (side,) = shown
    value = answers.get("rating", "")
    if value not in ("1", "2", "3", "4", "5"):
        raise Refused(422, "Please choose a rating from 1 to 5.")
    return {
        "id": key,
        "prompt": side.question,
        "response": side.answer,
        "rating": int(value),
        "comment": _comment(answers),
        "rater": rater,
        "question_id": side.question_id,
        "model": side.model_tag,
        "datetime": moment,
    }


def _stored_forms(folder: Path) -> Iterator[Submission]:
    for path, form in load_forms(folder):
        answers = {"comparison_slider": str(form.slider), "comment": form.comment}
        for suffix, scores in (("L", form.left_scores), ("R", form.right_scores)):
            answers |= {f"{aspect}_{suffix}": str(scores[aspect]) for aspect in ASPECTS}
        yield Submission(form_key(form), form.rater, (form.left, form.right), answers, path)


def _stored_ratings(folder: Path) -> Iterator[Submission]:
    for path, _, record in iter_records(folder):
        if isinstance(record, dict) and {"id", "rating", "rater"} <= record.keys():
            answers = {name: str(record.get(name) or "") for name in ("rating", "comment")}
            yield Submission(str(record["id"]), str(record["rater"]), (), answers, path)


def _scores(answers: Mapping[str, str], side: str) -> dict[str, int]:
    return {
        aspect: _level(answers, f"{aspect}_{side}", "Please rate both answers on every scale.")
        for aspect in ASPECTS
    }


def _level(answers: Mapping[str, str], name: str, missing: str) -> int:
    text = answers.get(name)
    if text is None or text == "":
        raise Refused(422, missing)
    if text not in {str(level) for level in range(LOWEST, HIGHEST + 1)}:
        raise Refused(422, f"{name} must be a whole number from {LOWEST} to {HIGHEST}.")
    return int(text)


def _comment(answers: Mapping[str, str]) -> str:
    comment = answers.get("comment", "").replace("\r\n", "\n").strip()
    if len(comment) > MAX_COMMENT:
        raise Refused(422, f"The comment is longer than {MAX_COMMENT} characters.")
    return comment
