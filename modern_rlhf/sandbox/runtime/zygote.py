"""A clean process that forks confined children; it never holds a test, a program or a result.

Whatever a process holds leaks into its forks, so this one is exec'ed with a scrubbed environment
and knows nothing but its limits. The worker speaks to it over a local socket, one byte a request:

    F + descriptors   fork a child with these as stdout, stderr, requests, replies (and two more)
    E                   end the oldest child: kill, reap, empty the scratch; answers `END`
    D                   the same for a child that seems to be dying: let it die of its own cause
    W                   the oldest child's pid, with a pidfd where the system has them

When the socket closes, it kills its children and leaves.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import socket
import struct
import sys
import time
from typing import Any, NoReturn

from modern_rlhf.sandbox.runtime import candidate, child, confine, namespaces, scratch
from modern_rlhf.sandbox.runtime.frames import PeerClosed, pack, read_frame, write_all

END = struct.Struct("<i?dqqq")
"""wait status, killed by the zygote, CPU seconds, peak KiB, entries and bytes left in the
scratch."""
PID = struct.Struct("<i")

CONTROL, RULES, PASSED = 40, 41, 45
"""Where the zygote's own descriptors lie, below the limit on open files; children close them."""

READY = pack({"ready": 1})
GRACE = 0.5
"""Seconds a child whose pipes are closed may take to be dead; then it is killed."""

PRELOAD = {
    "candidate": "abc array bisect cmath collections.abc contextlib copy datetime functools heapq "
    "itertools math operator random re string struct time typing",
    "tester": "collections.abc copy dataclasses datetime decimal enum fractions functools heapq "
    "itertools math operator random re statistics string typing unittest",
}
"""Loaded once so that programs import it for free; each module more makes every fork dearer."""


class Zygote:
    """The state of one zygote: its confinement and the children alive, oldest first."""

    def __init__(self, control: socket.socket, spec: dict[str, Any]) -> None:
        self.control, self.spec = control, spec
        self.libc = confine.load_libc()
        self.children: list[int] = []
        self.made = confine.prepare(
            self.libc,
            scratch=spec["scratch"],
            highest=spec["highest"],
            extra=spec["extra"],
        )

    def settle(self) -> None:
        """Finish confinement, in the pid namespace if there is one, and say hello."""
        if self.made.namespaced:
            told, tell = os.pipe()
            inner = os.fork()
            if inner:
                self.control.sendall(pack({"pid": inner}))
                os._exit(0)
            os.close(tell)
            os.read(told, 1)  # ends with the launcher: its message comes before ours
            os.close(told)
        else:
            self.control.sendall(pack({"pid": os.getpid()}))
        try:
            confine.finish(
                self.made, self.libc, disk_mb=self.spec["disk_mb"], inodes=self.spec["inodes"]
            )
        except OSError as error:
            self.control.sendall(pack({"failed": f"no namespaces: {error.strerror or error}"}))
            os._exit(0)
        if self.made.level == 0:
            confine.adopt_orphans(self.libc)
        folder = self.made.scratch
        os.environ.update(HOME=folder, TMPDIR=folder, TEMP=folder, TMP=folder)
        os.chdir(folder)
        self.made.settle(self.libc, file_mb=self.spec["file_mb"])
        if self.made.rules >= 0:
            os.dup2(self.made.rules, RULES)
            os.close(self.made.rules)
            self.made.rules = RULES
        hello = {"level": self.made.level, "reasons": self.made.reasons, "scratch": folder}
        self.control.sendall(pack(hello))
        read_frame(self.control.fileno())  # the launcher is reaped: our parent is the worker now
        confine.die_with_parent(self.libc)

    def serve(self) -> NoReturn:
        """Requests until the worker hangs up."""
        warm_up(self.libc)
        gc.collect()
        gc.freeze()
        while True:
            try:
                request, fds, _, _ = socket.recv_fds(self.control, 1, 6)
            except OSError:
                request, fds = b"", []
            if request == b"F":
                self.fork(fds)
            elif request == b"E":
                self.control.sendall(self.end())
            elif request == b"D":
                self.control.sendall(self.end(grace=GRACE))
            elif request == b"W":
                self.watch()
            else:
                self.quit()

    def fork(self, fds: list[int]) -> None:
        """A confined child; a failure leaves a child number of 0, which `end` reports."""
        try:
            pid = os.fork()
        except OSError:
            pid = -1
        if pid == 0:
            become_child(self, fds)
        for fd in fds:
            os.close(fd)
        self.children.append(pid)

    def end(self, grace: float = 0.0) -> bytes:
        """Kill and reap the oldest child and all it left."""
        pid = self.children.pop(0)
        if pid < 0:
            return END.pack(-1, False, 0.0, 0, 0, 0)
        reaped = _reap(pid)
        deadline = time.monotonic() + grace
        while reaped is None and time.monotonic() < deadline:
            time.sleep(0.001)
            reaped = _reap(pid)
        killed = reaped is None
        if reaped is None:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            _, *reaped = os.wait4(pid, 0)
        status, usage = reaped
        if self.made.level == 0:
            with contextlib.suppress(OSError):  # what is left of its group, which keeps its number
                os.killpg(pid, signal.SIGKILL)
            self._reap_orphans()
        entries, size = self._clean()
        seconds = usage.ru_utime + usage.ru_stime
        return END.pack(status, killed, seconds, usage.ru_maxrss, entries, size)

    def _clean(self) -> tuple[int, int]:
        folder = self.made.scratch
        if self.made.level == 0:
            scratch.restore(folder)
        if scratch.is_empty(folder):
            return 0, 0
        if self.made.namespaced and self.libc is not None:
            os.chdir("/")
            namespaces.mount_scratch(
                self.libc, size_mb=self.spec["disk_mb"], inodes=self.spec["inodes"]
            )
            os.chdir(folder)
            return 0, 0  # the limits of the tmpfs held it
        entries, size = scratch.usage(
            folder, entries=self.spec["inodes"], size=self.spec["disk_mb"] << 20
        )
        scratch.empty(folder)
        return entries, size

    def _reap_orphans(self) -> None:
        """Kill what the child left behind and was given to this process (Linux)."""
        me = os.getpid()
        while True:
            try:
                with open(f"/proc/self/task/{me}/children", encoding="ascii") as listing:
                    left = {int(number) for number in listing.read().split()}
            except OSError:
                return
            left -= set(self.children)
            if not left:
                return
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    os.waitpid(pid, 0)

    def watch(self) -> None:
        """Tell the worker which process runs, so that it can read its clock."""
        pid = self.children[0] if self.children else -1
        fds = []
        if pid > 0 and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                fds = [os.pidfd_open(pid)]
        try:
            socket.send_fds(self.control, [PID.pack(pid)], fds)
        except OSError:  # too many descriptors of this user are in flight: the number has to do
            self.control.sendall(PID.pack(pid))
        for fd in fds:
            os.close(fd)

    def quit(self) -> NoReturn:
        """Kill the children and leave."""
        while self.children:
            self.end()
        os._exit(0)


def _reap(pid: int) -> Any:
    """(wait status, resource usage) of a child that has ended, None while it has not."""
    found, status, usage = os.wait4(pid, os.WNOHANG)
    return (status, usage) if found else None


def become_child(zygote: Zygote, fds: list[int]) -> NoReturn:
    """In the child: descriptors 0-4, confinement, then the one job that comes."""
    code = 70
    try:
        # 1 stdout, 2 stderr, 3 requests, 4 replies, and what else was passed
        count = len(fds)
        for offset, fd in enumerate(fds):
            os.dup2(fd, PASSED + offset)
        for offset in range(count):
            os.dup2(PASSED + offset, 1 + offset)
        os.closerange(1 + count, RULES)
        os.closerange(RULES + 1, confine.OPEN_FILES)
        zygote.made.child(zygote.libc)
        os.closerange(RULES, RULES + 1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        libc, folder = zygote.libc, zygote.made.scratch
        write_all(4, READY)
        del zygote
        code = child.main(3, 4, folder, libc)
    except BaseException as error:  # noqa: BLE001 - nothing may escape a child
        _explain(error)
        code = 70
    finally:
        os._exit(code)


def _explain(error: BaseException) -> None:
    """Leave on standard error what went wrong in the harness."""
    with contextlib.suppress(BaseException):
        import traceback

        os.write(2, "".join(traceback.format_exception(error)).encode("utf-8", "replace"))


def main(arguments: list[str]) -> None:
    """Entry point of `boot.py zygote SPEC`."""
    spec = json.loads(arguments[0])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.dup2(spec["control"], CONTROL)
    os.close(spec["control"])
    control = socket.socket(fileno=CONTROL)
    sys.argv[:] = [""]
    # There is one thread and no lock is ever held over a fork, so what modules register to repair
    # themselves after one (threading, logging, random's reseeding) only costs each child 0.4 ms.
    register, os.register_at_fork = os.register_at_fork, _ignore
    for name in PRELOAD[spec["role"]].split():
        __import__(name)
    from modern_rlhf.sandbox.runtime import probes  # noqa: F401 - for the children

    if spec["role"] == "tester":
        from modern_rlhf.sandbox.runtime import tester  # noqa: F401
    else:
        from modern_rlhf.sandbox.runtime import tracing  # noqa: F401
    os.register_at_fork = register
    sys.dont_write_bytecode = True
    zygote = Zygote(control, spec)
    del spec, arguments[:]
    try:
        zygote.settle()
    except (OSError, PeerClosed):
        os._exit(1)  # the worker is gone
    zygote.serve()


def warm_up(libc: ctypes.CDLL | None) -> None:
    """Do once what every child will do, so that caches, specialised bytecode and lazily mapped
    pages are inherited instead of being made again in each child."""
    code = "import math\nclass A:\n    x = 1\ndef f(a, b=2, *c, **d):\n    for i in [*range(3)]:\n"
    code += "        if i > 1 and a: a = {i: (a, f'{i}')}\n    try:\n        return [a, A().x]\n"
    code += "    except ValueError as e:\n        raise\n"
    for _ in range(16):
        job_read, job_write = os.pipe()
        reply_read, reply_write = os.pipe()
        calls = [["f", [1, [2.5, "x"]], {}], ["f", [{"tuple": [1]}], {}], ["g", [], {}]]
        write_all(job_write, pack({"code": code, "calls": calls}))
        candidate.run(read_frame(job_read), job_read, reply_write)
        for fd in (job_read, job_write, reply_read, reply_write):
            os.close(fd)
        if libc is not None:
            libc.prctl(3, ctypes.c_ulong(0))
    sys.modules.pop("solution", None)


def _ignore(**_: object) -> None:
    """In place of `os.register_at_fork` while modules are loaded."""
