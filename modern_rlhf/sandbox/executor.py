"""`SandboxExecutor`: judges generated programs in processes the trainer never forks.

The trainer starts one clean interpreter (exec, never a fork of its own memory), the coordinator,
and speaks to it over pipes in JSON frames. The coordinator owns the workers, which own everything
else (`runtime/`). If the trainer dies, the pipe ends and all of it goes. If the coordinator dies,
the executor starts another and hands in again what had no result yet.
It is longer than 350 lines because start, restart and shutdown of one child are one state.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, get_args

from modern_rlhf.errors import SandboxError
from modern_rlhf.records import TestMode
from modern_rlhf.sandbox.doctor import SandboxReport
from modern_rlhf.sandbox.runtime.frames import (
    MAX_JOB,
    WITHDRAW,
    FrameError,
    PeerClosed,
    read_body,
    unpack,
    write_all,
)
from modern_rlhf.sandbox.scripted import ScriptedExecutor
from modern_rlhf.sandbox.types import (
    TRANSPORTS,
    VERDICTS,
    ExecutionResult,
    Executor,
    Program,
    Progress,
    Trace,
)
from modern_rlhf.utils.hardware import usable_cores

__all__ = ["Executor", "SandboxExecutor", "ScriptedExecutor"]

MODES = get_args(TestMode)
_HEAD = struct.Struct(">I")
_NUMBER = struct.Struct(">q")
_RESTARTS = 3
_START_SECONDS = 180.0
_BOOT = str(Path(__file__).with_name("runtime") / "boot.py")


_LARGEST = MAX_JOB - 1024  # bytes of one job; the coordinator reads no longer frame
_TOO_LARGE = {
    "verdict": "infra_error",
    "message": f"program and tests together are longer than {_LARGEST >> 20} MiB",
}


class _Batch:
    """One call of `run`: what is wanted and what has come."""

    def __init__(self, jobs: list[bytes]) -> None:
        self.jobs = jobs
        self.results: list[dict[str, Any] | None] = [
            _TOO_LARGE if len(job) > _LARGEST else None for job in jobs
        ]
        self.left = self.results.count(None)
        self.failure = ""


class SandboxExecutor:
    """Runs programs against tests in isolated processes; see `docs/sandbox.md`.

    Args:
        workers: judgements at a time; None takes one a processor.
        timeout: CPU seconds a program, unless the program has its own.
        memory_mb: address space of a candidate in MiB.
        output_limit: bytes of stdout and stderr; more is the verdict `output`.
        min_layer: refuse to start when the machine's isolation is weaker (0, 1 or 2).
        max_layer: use no stronger isolation than this; for tests and for comparing layers.
        disk_mb: scratch space of a candidate in MiB.
        files: entries the scratch folder may hold.
        packages: folders added to the programs' `sys.path`, readable to them (e.g. for numpy, which
            wants `memory_mb=768`).
        fork: False starts an interpreter a program, as on platforms that cannot fork; for tests.

    Usable from several threads. Not usable after a fork in the child, and not picklable.

    Raises:
        SandboxError: the isolation is below `min_layer`, or no worker comes up.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        timeout: float = 3.0,
        memory_mb: int = 512,
        output_limit: int = 1 << 20,
        min_layer: int = 0,
        max_layer: int = 2,
        disk_mb: int = 64,
        files: int = 2048,
        packages: Sequence[str] = (),
        fork: bool | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise SandboxError(
                f"workers={workers}: at least 1 is needed; leave it out for one a core"
            )
        if timeout <= 0 or memory_mb < 32 or output_limit < 0 or disk_mb < 1 or files < 16:
            raise SandboxError(
                f"timeout={timeout}, memory_mb={memory_mb}, output_limit={output_limit}, "
                f"disk_mb={disk_mb}, files={files}: expected timeout > 0, memory_mb >= 32, "
                "output_limit >= 0, disk_mb >= 1 and files >= 16"
            )
        if not 0 <= min_layer <= 2 or not 0 <= max_layer <= 2:
            raise SandboxError(
                f"min_layer={min_layer}, max_layer={max_layer}: layers are 0, 1 and 2"
            )
        self.workers = workers or usable_cores() or 1
        self.timeout = float(timeout)
        self.min_layer = min_layer
        self._spec: dict[str, Any] = {
            "workers": self.workers,
            "memory_mb": memory_mb,
            "output_limit": output_limit,
            "min_layer": min_layer,
            "highest": max_layer,
            "disk_mb": disk_mb,
            "inodes": files,
            "file_mb": 8,
            "extra": [os.path.abspath(path) for path in packages],
            "boot": _BOOT,
            "fork": hasattr(os, "fork") if fork is None else fork,
        }
        self._lock = threading.Condition()
        self._sending = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._root = ""
        self._results: IO[bytes] | None = None
        self._reader: threading.Thread
        self._waiting: dict[int, tuple[_Batch, int]] = {}
        self._count = 0
        self._restarts = 0
        self._generation = 0
        self._closed = False
        self._pid = os.getpid()
        with self._lock:
            self._start()
        _OPEN.add(self)

    # -- the coordinator ---------------------------------------------------------------------

    def _start(self) -> None:
        """Start a coordinator and its reader thread; the lock is held."""
        root = tempfile.mkdtemp(prefix=f"modern-rlhf-sandbox-{os.getpid()}-")
        environment = {"LANG": "C.UTF-8", "PATH": os.defpath, "TMPDIR": root}
        if "SYSTEMROOT" in os.environ:
            environment["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
        spec = {**self._spec, "root": root, "environment": environment, "trainer": os.getpid()}
        executable = getattr(sys, "_base_executable", None) or sys.executable
        process: subprocess.Popen[bytes] | None = None
        try:
            process = subprocess.Popen(
                [executable, "-I", "-S", "-X", "utf8", _BOOT, "coordinator", json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is the trainer's to handle
            )
            patience = threading.Timer(_START_SECONDS, process.kill)
            patience.daemon = True
            patience.start()
            assert process.stdin is not None and process.stdout is not None
            try:
                hello = unpack(read_body(process.stdout.fileno()))
            finally:
                patience.cancel()
        except BaseException as error:
            if process is not None:
                _end(process, seconds=0.0)
            _remove(root)
            if not isinstance(error, (OSError, PeerClosed, FrameError)):
                raise  # Ctrl-C while it starts
            raise SandboxError(
                f"the sandbox did not start: {error}; `modern-rlhf doctor` shows what is missing"
            ) from None
        if "failed" in hello:
            _end(process, seconds=5.0)
            _remove(root)
            raise SandboxError(
                f"the sandbox did not start: {hello['failed']}; expected isolation of at least "
                f"layer {self.min_layer}; lower reward.execution_min_layer or see `modern-rlhf doctor`"
            )
        self._process, self._root, self._results = process, root, process.stdout
        self._generation += 1
        self.report = SandboxReport.from_probes(
            layer=int(hello["layer"]), reasons=hello["reasons"], probes=hello["probes"]
        )
        if self.report.level < self.min_layer:
            self._process = None
            _end(process, seconds=5.0)
            _remove(root)
            raise SandboxError(
                f"isolation is layer {self.report.level}, reward.execution_min_layer asks for "
                f"{self.min_layer}: {'; '.join(self.report.gaps) or 'no reason known'}; lower "
                "it or run where user namespaces, Landlock and seccomp are allowed"
            )
        reader = threading.Thread(
            target=_read_results,
            args=(weakref.ref(self), process.stdout.fileno(), self._generation),
            name="sandbox-results",
            daemon=True,
        )
        reader.start()
        self._reader = reader

    @property
    def layer(self) -> int:
        """The isolation programs run under."""
        return self.report.level

    def _hang_up(self, process: subprocess.Popen[bytes], *, seconds: float) -> None:
        """End a coordinator; it is killed after so many seconds."""
        if not self._sending.acquire(timeout=seconds):
            process.kill()  # whoever sends to it now stops
            self._sending.acquire()
        try:
            _hang_up(process, seconds=seconds)
        finally:
            self._sending.release()

    def _lost(self, generation: int) -> None:
        """The reader thread saw the end of the results."""
        with self._lock:
            if self._closed or generation != self._generation:
                return
            process = self._process
            if process is not None:
                self._process = None
                self._hang_up(process, seconds=0.0)
                if process.stdout is not None:
                    process.stdout.close()
            _remove(self._root)
            self._restarts += 1
            waiting = list(self._waiting.items())
            try:
                if self._restarts > _RESTARTS:
                    raise SandboxError("the sandbox's coordinator died again and again")
                self._start()
                frames = [(n, batch.jobs[i]) for n, (batch, i) in waiting]
            except (SandboxError, OSError, RuntimeError) as error:  # no disk, no process, no thread
                for batch, _ in self._waiting.values():
                    batch.failure = str(error)
                self._waiting.clear()
                self._lock.notify_all()
                return
        self._send(frames)

    def _send(self, frames: Iterable[tuple[int, bytes]]) -> None:
        """Hand jobs in; a coordinator that died is noticed by the reader."""
        with self._sending:
            process = self._process
            if process is None or process.stdin is None:
                return
            with contextlib.suppress(PeerClosed, ValueError):
                fd = process.stdin.fileno()
                for number, body in frames:
                    write_all(fd, _HEAD.pack(len(body) + 8) + _NUMBER.pack(number) + body)

    def _received(self, body: bytes) -> None:
        (number,) = _NUMBER.unpack_from(body)
        result = unpack(body[8:])
        with self._lock:
            self._restarts = 0
            found = self._waiting.pop(number, None)
            if found is None:
                return
            batch, index = found
            batch.results[index] = result
            batch.left -= 1
            self._lock.notify_all()

    # -- the protocol ------------------------------------------------------------------------

    def run(
        self, programs: Sequence[Program], *, progress: Progress | None = None
    ) -> list[ExecutionResult]:
        """Judge each program; results in the order of `programs`.

        A program whose judgement the executor could not make has the verdict `infra_error`.

        Raises:
            SandboxError: the executor is closed, its coordinator cannot be started again, or a
                program's fields cannot be used.
        """
        if self._pid != os.getpid():  # before any lock: a thread of the parent may have held it
            raise SandboxError("the executor belongs to the process that made it; make a new one")
        batch = _Batch([self._job(program) for program in programs])
        with self._lock:
            if self._closed:
                raise SandboxError("the executor is closed; make a new one")
            if self._process is None:  # it died too often in an earlier batch; try once more
                self._restarts = 0
                self._start()
            frames = []
            for index, job in enumerate(batch.jobs):
                if batch.results[index] is None:
                    self._waiting[self._count] = (batch, index)
                    frames.append((self._count, job))
                    self._count += 1
        try:
            self._send(frames)
            self._wait(batch, progress)
        except BaseException:  # Ctrl-C, or `progress` raised: nobody waits for the rest
            self._abandon(batch)
            raise
        return [_result(data, batch.failure, self.layer) for data in batch.results]

    def _wait(self, batch: _Batch, progress: Progress | None) -> None:
        reported = 0
        with self._lock:
            while batch.left and not batch.failure:
                self._lock.wait()
                done = len(batch.jobs) - batch.left
                if progress is not None and done > reported:
                    reported = done
                    self._lock.release()
                    try:
                        progress(done, len(batch.jobs))
                    finally:
                        self._lock.acquire()

    def _abandon(self, batch: _Batch) -> None:
        """Take what has not begun out of the queue; what is being judged ends by its limits."""
        with self._lock:
            numbers = [n for n, (owner, _) in self._waiting.items() if owner is batch]
            for number in numbers:
                del self._waiting[number]
        self._send([(WITHDRAW, json.dumps(numbers).encode("ascii"))])

    def _job(self, program: Program) -> bytes:
        if program.mode not in MODES or program.transport not in TRANSPORTS:
            raise SandboxError(
                f"Program.mode={program.mode!r}, transport={program.transport!r}: expected a mode "
                f"of {MODES} and a transport of {TRANSPORTS}"
            )
        timeout = self.timeout if program.timeout is None else float(program.timeout)
        if not timeout > 0:
            raise SandboxError(f"Program.timeout={timeout}: expected CPU seconds > 0")
        tests = program.tests if isinstance(program.tests, str) else list(program.tests)
        job = {
            "code": program.code,
            "tests": tests,
            "entry_point": program.entry_point,
            "mode": program.mode,
            "setup": program.setup,
            "timeout": timeout,
            "transport": program.transport,
            "trace": program.trace,
        }
        return json.dumps(job, ensure_ascii=True, separators=(",", ":")).encode("ascii")

    def close(self) -> None:
        """End all processes; safe to call twice, from `atexit`, and in a fork (where it does nothing)."""
        if self._pid != os.getpid():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            process, self._process = self._process, None
            for batch, _ in self._waiting.values():
                batch.failure = "the executor was closed"
            self._waiting.clear()
            self._lock.notify_all()
        if process is not None:  # without the lock: the reader takes what is still coming
            self._hang_up(process, seconds=5.0)
            _remove(self._root)
        if threading.current_thread() is not self._reader:
            self._reader.join(timeout=5.0)  # it sees the end of the pipe; then that can be closed
            if self._results is not None:
                self._results.close()
        _OPEN.discard(self)

    def _forget(self) -> None:
        """In a fork of the trainer: let go of the pipes, so that their ends are the trainer's alone."""
        process, self._process, self._closed = self._process, None, True
        if process is not None:
            process.returncode = 0  # not this process's child to wait for
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()

    def __enter__(self) -> SandboxExecutor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a SandboxExecutor holds processes and cannot be pickled")


_OPEN: weakref.WeakSet[SandboxExecutor] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for executor in list(_OPEN):
        executor.close()


def _forget_all() -> None:
    for executor in list(_OPEN):
        executor._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _hang_up(process: subprocess.Popen[bytes], *, seconds: float) -> None:
    """Close the coordinator's input, which ends it; kill it after so many seconds."""
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end(process: subprocess.Popen[bytes], *, seconds: float) -> None:
    """Hang up, and close what nobody reads any more."""
    _hang_up(process, seconds=seconds)
    with contextlib.suppress(OSError):
        if process.stdout is not None:
            process.stdout.close()


def _read_results(owner: weakref.ref[SandboxExecutor], fd: int, generation: int) -> None:
    """The reader thread: results until the coordinator's pipe ends."""
    while True:
        try:
            body = read_body(fd)
        except (PeerClosed, FrameError):
            body = b""
        executor = owner()
        if executor is None:
            return
        try:
            if body:
                executor._received(body)
        except (FrameError, struct.error):  # not a result: whoever wrote it is not to be trusted
            body = b""
        if not body:
            executor._lost(generation)
            return
        del executor


def _remove(root: str) -> None:
    """Delete a scratch root, whatever is left in it."""
    from modern_rlhf.sandbox.runtime import scratch

    if root and os.path.isdir(root):
        scratch.empty(root)
        with contextlib.suppress(OSError):
            os.rmdir(root)


def _result(data: dict[str, Any] | None, failure: str, layer: int) -> ExecutionResult:
    if data is None:
        return ExecutionResult("infra_error", message=failure or "no result came")
    known = dict(data)
    trace = known.pop("trace", None)
    if known["verdict"] not in VERDICTS:
        return ExecutionResult("infra_error", message=f"unknown verdict {known['verdict']!r}")
    if trace:
        known["trace"] = Trace(
            executable=tuple(trace["executable"]),
            executed=tuple(sorted(trace["executed"])),
            failing=trace["failing"],
        )
    known["layer"] = min(layer, known.get("layer", -1))  # never more than the probes confirmed
    return ExecutionResult(**known)
