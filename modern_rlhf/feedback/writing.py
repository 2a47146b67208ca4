"""Storing one rating as one file: whole or not at all, on the disk at return, never over another.

Names are made of the time and of a rater's name reduced to harmless letters, so that no text of a user
ever chooses a path. What is taken back or replaced keeps a name of its own, `*.withdrawn`; nothing is
deleted.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from modern_rlhf.errors import OutputError
from modern_rlhf.feedback.forms import TIME_FORMAT, ComparisonForm
from modern_rlhf.utils.atomic import fsync_folder

UNFINISHED_SECONDS = 3600.0
"""A temporary file this old is what a killed writer left."""


def write_form(folder: str | os.PathLike[str], form: ComparisonForm) -> Path:
    """Store one form as its own file, whole or not at all, and never over another.

    The name is `YYYY-MM-DD-HH-MM-SS-<rater>.json`, the rater reduced to letters, digits, `_` and `-`, and
    a counter where the name is taken.

    Returns:
        The file written; it is on the disk when this returns.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    return write_new_json(Path(folder), file_stem(form.time, form.rater), form.to_json())


def file_stem(moment: str, rater: str) -> str:
    """The file name, without `.json`, of what `rater` submitted at `moment` (`TIME_FORMAT`)."""
    stamp = datetime.strptime(moment, TIME_FORMAT).strftime("%Y-%m-%d-%H-%M-%S")
    return f"{stamp}-{safe_name(rater)}"


def write_new_json(folder: Path, stem: str, value: object) -> Path:
    """Write `value` as a new JSON file `<stem>[-N].json`; see `write_form`."""
    with _unfinished(folder, stem, value) as temporary:
        return _new_name(temporary, folder, stem, ".json")


def rewrite_json(path: Path, value: object) -> None:
    """Replace `path` in one step; what it held goes on as `*.withdrawn`. Errors as `write_form`.

    At every moment one of the two is there under the name that is read.
    """
    with _unfinished(path.parent, path.stem, value) as temporary:
        _set_aside(path)
        os.replace(temporary, path)


def withdraw(path: Path) -> None:
    """Take a stored file back: it goes on as `*.withdrawn`, which nothing reads.

    Raises:
        OutputError: the folder cannot be written.
    """
    if not path.exists():
        return  # moved away by hand, alone or with its folder: it is withdrawn already
    with _storing(path.parent):
        _set_aside(path)
        path.unlink(missing_ok=True)
        fsync_folder(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left half written; a file that may still be written is too young."""
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > UNFINISHED_SECONDS:
                path.unlink()


def safe_name(name: str) -> str:
    """A rater's name as part of a file name: ASCII letters, digits, `_` and `-`, 40 at most."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-")[:40].strip("-") or "anonymous"


@contextmanager
def _unfinished(folder: Path, stem: str, value: object) -> Iterator[Path]:
    """`value` under a hidden temporary name, complete and on the disk, for the block to publish."""
    data = json.dumps(value, ensure_ascii=False, indent=1).encode()
    temporary = folder / f".{stem}-{os.getpid()}-{os.urandom(6).hex()}.tmp"
    with _storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
        fsync_folder(folder)


@contextmanager
def _storing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{folder}: the rating could not be stored ({error.strerror or error}); "
            "free space or choose a folder that can be written"
        ) from error


def _set_aside(path: Path) -> None:
    """Give what `path` holds a second name that nothing reads."""
    # A file moved away by hand is withdrawn already.
    with suppress(FileNotFoundError):
        _new_name(path, path.parent, path.name, ".withdrawn", copy=True)


def _new_name(file: Path, folder: Path, stem: str, suffix: str, *, copy: bool = False) -> Path:
    """A further name `<stem>[-N]<suffix>` for `file`: a hard link fails if the name is taken.

    `copy` says that `file` must stay where no link can be made; else it is renamed there.
    """
    number = 1
    while True:
        final = folder / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
        try:
            os.link(file, final)
            return final
        except FileExistsError:
            number += 1
        except FileNotFoundError:
            raise
        except OSError:
            break
    # A file system without hard links: a random name that nobody else can have chosen.
    final = folder / f"{stem}-{os.urandom(6).hex()}{suffix}"
    if copy:
        shutil.copyfile(file, final)
    else:
        os.rename(file, final)
    return final
