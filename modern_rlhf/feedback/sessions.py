"""The raters at work: who has which item on screen, what was stored, and how to take it back.

`RatingRoom` is all of the rating page that is not HTTP or HTML. It is safe for threads. A submission
carries the token of the page it was made on, and a token stores once however often it arrives, so
neither a double click nor a repeated request makes a second file. What was taken back is renamed to
`*.withdrawn`, never deleted.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from modern_rlhf.errors import ModernRLHFError, OutputError
from modern_rlhf.feedback.answers import Item, Sampler, form_key
from modern_rlhf.feedback.forms import HIGHEST, LOWEST, TIME_FORMAT, ComparisonForm, Side
from modern_rlhf.feedback.store import iter_records, load_forms
from modern_rlhf.feedback.writing import safe_name, write_form, write_new_json
from modern_rlhf.records import ASPECTS

MAX_NAME = 80
MAX_COMMENT = 4000
MAX_SESSIONS = 10_000

Mode = Literal["compare", "single"]


class Refused(ModernRLHFError):
    """A request that cannot be carried out; `status` is its HTTP status, nothing has changed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Entry:
    """One item of a rater's sitting: what was shown, what was answered, where it is stored."""

    item: Item
    shown: tuple[Side, ...]
    answers: dict[str, str] = field(default_factory=dict)
    path: Path | None = None


@dataclass
class Session:
    """One browser of one rater. `position` is the entry on screen; the last one is the newest."""

    rater: str
    token: str = ""
    entries: list[Entry] = field(default_factory=list)
    position: int = 0
    message: str = ""
    used_tokens: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class View:
    """What the page shows: None as `entry` when nothing is left to rate."""

    rater: str
    token: str
    entry: Entry | None
    done: int
    total: int
    can_go_back: bool
    can_undo: bool
    message: str


class RatingRoom:
    """All sittings over one set of items, writing into one folder.

    Args:
        items: what is to be rated.
        folder: where ratings are stored; those that lie there already count as done.
        mode: `compare` for pairs (the comparison form), `single` for 1-5 ratings.
        raters_per_item: how many raters an item should get before the next one is begun.
        now: the clock, for tests.
    """

    def __init__(
        self,
        items: list[Item],
        folder: Path,
        *,
        mode: Mode = "compare",
        raters_per_item: int = 2,
        seed: int = 0,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.mode: Mode = mode
        self._folder = folder
        self._sampler = Sampler(items, raters_per_item=raters_per_item, seed=seed)
        self._now = now
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        folder.mkdir(parents=True, exist_ok=True)
        self._count_stored()

    def enter(self, rater: str) -> str:
        """Begin a sitting; the returned id is the browser's secret."""
        name = " ".join(rater.split())
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise Refused(422, f"Please give a name of 1 to {MAX_NAME} printable characters.")
        session_id = secrets.token_urlsafe(24)
        with self._lock:
            self._sessions[session_id] = Session(name)
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return session_id

    def knows(self, session_id: str) -> bool:
        """Whether this is the id of a sitting."""
        return session_id in self._sessions

    def leave(self, session_id: str) -> None:
        """End a sitting; an unrated item goes back to the others."""
        with self._lock:
            session = self._sessions.pop(session_id, None)
            if session and session.entries and session.entries[-1].path is None:
                self._sampler.release(session.entries[-1].item.key, session.rater)

    def view(self, session_id: str) -> View:
        """What this rater sees now; a message is shown once."""
        session = self._session(session_id)
        with session.lock:
            entry = self._current(session)
            session.token = session.token or secrets.token_urlsafe(16)
            message, session.message = session.message, ""
            with self._lock:
                done, total = self._sampler.progress(session.rater)
            return View(
                rater=session.rater,
                token=session.token,
                entry=entry,
                done=done,
                total=total,
                can_go_back=session.position > 0,
                can_undo=any(e.path for e in session.entries[: session.position]),
                message=message,
            )

    def act(self, session_id: str, action: str, token: str, answers: Mapping[str, str]) -> None:
        """Save, skip, undo or go back, once for each token.

        Raises:
            Refused: an unknown action or token, or answers that are incomplete or out of range.
            OutputError: the rating could not be stored; the rater can try again.
        """
        session = self._session(session_id)
        with session.lock:
            if token in session.used_tokens:
                return  # sent twice: the first one counted
            if not token or token != session.token:
                raise Refused(409, "This page is out of date. Please go on from the current one.")
            entry = self._current(session)
            if action == "undo":
                self._undo(session)
            elif action == "back":
                session.position = max(session.position - 1, 0)
                session.message = "This is the previous one; saving again replaces your rating."
            elif entry is None:
                raise Refused(409, "There is nothing on screen to rate.")
            elif action == "skip":
                self._skip(session, entry)
            elif action == "save":
                self._save(session, entry, token, answers)
            else:
                raise Refused(400, "Unknown action.")
            session.used_tokens.add(token)
            session.token = ""

    def _session(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None:
            raise Refused(403, "Your sitting has ended. Please begin again with your name.")
        return session

    def _current(self, session: Session) -> Entry | None:
        """The entry on screen; at the end of the list a new item is leased."""
        if session.position < len(session.entries):
            return session.entries[session.position]
        with self._lock:
            seen = [entry.item.key for entry in session.entries]
            item = self._sampler.next(session.rater, without=seen)
            if item is None:
                return None
            swap = len(item.sides) == 2 and self._sampler.swapped(item.key, session.rater)
        shown = item.sides[::-1] if swap else item.sides
        session.entries.append(Entry(item, shown))
        return session.entries[-1]

    def _skip(self, session: Session, entry: Entry) -> None:
        with self._lock:
            self._sampler.release(entry.item.key, session.rater)
        session.position += 1
        session.message = "Skipped."

    def _save(self, session: Session, entry: Entry, token: str, answers: Mapping[str, str]) -> None:
        write = self._write_form if self.mode == "compare" else self._write_rating
        path = write(session, entry, answers)
        if entry.path is not None:
            _withdraw(entry.path)
        entry.path = path
        entry.answers = dict(answers)
        with self._lock:
            self._sampler.add_rating(entry.item.key, session.rater)
        session.position += 1
        session.message = "Saved."

    def _undo(self, session: Session) -> None:
        stored = [n for n in range(session.position) if session.entries[n].path]
        if not stored:
            raise Refused(409, "There is nothing to take back.")
        entry = session.entries[stored[-1]]
        if entry.path is not None:
            _withdraw(entry.path)
        entry.path = None
        with self._lock:
            self._sampler.remove_rating(entry.item.key, session.rater)
        session.position = stored[-1]
        session.message = "Your last rating was taken back; it is shown here again."

    def _write_form(self, session: Session, entry: Entry, answers: Mapping[str, str]) -> Path:
        left, right = entry.shown
        form = ComparisonForm(
            rater=session.rater,
            time=self._now().strftime(TIME_FORMAT),
            left=left,
            right=right,
            slider=_level(answers, "comparison_slider", "Please set the slider."),
            left_scores=_scores(answers, "L"),
            right_scores=_scores(answers, "R"),
            comment=_comment(answers),
        )
        return write_form(self._folder, form)

    def _write_rating(self, session: Session, entry: Entry, answers: Mapping[str, str]) -> Path:
        (side,) = entry.shown
        value = answers.get("rating", "")
        if value not in ("1", "2", "3", "4", "5"):
            raise Refused(422, "Please choose a rating from 1 to 5.")
        now = self._now()
        stored: dict[str, Any] = {
            "id": entry.item.key,
            "prompt": side.question,
            "response": side.answer,
            "rating": int(value),
            "comment": _comment(answers),
            "rater": session.rater,
            "question_id": side.question_id,
            "model": side.model_tag,
            "datetime": now.strftime(TIME_FORMAT),
        }
        stem = f"{now.strftime('%Y-%m-%d-%H-%M-%S')}-{safe_name(session.rater)}"
        return write_new_json(self._folder, stem, stored)

    def _count_stored(self) -> None:
        """Ratings that lie in the folder already: nobody is asked for the same thing twice."""
        if not any(self._folder.glob("[!.]*.json")):
            return
        if self.mode == "compare":
            for _, form in load_forms(self._folder):
                self._sampler.add_rating(form_key(form), form.rater)
            return
        for _, _, record in iter_records(self._folder):
            if isinstance(record, dict) and {"id", "rating", "rater"} <= record.keys():
                self._sampler.add_rating(str(record["id"]), str(record["rater"]))


def _withdraw(path: Path) -> None:
    try:
        os.replace(path, path.with_name(path.name + ".withdrawn"))
    except FileNotFoundError:
        return  # moved away by hand: it is withdrawn already
    except OSError as error:
        raise OutputError(f"{path}: could not be taken back ({error.strerror})") from error


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
