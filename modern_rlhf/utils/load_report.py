"""What every loader owes its caller: the items, an account of the rows, and clear errors.

`LoadReport` says how many rows were read, kept and skipped and why; `Tally` is the mutable counter a
loader fills while it works. `reading` and `decoded_lines` turn the ways a file can be unreadable into
one `DataError` line each (what, where, expected, remedy). This file knows no format and no record.
"""

from __future__ import annotations

import difflib
import errno
import gzip
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from modern_rlhf.errors import DataError

T = TypeVar("T")

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")


@dataclass(frozen=True)
class LoadReport:
    """The account of one load.

    Attributes:
        path: the source as the caller named it.
        format: what it turned out to be, e.g. `csv` or `json+jsonl` for a folder of both.
        rows_read: rows looked at, blank lines included.
        rows_kept: rows that yielded at least one item.
        skipped: rows by the reason they were left out; rows_kept + sum of these == rows_read.
        columns: role -> the column it was read from.
        notes: anything else a reader of the numbers should know.
    """

    path: str
    format: str
    rows_read: int
    rows_kept: int
    skipped: Mapping[str, int] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def line(self) -> str:
        """The report as one line for the log."""
        parts = [f"{self.path} ({self.format}): {self.rows_kept} of {self.rows_read} rows kept"]
        if self.skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
            parts.append(f"skipped {reasons}")
        if self.columns:
            parts.append(", ".join(f"{role} <- {name}" for role, name in self.columns.items()))
        parts.extend(self.notes)
        return "; ".join(parts)


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """What a loader returns: the items in file order, and the report of how they came about."""

    items: list[T]
    report: LoadReport


class Tally:
    """Counts while a loader works; `report` freezes the result."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.files = 1  # how many files or hub splits the source stands for
        self.formats: list[str] = []
        self.rows_read = 0
        self.rows_kept = 0
        self.columns: dict[str, str] = {}
        self._skipped: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._notes: list[str] = []

    @property
    def skipped(self) -> str:
        """The reasons so far with their counts, in words; empty when nothing was left out."""
        return ", ".join(f"{count} {reason}" for reason, count in self._skipped.items())

    def skip(self, reason: str, where: str = "") -> None:
        """Count one row as left out for `reason`; the first place is remembered for the notes."""
        self._skipped[reason] += 1
        if where:
            self._first.setdefault(reason, where)

    def note(self, text: str) -> None:
        """Add a remark, once."""
        if text not in self._notes:
            self._notes.append(text)

    def add_format(self, name: str) -> None:
        if name not in self.formats:
            self.formats.append(name)

    def report(self) -> LoadReport:
        first = [f"first {reason!r}: {where}" for reason, where in self._first.items()]
        return LoadReport(
            path=self.path,
            format="+".join(self.formats) or "unknown",
            rows_read=self.rows_read,
            rows_kept=self.rows_kept,
            skipped=dict(self._skipped),
            columns=dict(self.columns),
            notes=(*self._notes, *first),
        )

    def require_rows(self, expected: str) -> None:
        """Raise `DataError` when no row was usable.

        Args:
            expected: what a usable row holds, for the message.
        """
        if self.rows_kept:
            return
        raise DataError(
            f"{self.path}: none of {self.rows_read} rows is usable ({self.skipped or 'no rows'}); "
            f"expected {expected}"
        )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every way that opening or reading `path` fails into one `DataError` line."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(_missing(path)) from error
    except PermissionError as error:
        raise DataError(
            f"{path}: permission denied; make it readable for this user (chmod u+r)"
        ) from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: is a folder where a file was expected") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); fetch it again") from error
    except ValueError as error:
        if "null" not in str(error):
            raise
        raise DataError(f"{str(path)!r}: no path has a zero byte in it") from error
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, "OSError")
        raise DataError(f"{path}: cannot be read ({reason}: {error.strerror or error})") from error


def decoded_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 text file, line ends kept, one at a time.

    A byte-order mark is dropped; `.gz` is unpacked on the way.

    Raises:
        DataError: the file is missing, unreadable, empty, or not UTF-8 (with the line and byte).
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with reading(path), opener(path, "rb") as file:
        number = 0
        for number, raw in enumerate(file, start=1):
            if number == 1:
                if raw.startswith(_UTF16_MARKS):
                    raise DataError(f"{path}: is UTF-16 or UTF-32; save it as UTF-8")
                if b"\0" in raw[:4]:
                    raise DataError(
                        f"{path}: starts with zero bytes, so it is no UTF-8 text (UTF-16 without its "
                        "mark, or a binary file); save it as UTF-8"
                    )
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as error:
                bad = raw[error.start]
                raise DataError(
                    f"{path} line {number}: not UTF-8 (byte 0x{bad:02x} at position "
                    f"{error.start + 1} of the line); save the file as UTF-8"
                ) from error
        if number == 0:
            raise DataError(f"{path}: is empty; expected at least one row")


def read_text(path: Path) -> str:
    """The whole UTF-8 text of `path`; errors as in `decoded_lines`."""
    return "".join(decoded_lines(path))


_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def may_hold_halves(source: str) -> bool:
    """Whether JSON `source` has an escape that may be half of a surrogate pair: `check_characters`."""
    return _HALF.search(source) is not None


def check_characters(where: str, value: object) -> None:
    """Refuse half of a surrogate pair in a JSON value: no UTF-8 file, and no tokenizer, can hold it."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise DataError(
            f"{where}: {half} is half of a surrogate pair, not a character; write the whole pair, or "
            "the character itself in UTF-8"
        ) from error


def _missing(path: Path) -> str:
    message = f"{path}: no such file or folder"
    try:
        names = os.listdir(path.parent)
    except OSError:
        return f"{message} (the folder {path.parent} does not exist either)"
    if path.name in names:
        return f"{path}: is a link to nowhere; give the file itself"
    near = difflib.get_close_matches(path.name, names, n=1)
    if near:
        return f"{message}; did you mean {path.parent / near[0]}?"
    return message
