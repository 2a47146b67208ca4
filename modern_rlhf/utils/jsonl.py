"""JSON-lines files: appended to by one writer, read while they grow.

Each line goes to the kernel in one write, unbuffered, so that a killed process loses none; a power
cut may still tear the last line, which the next writer removes and a reader passes over and names.

Standard library only; what the lines mean is the caller's business.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modern_rlhf.errors import OutputError
from modern_rlhf.utils.atomic import output_error, write_all, write_bytes

LOGGER = logging.getLogger(__name__)


class JsonLines:
    """One append-only file, opened at the first line.

    Raises:
        OutputError: from every method, when the file cannot be written; no half line stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `rows` (JSON values only), a line each, in one go."""
        if not rows:
            return
        text = "".join(
            json.dumps(row, allow_nan=False, separators=(", ", ": ")) + "\n" for row in rows
        )
        descriptor = self._open()
        before = os.fstat(descriptor).st_size
        try:
            write_all(descriptor, text.encode("ascii"))
        except OSError as error:
            os.ftruncate(descriptor, before)  # no half line: the disk was full in the middle of it
            raise output_error(error, self.path) from error

    def sync(self) -> int:
        """Make what was written durable; the size in bytes."""
        if self._descriptor is None and not self.path.exists():
            return 0
        descriptor = self._open()
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise output_error(error, self.path) from error
        return os.fstat(descriptor).st_size

    def cut(self, offset: int) -> None:
        """Drop everything after byte `offset`; a warning when the file is shorter than that."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < offset:
            LOGGER.warning(
                "%s has %d bytes, but had %d when the checkpoint was written: lines are missing "
                "from it",
                self.path,
                size,
                offset,
            )
        elif size > offset:
            self.close()
            try:
                os.truncate(self.path, offset)
            except OSError as error:
                raise output_error(error, self.path) from error

    def drop(self, key: str, value: object) -> int:
        """Rewrite the file without the rows whose `key` is `value`; how many those were.

        A broken line stays for the reader, who names it. A file without such rows is not touched.
        """
        self.close()
        if not self.path.exists():
            return 0
        kept, dropped = [], 0
        with self.path.open("rb") as lines:
            for line in lines:
                row = _row(line)
                if row is not None and row.get(key) == value:
                    dropped += 1
                else:
                    kept.append(line)
        if dropped:
            write_bytes(self.path, b"".join(kept))
        return dropped

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            try:
                self._descriptor = os.open(self.path, flags, 0o666)
            except OSError as error:
                raise output_error(error, self.path) from error
            self._drop_torn_line(self._descriptor)
        return self._descriptor

    def _drop_torn_line(self, descriptor: int) -> None:
        # After a power cut the last line may be half there; the next one must not be glued to it.
        size = os.fstat(descriptor).st_size
        end = size
        while end > 0:
            start = max(0, end - 65536)
            os.lseek(descriptor, start, os.SEEK_SET)
            newline = os.read(descriptor, end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            LOGGER.warning("%s ended in a torn line of %d bytes: removed", self.path, size - end)
            os.ftruncate(descriptor, end)


def iterate_lines(path: Path, problems: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file, passing over what is none.

    Args:
        problems: one line is added for everything passed over (a warning is logged in any case).

    Raises:
        OutputError: the file is there and cannot be read.
    """
    path = Path(path)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}") from error
    with file:
        for number, line in enumerate(file, start=1):
            row = _row(line)
            if row is not None:
                yield row
                continue
            what = (
                "broken, passed over"
                if line.endswith(b"\n")
                else "torn (being written, or cut off)"
            )
            message = f"{path.name} line {number} is {what}"
            LOGGER.warning("%s (in %s)", message, path.parent)
            if problems is not None:
                problems.append(message)


def _row(line: bytes) -> dict[str, Any] | None:
    """The object on a whole line; None for anything else."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and line.endswith(b"\n") else None
