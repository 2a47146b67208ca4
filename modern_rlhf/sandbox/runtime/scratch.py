"""Emptying and measuring a scratch folder that hostile programs wrote in.

Nothing found is opened but folders, and those by descriptor without following links, so that a
symbolic link, a fifo or a swapped folder leads nowhere. Depth costs no recursion and one descriptor
a level is avoided by moving deep folders up. Folders of mode 000 are made accessible first.
"""

from __future__ import annotations

import contextlib
import os
import stat

_DEEPEST = 3500
"""Bytes of a path; a path of 4096 cannot be opened."""
_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


def usage(path: str, *, entries: int, size: int) -> tuple[int, int]:
    """(entries, bytes) below `path`; stops counting soon after either bound is passed.

    A path too long to be looked into counts as all the entries there may be: nothing hides there.
    """
    seen, used = 0, 0
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as items:
                for item in items:
                    seen += 1
                    with contextlib.suppress(OSError):
                        info = item.stat(follow_symlinks=False)
                        used += getattr(info, "st_blocks", info.st_size // 512) * 512
                        if stat.S_ISDIR(info.st_mode):
                            if len(os.fsencode(item.path)) > _DEEPEST:
                                return entries + 1, used
                            waiting.append(item.path)
                    if seen > entries or used > size:
                        return seen, used
        except OSError:
            continue
    return seen, used


def restore(path: str) -> None:
    """The folder itself as it was made: there, a folder, and its owner's alone."""
    with contextlib.suppress(OSError):
        info = os.lstat(path)
        if stat.S_ISDIR(info.st_mode):
            if stat.S_IMODE(info.st_mode) != 0o700:
                os.chmod(path, 0o700)
            return
        os.unlink(path)
    with contextlib.suppress(OSError):
        os.makedirs(path, mode=0o700)


def is_empty(path: str) -> bool:
    """True when the folder can be listed and holds nothing."""
    try:
        with os.scandir(path) as items:
            return next(items, None) is None
    except OSError:
        return False


def empty(path: str) -> bool:
    """Remove everything below `path` but not `path` itself; True when nothing is left."""
    if is_empty(path):
        return True
    if os.supports_dir_fd and os.unlink in os.supports_dir_fd:
        with contextlib.suppress(OSError):
            os.chmod(path, 0o700)
        with contextlib.suppress(OSError):
            root = os.open(path, _FLAGS)
            try:
                _empty_folder(root)
            finally:
                os.close(root)
    else:
        _empty_by_path(path)
    return is_empty(path)


def _empty_folder(root: int) -> None:
    """Empty the folder `root`: files go, folders are moved up to `root` and emptied there."""
    queue = _clear(root, root)
    while queue:
        name = queue.pop()
        try:
            _make_accessible(name, root)
            folder = os.open(name, _FLAGS, dir_fd=root)
        except OSError:
            continue
        try:
            queue += _clear(folder, root)
        finally:
            os.close(folder)
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=root)


def _make_accessible(name: str, parent: int) -> None:
    """chmod 700, for folders only: on a symbolic link it would reach what the link names."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.chmod(name, 0o700, dir_fd=parent)


def _clear(folder: int, root: int) -> list[str]:
    """Unlink the files of `folder`; its folders are renamed into `root`, whose names are
    returned: names that nobody can have taken before."""
    found: list[str] = []
    for name in os.listdir(folder):
        try:
            os.unlink(name, dir_fd=folder)
            continue
        except OSError:
            pass
        target = name if folder == root else f".{os.urandom(12).hex()}"
        try:
            if folder != root:
                _make_accessible(name, folder)  # moving a folder needs write access to it
                os.rename(name, target, src_dir_fd=folder, dst_dir_fd=root)
            found.append(target)
        except OSError:
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=folder)
    return found


def _empty_by_path(path: str) -> None:
    for parent, folders, files in os.walk(path, topdown=False):
        for name in files:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(parent, name))
        for name in folders:
            target = os.path.join(parent, name)
            with contextlib.suppress(OSError):
                os.unlink(target) if os.path.islink(target) else os.rmdir(target)
