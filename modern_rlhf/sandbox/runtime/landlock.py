"""Which files a confined process may open: the unprivileged file access control of Linux >= 5.13.

Everything is refused but reading the interpreter's own libraries and working in the scratch folder.
Landlock does not cover changes by path without opening (chmod, chown, utime, truncate before ABI
3); `seccomp.py` refuses those.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE, _MAKE = (1 << 4) | (1 << 5), (1 << 7) | (1 << 8) | (1 << 10) | (1 << 12)
_REFER, _TRUNCATE = 1 << 13, 1 << 14


def abi(libc: ctypes.CDLL) -> int:
    """The version the kernel speaks; 0 where there is none."""
    version = int(libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))
    return max(0, version)


def _handled(version: int) -> int:
    bits = 13  # execute .. make_sym
    if version >= 2:
        bits = 14  # refer
    if version >= 3:
        bits = 15  # truncate
    if version >= 5:
        bits = 16  # ioctl_dev
    return (1 << bits) - 1


def ruleset(libc: ctypes.CDLL, *, read: Sequence[str], scratch: str, devices: Sequence[str]) -> int:
    """A descriptor of the rules: `read` trees, the `scratch` tree, and `devices` to read and write.

    Paths that do not exist are left out, which only refuses more.

    Raises:
        OSError: the kernel has no Landlock or refused a rule.
    """
    version = abi(libc)
    if version < 1:
        raise OSError(38, "the kernel has no Landlock")
    handled = _handled(version)
    attr = struct.pack("<Q", handled)
    if version >= 4:
        attr += struct.pack("<Q", 3)  # TCP bind and connect
    if version >= 6:
        attr += struct.pack("<Q", 3)  # abstract unix sockets and signals outside the domain
    fd = int(libc.syscall(_CREATE, attr, ctypes.c_size_t(len(attr)), ctypes.c_uint32(0)))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "Landlock ruleset refused")
    reading = _READ_FILE | _READ_DIR
    working = reading | _WRITE_FILE | _REMOVE | _MAKE | _REFER | _TRUNCATE
    for path in read:
        _allow(libc, fd, path, reading & handled)
    for path in devices:
        _allow(libc, fd, path, (_READ_FILE | _WRITE_FILE | _TRUNCATE) & handled)
    _allow(libc, fd, scratch, working & handled)
    return fd


def _allow(libc: ctypes.CDLL, rules: int, path: str, access: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            access &= _READ_FILE | _WRITE_FILE | _TRUNCATE
        beneath = struct.pack("<Qi", access, target)
        if libc.syscall(_ADD_RULE, rules, 1, beneath, ctypes.c_uint32(0)):
            raise OSError(ctypes.get_errno(), f"Landlock rule for {path} refused")
    finally:
        os.close(target)


def restrict(libc: ctypes.CDLL, rules: int) -> None:
    """Put the calling thread under the rules, for good; needs no_new_privs.

    Raises:
        OSError: the kernel refused.
    """
    if libc.syscall(_RESTRICT, rules, ctypes.c_uint32(0)):
        raise OSError(ctypes.get_errno(), "Landlock restriction refused")
