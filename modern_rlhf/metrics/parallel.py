"""Text metrics of many items on several cores: parts of the set, scored by processes and by the caller.

Processes are started by command, not by `multiprocessing`, which would run the user's unguarded script
again in each; they get JSON lines and answer with JSON lines. Parts are handed out one at a time, so
memory is bounded by the parts under way, and what a slow part holds up is one process. Every part's
findings are the same wherever they are made. A process that dies leaves its part to the caller.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from modern_rlhf.metrics.families import Findings, score_families
from modern_rlhf.metrics.prepared import Prepared, prepared_texts

LOGGER = logging.getLogger(__name__)

ITEMS_A_PART = 64
PARALLEL_FROM = 1000
"""Items from which another process is worth its start (about half a second)."""

_ROOT = str(Path(__file__).resolve().parents[2])
_START = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); "
    "from modern_rlhf.metrics.parallel import work; work()"
)

Found = dict[str, "Findings | str"]


def default_workers(n_items: int) -> int:
    """One process below `PARALLEL_FROM` items, else one for each usable core."""
    from modern_rlhf.utils.hardware import usable_cores

    return (usable_cores() or 1) if n_items >= PARALLEL_FROM else 1


def score_in_parts(items: Prepared, names: Sequence[str], *, workers: int) -> Found:
    """`families.score_families` of all items, on `workers` cores, the caller's own included."""
    if workers < 2 or len(items) <= ITEMS_A_PART:
        return score_families(items, names)
    starts = range(0, len(items), ITEMS_A_PART)
    waiting = deque(starts)
    found: dict[int, Found] = {}
    extra = min(workers, len(starts)) - 1
    processes = [_spawn() for _ in range(extra)]
    feeders = [
        threading.Thread(target=_feed, args=(process, items, names, waiting, found), daemon=True)
        for process in processes
    ]
    try:
        for feeder in feeders:
            feeder.start()
        while True:
            start = _next(waiting)
            if start is not None:
                found[start] = score_families(_part(items, start), names)
                continue
            busy = [feeder for feeder in feeders if feeder.is_alive()]
            if not busy and not waiting:  # in this order: a feeder gives its part back, then ends
                break
            for feeder in busy[:1]:
                feeder.join(0.05)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return _joined([found[start] for start in starts], names)


def work() -> None:
    """What a process does: a part in, its findings out, a line each, until the input ends."""
    for line in sys.stdin.buffer:
        part = json.loads(line)
        items = prepared_texts(part["predictions"], part["references"])
        answer = json.dumps(score_families(items, part["names"]))
        sys.stdout.buffer.write(answer.encode("ascii") + b"\n")
        sys.stdout.buffer.flush()


def _spawn() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def _feed(
    process: subprocess.Popen[bytes],
    items: Prepared,
    names: Sequence[str],
    waiting: deque[int],
    found: dict[int, Found],
) -> None:
    """Hand parts to one process until none is left."""
    assert process.stdin is not None and process.stdout is not None
    while (start := _next(waiting)) is not None:
        part = _part(items, start)
        question = {"predictions": part.predictions, "references": part.references, "names": names}
        try:
            process.stdin.write(json.dumps(question).encode("ascii") + b"\n")
            process.stdin.flush()
            found[start] = json.loads(process.stdout.readline())
        except (OSError, ValueError):  # the process is gone: no pipe, or no whole line
            LOGGER.warning("a process of the metrics ended early; its part is scored here")
            waiting.append(start)
            return


def _part(items: Prepared, start: int) -> Prepared:
    return items.part(start, start + ITEMS_A_PART)


def _next(waiting: deque[int]) -> int | None:
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _joined(parts: Sequence[Found], names: Sequence[str]) -> Found:
    """The findings of all parts in order, or the reason of the first part that has none."""
    joined: Found = {}
    for name in names:
        findings: Findings = []
        joined[name] = findings
        for part in parts:
            one = part[name]
            if isinstance(one, str):
                joined[name] = one
                break
            findings += one
    return joined
