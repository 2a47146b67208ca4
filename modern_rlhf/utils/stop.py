"""A polite stop: signals set a flag, loops look at it between steps.

A trainer that dies in the middle of a step loses it; one that finishes the step, writes a
checkpoint and leaves loses nothing. So the first SIGINT or SIGTERM only sets `requested`; a second
Ctrl-C raises `KeyboardInterrupt` for people who can't wait. Knows signals, not trainers.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_NOTICE = (
    "\n{name}: stopping after this step with a checkpoint; press Ctrl-C again to stop at once\n"
)


class StopFlag:
    """Context manager that turns SIGINT and SIGTERM into a flag.

    `requested` is what loops poll; `reason` is the signal's name, or what `request` was told.
    Python delivers signals to the main thread only: entered in another one, the flag installs no
    handler (`installed` stays False) and only `request` sets it. The previous handlers come back
    on exit.
    """

    def __init__(self) -> None:
        self.requested = False
        self.reason: str | None = None
        self.installed = False
        self._previous: dict[int, Any] = {}

    def request(self, reason: str = "stop requested") -> None:
        """Ask for a stop from code: a time limit, a test, a notebook's button."""
        self.requested = True
        self.reason = self.reason or reason

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            # A process started with `nohup` or in a shell's background ignores SIGINT on purpose.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._handle)
        self.installed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            # None: a handler that was not set from Python; it can't be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self.installed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.requested
        self.request(signal.Signals(number).name)
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not again:
            # `print` is not reentrant: a signal inside another print would raise; `write` is safe.
            os.write(2, _NOTICE.format(name=self.reason).encode())
