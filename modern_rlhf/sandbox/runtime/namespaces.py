"""Layer 2: a worker's candidates live in user, pid, mount, network, IPC, UTS and cgroup namespaces.

Entered once per zygote. The new root is a read-only tmpfs that holds nothing but the interpreter's
libraries (bound read-only), four device nodes and the scratch folder, itself a tmpfs with a size
and an inode limit: filling it hurts nobody. There is no /proc and no /sys.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence

SCRATCH = "/tmp/scratch"
"""Where the scratch tmpfs lies in the new root. Its parent carries the Landlock rule: a rule on the
mount point itself would be lost with each fresh tmpfs."""

_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _BIND = 1, 2, 4, 8, 4096
_REC, _PRIVATE, _DETACH = 16384, 1 << 18, 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "arm64": 41}
_MOUNT_SETATTR = 442
_AT_RECURSIVE = 0x8000


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(
    libc: ctypes.CDLL, source: str, target: str, kind: str | None, flags: int, data: str = ""
) -> None:
    result = libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        data.encode() if data else None,
    )
    _check(result, f"mount {target}")


def enter(libc: ctypes.CDLL) -> None:
    """Leave the caller's namespaces; children are then born into a new pid namespace.

    Raises:
        OSError: user namespaces are not allowed here.
    """
    uid, gid = os.geteuid(), os.getegid()
    flags = _NEWUSER | _NEWNS | _NEWCGROUP | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET
    _check(libc.unshare(flags), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as handle:
            handle.write(text)


def new_root(libc: ctypes.CDLL, read: Sequence[str], devices: Sequence[str]) -> None:
    """Swap the root for one that holds only `read` (trees or files, read-only) and `devices`.

    Raises:
        OSError: a mount was refused.
    """
    _mount(libc, "none", "/", None, _REC | _PRIVATE)
    root = "/tmp"  # any existing folder: the mount is private to this namespace
    _mount(libc, "sandbox", root, "tmpfs", _NOSUID | _NODEV, "size=1m,nr_inodes=2048,mode=755")
    for path in read:
        _bind(libc, root, path)
    for path in devices:
        _bind(libc, root, path)
    os.makedirs(root + SCRATCH, exist_ok=True)
    # read-only for the whole tree at once: struct mount_attr {set, clear, propagation, userns}
    attr = (ctypes.c_uint64 * 4)(_RDONLY | _NOSUID, 0, 0, 0)
    result = libc.syscall(
        _MOUNT_SETATTR, -100, root.encode(), _AT_RECURSIVE, attr, ctypes.c_size_t(32)
    )
    _check(result, "mount_setattr")
    os.chdir(root)
    number = _PIVOT_ROOT[os.uname().machine]
    _check(libc.syscall(number, b".", b"."), "pivot_root")
    _check(libc.umount2(b".", _DETACH), "umount of the old root")
    os.chdir("/")
    with contextlib.suppress(OSError):
        libc.sethostname(b"sandbox", 7)


def _bind(libc: ctypes.CDLL, root: str, path: str) -> None:
    """Bind a tree or file at the same place under the new root; links are copied as links."""
    if not os.path.exists(path):
        return
    real = os.path.realpath(path)
    if real != os.path.normpath(path):
        _bind(libc, root, real)
        _link(root, path, real)
        return
    target = root + real
    if os.path.lexists(target):
        return  # already there, or inside a tree that is
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(real):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(libc, real, target, None, _BIND | _REC)


def _link(root: str, path: str, real: str) -> None:
    """Repeat the first symbolic link on `path` (e.g. /lib -> /usr/lib), the last one at worst."""
    parts = os.path.normpath(path).split("/")[1:]
    here = ""
    for part in parts:
        here += "/" + part
        if os.path.islink(here):
            if not os.path.lexists(root + here):
                os.makedirs(os.path.dirname(root + here), exist_ok=True)
                os.symlink(os.path.realpath(here), root + here)
            return


def mount_scratch(libc: ctypes.CDLL, *, size_mb: int, inodes: int) -> None:
    """A fresh scratch tmpfs over the last one, which is dropped with all it held.

    Raises:
        OSError: a mount was refused.
    """
    libc.umount2(SCRATCH.encode(), _DETACH)  # fails the first time: nothing is there yet
    _mount(
        libc,
        "scratch",
        SCRATCH,
        "tmpfs",
        _NOSUID | _NODEV | _NOEXEC,
        f"size={size_mb}m,nr_inodes={inodes},mode=700",
    )
