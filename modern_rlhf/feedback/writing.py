"""Storing one rating as one file: whole or not at all, on the disk at return, never over another.

Names are made of the time and of a rater's name reduced to harmless letters, so that no text of a user
ever chooses a path.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from datetime import datetime
from pathlib import Path

from modern_rlhf.errors import OutputError
from modern_rlhf.feedback.forms import TIME_FORMAT, ComparisonForm
from modern_rlhf.utils.atomic import fsync_folder


def write_form(folder: str | os.PathLike[str], form: ComparisonForm, *, token: str = "") -> Path:
    """Store one form as its own file, whole or not at all, and never over another.

    The name is `YYYY-MM-DD-HH-MM-SS-<rater>.json`, the rater reduced to letters, digits, `_` and `-`;
    `token` (such a text too) is appended, and a counter where the name is taken.

    Returns:
        The file written; it is on the disk when this returns.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    stamp = datetime.strptime(form.time, TIME_FORMAT).strftime("%Y-%m-%d-%H-%M-%S")
    stem = "-".join(part for part in (stamp, safe_name(form.rater), token) if part)
    return write_new_json(Path(folder), stem, form.to_json())


def write_new_json(folder: Path, stem: str, value: object) -> Path:
    """Write `value` as a new JSON file `<stem>[-N].json`; see `write_form`."""
    data = json.dumps(value, ensure_ascii=False, indent=1).encode()
    temporary = folder / f".{stem}-{os.getpid()}-{os.urandom(6).hex()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            final = _publish(temporary, folder, stem)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_folder(folder)
    except OSError as error:
        raise OutputError(
            f"{folder}: the rating could not be stored ({error.strerror or error}); "
            "free space or choose a folder that can be written"
        ) from error
    return final


def safe_name(name: str) -> str:
    """A rater's name as part of a file name: ASCII letters, digits, `_` and `-`, 40 at most."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-")[:40].strip("-") or "anonymous"


def _publish(temporary: Path, folder: Path, stem: str) -> Path:
    """Give the finished file its name: a hard link fails if the name exists, a rename would not."""
    number = 1
    while True:
        final = folder / (f"{stem}.json" if number == 1 else f"{stem}-{number}.json")
        try:
            os.link(temporary, final)
            return final
        except FileExistsError:
            number += 1
        except OSError:
            break
    # A file system without hard links: a random name that nobody else can have chosen.
    final = folder / f"{stem}-{os.urandom(6).hex()}.json"
    os.rename(temporary, final)
    return final
