"""One interpreter with all imports, from which the tests of resume and of several processes fork runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


class Nursery:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("processes_nursery.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start(self, count: int, kind: str, folder: Path, *flags: str) -> list[int]:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join([str(count), kind, str(folder), *flags]) + "\n")
        self.process.stdin.flush()
        return [int(pid) for pid in self.line().split()]

    def codes(self) -> list[int]:
        return [int(code) for code in self.line().split()]

    def run(self, count: int, kind: str, folder: Path, *flags: str) -> None:
        self.start(count, kind, folder, *flags)
        codes = self.codes()
        texts = [path.read_text()[-2000:] for path in sorted(folder.glob("output-*"))]
        assert codes == [0] * count, texts

    def kill_after_step(self, count: int, kind: str, folder: Path, step: int, *flags: str) -> None:
        """Start a run, wait until every process has paused after `step`, SIGKILL them there."""
        children = self.start(count, kind, folder, "--pause-after", str(step), *flags)
        marks = [folder / f"paused{rank or ''}" for rank in range(count)]
        deadline = time.monotonic() + 250
        while not all(mark.exists() for mark in marks):
            assert time.monotonic() < deadline, (folder / "output-0").read_text()
            time.sleep(0.02)
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        assert self.codes() == [-signal.SIGKILL] * count


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    if os.name == "nt":
        pytest.skip("Windows has neither fork nor SIGKILL")
    nursery = Nursery()
    yield nursery
    nursery.process.kill()
    nursery.process.communicate()
