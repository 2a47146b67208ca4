"""Beginnings and ends of the sandbox's processes: failed starts, forks of the trainer, early deaths."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from test_sandbox_executor import ADD, TESTS, born, descendants, role, survivors

from modern_rlhf.errors import SandboxError
from modern_rlhf.sandbox import executor as module
from modern_rlhf.sandbox.executor import SandboxExecutor
from modern_rlhf.sandbox.runtime.frames import FrameError
from modern_rlhf.sandbox.types import Program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, forks")


@pytest.mark.parametrize("start", ["import sys; sys.exit(3)", "print('no frame at all')"])
def test_a_start_that_fails_leaves_nothing(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot.py"
    boot.write_text(start)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(module, "_BOOT", str(boot))
    monkeypatch.setattr(module.tempfile, "tempdir", str(scratch))
    files, family = os.listdir("/proc/self/fd"), set(descendants(os.getpid()))
    with pytest.raises(SandboxError, match="did not start"):
        SandboxExecutor(workers=1)
    assert set(descendants(os.getpid())) <= family and not os.listdir(scratch)
    assert len(os.listdir("/proc/self/fd")) <= len(files)


def test_a_trainer_that_dies_during_the_start_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    spec = {"root": str(root), "environment": {"PATH": os.defpath, "TMPDIR": str(root)}, "workers": 1,
            "memory_mb": 512, "output_limit": 1000, "min_layer": 0, "highest": 2, "disk_mb": 8,
            "inodes": 64, "file_mb": 8, "extra": [], "boot": module._BOOT, "fork": True,
            "trainer": os.getpid()}  # fmt: skip
    started = subprocess.Popen(
        [sys.executable, "-I", "-S", module._BOOT, "coordinator", json.dumps(spec)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert started.stdin is not None and started.stdout is not None
    started.stdin.close()
    started.stdout.close()  # nobody will read that it is up
    family: list[tuple[int, str]] = []
    while started.poll() is None:
        family += [(pid, born(pid)) for pid in descendants(started.pid)]
        time.sleep(0.02)
    assert survivors(family) == [] and not root.exists()


@pytest.mark.parametrize(
    "end",
    ["", *(pytest.param(end, marks=pytest.mark.slow)
           for end in ("raise SystemExit(3)", "os.kill(os.getpid(), 15)"))],
)  # fmt: skip
def test_a_trainer_that_just_ends_leaves_nothing(end: str, tmp_path: Path) -> None:
    script = (
        "import os, threading, time\nfrom modern_rlhf.sandbox.executor import SandboxExecutor, Program\n"
        "e = SandboxExecutor(workers=1)\n"
        f"print(e.run([Program({ADD!r}, {TESTS!r})])[0].verdict, flush=True)\n{end}\n"
    )
    trainer = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert trainer.stdout is not None
    with trainer.stdout:
        assert trainer.stdout.readline() == b"pass\n"
        family = [(pid, born(pid)) for pid in descendants(trainer.pid)]
        trainer.wait(timeout=60)
    assert survivors(family) == []
    deadline = time.monotonic() + 90
    while os.listdir(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert os.listdir(tmp_path) == []


def test_a_fork_of_the_trainer_has_no_part_in_the_executor() -> None:
    with SandboxExecutor(workers=1) as executor:
        assert executor._process is not None and executor._process.stdin is not None
        pipes = [executor._process.stdin.fileno()]
        # the worst moment: another thread of the trainer holds the lock while it forks
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with executor._lock:
                held.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # rather than to wait for a lock for ever
            code = 1
            with contextlib.suppress(BaseException):
                executor.close()
                executor.__del__()
                try:
                    executor.run([Program(ADD, TESTS)])
                except SandboxError:
                    code = 2
                for fd in pipes:
                    try:
                        os.fstat(fd)
                        code = 3
                    except OSError:
                        continue
            os._exit(code)
        done.set()
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
        assert executor.run([Program(ADD, TESTS)])[0].verdict == "pass"


@pytest.mark.parametrize("trouble", [pytest.param("garbage", marks=pytest.mark.slow), "no folder"])
def test_trouble_in_the_reader_ends_a_batch_and_does_not_hang_it(
    trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SandboxExecutor(workers=1) as executor:
        with monkeypatch.context() as patch:
            if trouble == "garbage":
                patch.setattr(module, "unpack", garbage(module.unpack))
            else:
                patch.setattr(module.tempfile, "mkdtemp", full_disk)
                assert executor._process is not None
                executor._process.kill()
            (lost,) = executor.run([Program(ADD, TESTS)])
            assert lost.verdict == "infra_error" and lost.message
        assert executor.run([Program(ADD, TESTS)])[0].verdict == "pass"


def garbage(unpack: Any) -> Any:
    """Results cannot be read; the greeting of a coordinator can."""

    def read(body: bytes) -> Any:
        found = unpack(body)
        if "verdict" in found:
            raise FrameError("unreadable frame: ValueError")
        return found

    return read


def full_disk(**_: object) -> str:
    raise OSError(28, "No space left on device")


def test_closing_in_the_middle_of_a_batch_ends_it() -> None:
    executor = SandboxExecutor(workers=1)
    found: list[str] = []
    slow = [Program("import time\ntime.sleep(0.1)\n" + ADD, TESTS)] * 200

    def work() -> None:
        found.extend(result.verdict for result in executor.run(slow))

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.4)
    family = [(pid, born(pid)) for pid in descendants(os.getpid()) if role(pid)]
    executor.close()
    thread.join(timeout=60)
    assert not thread.is_alive() and len(found) == 200
    assert set(found) <= {"pass", "infra_error"} and found[-1] == "infra_error"
    assert survivors(family) == []


@pytest.mark.slow
def test_a_lost_zygote_leaves_no_zombie_behind() -> None:
    with SandboxExecutor(workers=1) as executor:
        for _ in range(3):
            assert executor.run([Program(ADD, TESTS)])[0].verdict == "pass"
            mine = descendants(os.getpid())
            worker = next(pid for pid in mine if role(pid) == "worker")
            zygote = next(pid for pid in descendants(worker) if role(pid) == "zygote")
            os.kill(zygote, 9)
        executor.run([Program(ADD, TESTS)] * 5)
        states = [
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            for pid in descendants(worker)
            if Path(f"/proc/{pid}/stat").exists()
        ]
        assert states.count("Z") <= 1  # one that ended a moment ago
