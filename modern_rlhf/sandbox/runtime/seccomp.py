"""The system-call filter of layer 1: an allow-list, with checks of arguments where a number is too
coarse.

What it takes away: new processes and program images, signals to anybody but itself, sockets other
than a connected local pair, tracing, mounting, namespaces, other processes' limits and memory,
shared System V objects, keyrings, io_uring, bpf, perf, userfaultfd, scheduling classes, descriptors
sent over a socket (`sendmsg`: those in flight are counted by user, and once there are too many no
helper process could send one), changes of files by path that Landlock does not cover (chmod, chown, utime, truncate, xattr). Threads work.

`chmod` and `utime` answer success without doing anything, so that `shutil.copy` works; `clone3`
answers ENOSYS, which makes glibc fall back to `clone`, whose flags can be checked (they lie behind
a pointer in `clone3`). Calls of a foreign ABI (32 bit, x32) kill or are refused.
Numbers: Linux `asm/unistd_64.h` (x86_64) and `asm-generic/unistd.h` (aarch64).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_KILL_PROCESS = 0x80000000

_LD, _JA, _JEQ, _JGE, _JSET, _AND, _RET = 0x20, 0x05, 0x15, 0x35, 0x45, 0x54, 0x06
_ARG = 16  # offset of args[0] in struct seccomp_data

_ARCHES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7), "arm64": (1, 0xC00000B7)}

# name: (x86_64, aarch64); -1 where the architecture has none
NUMBERS: dict[str, tuple[int, int]] = {
    **{"read": (0, 63), "write": (1, 64), "open": (2, -1), "openat": (257, 56), "close": (3, 57)},
    **{"stat": (4, -1), "fstat": (5, 80), "lstat": (6, -1), "newfstatat": (262, 79)},
    **{"poll": (7, -1), "ppoll": (271, 73), "select": (23, -1), "pselect6": (270, 72)},
    **{"lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215)},
    **{"mremap": (25, 216), "msync": (26, 227), "mincore": (27, 232), "madvise": (28, 233)},
    **{"brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135)},
    **{"rt_sigreturn": (15, 139), "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137)},
    **{"rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "pread64": (17, 67)},
    **{"pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66), "preadv": (295, 69)},
    **{"pwritev": (296, 70), "preadv2": (327, 286), "pwritev2": (328, 287), "access": (21, -1)},
    **{"faccessat": (269, 48), "faccessat2": (439, 439), "pipe": (22, -1), "pipe2": (293, 59)},
    **{"dup": (32, 23), "dup2": (33, -1), "dup3": (292, 24), "sched_yield": (24, 124)},
    **{"nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113)},
    **{"clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, -1)},
    **{"times": (100, 153), "getitimer": (36, 102), "setitimer": (38, 103), "alarm": (37, -1)},
    **{"pause": (34, -1), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178)},
    **{"getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177)},
    **{"getgroups": (115, 158), "getresuid": (118, 148), "getresgid": (120, 150)},
    **{"getpgrp": (111, -1), "getpgid": (121, 155), "getsid": (124, 156), "uname": (63, 160)},
    **{"flock": (73, 32), "fsync": (74, 82), "fdatasync": (75, 83), "ftruncate": (77, 46)},
    **{"fallocate": (285, 47), "getdents": (78, -1), "getdents64": (217, 61)},
    **{"getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "rename": (82, -1)},
    **{"renameat": (264, 38), "renameat2": (316, 276), "mkdir": (83, -1), "mkdirat": (258, 34)},
    **{"rmdir": (84, -1), "creat": (85, -1), "link": (86, -1), "linkat": (265, 37)},
    **{"unlink": (87, -1), "unlinkat": (263, 35), "symlink": (88, -1), "symlinkat": (266, 36)},
    **{"readlink": (89, -1), "readlinkat": (267, 78), "umask": (95, 166)},
    **{"getrlimit": (97, 163), "setrlimit": (160, 164), "getrusage": (98, 165)},
    **{"sysinfo": (99, 179), "getpriority": (140, 141), "sched_getaffinity": (204, 123)},
    **{"sched_getparam": (143, 121), "sched_getscheduler": (145, 120)},
    **{"sched_get_priority_max": (146, 125), "sched_get_priority_min": (147, 126)},
    **{"sched_rr_get_interval": (148, 127), "arch_prctl": (158, -1)},
    **{"set_tid_address": (218, 96), "set_robust_list": (273, 99), "get_robust_list": (274, 100)},
    **{"futex": (202, 98), "futex_waitv": (449, 449), "epoll_create": (213, -1)},
    **{"epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, -1)},
    **{"epoll_pwait": (281, 22), "epoll_pwait2": (441, 441), "eventfd": (284, -1)},
    **{"eventfd2": (290, 19), "timerfd_create": (283, 85), "timerfd_settime": (286, 86)},
    **{"timerfd_gettime": (287, 87), "exit": (60, 93), "exit_group": (231, 94)},
    **{"getrandom": (318, 278), "copy_file_range": (326, 285), "sendfile": (40, 71)},
    **{"statfs": (137, 43), "fstatfs": (138, 44), "statx": (332, 291), "membarrier": (324, 283)},
    **{"rseq": (334, 293), "recvfrom": (45, 207), "recvmsg": (47, 212)},
    **{"shutdown": (48, 210), "getsockname": (51, 204), "getpeername": (52, 205)},
    **{"getsockopt": (55, 209), "setsockopt": (54, 208), "restart_syscall": (219, 128)},
    **{"getcpu": (309, 168), "close_range": (436, 436), "wait4": (61, 260)},
    **{"waitid": (247, 95), "fadvise64": (221, 223)},
}
_PRETEND = {
    **{"chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452)},
    **{"utimensat": (280, 88), "utime": (132, -1), "utimes": (235, -1), "futimesat": (261, -1)},
}
# setxattr .. fremovexattr, in the kernel's order; `shutil.copy2` expects ENOTSUP where they fail
_NOT_SUPPORTED = {f"xattr{index}": (188 + index, 5 + index) for index in range(12)}
_MISSING = {"clone3": (435, 435)}

_KILL, _TKILL, _TGKILL = (62, 129), (200, 130), (234, 131)
_CLONE, _PRLIMIT, _PRCTL = (56, 220), (302, 261), (157, 167)
_SOCKETPAIR, _SENDTO, _IOCTL = (53, 199), (44, 206), (16, 29)
_FCNTL, _MKNOD, _MKNODAT = (72, 25), (133, -1), (259, 33)

_THREAD = 0x00010000 | 0x00000100  # CLONE_THREAD | CLONE_VM
# what glibc and musl pass for a thread: VM FS FILES SIGHAND THREAD SYSVSEM SETTLS PARENT_SETTID
# CHILD_CLEARTID DETACHED
_THREAD_FLAGS = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x80000 | 0x100000 | 0x200000
_THREAD_FLAGS |= 0x400000
_IOCTLS = (0x5421, 0x5451, 0x5450, 0x541B, 0x5401, 0x5413)  # FIONBIO CLEX NCLEX NREAD TCGETS WINSZ
# no SETOWN, SETSIG, LEASE, NOTIFY; no SETPIPE_SZ, whose pages count against the user, not the process
_FCNTLS = (*range(0, 8), 36, 37, 38, 1030, 1032, 1034)
_PRCTLS = (15, 16, 3, 38, 39, 0x53564D41)  # SET_NAME GET_NAME GET_DUMPABLE *_NO_NEW_PRIVS SET_VMA


def supported() -> bool:
    """True where the numbers are known: 64-bit little-endian x86 and ARM."""
    return platform.machine() in _ARCHES and struct.calcsize("P") == 8


_Code = list[tuple[int, int, int, int]]  # (code, jump if true, jump if false, operand)


def _low(argument: int) -> tuple[int, int, int, int]:
    return (_LD, 0, 0, _ARG + 8 * argument)


_PERM: tuple[int, int, int, int] = (_RET, 0, 0, _ERRNO | errno.EPERM)
_PASS: tuple[int, int, int, int] = (_RET, 0, 0, _ALLOW)


def _one_of(argument: int, values: tuple[int, ...], mask: int = 0) -> _Code:
    """Allow when the low word of the argument (masked) is one of the values, else EPERM."""
    body = [_low(argument)] + ([(_AND, 0, 0, mask)] if mask else [])
    for left, value in zip(range(len(values), 0, -1), values, strict=True):
        body.append((_JEQ, left, 0, value & 0xFFFFFFFF))
    return [*body, _PERM, _PASS]


def _tree(ranges: list[tuple[int, _Code]]) -> _Code:
    """A binary search over `(first number, what to do from there on)`: a call costs few steps, and
    so does the kernel's check of the whole table when the filter is installed."""
    if len(ranges) == 1:
        return ranges[0][1]
    half = len(ranges) // 2
    left, right = _tree(ranges[:half]), _tree(ranges[half:])
    # a conditional jump reaches 255 instructions, JA any number
    return [(_JGE, 0, 1, ranges[half][0]), (_JA, 0, 0, len(left)), *left, *right]


_PID_MARK = 0x7EADBEEF


def build() -> bytes:
    """The filter as BPF instructions, with a mark where the process's own id goes (`install`)."""
    column, arch = _ARCHES[platform.machine()]
    actions: dict[int, _Code] = {}
    for table, answer in (
        (NUMBERS, _ALLOW),
        (_PRETEND, _ERRNO | 0),
        (_NOT_SUPPORTED, _ERRNO | errno.EOPNOTSUPP),
        (_MISSING, _ERRNO | errno.ENOSYS),
    ):
        actions.update({numbers[column]: [(_RET, 0, 0, answer)] for numbers in table.values()})
    actions.update({numbers[column]: body for numbers, body in _guarded()})
    actions.pop(-1, None)
    # newer calls than this list knows are as if the kernel did not have them; x32 calls are refused
    newest, x32 = 424, 0x40000000
    edges = {0, newest, *([x32] if column == 0 else [])}
    for number in actions:
        edges |= {number, number + 1}
    ranges: list[tuple[int, _Code]] = []
    for edge in sorted(edges):
        unknown = [(_RET, 0, 0, _ERRNO | errno.ENOSYS)] if newest <= edge < x32 else [_PERM]
        code = actions.get(edge, unknown)
        if not ranges or ranges[-1][1] != code:
            ranges.append((edge, code))
    program: _Code = [
        (_LD, 0, 0, 4),
        (_JEQ, 1, 0, arch),
        (_RET, 0, 0, _KILL_PROCESS),
        (_LD, 0, 0, 0),
        *_tree(ranges),
    ]
    return b"".join(struct.pack("<HBBI", code, jt, jf, k) for code, jt, jf, k in program)


def _guarded() -> list[tuple[tuple[int, int], _Code]]:
    """Calls that are allowed for some arguments."""
    # signals to itself only, and not SIGKILL: so a death by it always came from outside
    kill = [_low(0), (_JEQ, 0, 3, _PID_MARK), _low(1), (_JEQ, 1, 0, 9), _PASS, _PERM]
    tgkill = [_low(0), (_JEQ, 0, 3, _PID_MARK), _low(2), (_JEQ, 1, 0, 9), _PASS, _PERM]
    clone = [
        _low(0),
        (_JSET, 3, 0, 0xFFFFFFFF & ~_THREAD_FLAGS),
        (_AND, 0, 0, _THREAD),
        (_JEQ, 0, 1, _THREAD),
        _PASS,
        _PERM,
    ]
    # a connected local stream pair only: a datagram pair could be sent to any address
    pair = [_low(0), (_JEQ, 0, 4, 1), _low(1), (_AND, 0, 0, 0xF), (_JEQ, 0, 1, 1), _PASS, _PERM]
    to = _ARG + 8 * 4  # the address of sendto must be NULL, in both words
    send = [(_LD, 0, 0, to), (_JEQ, 0, 3, 0), (_LD, 0, 0, to + 4), (_JEQ, 0, 1, 0), _PASS, _PERM]
    plain = (0x1000, 0x8000, 0)  # fifos and plain files, no devices
    return [
        (_KILL, kill),
        (_TGKILL, tgkill),
        (_CLONE, clone),
        (_SOCKETPAIR, pair),
        (_SENDTO, send),
        (_PRLIMIT, _one_of(0, (0, _PID_MARK))),
        (_PRCTL, _one_of(0, _PRCTLS)),
        (_IOCTL, _one_of(1, _IOCTLS)),
        (_FCNTL, _one_of(1, _FCNTLS)),
        (_MKNOD, _one_of(1, plain, 0xF000)),
        (_MKNODAT, _one_of(2, plain, 0xF000)),
    ]


class _Fprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


_MARK_BYTES = struct.pack("<I", _PID_MARK)


def install(filter_bytes: bytes, pid: int, libc: ctypes.CDLL) -> None:
    """Put the calling thread under the filter, for good; needs no_new_privs.

    Raises:
        OSError: the kernel refused it.
    """
    code = filter_bytes.replace(_MARK_BYTES, struct.pack("<I", pid))
    fprog = _Fprog(len(code) // 8, code)
    # prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program)
    if libc.prctl(22, ctypes.c_ulong(2), ctypes.byref(fprog), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), "seccomp filter refused")
