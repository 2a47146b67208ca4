"""What raters are shown: answers from a file, paired question by question, dealt out fairly.

The file has one JSON object a line: a question (`prompt`, `question`, `intent` or `instruction`), an
answer (`response`, `answer`, `completion` or `output`), and if known the model (`model`, `model_tag`
or `MODEL_TAG`) and the question's id (`question_id`, `ID` or `task_id`). Lines of one id, or of one
question text where there is no id, belong together. An id made of the text names the same question
in every file, whatever stands around it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modern_rlhf.errors import DataError
from modern_rlhf.feedback.forms import ComparisonForm, Side
from modern_rlhf.utils.load_report import check_characters, decoded_lines, may_hold_halves

QUESTION = ("prompt", "question", "intent", "instruction")
ANSWER = ("response", "answer", "completion", "output")
MODEL = ("model", "model_tag", "MODEL_TAG")
QUESTION_ID = ("question_id", "ID", "task_id")

LEASE_SECONDS = 1800.0
"""A pair shown and neither rated nor skipped for so long may go to somebody else as well."""


@dataclass(frozen=True)
class Item:
    """One thing to rate: a pair of answers, or a single one.

    `key` is the same whatever the order of the two, and after a restart of the server.
    """

    key: str
    sides: tuple[Side, ...]


def read_answers(path: str | os.PathLike[str]) -> list[Side]:
    """The answers of a JSONL file, in order.

    Raises:
        DataError: unreadable, a broken line, or a line without question or answer.
    """
    file = Path(path)
    sides: list[Side] = []
    for number, line in enumerate(decoded_lines(file), start=1):
        if not line.strip():
            continue
        where = f"{file} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: broken JSON ({str(error)[:100]})") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected a JSON object with a question and an answer")
        if may_hold_halves(line):
            check_characters(where, row)
        question = _first(row, QUESTION, where)
        sides.append(
            Side(
                question=question,
                answer=_first(row, ANSWER, where),
                question_id=_question_id(row, question, where),
                model_tag=next((str(row[name]) for name in MODEL if row.get(name)), ""),
                csv_path=file.name,
                level_0=len(sides),
            )
        )
    if not sides:
        raise DataError(f"{file}: holds no answer; expected one JSON object a line")
    return sides


def pair_items(answers: Sequence[Side]) -> list[Item]:
    """Every pair of different answers to one question.

    Raises:
        DataError: no question has two different answers.
    """
    grouped: defaultdict[str, list[Side]] = defaultdict(list)
    for side in answers:
        grouped[str(side.question_id)].append(side)
    items: dict[str, Item] = {}
    for group in grouped.values():
        for left, right in itertools.combinations(group, 2):
            if left.answer.strip() != right.answer.strip():
                item = Item(item_key(left, right), (left, right))
                items.setdefault(item.key, item)
    if not items:
        raise DataError(
            f"{answers[0].csv_path if answers else 'no answers'}: no question has two different answers "
            "to compare; give the answers of two models, or --mode single"
        )
    return list(items.values())


def single_items(answers: Iterable[Side]) -> list[Item]:
    """Every different answer on its own."""
    items = (Item(item_key(side), (side,)) for side in answers)
    return list({item.key: item for item in items}.values())


def item_key(*sides: Side) -> str:
    """The identity of a question with its answers, whatever their order and wherever they came from."""
    answers = sorted(side.answer for side in sides)
    content = json.dumps([str(sides[0].question_id), *answers])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def form_key(form: ComparisonForm) -> str:
    """The key of the pair that a stored form rated."""
    return item_key(form.left, form.right)


class Sampler:
    """Decides who rates what next.

    A rater never gets an item twice. Items that somebody rated already but fewer than
    `raters_per_item` people did come first, so that agreement can be measured; then unrated ones;
    then those with the fewest ratings. Ties are broken at random by the seed. An item that is on
    somebody's screen counts as rated until its lease ends.

    Not safe for threads: the caller holds a lock.
    """

    def __init__(self, items: Sequence[Item], *, raters_per_item: int = 2, seed: int = 0) -> None:
        self.items = {item.key: item for item in items}
        self.raters_per_item = raters_per_item
        self._seed = seed
        self._counts: Counter[str] = Counter()
        self._rated_by: defaultdict[str, set[str]] = defaultdict(set)
        self._leases: defaultdict[str, dict[str, float]] = defaultdict(dict)
        shuffled = sorted(self.items)
        random.Random(seed).shuffle(shuffled)
        self._rank = {key: rank for rank, key in enumerate(shuffled)}

    def next(self, rater: str, *, without: Iterable[str] = ()) -> Item | None:
        """Lease the next item to `rater`, or None when nothing is left for this rater."""
        now = time.monotonic()
        busy = {key for key, held in self._leases.items() if held.get(rater, 0.0) > now}
        excluded = {*self._rated_by[rater], *without, *busy}
        open_keys = [key for key in self.items if key not in excluded]
        if not open_keys:
            return None
        return self.lease(min(open_keys, key=lambda key: self._priority(key, now)), rater)

    def lease(self, key: str, rater: str) -> Item | None:
        """Lease this very item to `rater`; None where there is none, or the rater has rated it."""
        if key not in self.items or key in self._rated_by[rater]:
            return None
        self._leases[key][rater] = time.monotonic() + LEASE_SECONDS
        return self.items[key]

    def release(self, key: str, rater: str) -> None:
        """The item is no longer on this rater's screen."""
        self._leases[key].pop(rater, None)

    def add_rating(self, key: str, rater: str) -> None:
        """`rater` has rated the item; ratings of unknown items are remembered harmlessly."""
        self.release(key, rater)
        if key not in self._rated_by[rater]:
            self._rated_by[rater].add(key)
            self._counts[key] += 1

    def remove_rating(self, key: str, rater: str) -> None:
        """`rater` has taken the rating back."""
        if key in self._rated_by[rater]:
            self._rated_by[rater].remove(key)
            self._counts[key] -= 1

    def swapped(self, key: str, rater: str) -> bool:
        """Whether this rater sees the second answer on the left: a fair coin for each (item, rater)."""
        return random.Random(f"{self._seed}|{key}|{rater}").random() < 0.5

    def progress(self, rater: str) -> tuple[int, int]:
        """(items this rater has rated, items there are)."""
        return len(self._rated_by[rater] & self.items.keys()), len(self.items)

    def _priority(self, key: str, now: float) -> tuple[int, int, int]:
        leases = sum(until > now for until in self._leases[key].values())
        count = self._counts[key] + leases
        started = 0 < count < self.raters_per_item
        return (0 if started else 1, count, self._rank[key])


def _question_id(row: Mapping[str, Any], question: str, where: str) -> int | str:
    """The id that a line gives, or one made of the question's text."""
    for name in QUESTION_ID:
        given = row.get(name)
        if given is None or given == "":
            continue
        if isinstance(given, float) and given.is_integer():
            return int(given)  # what a table program makes of 7
        if isinstance(given, bool) or not isinstance(given, (int, str)):
            raise DataError(f"{where}: {name!r} is {given!r}; expected text or a whole number")
        return given
    return hashlib.sha256(question.encode()).hexdigest()[:12]


def _first(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    for name in names:
        text = row.get(name)
        if isinstance(text, str) and text.strip():
            return text
    found = ", ".join(map(str, row)) or "none"
    raise DataError(f"{where}: expected text under one of {', '.join(names)}; keys found: {found}")
