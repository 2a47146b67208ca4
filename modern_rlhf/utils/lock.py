"""One run per output folder, held by the operating system.

The lock is an OS lock on `<folder>/.lock`, not the file's existence: a killed run (SIGKILL, power
cut) frees it at once, and no stale file ever has to be removed by hand. The file holds the owner's
process id and host, for the message the second process gets. Under several processes of one run
(`accelerate launch`) only the main process takes it.

Standard library only.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import time
import weakref
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from modern_rlhf.errors import OutputError
from modern_rlhf.utils.atomic import output_error, write_all

LOGGER = logging.getLogger(__name__)

LOCK_NAME = ".lock"
_BUSY = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


class RunLock:
    """Exclusive use of an output folder, until `release` or the end of the process.

    Raises:
        OutputError: another process holds the folder, or it cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / LOCK_NAME
        self._descriptor: int | None = None
        if hasattr(os, "register_at_fork"):
            # A forked worker inherits the descriptor, and with it the lock: without this an
            # orphaned worker would keep a killed run's folder locked.
            reference = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _forget(reference))

    def acquire(self) -> RunLock:
        """Take the lock; a no-op when this object holds it already."""
        if self._descriptor is not None:
            return self
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
            descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise output_error(error, self.path) from error
        try:
            self._lock(descriptor)
            os.ftruncate(descriptor, 0)
            owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
            write_all(descriptor, json.dumps(owner).encode())
        except OSError as error:
            os.close(descriptor)
            raise output_error(error, self.path) from error
        except OutputError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def release(self) -> None:
        """Give the folder back; safe to call twice. The file stays, empty."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)  # closing frees the OS lock

    def __enter__(self) -> RunLock:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _lock(self, descriptor: int) -> None:
        # `is_locked` of a status command holds the lock for microseconds: try again for a moment.
        for attempt in range(5):
            try:
                _lock_exclusively(descriptor)
                return
            except OSError as error:
                if error.errno in _UNSUPPORTED:
                    LOGGER.warning(
                        "the file system of %s has no locks: make sure that no other run writes "
                        "there",
                        self.folder,
                    )
                    return
                if error.errno not in _BUSY:
                    raise
            if attempt < 4:
                time.sleep(0.05)
        owner = read_owner(self.folder)
        who = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
        raise OutputError(
            f"{self.folder} is in use by {who}: wait for it or stop it, or choose another "
            "--output-dir"
        )


def read_owner(folder: str | os.PathLike[str]) -> dict[str, str | int] | None:
    """What the lock file says of the run that holds (or last held) `folder`: pid, host, since."""
    try:
        owner = json.loads((Path(folder) / LOCK_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) and {"pid", "host"} <= set(owner) else None


def is_locked(folder: str | os.PathLike[str]) -> bool | None:
    """Whether a living process holds `folder`; None when there is no lock file to ask."""
    try:
        descriptor = os.open(Path(folder) / LOCK_NAME, os.O_RDWR)
    except OSError:
        return None
    try:
        _lock_exclusively(descriptor)
    except OSError as error:
        return True if error.errno in _BUSY else None
    finally:
        os.close(descriptor)
    return False


def process_exists(pid: int) -> bool:
    """Whether a process of that id lives on this machine (it may be another program's by now)."""
    if pid <= 0:
        return False
    if os.name == "nt":
        # `os.kill(pid, 0)` would end the process on Windows; ask the kernel for a handle instead.
        import ctypes

        kernel = ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]
        handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        if not handle:
            return False
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return bool(code.value == 259)  # STILL_ACTIVE
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _lock_exclusively(descriptor: int) -> None:
    if os.name == "nt":
        import msvcrt

        # Lock a byte far behind the text, so that other processes can still read who holds it.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        # `flock`, not `lockf`: the latter is lost as soon as any descriptor of the file is closed,
        # for example by reading the owner's name in the same process.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _forget(reference: weakref.ReferenceType[RunLock]) -> None:
    lock = reference()
    if lock is not None and lock._descriptor is not None:
        os.close(lock._descriptor)
        lock._descriptor = None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
