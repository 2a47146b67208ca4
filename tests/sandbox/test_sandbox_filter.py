"""The filter of system calls, read as the kernel reads it: for both architectures, on any machine."""

from __future__ import annotations

import errno
import struct

import pytest

from modern_rlhf.sandbox.runtime import seccomp

ALLOW, KILL = 0x7FFF0000, 0x80000000
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
ME = 4321


def decide(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """What classic BPF (the instructions the filter uses) returns for one system call."""
    data = struct.pack("<IIQ", number, arch, 0)
    data += struct.pack("<6Q", *[a & (2**64 - 1) for a in (*arguments, *[0] * 6)[:6]])
    at, word = 0, 0
    while True:
        code, yes, no, operand = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x20:  # load a word
            (word,) = struct.unpack_from("<I", data, operand)
        elif code == 0x54:
            word &= operand
        elif code == 0x05:
            at += operand
        elif code == 0x06:
            return int(operand)
        else:
            met = {0x15: word == operand, 0x35: word >= operand, 0x45: bool(word & operand)}[code]
            at += yes if met else no


def asked(monkeypatch: pytest.MonkeyPatch, machine: str) -> tuple[bytes, int, int]:
    monkeypatch.setattr(seccomp.platform, "machine", lambda: machine)
    column, arch = MACHINES[machine]
    mark = struct.pack("<I", seccomp._PID_MARK)
    return seccomp.build().replace(mark, struct.pack("<I", ME)), column, arch


def refused(answer: int) -> bool:
    return answer in (0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, KILL)


# (x86_64, aarch64), arguments: what must not work
FORBIDDEN = {
    "fork": ((57, -1), ()), "vfork": ((58, -1), ()), "execve": ((59, 221), ()),
    "execveat": ((322, 281), ()), "clone a process": ((56, 220), (17,)),
    "clone that shares memory only": ((56, 220), (0x100 | 17,)),
    "clone a thread into a user namespace": ((56, 220), (0x3D0F00 | 0x10000000,)),
    "clone3": ((435, 435), ()), "socket": ((41, 198), (2, 1)), "connect": ((42, 203), ()),
    "bind": ((49, 200), ()), "sendmsg": ((46, 211), ()), "sendmmsg": ((307, 269), ()),
    "sendto an address": ((44, 206), (3, 0, 0, 0, 0x7000)),
    "sendto a high address": ((44, 206), (3, 0, 0, 0, 1 << 32)),
    "a pair of datagram sockets": ((53, 199), (1, 2)), "a pair of the internet": ((53, 199), (2, 1)),
    "kill another": ((62, 129), (1, 15)), "kill all": ((62, 129), (-1, 15)),
    "kill itself with 9": ((62, 129), (ME, 9)), "tkill": ((200, 130), (ME, 15)),
    "tgkill another": ((234, 131), (ME + 1, 0, 15)), "tgkill itself with 9": ((234, 131), (ME, ME, 9)),
    "rt_sigqueueinfo": ((129, 138), (ME,)), "ptrace": ((101, 117), ()),
    "process_vm_readv": ((310, 270), ()), "limits of another": ((302, 261), (1, 7)),
    "pdeathsig": ((157, 167), (1, 0)), "dumpable": ((157, 167), (4, 1)), "seccomp": ((317, 277), ()),
    "ioctl TIOCSTI": ((16, 29), (0, 0x5412)), "ioctl FS_IOC_SETFLAGS": ((16, 29), (0, 0x40086602)),
    "fcntl SETOWN": ((72, 25), (1, 8, ME)), "fcntl SETPIPE_SZ": ((72, 25), (1, 1031, 1 << 20)),
    "fcntl NOTIFY": ((72, 25), (1, 1026)), "a device": ((133, -1), (0, 0o020666)),
    "a device at": ((259, 33), (-100, 0, 0o060666)), "mount": ((165, 40), ()), "unshare": ((272, 97), ()),
    "setns": ((308, 268), ()), "bpf": ((321, 280), ()), "io_uring_setup": ((425, 425), ()),
    "memfd_create": ((319, 279), ()), "keyctl": ((250, 219), ()), "shmget": ((29, 194), ()),
    "mq_open": ((240, 180), ()), "openat2": ((437, 437), ()), "pidfd_open": ((434, 434), ()),
    "sched_setaffinity": ((203, 122), ()), "setpriority": ((141, 140), ()), "setuid": ((105, 146), ()),
    "truncate": ((76, 45), ()), "chown": ((92, -1), ()), "fchownat": ((260, 54), ()),
    "newer than the list": ((500, 500), ()), "splice": ((275, 76), ()), "timer_create": ((222, 107), ()),
}  # fmt: skip
ALLOWED = {
    "read": ((0, 63), ()), "write": ((1, 64), ()), "openat": ((257, 56), ()), "mmap": ((9, 222), ()),
    "a thread": ((56, 220), (0x3D0F00,)), "futex": ((202, 98), ()), "exit_group": ((231, 94), ()),
    "a signal to itself": ((62, 129), (ME, 10)), "raise": ((234, 131), (ME, ME, 6)),
    "send on a pair": ((44, 206), (3, 0, 5, 0, 0, 0)), "a local pair": ((53, 199), (1, 0x80001)),
    "a fifo": ((133, -1), (0, 0o010600)), "own limits": ((302, 261), (0, 7)),
    "names of threads": ((157, 167), (15, 0)), "FIONBIO": ((16, 29), (3, 0x5421)),
    "close on exec": ((72, 25), (3, 2, 1)), "getrandom": ((318, 278), ()), "recvmsg": ((47, 212), ()),
}  # fmt: skip


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_every_architecture_refuses_and_allows_the_same(
    monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    program, column, arch = asked(monkeypatch, machine)
    for name, (numbers, arguments) in FORBIDDEN.items():
        if numbers[column] >= 0:
            assert refused(decide(program, arch, numbers[column], *arguments)), name
    for name, (numbers, arguments) in ALLOWED.items():
        if numbers[column] >= 0:
            assert decide(program, arch, numbers[column], *arguments) == ALLOW, name


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_other_kinds_of_calls_are_refused_whole(
    monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    program, _, arch = asked(monkeypatch, machine)
    for foreign in (0x40000003, 0x40000028, 0xC000003E, 0xC00000B7):  # 32 bit, and each other's
        assert foreign == arch or decide(program, foreign, 0) == KILL
    known = {numbers[MACHINES[machine][0]] for numbers in seccomp.NUMBERS.values()}
    allowed = {number for number in range(600) if decide(program, arch, number) == ALLOW}
    assert allowed - known <= {
        56,
        220,
        53,
        199,
        44,
        206,
        302,
        261,
        157,
        167,
        16,
        29,
        72,
        25,
        133,
        259,
        33,
    }
    if machine == "x86_64":  # the same numbers with the x32 bit
        assert all(refused(decide(program, arch, 0x40000000 | number)) for number in range(600))


def test_the_filter_is_short_enough_to_install_and_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for machine in MACHINES:
        program, _, _ = asked(monkeypatch, machine)
        assert len(program) // 8 < 4096  # BPF_MAXINSNS
