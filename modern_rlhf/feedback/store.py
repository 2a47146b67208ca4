"""Ratings on disk: reading every shape of human feedback (`writing` stores what a page submits).

Three shapes may stand in one folder, one or many records a file: the comparison form, lists of
`{id, prompt, response, rating 1..5, comment}`, and single such ratings. A 1-5 rating and a -2..2 scale
map onto each other by `rating - 3`. Hidden files (a writer's temporary ones) are never read.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modern_rlhf.errors import DataError
from modern_rlhf.feedback.forms import ComparisonForm, parse_form
from modern_rlhf.records import OVERALL, LabelledAnswer, PreferencePair, Rating
from modern_rlhf.utils.load_report import (
    LoadReport,
    Tally,
    check_characters,
    may_hold_halves,
    read_text,
    reading,
)
from modern_rlhf.utils.paths import at_home, resolve_path

SYNTHETIC_PREFIX = "model_synthetic_human_feedback"
"""Files named like this were rated by a model; their records are marked synthetic."""

_SHAPES = (
    "a comparison form ('questions_df'), a list of {prompt, response, rating}, or a single one"
)


@dataclass(frozen=True)
class FeedbackSet:
    """What a folder of feedback yields.

    Attributes:
        ratings: one for each side of a rated form (aspects consistent, correct, useful) and one for
            each 1-5 rating (aspect `overall`).
        pairs: one for each form that is no tie, with the score gap as margin.
        labelled: every rated answer whose summed score is not 0, desirable when positive.
        report: the account of the records read.
    """

    ratings: list[Rating]
    pairs: list[PreferencePair]
    labelled: list[LabelledAnswer]
    report: LoadReport


def load_feedback(
    folder_or_file: str | os.PathLike[str],
    *,
    rater_weights: Mapping[str, float] | None = None,
    require_rows: bool = True,
) -> FeedbackSet:
    """Read all feedback of a folder or of one file.

    Untouched forms (everything zero) are left out. A form of which only the slider was moved gives a
    pair but no ratings: six scales nobody moved are not six opinions. A tie of scores is broken by
    the slider. Where the two sides show different question texts, each rating keeps its own side's
    and the pair takes the left one's; that is counted in the notes.

    Args:
        rater_weights: weight of each rater's judgements in every loss; others count 1, 0 leaves out.
        require_rows: whether a source without one usable record is an error.

    Raises:
        DataError: nothing there, a broken file or record (named), or no usable record; or a rater of
            `rater_weights` who rated nothing.
    """
    path = _local(folder_or_file)
    tally = Tally(str(folder_or_file))
    found = FeedbackSet([], [], [], tally.report())
    notes = dict.fromkeys(_NOTES, 0)
    for file, where, record in iter_records(path):
        tally.rows_read += 1
        if isinstance(record, dict) and "questions_df" in record:
            tally.add_format("comparison form")
            kept = _take_form(parse_form(record, where), file.name, found, notes)
        elif _is_rating(record):
            tally.add_format("1-5 rating")
            kept = _take_rating(record, where, file.name, found)
        else:
            kept = "not a feedback record"
        if isinstance(kept, str):
            tally.skip(kept, where)
        else:
            tally.rows_kept += 1
    for text, count in notes.items():
        if count:
            tally.note(f"{count} {text}")
    if require_rows:
        tally.require_rows(_SHAPES)
    if rater_weights:
        found = _weighted(found, rater_weights, str(path))
    return FeedbackSet(found.ratings, found.pairs, found.labelled, tally.report())


def _weighted(found: FeedbackSet, weights: Mapping[str, float], where: str) -> FeedbackSet:
    """The same judgements with their raters' weights; those of weight 0 are left out."""
    raters = {item.rater for item in found.ratings} | {item.rater for item in found.pairs}
    for name in weights.keys() - raters:
        close = difflib.get_close_matches(name, raters, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise DataError(f"{where}: a weight is given to rater {name!r}, who rated nothing{hint}")
    result = FeedbackSet([], [], [], found.report)
    for rating in found.ratings:
        if weights.get(rating.rater, 1.0) > 0:
            result.ratings.append(replace(rating, weight=weights.get(rating.rater, 1.0)))
            _label(result.ratings[-1], result)
    result.pairs.extend(
        replace(pair, weight=weights.get(pair.rater, 1.0))
        for pair in found.pairs
        if weights.get(pair.rater, 1.0) > 0
    )
    return result


def load_forms(folder_or_file: str | os.PathLike[str]) -> list[tuple[Path, ComparisonForm]]:
    """Every comparison form, untouched ones too, with its file; other records are passed over."""
    return [
        (file, parse_form(record, where))
        for file, where, record in iter_records(_local(folder_or_file))
        if isinstance(record, dict) and "questions_df" in record
    ]


def is_feedback(path: Path) -> bool:
    """Whether `path` holds human feedback, judged by its first JSON record."""
    if path.is_file() and path.suffix != ".json":
        return False
    if path.is_dir() and not any(path.glob("*.json")):
        return False
    for _, _, record in iter_records(path):
        return (isinstance(record, dict) and "questions_df" in record) or _is_rating(record)
    return False


def iter_records(path: Path) -> Iterator[tuple[Path, str, Any]]:
    """Every record under `path` as (file, where, JSON value), files in name order."""
    for file in _files(path):
        text = read_text(file)
        halves = may_hold_halves(text)
        for where, record in _decoded(file, text):
            if halves:
                check_characters(where, record)
            yield file, where, record


def _decoded(file: Path, text: str) -> Iterator[tuple[str, Any]]:
    if file.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                where = f"{file} line {number}"
                yield where, _decode(line, where)
        return
    data = _decode(text, str(file))
    if isinstance(data, list):
        yield from ((f"{file} item {position}", record) for position, record in enumerate(data))
    else:
        yield str(file), data


_NOTES = (
    "forms with only the slider moved give no ratings",
    "ties give no pair",
    "ties broken by the slider",
    "sliders contradict the scores (scores win)",
    "forms with different question texts (pairs take the left one)",
    "pairs of equal answers left out",
)


def _take_form(
    form: ComparisonForm, source: str, found: FeedbackSet, notes: dict[str, int]
) -> str | None:
    """Add what `form` yields; the reason when it yields nothing."""
    slider_only, tie, broken, contradiction, questions, equal = _NOTES
    if form.untouched:
        return "untouched forms"
    notes[questions] += form.left.question != form.right.question
    sides = ((form.left, form.left_scores), (form.right, form.right_scores))
    if form.unrated:
        notes[slider_only] += 1
    else:
        for side, scores in sides:
            found.ratings.append(
                Rating(
                    side.question,
                    side.answer,
                    {aspect: float(value) for aspect, value in scores.items()},
                    rater=form.rater,
                    group_id=str(side.question_id),
                    source=source,
                    synthetic=form.synthetic,
                )
            )
            _label(found.ratings[-1], found)
    if form.preferred is None:
        notes[tie] += 1
        return None
    notes[broken] += form.gap == 0
    notes[contradiction] += form.gap * form.slider > 0  # a positive gap and slider disagree
    if form.left.answer.strip() == form.right.answer.strip():
        notes[equal] += 1
        return None if not form.unrated else "equal answers without ratings"
    chosen, rejected = form.left, form.right
    if form.preferred == "right":
        chosen, rejected = rejected, chosen
    found.pairs.append(
        PreferencePair(
            form.left.question,
            chosen.answer,
            rejected.answer,
            margin=form.margin,
            group_id=str(form.left.question_id),
            source=source,
            rater=form.rater,
            synthetic=form.synthetic,
        )
    )
    return None


def _is_rating(record: object) -> bool:
    return isinstance(record, dict) and {"prompt", "response", "rating"} <= record.keys()


def _take_rating(
    record: Mapping[str, Any], where: str, source: str, found: FeedbackSet
) -> str | None:
    prompt, response, value = record["prompt"], record["response"], record["rating"]
    for name, text in (("prompt", prompt), ("response", response)):
        if not isinstance(text, str):
            raise DataError(f"{where}: {name!r} is {text!r}; expected text")
    if value is None:
        return "answers without a rating"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= 5:
        raise DataError(f"{where}: 'rating' is {value!r}; expected a number from 1 to 5")
    synthetic = record.get("synthetic") is True or source.startswith(SYNTHETIC_PREFIX)
    rating = Rating(
        prompt,
        response,
        {OVERALL: float(value) - 3.0},
        rater=str(record.get("rater") or record.get("name_input") or ""),
        group_id="" if record.get("question_id") is None else str(record["question_id"]),
        source=source,
        synthetic=synthetic,
    )
    found.ratings.append(rating)
    _label(rating, found)
    return None


def _label(rating: Rating, found: FeedbackSet) -> None:
    total = sum(rating.scores.values())
    if total:
        found.labelled.append(
            LabelledAnswer(
                rating.prompt,
                rating.response,
                total > 0,
                weight=rating.weight,
                group_id=rating.group_id,
                source=rating.source,
            )
        )


def _local(path: str | os.PathLike[str]) -> Path:
    return at_home(resolve_path(os.fspath(path)))


def _files(path: Path) -> list[Path]:
    with reading(path):
        if not path.is_dir():
            path.stat()
            return [path]
        files = sorted(
            entry
            for entry in path.iterdir()
            if entry.suffix in (".json", ".jsonl") and not entry.name.startswith(".")
        )
    if not files:
        raise DataError(f"{path}: the folder holds no .json file; expected {_SHAPES}")
    return files


def _decode(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = "" if " line " in where else f" line {error.lineno}"
        raise DataError(
            f"{where}{line}: broken JSON ({error.msg} at column {error.colno})"
        ) from error
    except (ValueError, RecursionError) as error:  # ValueError: a number of more than 4,300 digits
        reason = "nested too deeply" if isinstance(error, RecursionError) else "a number too long"
        raise DataError(f"{where}: broken JSON ({reason})") from error
