"""The worker's handle on a zygote and on the child that does the current job (POSIX).

A child is forked ahead of its job and waits for it. While it works, `Child.overrun` looks at its
clock: CPU time decides; wall time counts only where nothing ran although it could have (a sleep, a
lock), because time spent waiting for a busy processor is not the program's fault.
It is longer than 350 lines: a child and its zygote are two ends of one conversation.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from modern_rlhf.sandbox.runtime import scratch
from modern_rlhf.sandbox.runtime.frames import (
    MAX_REPLY,
    DeadlinePassed,
    FrameError,
    FrameReader,
    PeerClosed,
    pack,
    read_exactly,
    read_frame,
    write_all,
)
from modern_rlhf.sandbox.runtime.zygote import END, PID

WALL_FACTOR, WALL_EXTRA = 20.0, 20.0
"""The last fence: no program that lies idle lasts longer than factor x timeout + extra seconds."""
STARVED = 3.0
"""Times the last fence, after which a program is given up that never got its processor time."""
READY_SHARE = 0.5
"""Share of the looks at which such a program must have been ready to run: many threads that wake
together wait for each other as long as for anybody else, but are not ready in between."""
BLIND_FACTOR, BLIND_EXTRA = 3.0, 5.0
"""The same where a process's clock cannot be read (not Linux): wall time has to do."""
MAX_THREADS = 512
"""Threads one program may have; nothing but this bounds them for uid 0."""
START_SECONDS = 60.0
"""Time a child has to come up on a crowded machine."""
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PATH": "/usr/bin:/bin",
    "PYTHONHASHSEED": "0",
    "PYTHONSAFEPATH": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}
"""All that generated code finds in its environment, beside HOME and TMPDIR (the scratch)."""


class ZygoteLost(Exception):
    """A zygote died or did not start; the judgement cannot be made by it."""


@dataclass(frozen=True)
class End:
    """How a child ended."""

    exit_code: int
    """0-255 for an exit, minus the signal's number for a death by signal."""
    killed: bool
    cpu: float
    peak_kib: int
    entries: int
    size: int


def interpreter() -> list[str]:
    """The command of a clean interpreter; -I and -S but for the fixed hash seed, which -I
    ignores."""
    executable = getattr(sys, "_base_executable", None) or sys.executable
    return [executable, "-s", "-S", "-X", "utf8"]


class Zygote:
    """One zygote process and its children, oldest first."""

    relays = False

    def __init__(self, spec: dict[str, Any], boot: str) -> None:
        self.spec, self.boot = dict(spec), boot
        self.children: list[Child] = []
        self.forks = 0
        for highest in range(int(spec["highest"]), -1, -1):
            self.spec["highest"] = highest
            hello = self._start()
            if "failed" not in hello:
                break
        self.level: int = hello["level"]
        self.reasons: list[str] = hello["reasons"]
        self.folder: str = hello["scratch"]

    def _start(self) -> dict[str, Any]:
        ours, theirs = socket.socketpair()
        try:
            spec = _json({**self.spec, "control": theirs.fileno()})
            self.process = subprocess.Popen(
                [*interpreter(), self.boot, "zygote", spec],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
            )
        finally:
            theirs.close()
        self.control = ours
        self.control.settimeout(None)
        fd = ours.fileno()
        try:
            self.pid = int(read_frame(fd, 1 << 16)["pid"])
            hello: dict[str, Any] = read_frame(fd, 1 << 16)
            if self.pid != self.process.pid:
                self.process.wait()
            if "failed" not in hello:
                write_all(fd, pack({}))
        except (PeerClosed, FrameError, KeyError, TypeError) as error:
            ours.close()
            self.process.kill()
            self.process.wait()
            raise ZygoteLost(f"the zygote did not start: {error!r}") from None
        return hello

    def fork(self, extra: tuple[int, ...] = ()) -> Child:
        """Ask for a child; it waits for its job.

        Raises:
            ZygoteLost: the zygote is gone.
        """
        child = Child(self)
        try:
            socket.send_fds(self.control, [b"F"], [*child.theirs, *extra])
        except OSError as error:
            child.close()
            raise ZygoteLost(str(error)) from None
        for fd in child.theirs[2:]:
            os.close(fd)
        child.theirs = ()
        self.children.append(child)
        self.forks += 1
        return child

    def end(self, child: Child, *, dying: bool = False) -> End:
        """Kill and reap the oldest child and empty the scratch; `dying` children get a moment.

        Raises:
            ZygoteLost: the zygote is gone.
        """
        if self.children.pop(0) is not child:
            raise RuntimeError("children end in the order they were forked")
        try:
            self.control.sendall(b"D" if dying else b"E")
            status, *rest = END.unpack(read_exactly(self.control.fileno(), END.size))
        except (OSError, PeerClosed) as error:
            raise ZygoteLost(str(error)) from None
        if status == -1:
            raise ZygoteLost("the zygote could not fork")
        return End(os.waitstatus_to_exitcode(status), *rest)

    def watch(self) -> int:
        """The pid, as this process sees it, of the oldest child; 0 when it cannot be known."""
        try:
            self.control.sendall(b"W")
            data, fds, _, _ = socket.recv_fds(self.control, PID.size, 1)
        except OSError as error:
            raise ZygoteLost(str(error)) from None
        if len(data) != PID.size:
            raise ZygoteLost("end of file")
        (pid,) = PID.unpack(data)
        for fd in fds:
            path = f"/proc/self/fdinfo/{fd}"
            with contextlib.suppress(OSError), open(path, encoding="ascii") as info:
                for line in info:
                    if line.startswith("Pid:"):
                        pid = int(line.split()[1])
            os.close(fd)
        return 0 if self.level == 2 and not fds else max(0, pid)

    def close(self) -> None:
        """Hang up; the zygote kills its children and leaves."""
        for child in self.children:
            child.close()
        self.children.clear()
        with contextlib.suppress(OSError):
            self.control.close()
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self.process.wait(timeout=0.01)
        with contextlib.suppress(OSError):
            os.kill(self.pid, 9)
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        with contextlib.suppress(OSError):
            os.waitpid(self.pid, 0)
        _reap_orphans()


def _reap_orphans() -> None:
    """Take leave of children of lost zygotes, which were given to this process (Linux)."""
    with contextlib.suppress(OSError):
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as listing:
            numbers = [int(number) for number in listing.read().split()]
        for number in numbers:
            with contextlib.suppress(OSError):
                os.waitpid(number, os.WNOHANG)


def _json(value: Any) -> str:
    return pack(value)[4:].decode("ascii")


def _capture_file() -> int:
    """A file without a name for what the child prints."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("output", os.MFD_CLOEXEC)
    import tempfile

    fd, path = tempfile.mkstemp()
    os.unlink(path)
    return fd


class Parent(Protocol):
    """What a child knows of where it came from: a zygote, or its stand-in without fork."""

    level: int
    folder: str

    def watch(self) -> int: ...

    def end(self, child: Any, *, dying: bool = False) -> End: ...


class Reader(Protocol):
    """Frames from a child: by polling, or from a thread."""

    total: int
    excused: float

    def next(self, deadline: float) -> Any: ...


class Child:
    """One forked child: where its job goes, where its replies come from, what it printed."""

    zygote: Parent
    reader: Reader

    def __init__(self, zygote: Parent) -> None:
        self.zygote = zygote
        job_read, self.job = os.pipe()
        self.replies, reply_write = os.pipe()
        self.out, self.err = _capture_file(), _capture_file()
        self.theirs: tuple[int, ...] = (self.out, self.err, job_read, reply_write)
        self.reader = FrameReader(self.replies, limit=MAX_REPLY)
        self.started = 0.0
        self.pid = -1
        self.watched = Watched()

    def send(self, job: Any, *, first: bool = True) -> None:
        """Give it its job or a later message; a child that is gone shows when replies are read."""
        if first:
            self.started = time.monotonic()
        with contextlib.suppress(PeerClosed):
            write_all(self.job, pack(job))

    def wait_ready(self) -> None:
        """Wait until it says that it is confined; a child that cannot be confined never runs.

        Raises:
            ZygoteLost: it died first, or did not come in time.
        """
        try:
            self.reader.next(time.monotonic() + START_SECONDS)
        except (PeerClosed, DeadlinePassed, FrameError) as error:
            said = self.printed(4000, self.err).decode("utf-8", "replace").strip()
            raise ZygoteLost(
                f"a child could not be confined: {error or 'too late'} {said[-400:]}"
            ) from None

    def printed(self, limit: int, fd: int | None = None) -> bytes:
        """The first `limit` bytes of what it printed (standard output unless told otherwise)."""
        return os.pread(self.out if fd is None else fd, limit, 0)

    def printed_size(self) -> int:
        """Bytes printed to both streams so far."""
        return os.fstat(self.out).st_size + os.fstat(self.err).st_size

    def close(self) -> None:
        """Close all descriptors of ours."""
        for fd in (self.job, self.replies, self.out, self.err, *self.theirs):
            with contextlib.suppress(OSError):
                os.close(fd)


@dataclass
class Limits:
    """What one child may use."""

    cpu: float
    output: int
    scratch_bytes: int
    scratch_entries: int


def overrun(children: list[Child], limits: Limits) -> tuple[str, float]:
    """Whether the children of one judgement went too far, and seconds until the next look.

    Returns `("timeout" | "output" | "files" | "threads" | "starved" | "", wait)`; `starved` is no fault
    of theirs: far beyond the last fence, and the processor was always someone else's.
    """
    now = time.monotonic()
    wall = now - children[0].started
    used, waited, known = 0.0, 0.0, True
    longest, runnable, ready = 0.0, False, 0.0
    for child in children:
        if child.pid < 0:
            child.pid = child.zygote.watch()
        clock = clocks(child.pid)
        if clock is None:
            known = False
            continue
        child.watched.add(clock, now - children[0].started)
        longest = max(longest, clock.cpu)
        used += clock.cpu
        waited += child.watched.waited + child.reader.excused
        ready = max(ready, child.watched.ready / child.watched.looks)
        runnable = runnable or clock.runnable
        if clock.threads > MAX_THREADS:
            return "threads", 0.0
    if longest >= limits.cpu:
        return "timeout", 0.0
    if any(child.printed_size() > limits.output for child in children):
        return "output", 0.0
    for child in children:
        if child.zygote.level < 2:
            entries, size = scratch.usage(
                child.zygote.folder, entries=limits.scratch_entries, size=limits.scratch_bytes
            )
            if entries > limits.scratch_entries or size > limits.scratch_bytes:
                return "files", 0.0
    idle = wall - used - waited if known else 0.0
    factor, extra = (WALL_FACTOR, WALL_EXTRA) if known else (BLIND_FACTOR, BLIND_EXTRA)
    stalled = idle > limits.cpu + 0.5
    fence = factor * limits.cpu + extra
    if (stalled and not runnable) or (wall > fence and (stalled or not known)):
        return "timeout", 0.0
    if wall > STARVED * fence:
        return "starved" if ready >= READY_SHARE else "timeout", 0.0
    return "", min(0.05, max(0.005, limits.cpu - longest))


class Clock(NamedTuple):
    """What a process has used: CPU seconds of all threads, by thread the seconds it was ready but
    waited for a processor, and whether one could run right now."""

    cpu: float
    waits: dict[str, float]
    runnable: bool

    @property
    def threads(self) -> int:
        """How many threads there are; counted to one more than are allowed."""
        return len(self.waits)


@dataclass
class Watched:
    """What the looks at one process have shown so far.

    `waited`: seconds in which it was ready but somebody else ran. Threads that have ended are kept,
    and threads that wait at the same time, perhaps for each other, count once.
    """

    waited: float = 0.0
    looks: int = 0
    ready: int = 0
    wall: float = 0.0
    waits: dict[str, float] = field(default_factory=dict)

    def add(self, clock: Clock, wall: float) -> None:
        """One more look, `wall` seconds after the start."""
        more = sum(max(0.0, w - self.waits.get(t, 0.0)) for t, w in clock.waits.items())
        self.waited += min(more, wall - self.wall)
        self.wall, self.waits = wall, clock.waits
        self.looks += 1
        self.ready += clock.runnable


def clocks(pid: int) -> Clock | None:
    """The clock of a process; None where it cannot be read."""
    if pid <= 0 or sys.platform != "linux":
        return None
    waits: dict[str, float] = {}
    runnable = False
    try:
        cpu = time.clock_gettime((~pid << 3) | 2)  # the process's CPU clock, as clock_getcpuclockid
        for thread in os.listdir(f"/proc/{pid}/task"):
            waits[thread] = 0.0
            if len(waits) > MAX_THREADS:
                break
            with contextlib.suppress(OSError, ValueError, IndexError):  # a thread may end meanwhile
                folder = f"/proc/{pid}/task/{thread}"
                with open(f"{folder}/schedstat", encoding="ascii") as text:
                    waits[thread] = int(text.read().split()[1]) / 1e9
                with open(f"{folder}/stat", encoding="utf-8", errors="replace") as text:
                    runnable = runnable or text.read().rpartition(")")[2].split()[0] == "R"
    except OSError:
        return None
    return Clock(cpu, waits, runnable)
