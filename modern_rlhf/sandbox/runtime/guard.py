"""Layer 0 where the system offers nothing better: an audit hook that refuses what programs try.

It sees what goes through CPython: processes, programs, sockets, signals, ctypes, and files opened
outside the scratch folder and the standard library. Native code that was loaded could go around it,
so it is a courtesy, not a boundary, and the report says so. It cannot be removed once installed.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any

_REFUSED = (
    "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "os.system",
    "os.kill", "os.killpg", "os.chroot", "os.putenv_host", "pty.spawn", "signal.pthread_kill",
    "socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostby",
    "socket.sethostname", "ctypes.dlopen", "ctypes.dlsym", "ctypes.cdata", "ctypes.call_function",
    "ctypes.string_at", "ctypes.wstring_at", "subprocess.Popen", "resource.prlimit", "syslog.",
    "winreg.", "msvcrt.", "_winapi.", "webbrowser.open", "fcntl.ioctl", "os.setxattr",
)  # fmt: skip
_CHANGES = {
    "os.mkdir": 2, "os.rmdir": 1, "os.remove": 1, "os.chmod": 2, "os.chown": 3, "os.utime": 3,
    "os.truncate": None, "os.chflags": None, "os.removexattr": None, "shutil.rmtree": 1,
    "sqlite3.connect": None,
}  # fmt: skip
"""Events whose first argument is a path that changes, and where their folder descriptor stands."""
_LOOKS = ("os.listxattr", "os.getxattr", "os.walk", "os.fwalk")
_TWO_PATHS = ("os.rename", "os.link")
_FCNTLS = {"F_DUPFD", "F_DUPFD_CLOEXEC", "F_GETFD", "F_SETFD", "F_GETFL", "F_SETFL", "F_GETLK",
           "F_SETLK", "F_SETLKW", "F_FULLFSYNC"}  # fmt: skip
_GONE = (
    "nice", "sched_setscheduler", "sched_setparam", "sched_setaffinity", "setpriority", "setns",
    "unshare", "setuid", "setgid", "seteuid", "setegid", "setreuid", "setregid", "setresuid",
    "setresgid", "setgroups", "initgroups", "mknod", "memfd_create", "pidfd_open", "setsid",
    "setpgid", "pivot_root", "openpty", "mkfifo",
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NETWORK = ("AF_UNIX",)


def install(scratch: str, readable: Sequence[str]) -> None:
    """Refuse from now on, in this process."""
    realpath, fspath = os.path.realpath, os.fspath
    inside = realpath(scratch) + os.sep
    reading = tuple(realpath(path) for path in readable)
    reading_below = tuple(path + os.sep for path in reading)
    local = {1}

    def is_inside(path: Any) -> bool:
        return realpath(os.fsdecode(fspath(path))).startswith(inside)

    def writable(path: Any) -> bool:
        return isinstance(path, int) or is_inside(path) or _text(path) == os.devnull

    def may_read(path: Any) -> bool:
        if isinstance(path, int):
            return True
        text = realpath(os.fsdecode(fspath(path)))
        if (text + os.sep).startswith(inside) or text in _DEVICES:
            return True
        return text in reading or text.startswith(reading_below)

    def may_open(path: Any, flags: int) -> bool:
        if isinstance(path, int):
            return True
        if not os.path.isabs(os.fspath(path)) and ".." in _text(path).split(os.sep):
            return False  # it may be meant relative to a folder's descriptor, which is not shown
        if flags & _WRITING:
            return writable(path)
        # a descriptor of a folder outside would open what lies below it
        return may_read(path) and (not isdir(path) or is_inside(path) or at_scratch(path))

    def at_scratch(path: Any) -> bool:
        return realpath(os.fsdecode(fspath(path))) + os.sep == inside

    def may_change(path: Any, folder: Any) -> bool:
        if isinstance(path, int):
            return True
        if folder in (None, -1):
            return is_inside(path)
        return _text(path) not in ("", ".", "..") and os.sep not in _text(path)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        allowed = True
        if event.startswith(_REFUSED):
            allowed = False
        elif event == "open":
            path, _, flags = args
            allowed = path is None or may_open(path, flags or 0)
        elif event == "socket.__new__":
            allowed = args[1] in local
        elif event in ("os.listdir", "os.scandir"):
            allowed = may_read(args[0] if args and args[0] is not None else ".")
        elif event in _CHANGES:
            place = _CHANGES[event]
            folder = args[place] if place is not None and place < len(args) else None
            allowed = not args or args[0] is None or may_change(args[0], folder)
            allowed = allowed or (event == "sqlite3.connect" and args[0] == ":memory:")
        elif event in _LOOKS:
            allowed = not args or args[0] is None or may_read(args[0])
        elif event in _TWO_PATHS:
            allowed = may_change(args[0], args[2]) and may_change(args[1], args[3])
        elif event == "os.symlink":
            # a plain name leads to its own folder, wherever the link is moved
            allowed = os.sep not in _text(args[0]) and may_change(args[1], args[2])
        elif event == "fcntl.fcntl":
            allowed = args[1] in commands
        if not allowed:
            raise PermissionError(f"{event} is not allowed in the sandbox")

    _forget()
    commands = _harmless_commands()
    isdir = os.path.isdir
    sys.addaudithook(hook)


def _text(path: Any) -> str:
    return os.fsdecode(os.fspath(path))


def _harmless_commands() -> set[int]:
    """Commands of `fcntl` that reach no other process."""
    try:
        import fcntl
    except ImportError:  # Windows
        return set()
    return {getattr(fcntl, name) for name in _FCNTLS if hasattr(fcntl, name)}


_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def _forget() -> None:
    """Take away functions that raise no audit event."""
    with contextlib.suppress(ImportError):
        import _posixsubprocess

        setattr(_posixsubprocess, "fork_exec", _no_process)  # noqa: B010 - another signature
    for name in ("posix", "nt", "os"):
        module = sys.modules.get(name)
        for function in _GONE:
            if module is not None and hasattr(module, function):
                delattr(module, function)


def _no_process(*_: object, **__: object) -> None:
    raise PermissionError("starting a process is not allowed in the sandbox")
