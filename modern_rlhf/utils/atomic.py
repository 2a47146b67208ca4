"""Files and folders that appear whole or not at all.

The recipe: write under a temporary name in the same folder (a rename is atomic only inside one file
system), flush, fsync, rename over the final name, fsync the parent so that the rename itself
survives a power cut. A full disk, a read-only folder or a killed process leaves the old content
untouched; what fails becomes an `OutputError` that names the file and the remedy.

Knows nothing of checkpoints, logs or tensors. Standard library only.
"""

from __future__ import annotations

import errno
import glob
import json
import logging
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modern_rlhf.errors import OutputError

LOGGER = logging.getLogger(__name__)

TEMPORARY = ".tmp-"
"""Infix of the names of unfinished files and folders: `<final name>.tmp-<random>`."""

REPLACED = ".old-"
"""Infix of the name a replaced folder has for the moment between two renames."""

_RUST_ERROR = re.compile(r"\(os error (\d+)\)")

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space there or choose another --output-dir",
    errno.EDQUOT: "your disk quota is used up: free some space or choose another --output-dir",
    errno.EACCES: "no permission: check its owner and mode or choose another --output-dir",
    errno.EPERM: "no permission: check its owner and mode or choose another --output-dir",
    errno.EROFS: "the file system is read-only: choose another --output-dir",
    errno.ENOTDIR: "a part of this path is a file, not a folder: choose another --output-dir",
    errno.EEXIST: "there is a file of that name: move it away or choose another --output-dir",
    errno.EISDIR: "there is a folder of that name: move it away or choose another --output-dir",
}


def output_error(error: OSError, path: Path) -> OutputError:
    """The one-line `OutputError` for an `OSError` met while writing `path`."""
    code = error.errno if error.errno is not None else 0
    remedy = _REMEDIES.get(code, "check the folder or choose another --output-dir")
    return OutputError(f"cannot write {path} ({error.strerror or error}): {remedy}")


def fsync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable. Windows can't open folders and needs no such step."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems refuse fsync on folders; the rename is still atomic there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte: `os.write` may take only a part of a large buffer."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_bytes(path: str | os.PathLike[str], data: bytes, *, durable: bool = True) -> None:
    """Replace the content of `path` by `data`, atomically; parent folders are made.

    Args:
        durable: also survive a power cut (two fsyncs, milliseconds). A status file that is
            rewritten at every step does without; it still survives a kill at any moment.

    Raises:
        OutputError: the file could not be written; the old content is still there.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}{TEMPORARY}{uuid.uuid4().hex[:12]}")
    finished = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not `tempfile`: it makes files of mode 0600, and other users may have to read the results.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        descriptor = os.open(temporary, flags, 0o666)
        try:
            write_all(descriptor, data)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        finished = True
        if durable:
            fsync_folder(path.parent)
    except OSError as error:
        raise output_error(error, path) from error
    finally:
        if not finished:
            with suppress(OSError):
                temporary.unlink()


def write_text(path: str | os.PathLike[str], text: str, *, durable: bool = True) -> None:
    """`write_bytes` of UTF-8 text; a lone surrogate (a model may produce one) becomes `\\udxxx`."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"), durable=durable)


def write_json(
    path: str | os.PathLike[str], obj: Any, schema: int | None = None, *, durable: bool = True
) -> None:
    """Write `obj` as indented JSON; with `schema` given, `{"schema": schema, **obj}`.

    Raises:
        OutputError: the file could not be written, or `obj` holds NaN or infinity, which JSON does
            not have (the message names the key; the remedy is null and a reason beside it).
        TypeError: `obj` holds something that is no JSON value.
    """
    if schema is not None:
        obj = {"schema": schema, **obj}
    where = find_non_finite(obj)
    if where is not None:
        raise OutputError(
            f"cannot write {path}: the number at `{where}` is NaN or infinite, which JSON does not "
            "have: write null and a reason beside it"
        )
    write_text(path, json_text(obj), durable=durable)


def json_text(obj: Any) -> str:
    """The form in which `write_json` writes: indented, ASCII, one newline at the end."""
    return json.dumps(obj, indent=2, ensure_ascii=True) + "\n"


def find_non_finite(obj: Any, where: str = "") -> str | None:
    """The dotted path of the first NaN or infinite float inside `obj`, or None."""
    if isinstance(obj, float):
        return None if math.isfinite(obj) else (where or "the top level")
    items: Any = ()
    if isinstance(obj, Mapping):
        items = obj.items()
    elif isinstance(obj, (list, tuple)):
        items = enumerate(obj)
    for key, value in items:
        found = find_non_finite(value, f"{where}.{key}" if where else str(key))
        if found is not None:
            return found
    return None


@contextmanager
def atomic_directory(final: str | os.PathLike[str], *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `final`; when the block ends well it becomes `final`.

    Every file in it is fsynced before the rename. When the block raises, the folder is removed and
    `final` is as it was. With `replace`, an existing `final` steps aside under another name for the
    moment between two renames; a process killed in that moment leaves it there, and the next call,
    or `recover_replaced`, puts it back.

    Raises:
        OutputError: `final` exists and `replace` is false, or something could not be written.
    """
    final = Path(final)
    temporary = final.with_name(f"{final.name}{TEMPORARY}{uuid.uuid4().hex[:12]}")
    finished = False
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        recover_replaced(final)
        if final.exists() and not replace:
            raise OutputError(f"{final} exists already: move it away or choose another folder")
        temporary.mkdir()
        yield temporary
        _fsync_tree(temporary)
        if final.exists():
            aside = final.with_name(f"{final.name}{REPLACED}{uuid.uuid4().hex[:12]}")
            os.rename(final, aside)
            os.rename(temporary, final)
            finished = True
            fsync_folder(final.parent)
            shutil.rmtree(aside)
        else:
            os.rename(temporary, final)
            finished = True
            fsync_folder(final.parent)
    except OSError as error:
        raise output_error(error, final) from error
    except Exception as error:  # noqa: BLE001 - raised again unless it tells of the disk
        # Libraries in Rust (safetensors, tokenizers) have errors of their own for a full disk.
        told = _RUST_ERROR.search(str(error))
        if told is None:
            raise
        code = int(told[1])
        raise output_error(OSError(code, os.strerror(code)), final) from error
    finally:
        if not finished:
            shutil.rmtree(temporary, ignore_errors=True)
            recover_replaced(final)


def recover_replaced(final: Path) -> None:
    """Undo a replacement of `final` that was killed half way, or finish one killed later."""
    for aside in sorted(final.parent.glob(f"{glob.escape(final.name)}{REPLACED}*")):
        if final.exists():
            LOGGER.info("removing %s, replaced by a run that was killed meanwhile", aside)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            LOGGER.warning("%s was being replaced when its run was killed: put back", final)
            with suppress(FileNotFoundError):  # another process of the same run was quicker
                os.rename(aside, final)


def _fsync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            if path.is_symlink():
                continue
            # Windows fsyncs only descriptors that are open for writing.
            descriptor = os.open(path, (os.O_RDWR if os.name == "nt" else os.O_RDONLY))
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_folder(Path(root))
