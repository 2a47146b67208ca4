"""Length-prefixed JSON frames between the sandbox's processes, never pickle.

A frame is a 4-byte big-endian length and that many bytes of ASCII JSON (lone surrogates survive as
escapes). The reader takes a limit: a peer that announces more is broken or hostile and the
connection is given up, nothing is buffered for it.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any

MAX_JOB = 64 << 20
"""Bytes of a frame between trusted processes: a program with its tests."""
MAX_REPLY = 4 << 20
"""Bytes of a frame that comes from a candidate."""

WITHDRAW = -1
"""In place of a job's number: the body lists numbers of jobs that nobody waits for any more."""

_HEAD = struct.Struct(">I")
_encode = json.JSONEncoder(ensure_ascii=True, check_circular=False, separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


class FrameError(Exception):
    """The peer broke the protocol: too long, not JSON, too deep."""


class PeerClosed(Exception):
    """The peer closed its end, most often because it died."""


class DeadlinePassed(Exception):
    """No whole frame arrived in time."""


def pack(message: Any) -> bytes:
    """One frame as bytes."""
    body = _encode(message).encode("ascii")
    return _HEAD.pack(len(body)) + body


def unpack(body: bytes) -> Any:
    """The message in a frame's body.

    Raises:
        FrameError: not JSON, integers beyond the digit limit, or nested too deeply.
    """
    try:
        return _decode(body.decode("ascii"))
    except (ValueError, RecursionError, MemoryError) as error:
        raise FrameError(f"unreadable frame: {type(error).__name__}") from None


def write_all(fd: int, data: bytes) -> None:
    """Write everything to a blocking descriptor.

    Raises:
        PeerClosed: nobody reads at the other end.
    """
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise PeerClosed(str(error)) from None


def write_frame(fd: int, message: Any) -> None:
    """Pack and write one frame to a blocking descriptor."""
    write_all(fd, pack(message))


def read_exactly(fd: int, size: int) -> bytes:
    """Read `size` bytes from a blocking descriptor.

    Raises:
        PeerClosed: end of file came first.
    """
    chunks = []
    while size:
        try:
            chunk = os.read(fd, min(size, 1 << 20))
        except OSError as error:
            raise PeerClosed(str(error)) from None
        if not chunk:
            raise PeerClosed("end of file")
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def read_body(fd: int, limit: int = MAX_JOB) -> bytes:
    """The body of the next frame, blocking, no deadline.

    Raises:
        PeerClosed, FrameError: end of file; a frame longer than `limit`.
    """
    (size,) = _HEAD.unpack(read_exactly(fd, 4))
    if size > limit:
        raise FrameError(f"frame of {size} bytes, at most {limit} are read")
    return read_exactly(fd, size)


def read_frame(fd: int, limit: int = MAX_JOB) -> Any:
    """The next message, blocking, no deadline."""
    return unpack(read_body(fd, limit))


def own_seconds() -> float:
    """CPU seconds of this process and, on Linux, those its main thread waited for a processor."""
    try:
        with open("/proc/self/schedstat", encoding="ascii") as text:
            ran, waited, _ = text.read().split()
        return (int(ran) + int(waited)) / 1e9
    except (OSError, ValueError):
        return time.process_time()


class FrameReader:
    """Frames out of a stream that may stop anywhere: one deadline for the whole frame.

    The bytes held never exceed `limit` plus one read; `total` counts all bytes taken in, so that a
    caller can bound a flood of small frames. `excused` are the seconds in which this process, not the
    peer, was the slow one: it read, decoded and judged what had come, or was ready to.
    """

    def __init__(self, fd: int, *, limit: int) -> None:
        self.fd = fd
        self.limit = limit
        self.total = 0
        self.excused = 0.0
        self._mark: float | None = None
        self._buffer = bytearray()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN | select.POLLHUP)

    def buffered(self) -> Any:
        """A whole message already read, or None.

        Raises:
            FrameError: the frame is too long or unreadable.
        """
        buffer = self._buffer
        if len(buffer) < 4:
            return None
        (size,) = _HEAD.unpack_from(buffer)
        if size > self.limit:
            raise FrameError(f"frame of {size} bytes, at most {self.limit} are read")
        if len(buffer) < 4 + size:
            return None
        body = bytes(buffer[4 : 4 + size])
        del buffer[: 4 + size]
        return unpack(body)

    def next(self, deadline: float) -> Any:
        """The next message, waiting until `time.monotonic()` reaches `deadline`.

        Raises:
            DeadlinePassed, PeerClosed, FrameError: see the names.
        """
        while True:
            message = self.buffered()
            if message is not None:
                return message
            if self._mark is not None:  # since data came
                self.excused += own_seconds() - self._mark
            left = deadline - time.monotonic()
            self._mark = own_seconds() if self.total else None
            if not self._poll.poll(max(0, left) * 1000 if left < 3600 else None):
                self._mark = None
                raise DeadlinePassed
            try:
                chunk = os.read(self.fd, 1 << 16)
            except OSError as error:
                raise PeerClosed(str(error)) from None
            if not chunk:
                raise PeerClosed("end of file")
            self.total += len(chunk)
            self._buffer += chunk
