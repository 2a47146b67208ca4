"""The trainer's only contact: takes jobs, spreads them over workers, restarts what died.

Standard input carries job frames whose body is an 8-byte number and the job's JSON; standard output
the results in the same form, in the order they are ready. One thread a worker; the JSON itself is
passed through unread. The number `WITHDRAW` takes back jobs that nobody waits for. A judgement that
ended as `infra_error`, or whose worker died, is tried once more. When standard input ends - the trainer
closed it, or is gone - everything is taken down.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
import time
from typing import Any

from modern_rlhf.sandbox.runtime import scratch
from modern_rlhf.sandbox.runtime.frames import (
    WITHDRAW,
    FrameError,
    PeerClosed,
    pack,
    read_body,
    read_frame,
    unpack,
    write_all,
)

_NUMBER = struct.Struct(">q")
_HEAD = struct.Struct(">I")
_INFRA = b'{"verdict":"infra_error"'
_TRIES = 2
_LAST_SECONDS = 3.0
Job = tuple[bytes, bytes, int, bool]
"""Number, body, tries so far, and whether the last one died in a way that twice is the program's."""


class Worker:
    """One worker process and its pipes."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=os.sep,
            bufsize=0,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.jobs, self.results = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.hello: dict[str, Any] = {}

    def greet(self) -> None:
        """Wait until it is up and says what it is."""
        self.hello = read_frame(self.results)

    def judge(self, body: bytes) -> bytes:
        """Send a job's body, wait for the result's body."""
        write_all(self.jobs, _HEAD.pack(len(body)) + body)
        return read_body(self.results)

    def close(self) -> None:
        """Hang up, then kill."""
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        try:
            self.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Coordinator:
    """The queue between the trainer and the workers."""

    def __init__(self, spec: dict[str, Any], jobs: int, results: int) -> None:
        self.spec, self.jobs, self.results = spec, jobs, results
        self.queue: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.withdrawn: set[bytes] = set()
        self.lock = threading.Lock()
        self.live: dict[int, Worker] = {}
        self.closing = False

    def start_worker(self, index: int, *, probe: bool = False) -> Worker:
        """A new worker with an empty scratch folder of its own.

        Raises:
            PeerClosed, FrameError, OSError: it did not come up.
        """
        folder = os.path.join(self.spec["root"], str(index))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        scratch.empty(folder)
        spec = {**self.spec, "scratch": folder, "probe": probe}
        command = [*self.spec["python"], self.spec["boot"], "worker", json.dumps(spec)]
        with self.lock:  # known before it is up, so that `close` finds it in any case
            if self.closing:
                raise PeerClosed("closing")
            worker = self.live[index] = Worker(command, self.spec["environment"])
        worker.greet()
        return worker

    def send(self, number: bytes, body: bytes) -> None:
        """One result to the trainer."""
        data = number + body
        with self.lock:
            write_all(self.results, _HEAD.pack(len(data)) + data)

    def serve(self, index: int, worker: Worker | None) -> None:
        """The thread of one worker."""
        while True:
            number, body, tries, suspect = self.queue.get()
            if number in self.withdrawn:
                self.withdrawn.discard(number)
                continue
            result = b""
            try:
                worker = worker or self.start_worker(index)
                if "failed" in worker.hello:
                    raise PeerClosed(str(worker.hello["failed"]))
                result = worker.judge(body)
            except (PeerClosed, FrameError, OSError) as error:
                if worker is not None:
                    worker.close()
                    worker = None
                result = pack({"verdict": "infra_error", "message": f"worker lost: {error}"})[4:]
            if self.closing:
                return
            if result.startswith(_INFRA):
                data = unpack(result)
                second = data.pop("again", "")
                if tries + 1 < _TRIES:
                    self.queue.put((number, body, tries + 1, bool(second)))
                    continue
                data["verdict"] = second if second and suspect else data["verdict"]
                result = pack(data)[4:]
            try:
                self.send(number, result)
            except PeerClosed:
                return

    def run(self) -> None:
        """Until the trainer hangs up; whatever happens, nothing is left behind."""
        try:
            self._serve_all()
        finally:
            self.close()

    def _serve_all(self) -> None:
        count = int(self.spec["workers"])
        first: Worker | None = None
        try:
            first = self.start_worker(0, probe=True)
            hello = first.hello
        except (PeerClosed, FrameError, OSError) as error:
            hello = {"failed": f"no worker came up: {error}"}
        with contextlib.suppress(PeerClosed):  # the trainer may be gone before this is up
            write_all(self.results, pack(hello))
            if "failed" in hello:
                return
            threading.Thread(target=self._watch_parent, daemon=True).start()
            for index in range(count):
                worker = first if index == 0 else None
                thread = threading.Thread(target=self._thread, args=(index, worker), daemon=True)
                thread.start()
            while True:
                body = read_body(self.jobs)
                number, body = body[:8], body[8:]
                if number == _NUMBER.pack(WITHDRAW):
                    self.withdrawn.update(map(_NUMBER.pack, json.loads(body)))
                else:
                    self.queue.put((number, body, 0, False))

    def _watch_parent(self) -> None:
        """A fork of the trainer may hold the pipe open after the trainer is gone."""
        while os.getppid() == self.spec["trainer"]:
            time.sleep(1.0)
        self.close()
        os._exit(0)

    def _thread(self, index: int, worker: Worker | None) -> None:
        with contextlib.suppress(PeerClosed, FrameError, OSError):
            worker = worker or self.start_worker(index)
        self.serve(index, worker)

    def close(self) -> None:
        """Take everything down."""
        with self.lock:
            self.closing = True
            workers = list(self.live.values())
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.wait()
        root = self.spec["root"]
        deadline = time.monotonic() + _LAST_SECONDS
        while os.path.isdir(root) and time.monotonic() < deadline:
            scratch.empty(root)
            with contextlib.suppress(OSError):
                os.rmdir(root)
                return
            time.sleep(0.02)  # a program that dies with its zygote may still be writing


def main(arguments: list[str]) -> None:
    """Entry point of `boot.py coordinator SPEC`."""
    spec = json.loads(arguments[0])
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    jobs, results = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    spec["python"] = [sys.executable, "-s", "-S", "-X", "utf8"]
    Coordinator(spec, jobs, results).run()
    os._exit(0)
