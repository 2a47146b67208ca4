"""What a confined child tries, to find out what the sandbox holds here; each must fail.

A probe returns True when its attempt got through, False when it was refused, None when the platform
has nothing to try. None of them does harm where it gets through. `LEVEL` says from which layer on a
probe has to hold.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

Probe = Callable[[Any, dict[str, Any]], "bool | None"]
_LINUX = sys.platform == "linux"
_X86 = _LINUX and os.uname().machine == "x86_64"
_ALLOWED_NAMES = {
    "HOME", "TMPDIR", "TEMP", "TMP", "LANG", "LC_CTYPE", "TZ", "PATH", "PYTHONHASHSEED",
    "PYTHONSAFEPATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    "MALLOC_ARENA_MAX", "SYSTEMROOT",
}  # fmt: skip
_NUMBERS = {
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "keyctl": (250, 219), "process_vm_readv": (310, 270),
    "ptrace": (101, 117), "shmget": (29, 194), "unshare": (272, 97), "pidfd_open": (434, 434),
}  # fmt: skip


def _call(libc: Any, name: str, *args: int) -> bool | None:
    """Whether a raw system call got past the filter (any answer but a refusal counts)."""
    if libc is None or os.uname().machine not in ("x86_64", "aarch64"):
        return None
    number = _NUMBERS[name][0 if _X86 else 1]
    result = libc.syscall(number, *[ctypes.c_ulong(arg) for arg in args])
    return not (result == -1 and ctypes.get_errno() in (1, 38))  # EPERM, ENOSYS


def _opens(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, flags))
    except OSError:
        return False
    return True


def new_process(libc: Any, job: dict[str, Any]) -> bool | None:
    """fork of a new process."""
    if not hasattr(os, "fork"):
        return None
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True


def other_program(libc: Any, job: dict[str, Any]) -> bool | None:
    """exec of another program.

    The file does not exist, so getting as far as that answer is getting through.
    """
    try:
        os.execv("/nonexistent/program", ["program"])
    except FileNotFoundError:
        return True


def signal_others(libc: Any, job: dict[str, Any]) -> bool | None:
    """a signal to another process."""
    os.kill(job["parent"], 0)
    return True


def kill_itself(libc: Any, job: dict[str, Any]) -> bool | None:
    """SIGKILL by its own hand, which would look like a death from outside."""
    if libc is None or not hasattr(signal, "SIGKILL"):
        return None
    return bool(libc.kill(0x7FFFFFFF, 9) == 0)


def internet(libc: Any, job: dict[str, Any]) -> bool | None:
    """an internet socket."""
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    return True


def local_socket(libc: Any, job: dict[str, Any]) -> bool | None:
    """a local socket connected to a service of this machine."""
    if not hasattr(socket, "AF_UNIX"):
        return None
    with socket.socket(socket.AF_UNIX) as made:
        made.connect("\0modern-rlhf-nobody-listens")
    return True


def sent_descriptors(libc: Any, job: dict[str, Any]) -> bool | None:
    """descriptors sent over a local pair: those on their way are counted by user."""
    if not hasattr(socket, "send_fds"):
        return None
    here, there = socket.socketpair()
    with here, there:
        socket.send_fds(here, [b"x"], [0])
    return True


def exotic_socket(libc: Any, job: dict[str, Any]) -> bool | None:
    """netlink, packet and vsock sockets."""
    if not _LINUX:
        return None
    got = False
    for family in (16, 17, 40):
        with contextlib.suppress(OSError):
            socket.socket(family, socket.SOCK_DGRAM).close()
            got = True
    return got


def read_outside(libc: Any, job: dict[str, Any]) -> bool | None:
    """reading files of the host."""
    listed = []
    with contextlib.suppress(OSError):
        listed = os.listdir(os.path.abspath(os.sep))
    return bool(listed) or _opens("/etc/passwd", os.O_RDONLY) or _opens(job["boot"], os.O_RDONLY)


def write_outside(libc: Any, job: dict[str, Any]) -> bool | None:
    """writing files beside the scratch folder."""
    name = f".probe-{os.getpid()}-{time.monotonic_ns()}"
    for folder in (os.path.dirname(os.getcwd()), "/tmp", "/var/tmp", "/dev/shm", "/"):
        path = os.path.join(folder, name)
        if _opens(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL):
            os.unlink(path)
            return True
    return False


def devices(libc: Any, job: dict[str, Any]) -> bool | None:
    """devices: the terminal, kernel memory and log, GPUs."""
    names = ("tty", "mem", "kmsg", "fuse", "kvm", "nvidiactl", "nvidia0", "dri/renderD128")
    return any(_opens(f"/dev/{name}", os.O_RDONLY) for name in names)


def process_files(libc: Any, job: dict[str, Any]) -> bool | None:
    """/proc of other processes and of itself."""
    if not _LINUX:
        return None
    paths = ("/proc/1/cmdline", "/proc/self/mem", f"/proc/{job['parent']}/environ")
    return any(_opens(path, os.O_RDONLY) for path in paths)


def tracing(libc: Any, job: dict[str, Any]) -> bool | None:
    """reading another process's memory."""
    # a look at a process that was never attached to: attaching would stop it where that is allowed
    found = [_call(libc, "ptrace", 1, job["parent"]), _call(libc, "process_vm_readv", 0)]
    return any(found) if None not in found else None


def kernel_surface(libc: Any, job: dict[str, Any]) -> bool | None:
    """bpf, perf, userfaultfd, io_uring, keyrings, pidfds."""
    names = ("bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "keyctl", "pidfd_open")
    found = [_call(libc, name, 99, 0, 0) for name in names]
    return any(found) if None not in found else None


def shared_memory(libc: Any, job: dict[str, Any]) -> bool | None:
    """System V shared memory, which outlives its process."""
    return _call(libc, "shmget", 0, 4096, 0o600)


def namespaces(libc: Any, job: dict[str, Any]) -> bool | None:
    """a user namespace of its own, mount, chroot."""
    if not _LINUX or libc is None:
        return None
    if _call(libc, "unshare", 0x10000000):
        return True
    with contextlib.suppress(OSError):
        os.chroot(".")
        return True
    return bool(libc.mount(b"none", b".", b"tmpfs", ctypes.c_ulong(0), None) == 0)


def raise_limits(libc: Any, job: dict[str, Any]) -> bool | None:
    """raising its own limits."""
    try:
        import resource
    except ImportError:
        return None
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_AS):
        _, hard = resource.getrlimit(kind)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            return True
        if hard == resource.RLIM_INFINITY:
            return True
    return False


def scheduling(libc: Any, job: dict[str, Any]) -> bool | None:
    """a real-time class or a better nice value."""
    if not hasattr(os, "sched_param"):
        return None
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        return True
    with contextlib.suppress(OSError, AttributeError):
        os.nice(-1)
        return True
    return False


def memory(libc: Any, job: dict[str, Any]) -> bool | None:
    """twice the memory given."""
    try:
        mmap.mmap(-1, 2 * job["memory_mb"] << 20).close()
    except (OSError, ValueError, MemoryError, OverflowError):
        return False
    return True


def big_file(libc: Any, job: dict[str, Any]) -> bool | None:
    """a file larger than allowed."""
    try:
        with open("probe.big", "wb") as handle:
            handle.truncate((job["file_mb"] + 1) << 20)
    except (OSError, ValueError):
        return False
    finally:
        with contextlib.suppress(OSError):
            os.unlink("probe.big")
    return True


def environment(libc: Any, job: dict[str, Any]) -> bool | None:
    """environment variables that are not on the list."""
    return bool(set(os.environ) - _ALLOWED_NAMES)


def descriptors(libc: Any, job: dict[str, Any]) -> bool | None:
    """inherited open files."""
    for fd in range(5, 256):
        with contextlib.suppress(OSError):
            os.fstat(fd)
            return True
    return False


def host_paths(libc: Any, job: dict[str, Any]) -> bool | None:
    """seeing that files of the host exist."""
    return os.path.exists(job["boot"]) or os.path.exists("/etc/passwd")


def host_processes(libc: Any, job: dict[str, Any]) -> bool | None:
    """sharing the host's process numbers."""
    return os.getppid() != 1


def disk(libc: Any, job: dict[str, Any]) -> bool | None:
    """filling a disk of the host from the scratch folder."""
    if not hasattr(os, "statvfs"):
        return True
    info = os.statvfs(".")
    blocks = info.f_blocks * info.f_frsize
    return blocks > (job["disk_mb"] << 20) or not 0 < info.f_files <= job["inodes"]


LEVEL: dict[str, int] = {
    "memory": 0, "big_file": 0, "environment": 0, "descriptors": 0, "raise_limits": 0,
    "new_process": 1, "other_program": 1, "signal_others": 1, "kill_itself": 1, "internet": 1,
    "local_socket": 1, "sent_descriptors": 1, "exotic_socket": 1, "read_outside": 1, "write_outside": 1, "devices": 1,
    "process_files": 1, "tracing": 1, "kernel_surface": 1, "shared_memory": 1, "namespaces": 1,
    "scheduling": 1, "host_paths": 2, "host_processes": 2, "disk": 2,
}  # fmt: skip
"""The layer from which on each probe has to be refused."""


def meaning(name: str) -> str:
    """What a probe tries, in words."""
    probe: Probe = globals()[name]
    return (probe.__doc__ or name).split("\n")[0].rstrip(".")


def run_all(libc: Any, job: dict[str, Any]) -> dict[str, bool | None]:
    """Each probe's answer; one that was refused with an exception held."""
    found: dict[str, bool | None] = {}
    for name in LEVEL:
        try:
            found[name] = globals()[name](libc, job)
        except (OSError, ValueError, AttributeError, MemoryError):
            found[name] = False
    return found
