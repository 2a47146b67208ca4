"""Layer 0 where the system offers nothing better: an audit hook that refuses what programs try.

It sees what goes through CPython: processes, programs, sockets, signals, ctypes, and files opened
outside the scratch folder and the standard library. Native code that was loaded could go around it,
so it is a courtesy, not a boundary, and the report says so. It cannot be removed once installed.

A program shares the interpreter with it. So the hook uses nothing that a program can change: no
module, no global, no function of Python; all it needs are immutable values and functions of C, bound
as defaults of its own parameters (but on Windows, where Python code resolves paths). The exception
it raises shows its frame, hence its values, but not the function, whose code and defaults may not be
read or replaced either.
It is longer than a function should be for that reason.
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
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
    "socket.gethostby", "socket.sethostname", "resource.prlimit", "syslog.", "winreg.", "msvcrt.",
    "_winapi.", "webbrowser.open", "fcntl.ioctl", "os.setxattr", "ctypes.dlopen", "ctypes.dlsym",
    "ctypes.cdata", "ctypes.call_function", "ctypes.string_at", "ctypes.wstring_at", "ctypes.addressof",
    "ctypes.PyObj_FromPtr", "ctypes.set_exception", "ctypes.seh_exception", "os.memfd_create",
    # ways to this hook
    "gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys._current_frames",
    "sys._current_exceptions", "cpython._PySys_ClearAuditHooks",
)  # fmt: skip
_CHANGES = (
    ("os.mkdir", 2), ("os.rmdir", 1), ("os.remove", 1), ("os.chmod", 2), ("os.chown", 3),
    ("os.utime", 3), ("os.truncate", 9), ("os.chflags", 9), ("os.removexattr", 9),
    ("shutil.rmtree", 1), ("sqlite3.connect", 9), ("os.chdir", 9),
)  # fmt: skip
"""Events whose first argument is a path that changes, and where their folder descriptor stands."""
_LOOKS = ("os.listxattr", "os.getxattr", "os.walk", "os.fwalk", "os.listdir", "os.scandir")
_TWO_PATHS = ("os.rename", "os.link")
_FCNTLS = {"F_DUPFD", "F_DUPFD_CLOEXEC", "F_GETFD", "F_SETFD", "F_GETFL", "F_SETFL", "F_GETLK",
           "F_SETLK", "F_SETLKW", "F_FULLFSYNC"}  # fmt: skip
_GONE = (
    "nice", "sched_setscheduler", "sched_setparam", "sched_setaffinity", "setpriority", "setns",
    "unshare", "setuid", "setgid", "seteuid", "setegid", "setreuid", "setregid", "setresuid",
    "setresgid", "setgroups", "initgroups", "mknod", "memfd_create", "pidfd_open", "setsid",
    "setpgid", "pivot_root", "openpty", "mkfifo",
)  # fmt: skip
_MODULES = (os.name, "_posixsubprocess", "_imp", "_interpreters", "_posixshmem")
_MODULE_BEGINNINGS = ("_xx", "_test")
"""Modules that a program may not load (afresh): what was taken away would be back, and in an interpreter
of its own there is no hook."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_MAX_LINKS = 40
_READLINK = getattr(os, "readlink", None)


def install(scratch: str, readable: Sequence[str]) -> None:
    """Refuse from now on, in this process."""
    realpath = os.path.realpath
    inside = realpath(scratch)
    reading = (*(realpath(path) for path in readable), *_DEVICES, realpath(os.devnull))
    hook: dict[str, Any] = getattr(_hook, "__kwdefaults__")  # noqa: B009 - None for mypy
    hook.update(
        inside=inside,
        inside_below=inside + os.sep,
        reading=reading,
        reading_below=tuple(path + os.sep for path in reading),
        nul=realpath(os.devnull),
        commands=_harmless_commands(),
    )
    if os.name == "nt":  # no links to follow by hand there; drives and short names instead
        hook["resolve"] = realpath
    _forget()
    import codecs  # noqa: F401 - nothing is imported inside the hook

    sys.addaudithook(_hook)


def _hook(
    event: str,
    args: tuple[Any, ...],
    *,
    inside: str = "",
    inside_below: str = "",
    reading: tuple[str, ...] = (),
    reading_below: tuple[str, ...] = (),
    nul: str = "",
    commands: tuple[int, ...] = (),
    resolve: Any = None,
    refused: tuple[str, ...] = _REFUSED,
    changes: tuple[tuple[str, int], ...] = _CHANGES,
    looks: tuple[str, ...] = _LOOKS,
    two_paths: tuple[str, ...] = _TWO_PATHS,
    modules: tuple[str, ...] = _MODULES,
    beginnings: tuple[str, ...] = _MODULE_BEGINNINGS,
    writing: int = _WRITING,
    max_links: int = _MAX_LINKS,
    sep: str = os.sep,
    other_sep: str = os.altsep or os.sep,
    this: str = __file__,
    starts: Any = str.startswith,
    split: Any = str.split,
    find: Any = str.find,
    rfind: Any = str.rfind,
    join: Any = str.__add__,
    decode: Any = bytes.decode,
    pop: Any = list.pop,
    extend: Any = list.extend,
    append: Any = list.append,
    length: Any = len,
    turned: Any = reversed,
    stat: Any = os.stat,
    readlink: Any = _READLINK,
    getcwd: Any = os.getcwd,
    kind_of: Any = type,
    below_kind: Any = issubclass,
    text_kind: Any = str,
    bytes_kind: Any = bytes,
    int_kind: Any = int,
    system_error: Any = OSError,
    value_error: Any = ValueError,
    denied: Any = PermissionError,
    no_module: Any = ImportError,
) -> None:
    allowed = True
    paths: list[Any] = []  # (path, how): r read, w write, l look into, c change the entry
    if starts(event, refused):
        allowed = False
    elif event == "open":
        flags = args[2] or 0
        append(paths, (args[0], "w" if flags & writing else "r"))
    elif event == "import":
        allowed = args[0] not in modules and not starts(args[0], beginnings)
    elif event in ("object.__getattr__", "object.__setattr__"):
        if args[1] in ("__code__", "__defaults__", "__kwdefaults__"):
            kind = kind_of(args[0])
            allowed = kind.__name__ != "function" or args[0].__globals__.get("__file__") != this
    elif event == "socket.__new__":
        allowed = args[1] == 1  # a local pair; it can be bound or connected to nothing
    elif event == "os.symlink":
        # a plain name leads to its own folder, wherever the link is moved
        append(paths, (args[0], "n"))
        append(paths, (args[1], "c" if args[2] in (None, -1) else "n"))
    elif event in two_paths:
        append(paths, (args[0], "c" if args[2] in (None, -1) else "n"))
        append(paths, (args[1], "c" if args[3] in (None, -1) else "n"))
    elif event in looks:
        if args and args[0] is not None:
            append(paths, (args[0], "l"))
    elif event == "fcntl.fcntl":
        allowed = args[1] in commands
    else:
        for name, place in changes:
            if event == name and args and args[0] is not None:
                folder = args[place] if place < length(args) else None
                how = "c" if folder in (None, -1) else "n"
                if event == "os.chdir":
                    how = "d"
                if not (event == "sqlite3.connect" and args[0] in (":memory:", b":memory:")):
                    append(paths, (args[0], how))
    for path, how in paths:
        kind = kind_of(path)
        if path is None or below_kind(kind, int_kind):
            continue  # a descriptor: it was opened under these rules
        if below_kind(kind, text_kind):
            text = join("", path)  # the characters, of whatever class
        elif below_kind(kind, bytes_kind):
            text = decode(path, "utf-8", "surrogateescape")
        else:
            allowed = False  # an object that may answer differently the next time
            break
        if how == "n":  # relative to a folder's descriptor: a name of that folder
            allowed = allowed and text not in ("", ".", "..")
            allowed = allowed and find(text, sep) < 0 and find(text, other_sep) < 0
            continue
        relative = not starts(text, sep)
        if resolve is not None:
            full = resolve(text)
        else:
            parts = split(text, sep)
            if relative and how in "rw" and ".." in parts:
                allowed = False  # it may be meant relative to a folder's descriptor, not shown here
                break
            full, links = "", 0
            try:
                rest = [*turned(parts)]
                if relative:
                    full = getcwd()  # the kernel's answer holds no links
                    full = "" if full == sep else full
                while rest:
                    part = pop(rest)
                    if part in ("", "."):
                        continue
                    if part == "..":
                        full = full[: rfind(full, sep)] if full else full
                        continue
                    try:
                        target = readlink(full + sep + part)
                    except (system_error, value_error):
                        full = full + sep + part
                        continue
                    links += 1
                    if links > max_links:
                        break
                    if starts(target, sep):
                        full = ""
                    extend(rest, [*turned(split(target, sep))])
            except (system_error, value_error):
                links = max_links + 1
            if links > max_links:
                allowed = False
                break
            full = full or sep
        below = full == inside or starts(full, inside_below)
        if how == "c":
            allowed = allowed and starts(full, inside_below)
        elif how == "d":
            allowed = allowed and below
        elif how == "w":
            allowed = allowed and (starts(full, inside_below) or full == nul)
        else:
            seen = below or full in reading or starts(full, reading_below)
            if how == "r" and seen and not below:
                # a descriptor of a folder outside would open what lies below it
                try:
                    seen = stat(full).st_mode & 0o170000 != 0o040000
                except (system_error, value_error):
                    seen = True
            allowed = allowed and seen
    if not allowed:
        raise (no_module if event == "import" else denied)(f"{event} is not allowed in the sandbox")


def _harmless_commands() -> tuple[int, ...]:
    """Commands of `fcntl` that reach no other process."""
    try:
        import fcntl
    except ImportError:  # Windows
        return ()
    return tuple(getattr(fcntl, name) for name in _FCNTLS if hasattr(fcntl, name))


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
