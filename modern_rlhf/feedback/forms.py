"""The comparison form: two answers to one question, rated side by side by one rater.

The JSON on disk is fixed (one file a comparison, see docs/data.md); this file turns it into a checked
dataclass and back, and says what a form means: which side is preferred, by how much, and whether
anybody touched it. Scales run from -2 to 2; a NEGATIVE slider prefers the LEFT answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from modern_rlhf.errors import DataError
from modern_rlhf.records import ASPECTS

LOWEST, HIGHEST = -2, 2
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True)
class Side:
    """One of the two answers, with the question as that side showed it."""

    question: str
    answer: str
    question_id: int | str
    model_tag: str = ""
    csv_path: str = ""
    code_formatting: bool = True
    level_0: int = 0
    index: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "level_0": self.level_0,
            "index": self.index,
            "ID": self.question_id,
            "Question": self.question,
            "Answer": self.answer,
            "CSV_PATH": self.csv_path,
            "CODE_FORMATTING": self.code_formatting,
            "MODEL_TAG": self.model_tag,
        }


@dataclass(frozen=True)
class ComparisonForm:
    """One submitted form.

    Attributes:
        rater: the name the rater gave.
        time: local time of submission, "YYYY-MM-DD HH:MM:SS".
        slider: -2 (left is much better) to 2 (right is much better).
        left_scores, right_scores: aspect -> -2..2, for the three aspects.
    """

    rater: str
    time: str
    left: Side
    right: Side
    slider: int = 0
    left_scores: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(ASPECTS, 0))
    right_scores: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(ASPECTS, 0))
    comment: str = ""
    address: str = ""
    synthetic: bool = False

    @property
    def gap(self) -> int:
        """Score of the left side minus that of the right; a score is the sum of the aspects."""
        return sum(self.left_scores.values()) - sum(self.right_scores.values())

    @property
    def unrated(self) -> bool:
        """All six scales stand at zero, as the page shows them first."""
        return not any((*self.left_scores.values(), *self.right_scores.values()))

    @property
    def untouched(self) -> bool:
        """Nothing was moved, the slider included: probably submitted by mistake."""
        return self.unrated and self.slider == 0

    @property
    def preferred(self) -> str | None:
        """`left`, `right`, or None for a tie: the higher score; the slider only breaks ties."""
        signed = self.gap or -self.slider
        return None if signed == 0 else "left" if signed > 0 else "right"

    @property
    def margin(self) -> float:
        """Strength of the preference: the score gap (1..12), for a tie the slider's distance."""
        return float(abs(self.gap) or abs(self.slider))

    def to_json(self) -> dict[str, Any]:
        """The form as stored; `comment` and `synthetic` only where they say something."""
        scores = {f"{aspect}_L": self.left_scores[aspect] for aspect in ASPECTS}
        scores.update({f"{aspect}_R": self.right_scores[aspect] for aspect in ASPECTS})
        stored: dict[str, Any] = {
            "name_input": self.rater,
            "datetime": self.time,
            "address": self.address,
            "comparison_slider": self.slider,
            **scores,
            "questions_df": [self.left.to_json(), self.right.to_json()],
        }
        if self.comment:
            stored["comment"] = self.comment
        if self.synthetic:
            stored["synthetic"] = True
        return stored


def parse_form(values: Mapping[str, Any], where: str) -> ComparisonForm:
    """Check one stored form.

    Args:
        values: the JSON object.
        where: the file, for messages.

    Raises:
        DataError: a key is missing, of another type, or out of range.
    """
    sides = values.get("questions_df")
    if not isinstance(sides, list) or len(sides) != 2:
        raise DataError(f"{where}: 'questions_df' must be a list of two objects, left and right")
    time = _text(values, "datetime", where)
    try:
        datetime.strptime(time, TIME_FORMAT)
    except ValueError as error:
        raise DataError(f"{where}: 'datetime' is {time!r}; expected YYYY-MM-DD HH:MM:SS") from error
    return ComparisonForm(
        rater=_text(values, "name_input", where),
        time=time,
        address=values.get("address") or "",
        slider=_level(values, "comparison_slider", where),
        left_scores={aspect: _level(values, f"{aspect}_L", where) for aspect in ASPECTS},
        right_scores={aspect: _level(values, f"{aspect}_R", where) for aspect in ASPECTS},
        left=_side(sides[0], f"{where}, left side"),
        right=_side(sides[1], f"{where}, right side"),
        comment=values.get("comment") or "",
        synthetic=values.get("synthetic") is True,
    )


def _side(values: object, where: str) -> Side:
    if not isinstance(values, dict):
        raise DataError(f"{where}: expected an object with 'Question' and 'Answer'")
    question_id = values.get("ID")
    if isinstance(question_id, bool) or not isinstance(question_id, (int, str)):
        raise DataError(f"{where}: 'ID' is {question_id!r}; expected the question's id")
    return Side(
        question=_text(values, "Question", where),
        answer=_text(values, "Answer", where),
        question_id=question_id,
        model_tag=str(values.get("MODEL_TAG") or ""),
        csv_path=str(values.get("CSV_PATH") or ""),
        code_formatting=bool(values.get("CODE_FORMATTING")),
        level_0=_count(values.get("level_0")),
        index=_count(values.get("index")),
    )


def _text(values: Mapping[str, Any], key: str, where: str) -> str:
    value = values.get(key)
    if not isinstance(value, str):
        raise DataError(f"{where}: {key!r} is {value!r}; expected text")
    return value


def _level(values: Mapping[str, Any], key: str, where: str) -> int:
    value = values.get(key)
    # 1.0 is what a table program makes of 1; True is nobody's rating.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value not in _LEVELS:
        raise DataError(
            f"{where}: {key!r} is {value!r}; expected a whole number from {LOWEST} to {HIGHEST}"
        )
    return int(value)


_LEVELS = frozenset(range(LOWEST, HIGHEST + 1))


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
