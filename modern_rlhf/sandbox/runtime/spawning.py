"""Children where there is no fork (Windows): a fresh interpreter a program, layer 0.

The same interface as `processes.py`, built only on `subprocess`, pipes and threads. It is slow (an
interpreter start a program) and weakly isolated, and says so; verdicts are the same.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
import time
from typing import Any

from modern_rlhf.sandbox.runtime import confine, guard, scratch
from modern_rlhf.sandbox.runtime.frames import (
    MAX_REPLY,
    DeadlinePassed,
    FrameError,
    PeerClosed,
    pack,
    read_body,
    unpack,
    write_all,
)
from modern_rlhf.sandbox.runtime.processes import (
    ENVIRONMENT,
    Child,
    End,
    Watched,
    ZygoteLost,
    interpreter,
)

_GRACE = 0.5
_QUEUED = 16


class ThreadReader:
    """`FrameReader` for pipes that cannot be polled: a thread reads ahead, a few frames at most."""

    def __init__(self, fd: int, *, limit: int) -> None:
        self.fd, self.limit, self.total, self.excused = fd, limit, 0, 0.0
        self._frames: queue.Queue[Any] = queue.Queue(_QUEUED)
        self._closed = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        frame: Any = None
        while not isinstance(frame, Exception):
            try:
                frame = read_body(self.fd, self.limit)
            except (PeerClosed, FrameError) as error:
                frame = error
            while not self._closed:  # nobody takes what a flood of frames left behind
                with contextlib.suppress(queue.Full):
                    self._frames.put(frame, timeout=0.2)
                    break

    def close(self) -> None:
        """Nothing more is wanted; the thread ends with the pipe."""
        self._closed = True

    def next(self, deadline: float) -> Any:
        """The next message; see `FrameReader.next`."""
        left = min(max(0.0, deadline - time.monotonic()), 3600.0)
        try:
            frame = self._frames.get(timeout=left) if left else self._frames.get_nowait()
        except queue.Empty:
            raise DeadlinePassed from None
        if isinstance(frame, Exception):
            self._frames.put(frame)  # the end stays the end
            raise frame
        self.total += len(frame)
        return unpack(frame)


class SpawnedChild(Child):
    """One interpreter for one job."""

    def __init__(self, zygote: SpawnZygote, number: int) -> None:
        self.zygote = zygote
        base = os.path.join(zygote.private, str(number))
        self.paths = (base + ".out", base + ".err")
        self.out, self.err = (
            os.open(p, os.O_RDWR | os.O_CREAT | _BINARY, 0o600) for p in self.paths
        )
        spec = {**zygote.spec, "out": self.paths[0], "err": self.paths[1]}
        environment = {**ENVIRONMENT, **zygote.environment}
        self.process = subprocess.Popen(
            [*interpreter(), zygote.boot, "spawning", pack(spec)[4:].decode("ascii")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.err,
            env=environment,
            bufsize=0,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.job, self.replies = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.theirs = ()
        self.reader = ThreadReader(self.replies, limit=MAX_REPLY)
        self.started = 0.0
        self.pid = self.process.pid
        self.watched = Watched()
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def send(self, job: Any, *, first: bool = True) -> None:
        """Give it its job or a later message, without waiting until it reads: it may never do so."""
        if first:
            self.started = time.monotonic()
        self._outgoing.put(pack(job))

    def _write(self) -> None:
        with contextlib.suppress(PeerClosed):
            while (data := self._outgoing.get()) is not None:
                write_all(self.job, data)

    def printed(self, limit: int, fd: int | None = None) -> bytes:
        """The first `limit` bytes of what it printed."""
        fd = self.out if fd is None else fd
        os.lseek(fd, 0, os.SEEK_SET)
        return os.read(fd, limit)

    def close(self) -> None:
        """Close our ends and delete the capture files; the process has ended."""
        if isinstance(self.reader, ThreadReader):
            self.reader.close()
        self._outgoing.put(None)
        self._writer.join(timeout=5.0)
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        for fd, path in zip((self.out, self.err), self.paths, strict=True):
            with contextlib.suppress(OSError):
                os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(path)


_BINARY = getattr(os, "O_BINARY", 0)


class SpawnZygote:
    """Starts interpreters instead of forking; same interface as `processes.Zygote`."""

    relays = True
    level = 0

    def __init__(self, spec: dict[str, Any], boot: str) -> None:
        self.boot = boot
        self.folder = spec["scratch"]
        self.private = spec["scratch"] + "-private"
        os.makedirs(self.private, mode=0o700, exist_ok=True)
        self.spec = {k: spec[k] for k in ("scratch", "file_mb", "extra")}
        self.inodes, self.disk_mb = spec["inodes"], spec["disk_mb"]
        names = ("HOME", "TMPDIR", "TEMP", "TMP")
        self.environment = {name: self.folder for name in names}
        if "SYSTEMROOT" in os.environ:
            self.environment["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
        self.reasons = ["this platform cannot fork: one interpreter start a program, layer 0"]
        self.children: list[SpawnedChild] = []
        self.forks = 0

    def fork(self, extra: tuple[int, ...] = ()) -> SpawnedChild:
        """A child that waits for its job.

        Raises:
            ZygoteLost: the interpreter could not be started.
        """
        self.forks += 1
        try:
            child = SpawnedChild(self, self.forks)
        except OSError as error:
            raise ZygoteLost(str(error)) from None
        self.children.append(child)
        return child

    def end(self, child: Child, *, dying: bool = False) -> End:
        """Kill and reap a child and empty the scratch."""
        ended = self.children.pop(0)
        if ended is not child:
            raise RuntimeError("children end in the order they were forked")
        deadline = time.monotonic() + (_GRACE if dying else 0.0)
        cpu = _reap(ended.process, os.WNOHANG if _WAIT4 else 0)
        while cpu is None and time.monotonic() < deadline:
            time.sleep(0.002)
            cpu = _reap(ended.process, os.WNOHANG if _WAIT4 else 0)
        alive = cpu is None
        if alive:
            ended.process.kill()
            cpu = _reap(ended.process, 0) if _WAIT4 else 0.0
        code = ended.process.wait()
        scratch.restore(self.folder)
        entries, size = 0, 0
        if not scratch.is_empty(self.folder):
            entries, size = scratch.usage(self.folder, entries=self.inodes, size=self.disk_mb << 20)
            scratch.empty(self.folder)
        return End(code, alive, cpu or 0.0, 0, entries, size)

    def watch(self) -> int:
        """The pid of the oldest child."""
        return self.children[0].process.pid if self.children else 0

    def close(self) -> None:
        """End all children."""
        while self.children:
            child = self.children[0]
            self.end(child)
            child.close()


_WAIT4 = hasattr(os, "wait4")


def _reap(process: subprocess.Popen[bytes], options: int) -> float | None:
    """CPU seconds of a process that has ended (0.0 where nobody says), None while it has not."""
    if not _WAIT4:
        return None if process.poll() is None else 0.0
    if process.returncode is not None:
        return 0.0
    found, status, usage = os.wait4(process.pid, options)
    if not found:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def main(arguments: list[str]) -> None:
    """Entry point of `boot.py spawning SPEC`: become one confined child."""
    import json

    from modern_rlhf.sandbox.runtime import child

    spec = json.loads(arguments[0])
    reading, writing = os.dup(0), os.dup(1)
    for path, number, flags in (
        (os.devnull, 0, os.O_RDONLY),
        (spec["out"], 1, os.O_WRONLY),
        (spec["err"], 2, os.O_WRONLY),
    ):
        fd = os.open(path, flags | _BINARY)
        os.dup2(fd, number)
        os.close(fd)
    confine.limit("RLIMIT_CORE", 0)
    confine.limit("RLIMIT_FSIZE", spec["file_mb"] << 20)
    from modern_rlhf.sandbox.runtime import candidate, probes, tester, tracing  # noqa: F401

    os.chdir(spec["scratch"])
    guard.install(spec["scratch"], confine.readable_paths(spec["extra"]))
    write_all(writing, pack({"ready": 1}))
    os._exit(child.main(reading, writing, spec["scratch"], None))
