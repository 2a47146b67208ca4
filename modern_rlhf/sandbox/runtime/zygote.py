"""A clean process that forks confined children; it never holds a test, a program or a result.

Whatever a process holds leaks into its forks, so this one is exec'ed with a scrubbed environment and
knows nothing but its limits. The worker speaks to it over a local socket, one byte a request:

    F + descriptors   fork a child with these as stdout, stderr, requests, replies (and two more)
    E                   end the oldest child: kill, reap, empty the scratch; answers `END`
    W                   the oldest child's pid, with a pidfd where the system has them

When the socket closes, it kills its children and leaves.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import struct
import sys
import traceback
from typing import Any, NoReturn

from modern_rlhf.sandbox.runtime import confine, namespaces, scratch
from modern_rlhf.sandbox.runtime.frames import pack, read_frame, write_all

END = struct.Struct("<idqqq")
"""wait status, CPU seconds, peak KiB, entries and bytes left in the scratch folder."""
PID = struct.Struct("<i")

CONTROL = 200
"""Descriptor numbers from here on are the zygote's own; children close them."""

# loaded once so that programs import them for free
PRELOAD = (
    "abc array bisect cmath collections.abc contextlib copy dataclasses datetime decimal enum "
    "fractions functools hashlib heapq io itertools json math operator queue random re statistics "
    "string struct textwrap threading time traceback typing unittest"
)


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
            file_mb=spec["file_mb"],
        )

    def settle(self) -> None:
        """Finish confinement, in the pid namespace if there is one, and say hello."""
        if self.made.namespaced:
            child = os.fork()
            if child:
                self.control.sendall(pack({"pid": child}))
                os._exit(0)
        else:
            self.control.sendall(pack({"pid": os.getpid()}))
        try:
            confine.finish(
                self.made, self.libc, disk_mb=self.spec["disk_mb"], inodes=self.spec["inodes"]
            )
        except OSError as error:
            self.control.sendall(pack({"failed": f"no namespaces: {error.strerror or error}"}))
            os._exit(0)
        if self.made.rules >= 0:
            moved = CONTROL + 1
            os.dup2(self.made.rules, moved)
            os.close(self.made.rules)
            self.made.rules = moved
        if self.made.level == 0:
            confine.adopt_orphans(self.libc)
        folder = self.made.scratch
        os.environ.update(HOME=folder, TMPDIR=folder, TEMP=folder, TMP=folder)
        os.chdir(folder)
        for name in PRELOAD.split():
            __import__(name)
        sys.dont_write_bytecode = True
        hello = {"level": self.made.level, "reasons": self.made.reasons, "scratch": folder}
        self.control.sendall(pack(hello))
        read_frame(self.control.fileno())  # the launcher is reaped: our parent is the worker now
        confine.die_with_parent(self.libc)

    def serve(self) -> NoReturn:
        """Requests until the worker hangs up."""
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

    def end(self) -> bytes:
        """Kill and reap the oldest child and all it left."""
        pid = self.children.pop(0)
        if pid < 0:
            return END.pack(-1, 0.0, 0, 0, 0)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        if self.made.level == 0:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        if self.made.level == 0:
            self._reap_orphans()
        entries, size = self._clean()
        seconds = usage.ru_utime + usage.ru_stime
        return END.pack(status, seconds, usage.ru_maxrss, entries, size)

    def _clean(self) -> tuple[int, int]:
        folder = self.made.scratch
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
        socket.send_fds(self.control, [PID.pack(pid)], fds)
        for fd in fds:
            os.close(fd)

    def quit(self) -> NoReturn:
        """Kill the children and leave."""
        while self.children:
            self.end()
        os._exit(0)


def become_child(zygote: Zygote, fds: list[int]) -> NoReturn:
    """In the child: descriptors 0-4, confinement, then the one job that comes."""
    code = 70
    try:
        # 1 stdout, 2 stderr, 3 requests, 4 replies, and what else was passed
        base, count = CONTROL + 10, len(fds)
        for offset, fd in enumerate(fds):
            os.dup2(fd, base + offset)
        for offset in range(count):
            os.dup2(base + offset, 1 + offset)
        rules = zygote.made.rules
        os.closerange(1 + count, rules if rules >= 0 else 1024)
        if rules >= 0:
            os.closerange(rules + 1, 1024)
        zygote.made.child(zygote.libc)
        if rules >= 0:
            os.close(rules)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        from modern_rlhf.sandbox.runtime import child

        libc, folder = zygote.libc, zygote.made.scratch
        write_all(4, pack({"ready": 1}))
        del zygote
        code = child.main(3, 4, folder, libc)
    except BaseException as error:
        _explain(error)
        code = 70
    finally:
        os._exit(code)


def _explain(error: BaseException) -> None:
    """Leave on standard error what went wrong in the harness."""
    with contextlib.suppress(BaseException):
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
    from modern_rlhf.sandbox.runtime import candidate, child, tester  # noqa: F401 - for the children

    zygote = Zygote(control, spec)
    del spec, arguments[:]
    zygote.settle()
    zygote.serve()
