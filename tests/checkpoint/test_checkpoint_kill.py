"""SIGKILL at any moment of a save, two processes on one folder: real processes and signals."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from modern_rlhf.checkpoint.store import CheckpointStore, verify
from modern_rlhf.errors import OutputError
from modern_rlhf.utils.lock import RunLock, is_locked, process_exists, read_owner

REPOSITORY = Path(__file__).resolve().parents[2]

# One interpreter imports torch, then forks a fresh process for every attempt and says how it ended.
NURSERY = """
import os, signal, sys
from pathlib import Path
import torch
from modern_rlhf.checkpoint.store import CheckpointStore
from modern_rlhf.tracking import RunTracker
from modern_rlhf.utils.lock import RunLock

def train(folder):
    with RunLock(folder), RunTracker(folder) as tracker:
        store = CheckpointStore(folder)
        loaded = store.load_latest()
        step = loaded.step if loaded else 0
        if loaded:
            tracker.truncate_to(loaded.state["log"])
        print("ready", flush=True)
        while True:
            step += 1
            tracker.log("sft", step, {"loss": 1 / step})
            weights = torch.randn(50_000, generator=torch.Generator().manual_seed(step))
            state = {"model": {"w": weights}, "log": tracker.offsets()}
            store.save(step, state, metric=1.0 if step == 3 else 0.0)

def save_with_a_kill(folder, step, left):
    # SIGKILL instead of the call number `left` among those that make a save durable and visible.
    store = CheckpointStore(folder, keep_best=False)
    for name in ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink"):
        def call(*arguments, real=getattr(os, name), **options):
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*arguments, **options)
        setattr(os, name, call)
    store.save(step, {"loop": "new", "model": {"w": torch.ones(4)}})

for line in sys.stdin:
    folder, *numbers = line.rstrip().split("|")
    may_go, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(may_go, 1)  # so that nothing it prints comes before its own process id
        if numbers:
            save_with_a_kill(Path(folder), *map(int, numbers))
        else:
            train(Path(folder))
        os._exit(0)
    print(child, flush=True)
    os.write(go, b"!")
    os.close(go)
    os.close(may_go)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


class Nursery:
    def __init__(self) -> None:
        self.process = start(NURSERY)

    def attempt(self, *request: object) -> int:
        """Start a process for `request`; its id."""
        assert self.process.stdin is not None
        self.process.stdin.write("|".join(map(str, request)) + "\n")
        self.process.stdin.flush()
        return int(self.line())

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the process ended with an error, see above"
        return line.strip()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    if os.name == "nt":
        pytest.skip("Windows has neither fork nor SIGKILL")
    nursery = Nursery()
    yield nursery
    nursery.process.kill()
    nursery.process.communicate()


def check(folder: Path, last_known: int) -> int:
    """What every moment must leave: a good newest checkpoint whose content is its step's."""
    store = CheckpointStore(folder)
    loaded = store.load_latest()
    assert loaded is not None and loaded.skipped == [] and loaded.step >= last_known
    expected = torch.randn(50_000, generator=torch.Generator().manual_seed(loaded.step))
    assert loaded.state["model"]["w"].equal(expected)
    for step in store.steps():
        assert verify(store.path(step)) == []
    assert loaded.step < 3 or 3 in store.steps()
    return loaded.step


def torture(nursery: Nursery, folder: Path, kills: int, seed: int) -> None:
    moments = random.Random(seed)
    step = 0
    for _ in range(kills):
        child = nursery.attempt(folder)
        assert nursery.line() == "ready"
        deadline = time.monotonic() + 20  # on a busy machine the first save may take its time
        while step == 0 and not CheckpointStore(folder).steps() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.15))
        os.kill(child, signal.SIGKILL)
        assert nursery.line() == str(-signal.SIGKILL)
        assert is_locked(folder) is False  # the lock died with its owner
        step = check(folder, step)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == list(range(1, len(steps) + 1))  # none lost, none twice, over all kills
    assert len(steps) >= step
    # A kill between the rename and the retention leaves one more; the next save clears them all.
    store = CheckpointStore(folder)
    store.save(step + 1, {"loop": step + 1})
    assert store.steps()[-2:] == [step, step + 1] and len(store.steps()) <= 3


def test_a_run_killed_while_saving_goes_on_from_a_good_checkpoint(
    nursery: Nursery, tmp_path: Path
) -> None:
    torture(nursery, tmp_path, kills=5, seed=0)


@pytest.mark.slow
def test_sixty_kills_at_random_moments(nursery: Nursery, tmp_path: Path) -> None:
    torture(nursery, tmp_path, kills=60, seed=1)


@pytest.mark.parametrize("step", [3, 2])  # a new step, and the replacement of one
def test_a_kill_before_every_single_system_call_of_a_save(
    nursery: Nursery, tmp_path: Path, step: int
) -> None:
    before = CheckpointStore(tmp_path / "before", keep_best=False)
    for old in (1, 2):
        before.save(old, {"loop": "old", "model": {"w": torch.zeros(4)}})
    outcomes = []
    for calls in range(60):
        folder = tmp_path / str(calls)
        shutil.copytree(before.folder, folder)
        nursery.attempt(folder, step, calls)
        ended = int(nursery.line())
        loaded = CheckpointStore(folder).load_latest()
        assert loaded is not None and loaded.skipped == []
        outcomes.append((loaded.step, loaded.state["loop"]))
        assert outcomes[-1] in {(2, "old"), (step, "new")}
        CheckpointStore(folder).save(4, {"loop": "next"})
        assert not [path.name for path in folder.iterdir() if "-" in path.suffix]
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    else:
        pytest.fail("the save never finished")
    assert len(outcomes) > 10 and outcomes == sorted(
        outcomes, key=lambda outcome: outcome[1] == "new"
    )
    assert outcomes[0] == (2, "old") and outcomes[-1] == (step, "new")


# --- one run a folder ----------------------------------------------------------------------------

HOLDER = """
import sys, time
from modern_rlhf.utils.lock import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_kill_frees_the_folder(tmp_path: Path) -> None:
    process = start(HOLDER, tmp_path)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        assert is_locked(tmp_path) is True
        owner = read_owner(tmp_path)
        assert owner is not None and owner["pid"] == process.pid
        with pytest.raises(OutputError) as caught:
            RunLock(tmp_path).acquire()
        message = str(caught.value)
        assert f"process {process.pid}" in message and str(tmp_path) in message
        assert "--output-dir" in message and "\n" not in message
    finally:
        process.kill()
        process.communicate()
    with RunLock(tmp_path):  # no stale file has to be removed by hand
        pass


def test_the_lock_also_holds_inside_one_process_and_is_given_back(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "when needed"
    with RunLock(folder) as lock:
        assert lock.acquire() is lock
        with pytest.raises(OutputError, match=f"process {os.getpid()}"):
            RunLock(folder).acquire()
    lock.release()
    assert is_locked(folder) is False and read_owner(folder) is None
    with RunLock(folder):
        assert is_locked(folder) is True
    assert is_locked(tmp_path) is None


FORKER = """
import os, sys, time
from modern_rlhf.utils.lock import RunLock
lock = RunLock(sys.argv[1]).acquire()
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_an_orphaned_worker_does_not_keep_the_folder_locked(tmp_path: Path) -> None:
    process = start(FORKER, tmp_path)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert is_locked(tmp_path) is True
        process.kill()
        process.wait()
        assert process_exists(child)
        with RunLock(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        RunLock(tmp_path / "file" / "run").acquire()


def test_processes_are_told_apart_from_ghosts() -> None:
    process = start("pass")
    process.communicate()
    assert process_exists(os.getpid())
    assert not process_exists(process.pid) and not process_exists(0) and not process_exists(-1)
