"""What a zygote does to itself once and to each child: the layers of isolation, as far as they go.

Every layer: own session, resource limits, closed descriptors; on Linux also no_new_privs, no capability
left, and death with the parent (by signal, or with the pid namespace). Layer 0 adds an audit hook that
refuses processes, sockets, ctypes and files outside (`guard.py`; it stops what programs commonly do, it
is no boundary), and the seccomp filter where only Landlock is missing. Layer 1: Landlock and seccomp.
Layer 2: namespaces and seccomp, and Landlock where there is one. What could not be had is kept as a
reason, and the probes decide what is claimed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Sequence

from modern_rlhf.sandbox.runtime import guard, landlock, namespaces, seccomp

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER, _PR_CAP_AMBIENT = 38, 36, 47
_SIGKILL = 9

OPEN_FILES = 64
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_LIBRARY_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_FILES = ("/etc/ld.so.cache", "/usr/share/zoneinfo")


def load_libc() -> ctypes.CDLL | None:
    """The C library with errno kept, or None where this platform's layers do not need it."""
    if not LINUX:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def die_with_parent(libc: ctypes.CDLL | None) -> None:
    """SIGKILL me when the thread that started me ends (Linux)."""
    if libc is not None:
        libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(_SIGKILL))


def adopt_orphans(libc: ctypes.CDLL | None) -> None:
    """Become the parent of descendants whose parent died, so that they can be killed (Linux)."""
    if libc is not None:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))


def readable_paths(extra: Sequence[str]) -> list[str]:
    """What a program must be able to read: the standard library, shared libraries, time zones."""
    library = os.path.dirname(os.path.abspath(os.__file__))
    paths = [library, *_FILES, *_LIBRARY_FOLDERS, *extra]
    dynload = [entry for entry in sys.path if entry.endswith(("lib-dynload", ".zip"))]
    return [*paths, *dynload, *_mapped_folders()]


def _mapped_folders() -> list[str]:
    """Folders the running interpreter maps shared objects from (a libpython beside it, say)."""
    folders = set()
    with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            path = line.split(maxsplit=5)[-1].strip()
            if ".so" in os.path.basename(path) and path.startswith("/"):
                folders.add(os.path.dirname(path))
    return sorted(folders)


def limit(name: str, soft: int, hard: int | None = None) -> None:
    """Lower one resource limit, never above the hard limit there is; missing limits are skipped."""
    number = getattr(resource, name, None)
    if number is None:
        return
    _, ceiling = resource.getrlimit(number)
    hard = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(number, (soft, hard))


def _drop_bounds(libc: ctypes.CDLL) -> None:
    """No exec of this process or a child can bring a capability back (with no_new_privs)."""
    for number in range(64):
        if libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number)):
            break
    libc.prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(4), 0, 0, 0)  # clear all


_CAP_HEADER = (ctypes.c_uint32 * 2)(0x20080522, 0)
_CAP_NONE = (ctypes.c_uint32 * 6)()


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """No capability left; being uid 0 then means owning files, no more."""
    libc.capset(_CAP_HEADER, _CAP_NONE)


class Confinement:
    """How this process and its children are confined.

    What children inherit is done once here (`settle`); `child` is what a fork has to do itself.
    """

    def __init__(self, scratch: str, extra: Sequence[str]) -> None:
        self.scratch, self.extra = scratch, tuple(extra)
        self.level = 0
        self.reasons: list[str] = []
        self.namespaced = False
        self.guarded = False
        self.filter = b""
        self.rules = -1

    def settle(self, libc: ctypes.CDLL | None, *, file_mb: int) -> None:
        """Confine this process as far as it can still do its work: fork, kill, empty the scratch.

        The limits on CPU time and address space are set by the child itself, whose job names them.
        """
        limit("RLIMIT_CORE", 0)
        limit("RLIMIT_FSIZE", file_mb << 20)
        limit("RLIMIT_NOFILE", OPEN_FILES)
        for name in ("RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_RTPRIO", "RLIMIT_NICE"):
            limit(name, 0)
        limit("RLIMIT_SIGPENDING", 64)  # queued signals are counted by user
        if libc is None:
            return
        _drop_bounds(libc)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), ctypes.c_ulong(0), 0, 0)
        if not self.namespaced:  # a namespaced zygote still mounts: its children drop the rest
            _drop_capabilities(libc)
            if self.rules >= 0 and landlock.abi(libc) >= 2:
                landlock.restrict(libc, self.rules)
                os.close(self.rules)
                self.rules = -1
        libc.prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0))

    def child(self, libc: ctypes.CDLL | None) -> None:
        """Confine the calling process, a fresh fork with its descriptors in place, for good."""
        if hasattr(os, "setsid"):
            os.setsid()
        if libc is not None:
            if self.rules >= 0:
                landlock.restrict(libc, self.rules)
            if self.namespaced:  # a fork ends with its pid namespace
                _drop_capabilities(libc)
            else:
                die_with_parent(libc)
            if self.filter:
                seccomp.install(self.filter, os.getpid(), libc)
        if self.guarded:
            guard.install(self.scratch, readable_paths(self.extra))


def prepare(
    libc: ctypes.CDLL | None, *, scratch: str, highest: int, extra: Sequence[str]
) -> Confinement:
    """Enter namespaces where allowed and build what needs no file system.

    The first child after this call is inside the new pid namespace (`namespaced`) and must call
    `finish`, as must the process itself where there are no namespaces.
    """
    made = Confinement(scratch, extra)
    if libc is None or highest < 1:
        made.guarded = True
        if libc is None:
            made.reasons.append(f"{sys.platform} has neither Landlock nor seccomp nor namespaces")
        return made
    if highest >= 2:
        try:
            namespaces.enter(libc)
            made.namespaced = True
        except OSError as error:
            made.reasons.append(f"no namespaces: {error.strerror or error}")
    try:
        if not seccomp.supported():
            raise OSError(38, f"no system-call table for {os.uname().machine}")
        made.filter = seccomp.build()
    except OSError as error:
        made.reasons.append(f"no seccomp: {error.strerror or error}")
    return made


def finish(
    made: Confinement, libc: ctypes.CDLL | None, *, disk_mb: int, inodes: int
) -> Confinement:
    """The second half of `prepare`, inside the pid namespace: the new root and the file rules.

    Raises:
        OSError: namespaces were entered but the new root could not be built; the caller starts
            again without them.
    """
    if made.guarded or libc is None:
        return made
    read = readable_paths(made.extra)
    working = made.scratch
    if made.namespaced:
        namespaces.new_root(libc, read, DEVICES)
        namespaces.mount_scratch(libc, size_mb=disk_mb, inodes=inodes)
        made.scratch = namespaces.SCRATCH
        working = os.path.dirname(namespaces.SCRATCH)
    try:
        made.rules = landlock.ruleset(libc, read=read, scratch=working, devices=DEVICES)
    except OSError as error:
        made.reasons.append(f"no Landlock: {error.strerror or error}")
    if made.filter and (made.namespaced or made.rules >= 0):
        made.level = 2 if made.namespaced else 1
    else:
        made.guarded = True
    return made
