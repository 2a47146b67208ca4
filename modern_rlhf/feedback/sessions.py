"""The raters at work: who has which item on screen, what was stored, and how to take it back.

`RatingRoom` is all of the rating page that is not HTTP or HTML. It is safe for threads. A rater has one
sitting, whatever the number of windows, and it is made of what the folder holds: after a restart a rater
goes on where they were. A submission carries the token of the page it was made on, and a token stores
once however often it arrives, so neither a double click nor a repeated request makes a second file.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from modern_rlhf.feedback.answers import Item, Sampler
from modern_rlhf.feedback.forms import TIME_FORMAT, Side
from modern_rlhf.feedback.submissions import (
    Mode,
    Refused,
    canonical_name,
    stored_submissions,
    values_of,
)
from modern_rlhf.feedback.writing import (
    file_stem,
    remove_unfinished,
    rewrite_json,
    withdraw,
    write_new_json,
)

MAX_SESSIONS = 10_000

_STALE = (
    "That page was out of date or used already, perhaps in another window: nothing was changed. "
    "Please go on with this one."
)


@dataclass
class Entry:
    """One item of a rater's sitting: what was shown, what was answered, where it is stored."""

    item: Item
    shown: tuple[Side, ...]
    answers: dict[str, str] = field(default_factory=dict)
    path: Path | None = None

    @property
    def shown_key(self) -> str:
        """Names the item and the order its sides stand in; says nothing of where they come from."""
        order = json.dumps([side.answer for side in self.shown])
        return f"{self.item.key}-{hashlib.sha256(order.encode()).hexdigest()[:16]}"


@dataclass
class Session:
    """The sitting of one rater. `position` is the entry on screen; the last one is the newest."""

    rater: str
    entries: list[Entry]
    position: int
    token: str = ""
    message: str = ""
    used_tokens: dict[str, str] = field(default_factory=dict)
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
        self._stored: dict[str, list[Entry]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        self._read_stored()

    def leave(self, rater: str) -> None:
        """End a sitting; an unrated item goes back to the others, and skipped ones come again."""
        with self._lock:
            session = self._sessions.pop(rater, None)
            if session is not None:
                self._put_away(session)

    def view(self, rater: str) -> View:
        """What this rater sees now; a message is shown once."""
        session = self._session(rater)
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

    def act(self, rater: str, action: str, token: str, answers: Mapping[str, str]) -> None:
        """Save, skip, undo or go back, once for each token.

        Raises:
            Refused: an unknown action or token, or answers that are incomplete or out of range.
            OutputError: the rating could not be stored; the rater can try again.
        """
        session = self._session(rater)
        content = json.dumps([action, sorted(answers.items())])
        digest = hashlib.sha256(content.encode()).hexdigest()
        with session.lock:
            if session.used_tokens.get(token) == digest:
                return  # sent twice: the first one counted
            if not token or token != session.token:
                if token not in session.used_tokens:
                    self._show_again(session, answers.get("shown", ""))
                raise Refused(409, _STALE)
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
                self._save(session, entry, answers)
            else:
                raise Refused(400, "Unknown action.")
            session.used_tokens[token] = digest
            session.token = ""

    def _session(self, rater: str) -> Session:
        """The sitting of a rater, begun with what the folder holds of theirs."""
        with self._lock:
            session = self._sessions.get(rater)
            if session is None:
                entries = self._stored.pop(rater, [])
                session = self._sessions[rater] = Session(rater, entries, len(entries))
                if len(self._sessions) > MAX_SESSIONS:
                    self._put_away(self._sessions.popitem(last=False)[1])
            self._sessions.move_to_end(rater)
            return session

    def _put_away(self, session: Session) -> None:
        """Forget what was on screen and skipped; what was rated is kept for the next sitting."""
        for entry in session.entries:
            if entry.path is None:
                self._sampler.release(entry.item.key, session.rater)
        rated = [entry for entry in session.entries if entry.path is not None]
        if rated:
            self._stored[session.rater] = rated

    def _current(self, session: Session) -> Entry | None:
        """The entry on screen; at the end of the list a new item is leased."""
        if session.position < len(session.entries):
            return session.entries[session.position]
        with self._lock:
            seen = [entry.item.key for entry in session.entries]
            item = self._sampler.next(session.rater, without=seen)
        if item is None:
            return None
        session.entries.append(self._entry(item, session.rater))
        return session.entries[-1]

    def _entry(self, item: Item, rater: str) -> Entry:
        swap = len(item.sides) == 2 and self._sampler.swapped(item.key, rater)
        return Entry(item, item.sides[::-1] if swap else item.sides)

    def _show_again(self, session: Session, shown_key: str) -> None:
        """Put what a page of an earlier server showed on the screen, so that nothing typed is lost."""
        key = shown_key.partition("-")[0]
        for position, entry in enumerate(session.entries):
            if entry.item.key == key:
                session.position = position
                return
        if session.position == len(session.entries):
            with self._lock:
                item = self._sampler.lease(key, session.rater)
            if item is not None:
                session.entries.append(self._entry(item, session.rater))

    def _skip(self, session: Session, entry: Entry) -> None:
        with self._lock:
            self._sampler.release(entry.item.key, session.rater)
        session.position += 1
        session.message = "Skipped."

    def _save(self, session: Session, entry: Entry, answers: Mapping[str, str]) -> None:
        moment = self._now().strftime(TIME_FORMAT)
        stored = values_of(self.mode, session.rater, moment, entry.item.key, entry.shown, answers)
        if entry.path is None:
            stem = file_stem(moment, session.rater)
            entry.path = write_new_json(self._folder, stem, stored)
        else:
            rewrite_json(entry.path, stored)
        entry.answers = dict(answers)
        with self._lock:
            self._sampler.add_rating(entry.item.key, session.rater)
        session.position += 1
        session.message = "Saved."

    def _undo(self, session: Session) -> None:
        for position in reversed(range(session.position)):
            entry = session.entries[position]
            if entry.path is not None:
                withdraw(entry.path)
                entry.path = None
                with self._lock:
                    self._sampler.remove_rating(entry.item.key, session.rater)
                session.position = position
                session.message = "Your last rating was taken back; it is shown here again."
                return
        raise Refused(409, "There is nothing to take back.")

    def _read_stored(self) -> None:
        """Ratings that lie in the folder already: nobody is asked for the same thing twice."""
        if not any(self._folder.glob("[!.]*.json")):
            return
        found = list(stored_submissions(self.mode, self._folder))
        records = Counter(one.path for one in found)
        for one in found:
            rater = canonical_name(one.rater)
            self._sampler.add_rating(one.key, rater)
            item = self._sampler.items.get(one.key)
            # A file of several records is no rating of this page's own, which could be taken back.
            if item is not None and records[one.path] == 1:
                entry = Entry(item, one.sides or item.sides, dict(one.answers), one.path)
                self._stored.setdefault(rater, []).append(entry)
