"""Layer 0 where the system offers nothing better: an audit hook that refuses what programs try.

It sees what goes through CPython: processes, programs, sockets, signals, ctypes, and files opened
outside the scratch folder and the standard library. Native code that was loaded could go around it,
so it is a courtesy, not a boundary, and the report says so. It cannot be removed once installed.
"""

from __future__ import annotations

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
_ONE_PATH = (
    "os.listdir", "os.scandir", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.chown",
    "os.truncate", "os.utime", "os.chflags", "os.listxattr", "os.getxattr", "os.removexattr",
    "shutil.rmtree", "sqlite3.connect", "os.walk", "os.fwalk",
)  # fmt: skip
_TWO_PATHS = ("os.rename", "os.link")
_GONE = (
    "nice", "sched_setscheduler", "sched_setparam", "sched_setaffinity", "setpriority", "setns",
    "unshare", "setuid", "setgid", "seteuid", "setegid", "setreuid", "setregid", "setresuid",
    "setresgid", "setgroups", "initgroups", "mknod", "memfd_create", "pidfd_open", "setsid",
    "setpgid", "pivot_root", "openpty",
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

    def writable(path: Any) -> bool:
        if isinstance(path, int):
            return True
        text = realpath(os.fsdecode(fspath(path)))
        return text == os.devnull or (text + os.sep).startswith(inside)

    def may_read(path: Any) -> bool:
        if isinstance(path, int) or writable(path):
            return True
        text = realpath(os.fsdecode(fspath(path)))
        return text in reading or text.startswith(reading_below) or text in _DEVICES

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(_REFUSED):
            raise PermissionError(f"{event} is not allowed in the sandbox")
        if event == "open":
            path, _, flags = args
            if path is None:
                return
            allowed = writable(path) if (flags or 0) & _WRITING else may_read(path)
            if not allowed:
                raise PermissionError(f"opening {path!r} is not allowed in the sandbox")
        elif event == "socket.__new__":
            if args[1] not in local:
                raise PermissionError("sockets are not allowed in the sandbox")
        elif event in ("os.listdir", "os.scandir"):
            if not may_read(args[0] if args and args[0] is not None else "."):
                raise PermissionError("listing is not allowed here in the sandbox")
        elif event in _ONE_PATH:
            if args and args[0] is not None and not writable(args[0]):
                raise PermissionError(f"{event} is not allowed here in the sandbox")
        elif event in _TWO_PATHS and not (writable(args[0]) and writable(args[1])):
            raise PermissionError(f"{event} is not allowed here in the sandbox")

    _forget()
    sys.addaudithook(hook)


_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def _forget() -> None:
    """Take away functions that raise no audit event."""
    for name in ("posix", "nt", "os"):
        module = sys.modules.get(name)
        for function in _GONE:
            if module is not None and hasattr(module, function):
                delattr(module, function)
